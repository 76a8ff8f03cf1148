"""ACAP (RFC 2244), inspected from the greeting to the login, and spliced from there.

No server and no client is left to try it with: it is written by the RFC alone, and marked experimental.  Before the
login nothing reaches the backend but NOOP, LANG, AUTHENTICATE and LOGOUT, written anew from what the client said.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final

from ....protocol.framing import Lines
from ....protocol.vocabulary import (
    Close,
    Line,
    Lost,
    Patience,
    Request,
    Script,
    Send,
    Side,
    StartTLS,
    TooLong,
    Unclean,
)
from ... import sasl, users
from ...base import BackendTLS, Dialect, Question, Terms, patience
from ...conversation import BACKEND, BOTH, CHANNEL_BINDING, CLIENT, broken, converse, within_bounds
from ...masking import Verbs
from ...probing import Attempt, Probing
from ...reach import Hearing, answer_to, ungreeted, untrusted
from .. import FOREIGN
from ..strings import TLS_FIRST, Handled, Malformed, Strings, arguments, greeted, next_line, string, whole_line
from .syntax import (
    COMMAND,
    LATER,
    REPLY,
    Group,
    agrees,
    capabilities,
    complete,
    edited,
    greeting_of,
    is_bye,
    is_plain,
    listed,
    of_acap,
    response,
)

LINES: Final = Lines(4096, commands=True)
"""RFC 2244 2.6.3: a quoted string has 1024 octets at most."""
ANSWERS: Final = Lines(LINES.limit)
"""The client's answers to challenges."""
INVALID: Final = b'BAD "Invalid arguments"'


# --- a session ---------------------------------------------------------------------------------------


class ACAP(Strings):
    """One session."""

    protocol = "acap"
    lines = LINES
    command = COMMAND
    later = LATER
    untagged = b"* "
    wrong = b"BAD "
    unsupported = b'NO "Unsupported authentication mechanism"'
    logout = b"sgw0 LOGOUT\r\n"

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._groups: list[Group] = []  # what the backend has greeted with

    @property
    def own_greeting(self) -> bytes:
        return greeting_of([(b"IMPLEMENTATION", [b"STARTTLS gateway"]), (b"STARTTLS", [])])

    def hear_greeting(self) -> Hearing[bytes]:
        greeting = yield from self._first_words(Patience.GREETING)
        if self.terms.backend_tls is BackendTLS.STARTTLS and not is_bye(greeting):
            if (b"STARTTLS", []) not in self._groups:
                untrusted("the backend does not offer STARTTLS")
            match = REPLY.match((yield from answer_to(b"sgw1 STARTTLS")))
            if match is None or (match[1], match[2].upper()) != (b"sgw1", b"OK"):
                untrusted("the backend refuses STARTTLS")
            yield StartTLS(BACKEND)
            greeting = yield from self._first_words(Patience.REPLY)  # RFC 2595 5: it greets again
        return greeting

    def _first_words(self, patience: Patience) -> Hearing[bytes]:
        text = yield from greeted(whole_line(lambda _: next_line(patience)))
        groups = capabilities(text)
        if groups is None and not is_bye(text):
            raise ungreeted(text)
        self._groups = groups or []
        if any(name == b"SASL" and any(each.upper().endswith(sasl.PLUS) for each in values)
               for name, values in self._groups):  # fmt: skip
            yield CHANNEL_BINDING
        return text

    def pass_greeting(self, greeting: bytes) -> Script:
        if is_bye(greeting):
            yield Send(CLIENT, greeting + b"\r\n")
            yield from self.turned_away(greeting)
        yield Send(CLIENT, greeting_of(edited(self._groups, self.stage)))

    def _reach(self) -> Script:
        """Dial, if that was put off; the greeting is not the client's, it has had ours."""
        if not self.reached and is_bye(greeting := (yield from self.dial())):
            yield from self.pass_greeting(greeting)

    def _is_bye(self, text: bytes) -> bool:
        return is_bye(text)

    # --- the client ---

    def _invite(self, end: bytes) -> Script:
        """A client waits before a literal without a plus (RFC 2244 2.6.3)."""
        if not end.endswith(b"+}"):
            yield Send(CLIENT, b'+ "Ready"\r\n')

    def _starttls(self, told: list[bytes]) -> Handled:
        if self.secured is not None:
            return (yield from self._refuse(b'BAD "TLS is already active"'))
        if told:
            return (yield from self._refuse(INVALID))
        self.secured = yield StartTLS(CLIENT, self._tag + b'OK "Begin TLS negotiation now"\r\n')
        self.bad = 0
        yield from self._reach()
        yield Send(CLIENT, greeting_of(edited(self._groups, self.stage)))  # RFC 2595 5
        return False

    def _noop(self, told: list[bytes]) -> Handled:
        if told:
            return (yield from self._refuse(INVALID))
        if not self.reached:
            yield Send(CLIENT, self._tag + b'OK "Done"\r\n')
            return False
        yield from self._pass(b"NOOP")
        return False

    def _lang(self, told: list[bytes]) -> Handled:
        if not all(map(is_plain, told)):
            return (yield from self._refuse(INVALID))
        if self.closed:
            return (yield from self._refuse((yield from self.first(TLS_FIRST))))
        yield from self._pass(b" ".join([b"LANG", *map(string, told)]))
        return False

    def _logout(self, told: list[bytes]) -> Handled:
        if told:
            return (yield from self._refuse(INVALID))
        if not self.reached:
            yield Send(CLIENT, b'* BYE "Bye"\r\n' + self._tag + b'OK "Done"\r\n')
            yield Close("quit")
        try:
            left = yield from self._pass(b"LOGOUT")
        except Lost as lost:
            if lost.side is CLIENT or self.midway:
                raise
            yield Send(CLIENT, self._tag + b'OK "Done"\r\n')
            left = True
        if left:
            yield Close("quit")
        return False

    def _begins(self, initial: bytes) -> bool:
        """Its octets go to a backend that waits for them."""
        return True

    def _dialogue(self, claim: users.Claim, told: list[bytes]) -> Handled:
        """RFC 2244 6.3.1."""
        _, *initial = told
        yield from self._reach()
        self._owed = True
        for each in initial:
            claim.hear_octets(each)
        line = self._tag + b'AUTHENTICATE "%s"' % claim.mechanism
        if all(map(is_plain, initial)):
            yield Send(BACKEND, b" ".join([line, *map(string, initial)]) + b"\r\n")
            text = yield from self._line()
        else:
            # Octets that are no text go to a backend that waits for them: else it might read them as commands.
            yield Send(BACKEND, line + b" {%d}\r\n" % len(initial[0]))
            text = yield from self._line()
            if text.startswith(b"+"):
                yield Send(BACKEND, initial[0] + b"\r\n")
                text = yield from self._line()
        while text.startswith(b"+ "):
            yield Send(CLIENT, text + b"\r\n")
            text, said = yield from self._response()
            if said is None:
                claim.hear(sasl.CANCEL)
            else:
                claim.hear_octets(said)
        status = b"BYE" if is_bye(text) else self._status(text)
        self._bye = self._bye or status == b"BYE"
        return (yield from self._verdict(status, text, claim))

    def _response(self) -> Generator[Request, Any, tuple[bytes, bytes | None]]:
        """The client's answer to a challenge: the line that answers it, and what the client said; None where the
        backend did not wait for it."""
        heard = yield from self.hear(BOTH, Patience.COMMAND, ANSWERS)
        if isinstance(heard, Line) and heard.side is Side.BACKEND:
            text = yield from whole_line(self._listen, heard.text)
            if text.startswith(b"+ "):
                raise broken(text)
            return text, None
        said = yield from self._answered(heard)
        yield Send(BACKEND, (sasl.CANCEL if said is None else response(said)) + b"\r\n")
        return (yield from self._line()), said

    def _answered(self, heard: Line | TooLong | Unclean) -> Generator[Request, Any, bytes | None]:
        """The string that begins so; None where the client takes its login back, or says no string."""
        if not isinstance(heard, Line):
            yield from self._collect(b"", heard.end)
            return None
        text = yield from self._collect(heard.text, heard.text)
        try:
            (said,) = arguments(text)
        except (Malformed, ValueError):
            return None
        return said

    # --- the backend ---

    def _pass(self, command: bytes) -> Generator[Request, Any, bool]:
        """A command and its whole reply.  Returns whether it succeeded."""
        yield from self._reach()
        self._owed = True
        yield Send(BACKEND, self._tag + command + b"\r\n")
        lines = octets = 0
        while (text := (yield from self._line())).startswith(b"* "):
            octets += len(text)
            within_bounds(lines, octets)
            lines += 1
            self._bye = self._bye or is_bye(text)
            yield Send(CLIENT, text + b"\r\n")
        status = self._status(text)
        self._owed = False
        if status == b"OK":
            self.bad = 0
        yield from self._answer(text, counts=status != b"OK")
        return status == b"OK"

    def _status(self, text: bytes) -> bytes:
        match = REPLY.match(text)
        if match is None or match[1] + b" " != self._tag or match[2].upper() not in (b"OK", b"NO", b"BAD"):
            raise broken(text)
        return match[2].upper()

    def _line(self) -> Hearing[bytes]:
        """The backend's next line, with its literals."""
        return (yield from whole_line(self._listen))

    commands = {
        b"NOOP": _noop,
        b"LANG": _lang,
        b"LOGOUT": _logout,
        b"STARTTLS": _starttls,
        b"AUTHENTICATE": Strings._authenticate,
    }


DIALECT = Dialect(
    name="acap",
    script=lambda terms: converse(ACAP(terms)),
    unavailable=ACAP.unavailable,
    busy=ACAP.busy,
    # RFC 2244 3.2: at least 30 minutes, and a little more, so that the backend's own goodbye wins.
    patience=patience(1860.0),
    policies={},
    foreign=FOREIGN,
    identities=frozenset({"proxy-v1", "proxy-v2"}),
    question=Question(lambda hostname: b"c1 NOOP", b"c2 LOGOUT", listed, of_acap, listed_in=0),
    shown=Verbs(
        whole=frozenset({b"NOOP", b"LANG", b"LOGOUT", b"STARTTLS"}), first=frozenset({b"AUTHENTICATE"}), tagged=True
    ),
    experimental="no server and no client of ACAP is left to try it with",
    probing=Probing(
        port=674,
        implicit=frozenset(),
        starttls=b"c3 STARTTLS",
        injected=b"c4 NOOP",
        complete=complete,
        agrees=agrees,
        attempts=(Attempt(b'c5 AUTHENTICATE "PLAIN"', lambda reply: reply.startswith(b"+ "), sasl.CANCEL),),
        reissues=True,  # RFC 2595 5
    ),
)
