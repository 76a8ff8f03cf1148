"""ManageSieve (RFC 5804), inspected from the greeting to the login, and spliced from there.

Before the login nothing reaches the backend but CAPABILITY, NOOP, AUTHENTICATE and LOGOUT, written anew from what the
client said.  A backend takes the literal of a command that it refuses for commands, and obeys them with our address's
rights (Pigeonhole: XCLIENT); and it hangs up after three commands that it does not know.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final

from ....protocol.framing import Lines
from ....protocol.inbox import Longer
from ....protocol.vocabulary import (
    Close,
    Line,
    Patience,
    Request,
    Script,
    Send,
    Side,
    StartTLS,
)
from ... import sasl, users
from ...base import Dialect, Policy, Question, patience
from ...bounds import RESPONSES
from ...conversation import BOTH, CLIENT, Stage, broken, converse
from ...masking import Verbs
from ...probing import Attempt, Probing
from .. import FOREIGN
from ..strings import Handled, Malformed, arguments, is_text, string
from .exchange import Exchange
from .syntax import (
    COMMAND,
    LATER,
    Reply,
    agrees,
    complete,
    is_challenge,
    listed,
    of_managesieve,
    status_of,
)

COMMAND_LINE: Final = 4096
"""Octets of a line.  RFC 5804 4: a quoted string has 1024 octets at most."""
LINES: Final = Lines(
    COMMAND_LINE, Longer(re.compile(rb'AUTHENTICATE "', re.IGNORECASE), sasl.REQUEST_LINE), commands=True
)
"""Some clients write an initial response as a quoted string, however long it is."""

INVALID: Final = b'NO "Invalid arguments"'


class ManageSieve(Exchange):
    """The client's commands."""

    protocol = "managesieve"
    lines = LINES
    command = COMMAND
    later = LATER
    wrong = b"NO "
    unsupported = b'NO "Unsupported authentication mechanism."'

    def _invite(self, end: bytes) -> Script:
        """No client waits (RFC 5804 4)."""
        yield from ()

    # --- commands ---

    def _capability(self, told: list[bytes]) -> Handled:
        if told:
            return (yield from self._refuse(INVALID))
        if self.stage is Stage.CLOSED and not self.reached:
            yield Send(CLIENT, self._own_list() + b'OK "Capability completed."\r\n')
        else:
            yield from self._list()
        return False

    def _list(self) -> Script:
        """The backend's capabilities for the client."""
        reply = (yield from self._reach()) or (yield from self._ask(b"CAPABILITY"))
        if reply.status == b"OK":
            yield from self._pass_list(reply)
        else:
            yield from self._tell(reply)

    def _noop(self, told: list[bytes]) -> Handled:
        if len(told) > 1 or not all(map(is_text, told)):
            return (yield from self._refuse(INVALID))
        if self.secured is None and (self.terms.policy is Policy.REQUIRED or not self.reached):
            # No success that counts: it would let a client go on for ever.
            yield Send(CLIENT, b'OK (TAG %s) "Done"\r\n' % string(told[0]) if told else b'OK "NOOP completed"\r\n')
            return False
        yield from self._tell((yield from self._ask(b" ".join([b"NOOP", *map(string, told)]))))
        return False

    def _starttls(self, told: list[bytes]) -> Handled:
        if self.secured is not None:
            return (yield from self._refuse(b'NO "TLS is already active"'))
        if told:
            return (yield from self._refuse(b'NO "STARTTLS takes no arguments"'))
        self.secured = yield StartTLS(CLIENT, b'OK "Begin TLS negotiation now."\r\n')
        yield from self._list()  # RFC 5804 2.2: the server speaks first again
        return False

    def _logout(self, told: list[bytes]) -> Handled:
        if told:
            return (yield from self._refuse(INVALID))
        reply = Reply(b"OK", b'OK "Logout completed."')
        if self.reached:
            reply = yield from self.left(self._ask(b"LOGOUT"), reply)
        yield from self._tell(reply)
        if reply.status != b"NO":
            yield Close("quit")
        return False

    def _begins(self, initial: bytes) -> bool:
        return bool(sasl.RESPONSE.match(initial)) and not sasl.cancels(initial)

    def _dialogue(self, claim: users.Claim, told: list[bytes]) -> Handled:
        """RFC 5804 2.1.  Nothing of the client's but base64 goes to the backend."""
        mechanism, *initial = told
        for each in initial:
            claim.hear(each)
        text = yield from self._ask_line(b" ".join([b'AUTHENTICATE "%s"' % mechanism, *map(string, initial)]))
        while not (status := status_of(text)):
            if not is_challenge(text):
                raise broken(text)
            yield Send(CLIENT, text + b"\r\n")
            text, said = yield from self._response()
            claim.hear(sasl.CANCEL if said is None else said)
        self._bye = self._bye or status == b"BYE"
        return (yield from self._verdict(status, text, claim))

    def _response(self) -> Generator[Request, Any, tuple[bytes, bytes | None]]:
        """One string of the client's as data: the line that answers it, and what the backend was told; None where the
        backend did not wait for it."""
        heard = yield from self.hear(BOTH, Patience.COMMAND, RESPONSES)
        if isinstance(heard, Line) and heard.side is Side.BACKEND:
            if not status_of(heard.text):
                raise broken(heard.text)
            return heard.text, None
        said = sasl.CANCEL  # the verdict is the backend's
        if isinstance(heard, Line):
            text = yield from self._collect(heard.text, heard.text, RESPONSES)
            try:
                told = arguments(text)
            except Malformed:
                told = []
            if len(told) == 1 and sasl.RESPONSE.match(told[0]):
                (said,) = told
        else:
            yield from self._collect(b"", heard.end, RESPONSES)
        return (yield from self._ask_line(string(said))), said

    commands = {
        b"CAPABILITY": _capability,
        b"NOOP": _noop,
        b"STARTTLS": _starttls,
        b"LOGOUT": _logout,
        b"AUTHENTICATE": Exchange._authenticate,
    }


SHOWN: Final = Verbs(
    whole=frozenset({b"CAPABILITY", b"STARTTLS", b"LOGOUT", b"NOOP", b"UNAUTHENTICATE"}),
    first=frozenset({b"AUTHENTICATE"}),
)

DIALECT = Dialect(
    name="managesieve",
    script=lambda terms: converse(ManageSieve(terms)),
    unavailable=ManageSieve.unavailable,
    busy=ManageSieve.busy,
    # RFC 5804: at least 30 minutes after a login, and a little more, so that the backend's own goodbye wins.
    patience=patience(1860.0),
    policies={},
    foreign=FOREIGN,
    identities=frozenset({"proxy-v1", "proxy-v2", "xclient"}),
    alpn=(b"managesieve",),
    question=Question(lambda hostname: b"CAPABILITY", b"LOGOUT", listed, of_managesieve),
    shown=SHOWN,
    probing=Probing(
        port=4190,
        implicit=frozenset(),
        starttls=b"STARTTLS",
        injected=b"NOOP",
        complete=complete,
        agrees=agrees,
        attempts=(Attempt(b'AUTHENTICATE "PLAIN"', lambda reply: status_of(reply) is None, b'"*"'),),
        reissues=True,
    ),
)
