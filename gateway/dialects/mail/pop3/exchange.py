"""The backend's side of a POP3 session: greeting, replies, lists."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, ClassVar, Final

from ....protocol.framing import Lines
from ....protocol.vocabulary import (
    Patience,
    Request,
    Script,
    Send,
    StartTLS,
    Trouble,
    Violation,
)
from ...asking import PARTING, Asking
from ...base import BackendTLS, Identity, Terms
from ...bounds import REPLIES
from ...conversation import BACKEND, CLIENT, broken
from ...reach import Hearing, answer_to, first_line, refused, ungreeted, untrusted
from .. import xclient
from .words import LATER, XCLIENT, Status, blames_command, edit_greeting, is_later, is_ok

UNAVAILABLE: Final = b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n"


class Exchange(Asking):
    """Asks the backend and passes its replies on."""

    protocol = "pop3"
    leaves = b"-ERR"
    parting: ClassVar = {
        **PARTING,
        "too-many-failed-logins": b"[AUTH] Too many failed logins",
        "client-line-too-long": b"Command too long",
    }
    idle_words = b""  # RFC 1939 3: an autologout says nothing
    lost_words = b"-ERR [SYS/TEMP] Connection to mail server lost\r\n"

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._asked = False  # the backend has had a command of the client's
        self._greeting = b""  # what the backend has greeted with

    @property
    def own_greeting(self) -> bytes:
        return b"+OK %s ready\r\n" % self.terms.hostname

    def pass_greeting(self, greeting: bytes) -> Script:
        self._greeting = greeting
        yield Send(CLIENT, edit_greeting(greeting) + b"\r\n")
        if Status.of(greeting) is Status.ERR:
            yield from self.turned_away(greeting)

    def hear_greeting(self) -> Hearing[bytes]:
        """The greeting, behind TLS and XCLIENT where they are agreed on."""
        greeting = yield from first_line()
        if Status.of(greeting) not in (Status.OK, Status.ERR):
            raise ungreeted(greeting)
        if Status.of(greeting) is Status.ERR:
            return greeting
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            reply = yield from answer_to(b"STLS")
            if Status.of(reply) is Status.ERR and LATER.match(reply):
                return reply  # a refusal that says nothing of TLS
            if not is_ok(reply):
                untrusted(f"the backend refuses STLS: {reply[:80]!r}")
            yield StartTLS(BACKEND)
        if self.terms.identity is Identity.XCLIENT:
            if not XCLIENT.search(greeting):
                refused("the backend does not offer XCLIENT to the gateway's address")
            reply = yield from answer_to(xclient.dovecot_command(self.terms))
            if Status.of(reply) is Status.ERR and LATER.match(reply):
                return reply  # a refusal of this client
            # Dovecot's answer to somebody whom it does not trust begins with +OK, too.
            if not is_ok(reply) or b"not from trusted" in reply:
                refused(f"the backend answers XCLIENT: {reply[:80]!r}")
        return greeting

    def _reach(self) -> Script:
        """Dial, if that was put off; the greeting is not the client's, it has had ours."""
        if not self.reached:
            self._greeting = yield from self.dial()
            if Status.of(self._greeting) is Status.ERR:
                yield Send(CLIENT, self._greeting + b"\r\n")
                yield from self.turned_away(self._greeting)

    def goodbye(self, trouble: Trouble) -> bytes:
        words = super().goodbye(trouble)
        owed = not self.welcomed or self._outstanding or (isinstance(trouble, Violation) and trouble.side is CLIENT)
        return words if owed else b""

    unavailable_words = UNAVAILABLE  # RFC 3206 4
    busy_words = b"-ERR [SYS/TEMP] Too many connections\r\n"

    def _ask(self, line: bytes, framing: Lines = REPLIES) -> Generator[Request, Any, tuple[Status, bytes]]:
        """Send a line to the backend and hear the first line of its reply, which has so many octets at most."""
        return (
            yield from self.put(line, self._reply(framing), lambda reply: reply[1] if reply[0] is Status.ERR else b"")
        )

    def _reply(self, framing: Lines) -> Generator[Request, Any, tuple[Status, bytes]]:
        self._asked = True
        heard = yield from self.hear((BACKEND,), Patience.REPLY, framing)
        return self._status(heard.text), heard.text

    def _status(self, line: bytes) -> Status:
        status = Status.of(line)
        if status is None:
            raise broken(line)
        self._outstanding = status is Status.MORE
        return status

    def _conclude(
        self, status: Status, reply: bytes, *, login: bool = False, idle: bool = False
    ) -> Generator[Request, Any, bool]:
        """A reply of one line for the client."""
        self._outstanding = False
        yield Send(CLIENT, reply + b"\r\n")
        if status is Status.OK:
            self.bad = self.bad if idle else 0
        elif not login:
            self.count()
        return False

    def _verdict(self, status: Status, reply: bytes, mechanism: bytes) -> Generator[Request, Any, bool]:
        """The reply that ends a login, which succeeds with +OK and nothing else."""
        if status is not Status.OK:
            return (yield from self._rejected(status, reply, mechanism))
        yield from self.accepted(mechanism, self._claimed, reply + b"\r\n")
        return True

    def _rejected(self, status: Status, reply: bytes, mechanism: bytes) -> Generator[Request, Any, bool]:
        """A login that failed.  It counts, unless the reply says nothing of name and password."""
        blamed = blames_command(reply)
        answer = self._conclude(status, reply, login=not blamed)
        guessed = not (blamed or is_later(reply))
        return (yield from self.not_accepted(mechanism, self._claimed, answer, guessed=guessed))

    def _refuse(self, reply: bytes) -> Generator[Request, Any, bool]:
        yield Send(CLIENT, reply + b"\r\n")
        self.count()
        return False
