"""LMTP (RFC 2033): SMTP for the last step, with one verdict for each recipient of a message."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .. import access
from ..base import Question, Terms
from ..conversation import converse
from .smtp.commands import DIALECT as OF_SMTP
from .smtp.commands import PROBING, SMTP, TRIES, Acting
from .smtp.replies import listed

NOBODY: Final = b"503 5.5.1 No valid recipients"
OF_RECIPIENTS: Final = frozenset({b"DATA", b"BURL"})
"""These are answered once for each recipient: a backend that takes them without one never answers."""


class LMTP(SMTP):
    """What differs from SMTP: the introduction, and how a message is answered."""

    protocol = "lmtp"
    hello = b"LHLO"
    older = b""
    own_extensions = (b"PIPELINING", b"ENHANCEDSTATUSCODES")
    greet_first = b"503 5.5.1 Send LHLO first"

    def __init__(self, terms: Terms) -> None:
        self._spoilt = False
        super().__init__(terms)

    @property
    def own_greeting(self) -> bytes:
        return b"220 %s LMTP\r\n" % self.terms.hostname

    def _unknown(self, verb: bytes) -> bytes:
        if verb in (b"EHLO", b"HELO"):  # RFC 2033 4.1: never taken, whatever the backend would say
            return b"500 5.5.1 This is LMTP, send LHLO"
        return super()._unknown(verb)

    def _perform(self, verb: bytes, text: bytes, argument: bytes) -> Acting:
        if verb in OF_RECIPIENTS and not self._recipients:
            return self._refuse(NOBODY)
        if verb == b"RCPT" and self._spoilt:
            # The backend may know of recipients that we have forgotten, and would answer for them, too.
            return self._refuse(b"503 5.5.1 Send RSET first")
        return super()._perform(verb, text, argument)

    def _bdat_refusal(self) -> bytes:
        refusal = super()._bdat_refusal()
        return NOBODY if refusal.startswith(b"503") and not self._must_greet else refusal

    # --- recipients ---

    @property
    def _verdicts(self) -> int:
        return self._recipients

    def _spoil(self) -> None:
        super()._spoil()
        self._spoilt = True

    def _end_transaction(self) -> None:
        super()._end_transaction()
        self._spoilt = False


def of_lmtp(seen: access.Seen) -> access.Access:
    """As for SMTP, but most servers want no login, so that none is no fault."""
    found = access.of_smtp(seen)
    return found if found.logins else replace(found, logins=None, refusal=b"")


DIALECT = replace(
    OF_SMTP,
    name="lmtp",
    script=lambda terms: converse(LMTP(terms)),
    policies={},
    forbidden={25: "RFC 2033 forbids it: clients at this port speak SMTP"},
    alpn=(),
    question=Question(lambda hostname: b"LHLO " + hostname, b"QUIT", listed, of_lmtp, TRIES),
    submission=frozenset(),
    relays=False,
    probing=replace(PROBING, port=24, implicit=frozenset()),
)
