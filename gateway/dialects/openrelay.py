"""Would the backend relay for anybody who comes through the gateway?  Asked as a stranger would ask.

Nothing is ever delivered: the question ends before DATA.
"""

from __future__ import annotations

from enum import Enum

from .access import TLS_FIRST, cure, demands_tls
from .base import Dialect, Identity, Terms
from .scripted import ScriptedClient

RECIPIENTS = (b"relay-probe@example.com", b"relay-probe@[192.0.2.1]")
"""Of no server that could be behind a gateway: a reserved domain (RFC 2606 3), a reserved address (RFC 5737 3)."""

CURE = (
    "take the gateway's address out of the server's trusted networks, or tell it the client's address "
    "(identity = xclient, proxy-v1 or proxy-v2), or write allow_relay = yes if everybody may send through it"
)


class Verdict(Enum):
    """What the backend's answers amount to."""

    OPEN = "open"
    """It relays for strangers."""
    CLOSED = "closed"
    UNDECIDED = "undecided"
    """It did not say: "later", "TLS first", or it left in the middle."""


class Probe(ScriptedClient):
    """An SMTP session with a backend that is not told who the client is: whom does it take the gateway for?"""

    def __init__(self, dialect: Dialect, terms: Terms) -> None:
        assert terms.identity is Identity.NONE, "the backend would judge another client"
        words = [b"EHLO " + terms.hostname, b"MAIL FROM:<>"]
        words += [b"RCPT TO:<%s>" % recipient for recipient in RECIPIENTS]
        super().__init__(dialect, terms, [*words, b"RSET", b"QUIT"])

    @property
    def verdict(self) -> Verdict | None:
        """None if there was no mail server to ask."""
        if not self.greeted:
            return None
        answers = self._answers(b"RCPT")
        if any(answer[:1] == b"2" for answer in answers):
            return Verdict.OPEN
        if not self._answered(b"EHLO", b"2") or self._answered(b"MAIL", b"4") or self.requires_tls:
            return Verdict.UNDECIDED  # who is not let in now may be let in later
        return Verdict.CLOSED if any(answer[:1] == b"5" for answer in answers) else Verdict.UNDECIDED

    @property
    def requires_tls(self) -> bool:
        """It takes no mail from anybody until its connection is under TLS, so it has not been asked yet."""
        mail, recipients = self._answers(b"MAIL"), self._answers(b"RCPT")
        return any(map(demands_tls, mail)) or (bool(recipients) and all(map(demands_tls, recipients)))

    def cure(self, gateway: str = "the gateway's address") -> str:
        """What to change; nothing where there is nothing to change.  `gateway`: its address, as the backend sees it."""
        if self.verdict is Verdict.OPEN:
            return CURE
        if not self.requires_tls:
            return ""
        words = self.greeting + self.text
        return cure(TLS_FIRST, self._dialect.name, self._terms.backend_tls, words, gateway=gateway)

    @property
    def text(self) -> bytes:
        """The answer that the verdict rests on; nothing if there was none."""
        match self.verdict:
            case Verdict.OPEN:
                candidates, digits = self._answers(b"RCPT"), b"2"
            case Verdict.CLOSED:
                candidates, digits = [exchange.told for exchange in self.exchanges], b"5"
            case _:
                candidates, digits = [exchange.told for exchange in self.exchanges], b"45"
        decisive = [answer for answer in candidates if answer and answer[:1] in digits]
        return decisive[0].splitlines()[0] if decisive else b""

    def _answers(self, verb: bytes) -> list[bytes]:
        """The client's view of the replies: what the gateway itself refuses, the backend need not."""
        return [exchange.told for exchange in self.exchanges if exchange.said.startswith(verb) and exchange.told]

    def _answered(self, verb: bytes, digit: bytes) -> bool:
        return any(answer[:1] == digit for answer in self._answers(verb))
