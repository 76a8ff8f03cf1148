"""The backend's side of a ManageSieve session: greeting, replies, and the end of a session."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final

from ....protocol.vocabulary import (
    Await,
    Expired,
    Line,
    Lost,
    Patience,
    Request,
    Script,
    Send,
    Side,
    StartTLS,
    Stopped,
    Take,
    TLSFailed,
    Trouble,
    Unavailable,
    Violation,
)
from ... import access, sasl
from ...base import BackendTLS, Identity, Terms
from ...bounds import REPLIES, REPLY_LINES, REPLY_OCTETS
from ...conversation import BACKEND, CHANNEL_BINDING, CLIENT, ServerFirst, Stage, broken
from ...reach import Hearing, refused, untrusted
from .. import xclient
from .syntax import (
    NO_MECHANISM,
    Reply,
    announced,
    capability,
    edit_capabilities,
    is_capability,
    mechanisms,
    status_of,
)

UNAVAILABLE: Final = b'BYE (TRYLATER) "Service temporarily unavailable"\r\n'
LOST: Final = b'BYE (TRYLATER) "Connection to server lost"\r\n'
LAST_WORDS: Final = {
    "client-line-too-long": b'BYE "Command too long"\r\n',
    "http-client": b'BYE "Invalid protocol"\r\n',
    "too-many-bad-commands": b'BYE "Too many invalid commands"\r\n',
    "too-many-failed-logins": b'BYE "Too many failed logins"\r\n',
}

Listen = Callable[[Patience], Hearing[Any]]
"""How to hear the backend's next line."""


class Exchange(ServerFirst):
    """Asks the backend and passes its replies on."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._owed = False  # the backend owes a reply, or waits for a line of a dialogue
        self._bye = False  # it said its goodbye itself

    # --- the greeting ---

    @property
    def own_greeting(self) -> bytes:
        return self._own_list() + b'OK "%s ready"\r\n' % self.terms.hostname

    def _own_list(self) -> bytes:
        """RFC 5804 1.7: what must be in a list.  Which extensions of Sieve there are, only the backend knows."""
        own = [b'"IMPLEMENTATION" "STARTTLS gateway"', b'"SIEVE" ""', b'"SASL" ""', b'"VERSION" "1.0"']
        return _joined(edit_capabilities(own, Stage.CLOSED))

    def pass_greeting(self, greeting: Reply) -> Script:
        if greeting.status != b"OK":
            yield Send(CLIENT, _joined([*greeting.lines, greeting.text]))
            yield from self.turned_away(greeting.text)
        yield from self._pass_list(greeting)

    def hear_greeting(self) -> Hearing[Reply]:
        """The capabilities, behind TLS and XCLIENT where they are agreed on."""
        greeting = yield from self._greeted()
        if greeting.status != b"OK":
            return greeting
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            if b"STARTTLS" not in _names(greeting):
                untrusted("the backend does not offer STARTTLS")
            yield Send(BACKEND, b"STARTTLS\r\n")
            answer = yield from _line(Patience.REPLY)
            if not isinstance(answer, Line) or status_of(answer.text) != b"OK":
                untrusted(f"the backend refuses STARTTLS: {_begin(answer)!r}")
            yield StartTLS(BACKEND)
            greeting = yield from _reply(_line)  # RFC 5804 2.2: it speaks first again
            if greeting.status != b"OK":
                return greeting
        if self.terms.identity is Identity.XCLIENT:
            greeting = yield from self._tell_client(greeting)
        return greeting

    def _greeted(self) -> Hearing[Reply]:
        """The backend's first words."""
        try:
            return (yield from _reply(lambda patience: _line(Patience.GREETING)))
        except Violation as violation:
            if violation.side is BACKEND:
                raise Unavailable("backend-bad-greeting", violation.detail) from None
            raise

    def _tell_client(self, greeting: Reply) -> Hearing[Reply]:
        """XCLIENT, as Dovecot takes it from those whom it trusts.  What it lists depends on who asks."""
        if b"XCLIENT" not in _names(greeting):
            refused("the backend does not offer XCLIENT to the gateway's address")
        for command in (xclient.dovecot_command(self.terms), b"CAPABILITY"):
            yield Send(BACKEND, command + b"\r\n")
            greeting = yield from _reply(_line)
            if greeting.status != b"OK":
                refused(f"the backend answers {command.split()[0].decode()}: {greeting.text[:80]!r}")
        return greeting

    def _reach(self) -> Generator[Request, Any, Reply | None]:
        """Dial, if that was put off.  Returns the greeting then; it is not the client's, which has had ours."""
        if self.reached:
            return None
        self._owed = True
        greeting: Reply = yield from self.dial()
        if greeting.status != b"OK":
            yield from self.pass_greeting(greeting)
        self._owed = False
        return greeting

    # --- replies ---

    def _ask(self, command: bytes) -> Generator[Request, Any, Reply]:
        """Send a command to the backend and hear its whole reply."""
        yield from self._reach()
        self._owed = True
        yield Send(BACKEND, command + b"\r\n")
        reply = yield from _reply(self._listen)
        self._heed(reply)
        return reply

    def _ask_line(self, line: bytes) -> Generator[Request, Any, bytes]:
        """Send a command or a response to the backend and hear one line: a challenge, or the end of a dialogue."""
        yield from self._reach()
        self._owed = True
        yield Send(BACKEND, line + b"\r\n")
        return (yield from _whole(self._listen))

    def _heed(self, reply: Reply) -> None:
        self._owed = False
        self._bye = self._bye or reply.status == b"BYE"

    def _listen(self, patience: Patience) -> Hearing[Any]:
        return (yield from self.hear((BACKEND,), patience, REPLIES))

    def _unasked(self, text: bytes) -> Script:
        """The backend speaks, and nobody asked: it may say goodbye (RFC 5804 1.2), and nothing else."""
        if status_of(text) != b"BYE":
            raise broken(text)
        text = yield from _whole(self._listen, text)
        self._bye = True
        yield Send(CLIENT, text + b"\r\n")

    def _pass_list(self, reply: Reply) -> Script:
        """Capabilities for the client, edited, and the line that ends them."""
        offered = mechanisms(reply.lines)
        if any(name.endswith(sasl.PLUS) for name in offered):
            yield CHANNEL_BINDING
        if self.stage is Stage.SECURE and not offered:
            yield access.note(access.NO_LOGIN, "managesieve", self.terms, NO_MECHANISM, b"STARTTLS" in _names(reply))
        self.bad = 0
        yield Send(CLIENT, _joined([*edit_capabilities(reply.lines, self.stage), reply.text]))

    def _tell(self, reply: Reply, *, counts: bool = True) -> Script:
        """A reply without capabilities for the client; a NO is a bad command if it `counts`."""
        yield Send(CLIENT, _joined([*reply.lines, reply.text]))
        if counts and reply.status == b"NO":
            self.count()

    # --- the end ---

    def goodbye(self, trouble: Trouble) -> bytes:
        """BYE may come at any time (RFC 5804 1.2)."""
        if self._bye:
            return b""
        match trouble:
            case Lost(side=Side.BACKEND) | Expired(side=Side.BACKEND):
                return LOST if self.welcomed else UNAVAILABLE
            case Unavailable() | Violation(side=Side.BACKEND) | TLSFailed(side=Side.BACKEND):
                return UNAVAILABLE
            case Expired():
                return b'BYE "Disconnected for inactivity"\r\n'
            case Stopped():
                return b'BYE (TRYLATER) "Server shutting down"\r\n'
        return LAST_WORDS.get(trouble.key, b'BYE "Invalid command"\r\n')

    def farewell(self) -> bytes:
        return b"LOGOUT\r\n" if self.reached and not (self._owed or self._bye or self.midway) else b""

    @staticmethod
    def unavailable(hostname: bytes) -> bytes:
        """RFC 5804 1.3."""
        return UNAVAILABLE

    @staticmethod
    def busy(hostname: bytes) -> bytes:
        """RFC 5804 1.3."""
        return b'BYE (TRYLATER) "Too many connections"\r\n'


def _line(patience: Patience) -> Hearing[Any]:
    """The backend's next line before the client is served."""
    return (yield Await((BACKEND,), patience, REPLIES))


def _whole(listen: Listen, text: bytes = b"") -> Hearing[bytes]:
    """The backend's next line, or the rest of the one that begins so, with its literals (RFC 5804 4)."""
    line = text or (yield from _text(listen))
    text = line
    while (octets := announced(line)) is not None:
        if len(text) + octets > REPLY_OCTETS:
            raise broken("a literal without end")
        text += b"\r\n" + (yield Take(BACKEND, octets))
        line = yield from _text(listen)
        text += line
    return text


def _text(listen: Listen) -> Hearing[bytes]:
    heard = yield from listen(Patience.REPLY)
    if not isinstance(heard, Line):
        raise broken("a line without end")
    return heard.text


def _reply(listen: Listen) -> Hearing[Reply]:
    """A whole reply: capabilities, if it lists any, and a status."""
    lines: list[bytes] = []
    octets = 0
    while True:
        text = yield from _whole(listen)
        if status := status_of(text):
            return Reply(status, text, tuple(lines))
        octets += len(text)
        if not is_capability(text):
            raise broken(text)
        if len(lines) >= REPLY_LINES or octets > REPLY_OCTETS:
            raise broken("a reply without end")
        lines.append(text)


def _names(reply: Reply) -> set[bytes]:
    """Of the capabilities that it lists."""
    return {capability(line)[0] for line in reply.lines}


def _begin(answer: object) -> bytes:
    return answer.text[:80] if isinstance(answer, Line) else b"a line without end"


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)
