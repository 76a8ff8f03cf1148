"""What the tests of the backend leg share: how each protocol gets to its backend, up to a point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.dialects import DIALECTS
from gateway.dialects.base import BackendTLS, Dialect
from gateway.protocol.proxyprotocol import Origin
from gateway.protocol.vocabulary import Side
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    Expected,
    Playbook,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

BACKEND = Side.BACKEND
SWITCH = tls(b"", BACKEND)
"""The handshake with the backend begins; our last words before it were the STARTTLS command, long ago."""

HERE = Origin(("192.0.2.10", 40000), ("198.51.100.1", 143))
"""The client and the address that it came to."""
HERE6 = Origin(("2001:db8::10", 40000), ("2001:db8::1", 143))


@dataclass(frozen=True, eq=False)
class Way:
    """One protocol's way to its backend under `tls = starttls`, in what is said on it."""

    dialect: Dialect
    greeting: bytes
    asks: tuple[tuple[bytes, bytes], ...]
    """What we say before STARTTLS, and the answers."""
    command: bytes
    """STARTTLS."""
    go: bytes
    """The answer that means yes."""
    again: tuple[tuple[bytes, bytes], ...]
    """What we say first inside TLS, and the answers."""
    welcome: bytes
    """The greeting that the client gets under `required`."""
    welcome_inside: bytes
    """... and on an implicit port."""
    unavailable: bytes
    """What it hears instead."""
    login: tuple[bytes, ...]
    """What the client wants to say: lines that a backend would act on."""

    def __str__(self) -> str:
        return self.dialect.name

    def dialled(self, *, others: bool = False, **changes: Any) -> Playbook:
        """A backend that has not greeted yet, for a client that is inside TLS where that comes first."""
        agreed = terms(**{"backend_tls": BackendTLS.STARTTLS, "received": False, **changes})
        play = Playbook(self.dialect, agreed, others=others)
        if agreed.implicit:
            return play.start(tls(b"")).secured(DIAL).dialled()
        return play.start(DIAL).dialled()

    def begun(self, play: Playbook) -> Playbook:
        """From the greeting to our STARTTLS."""
        told = self.greeting
        for ask, answer in (*self.asks, (self.command, b"")):
            play.backend(told, to_backend(ask))
            told = answer
        return play

    def asked(self, **changes: Any) -> Playbook:
        """Up to our STARTTLS."""
        return self.begun(self.dialled(**changes))

    def finished(self, play: Playbook, *then: Expected, implicit: bool = False) -> Playbook:
        """From the handshake's success to the client's greeting, and what follows it at once."""
        welcome = self.welcome_inside if implicit else self.welcome
        steps = [(to_backend(ask),) for ask, _ in self.again]
        first, *others = [*steps, (to_client(welcome), *then)]
        play.secured(*first)
        for (_, answer), step in zip(self.again, others, strict=True):
            play.backend(answer, *step)
        return play

    def secured(self, *then: Expected, implicit: bool = False, **changes: Any) -> Playbook:
        """Up to the client's greeting."""
        play = self.asked(implicit=implicit, **changes).backend(self.go, SWITCH)
        return self.finished(play, *then, implicit=implicit)

    def sorry(self, key: str, **fields: object) -> tuple[Expected, ...]:
        """What follows where no address is left: the log knows why, the client does not."""
        return note(key, **fields), to_client(self.unavailable), ABORT_BACKEND, close(key)


HELLO = b"EHLO gw.example.org\r\n"

SMTP = Way(
    DIALECTS["smtp"],
    greeting=b"220 legacy.example.org ESMTP\r\n",
    asks=((HELLO, b"250-legacy.example.org\r\n250-STARTTLS\r\n250-AUTH LOGIN\r\n250 XCLIENT ADDR PORT\r\n"),),
    command=b"STARTTLS\r\n",
    go=b"220 2.0.0 go ahead\r\n",
    again=(),
    welcome=b"220 legacy.example.org ESMTP\r\n",
    welcome_inside=b"220 legacy.example.org ESMTP\r\n",
    unavailable=b"421 gw.example.org Service not available, closing transmission channel\r\n",
    login=(b"EHLO me\r\n", b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n"),
)
IMAP = Way(
    DIALECTS["imap"],
    greeting=b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED ID CLEAR] hi\r\n",
    asks=(),
    command=b"sgw1 STARTTLS\r\n",
    go=b"sgw1 OK go\r\n",
    again=((b"sgw2 CAPABILITY\r\n", b"* CAPABILITY IMAP4rev1 AUTH=PLAIN INSIDE\r\nsgw2 OK done\r\n"),),
    welcome=b"* OK [CAPABILITY IMAP4rev1 INSIDE STARTTLS LOGINDISABLED] hi\r\n",
    welcome_inside=b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN INSIDE] hi\r\n",
    unavailable=b"* BYE [UNAVAILABLE] Service temporarily unavailable\r\n",
    login=(b"a LOGIN joe secret\r\n",),
)
POP3 = Way(
    DIALECTS["pop3"],
    greeting=b"+OK hi\r\n",
    asks=(),
    command=b"STLS\r\n",
    go=b"+OK go\r\n",
    again=(),
    welcome=b"+OK hi\r\n",
    welcome_inside=b"+OK hi\r\n",
    unavailable=b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n",
    login=(b"USER joe\r\n", b"PASS secret\r\n"),
)
WAYS = (SMTP, IMAP, POP3)


def short(value: object) -> str:
    """A test's name for a value."""
    return ascii(value[:30])[2:-1] if isinstance(value, bytes) else str(value)[:30]
