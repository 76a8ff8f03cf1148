"""The backend's side of a ManageSieve session: greeting, replies, and the end of a session."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ....protocol.vocabulary import (
    Line,
    Patience,
    Request,
    Script,
    Send,
    StartTLS,
)
from ... import access, sasl
from ...base import BackendTLS, Identity
from ...conversation import BACKEND, CHANNEL_BINDING, CLIENT, Stage, broken, joined, within_bounds
from ...reach import Hearing, refused, untrusted
from .. import xclient
from ..strings import Listen, Strings, greeted, next_line, whole_line
from .syntax import (
    NO_MECHANISM,
    Reply,
    capability,
    edit_capabilities,
    is_capability,
    mechanisms,
    status_of,
)


class Exchange(Strings):
    """Asks the backend and passes its replies on."""

    untagged = b""
    logout = b"LOGOUT\r\n"

    # --- the greeting ---

    @property
    def own_greeting(self) -> bytes:
        return self._own_list() + b'OK "%s ready"\r\n' % self.terms.hostname

    def _own_list(self) -> bytes:
        """RFC 5804 1.7: what must be in a list.  Which extensions of Sieve there are, only the backend knows."""
        own = [b'"IMPLEMENTATION" "STARTTLS gateway"', b'"SIEVE" ""', b'"SASL" ""', b'"VERSION" "1.0"']
        return joined(edit_capabilities(own, Stage.CLOSED))

    def pass_greeting(self, greeting: Reply) -> Script:
        if greeting.status != b"OK":
            yield Send(CLIENT, joined([*greeting.lines, greeting.text]))
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
            answer = yield from next_line(Patience.REPLY)
            if not isinstance(answer, Line) or status_of(answer.text) != b"OK":
                untrusted(f"the backend refuses STARTTLS: {_begin(answer)!r}")
            yield StartTLS(BACKEND)
            greeting = yield from _reply(next_line)  # RFC 5804 2.2: it speaks first again
            if greeting.status != b"OK":
                return greeting
        if self.terms.identity is Identity.XCLIENT:
            greeting = yield from self._tell_client(greeting)
        return greeting

    def _greeted(self) -> Hearing[Reply]:
        """The backend's first words."""
        return (yield from greeted(_reply(lambda _: next_line(Patience.GREETING))))

    def _tell_client(self, greeting: Reply) -> Hearing[Reply]:
        """XCLIENT, as Dovecot takes it from those whom it trusts.  What it lists depends on who asks."""
        if b"XCLIENT" not in _names(greeting):
            refused("the backend does not offer XCLIENT to the gateway's address")
        for command in (xclient.dovecot_command(self.terms), b"CAPABILITY"):
            yield Send(BACKEND, command + b"\r\n")
            greeting = yield from _reply(next_line)
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
        return (yield from whole_line(self._listen))

    def _heed(self, reply: Reply) -> None:
        self._owed = False
        self._bye = self._bye or reply.status == b"BYE"

    def _is_bye(self, text: bytes) -> bool:
        return status_of(text) == b"BYE"

    def _pass_list(self, reply: Reply) -> Script:
        """Capabilities for the client, edited, and the line that ends them."""
        offered = mechanisms(reply.lines)
        if any(name.endswith(sasl.PLUS) for name in offered):
            yield CHANNEL_BINDING
        if self.stage is Stage.SECURE and not offered:
            yield access.note(access.NO_LOGIN, "managesieve", self.terms, NO_MECHANISM, b"STARTTLS" in _names(reply))
        self.bad = 0
        yield Send(CLIENT, joined([*edit_capabilities(reply.lines, self.stage), reply.text]))

    def _tell(self, reply: Reply) -> Script:
        """A reply without capabilities for the client."""
        yield from self._answer(b"\r\n".join([*reply.lines, reply.text]), counts=reply.status == b"NO")


def _reply(listen: Listen) -> Hearing[Reply]:
    """A whole reply: capabilities, if it lists any, and a status."""
    lines: list[bytes] = []
    octets = 0
    while True:
        text = yield from whole_line(listen)
        if status := status_of(text):
            return Reply(status, text, tuple(lines))
        octets += len(text)
        if not is_capability(text):
            raise broken(text)
        within_bounds(len(lines), octets)
        lines.append(text)


def _names(reply: Reply) -> set[bytes]:
    """Of the capabilities that it lists."""
    return {capability(line)[0] for line in reply.lines}


def _begin(answer: object) -> bytes:
    return answer.text[:80] if isinstance(answer, Line) else b"a line without end"
