"""IMAP (RFC 3501, RFC 9051), inspected from the greeting to the login, and spliced from there."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from ....protocol.vocabulary import (
    Close,
    Line,
    Lost,
    Note,
    Request,
    Script,
    Send,
    StartTLS,
    TooLong,
)
from ... import access, sasl, users
from ...base import Dialect, Policy, Question, patience
from ...conversation import CLIENT, Stage, converse
from ...masking import Verbs
from ...probing import Attempt, Probing
from .. import FOREIGN
from .capabilities import listed
from .exchange import Exchange
from .syntax import (
    BEGUN,
    COMMAND,
    COMMAND_LINE,
    VERB,
    Command,
    Malformed,
    TaggedResponse,
    announced,
    edit_id,
    first_string,
    id_lines,
    literal_of,
)

MUST_STARTTLS: Final = b"NO [PRIVACYREQUIRED] Must issue a STARTTLS command first"


class IMAP(Exchange):
    """The client's commands."""

    def talk(self) -> Script:
        while True:
            heard, self._ahead = self._ahead, None
            if heard is None:
                heard = yield from self._next()
            if isinstance(heard, Line):
                if (yield from (self._command if heard.side is CLIENT else self._unasked)(heard.text)):
                    return
            elif isinstance(heard, TooLong):
                yield from self._too_long(heard)
            else:
                yield from self._refuse_stranger(b"*", b"Invalid characters", announced(heard.end))

    def _too_long(self, heard: TooLong) -> Script:
        yield Note("client-line-too-long")
        tagged = BEGUN.match(heard.begin)
        if tagged is None:
            yield from self._refuse_stranger(b"*", b"Command too long", announced(heard.end))
        else:
            self._untagged = 0
            yield from self._refuse(tagged[1], b"BAD Command too long", announced(heard.end))

    def _command(self, line: bytes) -> Generator[Request, Any, bool]:
        """One command of the client.  Returns whether it was a login that succeeded."""
        try:
            literal, sound = literal_of(line), True
        except Malformed:
            literal, sound = None, False
        tagged = COMMAND.match(line)
        if tagged is None:
            yield from self._refuse_stranger(b"*", b"Invalid tag", literal)
            return False
        if tagged[2] is None:
            yield from self._refuse_stranger(tagged[1], b"Missing command")
            return False
        self._untagged = 0
        verb = VERB.match(tagged[2])
        if verb is None:
            yield from self._refuse(tagged[1], b"BAD Invalid command", literal)
            return False
        if not sound:
            yield from self._refuse(tagged[1], b"BAD Invalid arguments")
            return False
        arguments = verb[2] if (verb[2] or b"").strip(sasl.BLANKS) else None
        command = Command(tagged[1], verb[1].upper(), arguments, line, literal)
        return (yield from COMMANDS.get(command.verb, IMAP._other)(self, command))

    def _capability(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is None and command.arguments is not None:
            return (yield from self._refuse(command.tag, b"BAD Invalid arguments", command.literal))
        if self.secured is None and not self.reached:
            return (
                yield from self._answer(
                    b"* CAPABILITY %s\r\n%s OK CAPABILITY completed" % (self._own_list(), command.tag)
                )
            )
        return (yield from self._forward(command))

    def _noop(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is None:
            if command.arguments is not None:
                return (yield from self._refuse(command.tag, b"BAD Invalid arguments", command.literal))
            if self.terms.policy is Policy.REQUIRED or not self.reached:
                # No success that counts: it would let a client go on for ever.
                yield Send(CLIENT, command.tag + b" OK NOOP completed\r\n")
                return False
        return (yield from self._forward(command))

    def _logout(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is None and command.arguments is not None:
            return (yield from self._refuse(command.tag, b"BAD Invalid arguments", command.literal))
        granted = True
        if self.reached:
            try:
                verdict = yield from self._ask(command)
                yield from self._conclude(command.verb, verdict)
                granted = verdict.status in (b"OK", b"BYE")
            except Lost as lost:
                if lost.side is CLIENT or self.midway:
                    raise
                yield from self._own_goodbye(command.tag)  # nothing else is to come
        else:
            yield from self._own_goodbye(command.tag)
        if granted:
            yield Close("quit")
        return False

    def _own_goodbye(self, tag: bytes) -> Script:
        bye = b"" if self._bye else b"* BYE logging out\r\n"
        yield Send(CLIENT, bye + tag + b" OK LOGOUT completed\r\n")

    def _starttls(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is not None:
            return (yield from self._refuse(command.tag, b"BAD TLS is already active", command.literal))
        if command.arguments is not None:
            return (yield from self._refuse(command.tag, b"BAD STARTTLS takes no arguments", command.literal))
        if self._unpaid:
            yield from self._settle(command.tag)  # what was said in the clear is answered in the clear
        self.secured = yield StartTLS(CLIENT, command.tag + b" OK Begin TLS negotiation now\r\n")
        return False

    def _id(self, command: Command) -> Generator[Request, Any, bool]:
        """RFC 2971: ours before TLS (what the backend remembered of it would survive), edited inside."""
        try:
            said = yield from self._collect(command)
            arguments = edit_id(said)
        except Malformed:
            return (yield from self._refuse(command.tag, b"BAD Invalid arguments"))
        if self.secured is None:
            return (yield from self._answer(b"* ID NIL\r\n" + command.tag + b" OK ID completed"))
        line = command.tag + b" ID " + arguments
        *before, line = [line] if len(line) <= COMMAND_LINE else id_lines(command.tag, said)
        return (yield from self._forward(Command(command.tag, b"ID", arguments, line, None, tuple(before))))

    def _login(self, command: Command) -> Generator[Request, Any, bool]:
        if self.stage is Stage.CLOSED:
            return (yield from self._must_start_tls(command))
        claim = users.Claim("LOGIN")
        claim.user = users.shortened(first_string(command.arguments or b""))
        return (yield from self._prove(command, claim))

    def _authenticate(self, command: Command) -> Generator[Request, Any, bool]:
        if self.stage is Stage.CLOSED:
            return (yield from self._must_start_tls(command))
        arguments = b"" if command.literal is not None else (command.arguments or b"").rstrip(sasl.BLANKS)
        claim = users.Claim.asked(arguments, b"BAD Invalid arguments", b"NO Unsupported authentication mechanism")
        if isinstance(claim, bytes):
            return (yield from self._refuse(command.tag, claim, command.literal))
        return (yield from self._prove(command, claim))

    def _prove(self, command: Command, claim: users.Claim) -> Generator[Request, Any, bool]:
        """A login, however long it takes.  Its success is the backend's tagged OK and nothing else."""
        if not (yield from self.may_log_in()):
            reply = b"NO [UNAVAILABLE] Temporary authentication failure"
            return (yield from self._refuse(command.tag, reply, command.literal))
        verdict = yield from self._ask(command, claim)
        yield from self._notice(command, verdict)
        return (yield from self._judge(claim, verdict))

    def _must_start_tls(self, command: Command) -> Generator[Request, Any, bool]:
        return (yield from self._refuse(command.tag, (yield from self.first(MUST_STARTTLS)), command.literal))

    def _other(self, command: Command) -> Generator[Request, Any, bool]:
        if self.secured is None and self.terms.policy is Policy.REQUIRED:
            return (yield from self._must_start_tls(command))
        return (yield from self._forward(command))

    def _forward(self, command: Command) -> Generator[Request, Any, bool]:
        verdict = yield from self._ask(command)
        yield from self._notice(command, verdict)
        yield from self._conclude(command.verb, verdict)
        return False

    def _notice(self, command: Command, verdict: TaggedResponse) -> Script:
        """A refusal that tells something about the backend's settings."""
        if verdict.status != b"OK" and access.demands_tls(verdict.line, command.line):
            yield access.note(access.NO_LOGIN, "imap", self.terms, verdict.line)


COMMANDS: Final[Mapping[bytes, Callable[[IMAP, Command], Generator[Request, Any, bool]]]] = {
    b"CAPABILITY": IMAP._capability,
    b"NOOP": IMAP._noop,
    b"LOGOUT": IMAP._logout,
    b"STARTTLS": IMAP._starttls,
    b"ID": IMAP._id,
    b"LOGIN": IMAP._login,
    b"AUTHENTICATE": IMAP._authenticate,
}
"""All other commands are the backend's.  Plain functions: bound methods would create a reference cycle."""

SHOWN: Final = Verbs(
    whole=frozenset({b"CAPABILITY", b"STARTTLS", b"LOGOUT", b"NOOP", b"ID", b"ENABLE"}),
    first=frozenset({b"AUTHENTICATE"}),
    alone=frozenset({b"LOGIN"}),
    tagged=True,
)

DIALECT = Dialect(
    name="imap",
    script=lambda terms: converse(IMAP(terms)),
    unavailable=IMAP.unavailable,
    busy=IMAP.busy,
    # RFC 9051 5.4: at least 30 minutes, and a little more, so that the backend's own goodbye wins.
    patience=patience(1860.0),
    policies={},
    foreign=FOREIGN,
    identities=frozenset({"proxy-v1", "proxy-v2", "id"}),
    alpn=(b"imap",),
    question=Question(lambda hostname: b"sgw7 CAPABILITY", b"sgw8 LOGOUT", listed, access.of_imap),
    shown=SHOWN,
    probing=Probing(
        port=143,
        implicit=frozenset({993}),
        starttls=b"sgw2 STARTTLS",
        injected=b"sgw3 NOOP",
        complete=lambda command, heard: not command or not heard.split(b"\r\n")[-2].startswith(b"* "),
        agrees=lambda reply: reply.split(b"\r\n")[-2].upper().startswith((b"* OK", b"SGW2 OK")),
        attempts=(Attempt(b"sgw4 AUTHENTICATE PLAIN", lambda reply: reply.startswith((b"+", b"sgw4 OK")), b"*"),),
    ),
)
