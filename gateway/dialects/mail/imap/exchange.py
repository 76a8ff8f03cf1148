"""A command on its way to an IMAP server, and the server's answers on their way back."""

from __future__ import annotations

from collections.abc import Generator
from itertools import count
from typing import Any, Final

from ....protocol.filters import Counted, Kept
from ....protocol.framing import Lines
from ....protocol.vocabulary import Line, Note, Pass, Patience, Request, Script, Send, Side, TooLong, Unclean
from ... import sasl
from ...base import Terms
from ...bounds import REPLIES, RESPONSES
from ...conversation import BACKEND, BOTH, CLIENT, Stage, broken, within_bounds
from ...users import LONGEST, Claim
from .capabilities import STATUS, edit_line
from .greeting import UNTAGGED_BAD
from .literals import Literals
from .syntax import (
    COMMAND_LINE,
    LITERAL,
    LONGER,
    TAGLESS,
    Command,
    Continuation,
    TaggedResponse,
    has_password,
    names_by_literal,
    spelled,
    verdict_of,
)

UNPAID: Final = 16
"""Commands with an untagged BAD for an answer that we remember, because a tagged reply may follow.  When there are
more, we ask the backend something and forget them."""
COMMAND_LINES: Final = Lines(COMMAND_LINE, LONGER, commands=True)


class Exchange(Literals):
    """Asks the backend.

    A literal is never on its way to the backend before the backend has asked for it: one that rejects a command early
    would take the literal's octets for commands, and obey them with our address's rights.
    """

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._wire = b""  # the tag of the command that is under way, ours or the client's
        self._unpaid: dict[bytes, Claim | None] = {}
        """By tag: commands that have got nothing but an untagged BAD, and may still get a reply.  None: no login."""
        self._may_ask = False  # the backend may still ask for more of one of them
        self._ahead: Line | Unclean | TooLong | None = None  # the client's next line, heard already
        self._lines = self._octets = 0  # of the reply that is coming

    def _next(self) -> Generator[Request, Any, Line | Unclean | TooLong]:
        """The client's next command, or what the backend says without being asked."""
        heard: Line | Unclean | TooLong = yield from self.hear(BOTH, Patience.COMMAND, COMMAND_LINES)
        return heard

    def _unasked(self, text: bytes) -> Generator[Request, Any, bool]:
        """A line of the backend's while no command is under way.  Returns whether it is a login's success."""
        if text.partition(b" ")[0] in self._unpaid:
            return (yield from self._late(text))
        yield from self._relay(text)
        return False

    def _late(self, text: bytes) -> Generator[Request, Any, bool]:
        """The tagged reply to a command that was answered without its tag.  Returns whether it is a login's success."""
        tag = text.partition(b" ")[0]
        login = self._unpaid.pop(tag)
        verdict = verdict_of(tag, text)
        if login is not None:
            # A success that crosses with a newer command comes too late: the client is no longer where it was.
            login.cancelled = login.cancelled or bool(self._wire)
            if verdict.status == b"OK":
                login.earned(verdict.line)
            return (yield from self._judge(login, verdict))
        yield from self._tell(verdict)
        return False

    def _judge(self, login: Claim, verdict: TaggedResponse) -> Generator[Request, Any, bool]:
        """The end of a login.  Returns whether it succeeded."""
        if verdict.status == b"OK":
            told = edit_line(verdict.line, Stage.AUTHENTICATED) + b"\r\n"
            yield from self.accepted(login.mechanism, login.user, told)
            return True
        guessed = verdict.rejects and login.tried
        yield from self.not_accepted(login.mechanism, login.user, self._conclude(b"", verdict), guessed=guessed)
        return False

    def _tell(self, verdict: TaggedResponse) -> Script:
        # An untagged BAD was relayed already.  A reply to an older command with the same tag would be taken for the
        # newer one's.
        if verdict is not TAGLESS and not (self._tag and verdict.line.startswith(self._tag + b" ")):
            yield from self._pass_on(verdict.line)

    def _conclude(self, verb: bytes, verdict: TaggedResponse) -> Script:
        """The backend's verdict for the client."""
        yield from self._tell(verdict)
        match verdict.status:
            case b"BAD":
                self.count()
            case b"BYE":
                self._bye = True
            case b"OK" if verb != b"NOOP":
                self.bad = 0

    def _ask(self, command: Command, login: Claim | None = None) -> Generator[Request, Any, TaggedResponse]:
        """Send a whole command and relay what the backend says to it, except its verdict."""
        self._tag = command.tag
        yield from self._reach()
        self._lines = self._octets = 0
        asking = command.literal is not None and self._may_ask
        if asking or command.tag in self._unpaid or len(self._unpaid) == UNPAID:
            yield from self._settle(command.tag)
        self._wire = command.tag
        verdict = yield from self._dialogue(command, login)
        if login is not None and verdict.status == b"OK":
            login.earned(verdict.line)
        self._tag = self._wire = b""
        self._begun = False
        if verdict is TAGLESS:
            self._unpaid[command.tag] = login
            waits = command.literal is not None or bool(command.before)
            self._may_ask = self._may_ask or waits or command.verb == b"AUTHENTICATE"
        else:
            self._may_ask = False  # commands are answered in order
        return verdict

    def _settle(self, tag: bytes) -> Script:
        """Ask a question of our own.  What the backend says before the answer is about older commands; nothing about
        them comes later.  Without that, a late reply or a late `+` could be taken for one to the command with this
        tag."""
        taken = {tag, *self._unpaid}
        self._wire = next(ours for number in count(10) if (ours := b"sgw%d" % number) not in taken)
        yield Send(BACKEND, self._wire + b" NOOP\r\n")
        reply = yield from self._reply()
        if not isinstance(reply, TaggedResponse) or reply is TAGLESS:
            raise broken(b"no answer to NOOP")
        self._unpaid.clear()
        self._may_ask = False

    def _dialogue(self, command: Command, login: Claim | None) -> Generator[Request, Any, TaggedResponse]:
        """From the command's first line to the verdict."""
        for line in command.before:
            yield Send(BACKEND, line + b"\r\n")
            reply = yield from self._decided((yield from self._reply()))
            if isinstance(reply, TaggedResponse):
                return reply
        line, literal = command.line, command.literal
        spent = 0
        said = b""
        while literal is not None:
            said = said + line if said else line
            after = self._afford(spent, literal)
            yield Send(BACKEND, spelled(line, literal) + b"\r\n")
            reply = yield from self._reply()
            rejected = isinstance(reply, TaggedResponse)
            if rejected:
                # What the client sends without waiting must not be taken for commands.
                yield from self._swallow(literal, spent)
            reply = yield from self._decided(reply)
            if isinstance(reply, TaggedResponse):
                return reply
            if rejected and not literal.waits:
                raise broken(reply.line)  # what it asks for is gone
            if literal.waits:
                yield Send(CLIENT, reply.line + b"\r\n")
            kept = Kept(literal.octets, LONGEST)
            yield Pass(CLIENT, kept)
            if login is not None and said is command.line and names_by_literal(command):
                login.user = kept.begin
            line, literal = yield from self._rest()
            spent = after + len(line)
        yield Send(BACKEND, line + b"\r\n")
        if login is not None and command.verb == b"LOGIN":
            login.tried = has_password(said + line)
        reply = yield from self._decided((yield from self._reply()))
        while isinstance(reply, Continuation):
            if login is None or command.verb != b"AUTHENTICATE":
                raise broken(reply.line)  # nothing else may ask for more
            yield Send(CLIENT, reply.line + b"\r\n")
            reply = yield from self._response(login)
        return reply

    def _decided(self, reply: TaggedResponse | Continuation) -> Generator[Request, Any, TaggedResponse | Continuation]:
        """The same reply.  Behind an untagged BAD it is the next one, or none if the client goes on before that."""
        while reply is TAGLESS:
            self._tag = b""
            self._begun = False
            self._ahead = self._ahead or (yield from self._next())
            if self._ahead.side is CLIENT:
                break
            heard, self._ahead = self._ahead, None
            assert isinstance(heard, Line)
            reply = (yield from self._heed(heard.text)) or reply
            if reply is not TAGLESS:
                self._tag = self._wire  # a reply is owed again, or here it is
        return reply

    def _response(self, login: Claim) -> Generator[Request, Any, TaggedResponse | Continuation]:
        """One line of the client's as data (RFC 9051 6.2.2), and the reply to it."""
        doubtful = False
        while True:
            heard = yield from self.hear(BOTH, Patience.COMMAND, RESPONSES)
            match heard:
                case Line(side=Side.BACKEND, text=text):
                    reply = yield from self._heed(text)
                    if reply is None or reply is TAGLESS:
                        doubtful = doubtful or reply is TAGLESS
                        continue
                    return reply
                case Line(text=text) if sasl.RESPONSE.match(text):
                    login.hear(text)
                    yield Send(BACKEND, text + b"\r\n")
                case _:
                    if isinstance(heard, TooLong):
                        yield Note("client-line-too-long")
                    elif doubtful:
                        self._ahead = heard  # for the client the exchange is over, and this is a command
                    login.hear(sasl.CANCEL)
                    yield Send(BACKEND, b"*\r\n")  # the exchange is cancelled; the verdict is the backend's
            return (yield from self._decided((yield from self._reply())))

    def _reply(self) -> Generator[Request, Any, TaggedResponse | Continuation]:
        """Relay the backend's lines up to one that the client's command waits for."""
        while True:
            heard = yield from self.hear((BACKEND,), Patience.REPLY, REPLIES)
            assert isinstance(heard, Line)
            reply = yield from self._heed(heard.text)
            if reply is not None:
                return reply

    def _heed(self, text: bytes) -> Generator[Request, Any, TaggedResponse | Continuation | None]:
        """One line of the backend's while a command is under way; None if there is nothing to do but to relay it."""
        self._lines += 1
        self._octets += len(text)
        within_bounds(self._lines - 1, self._octets)
        if text.startswith(b"+"):
            return Continuation(text)
        if text.startswith(self._wire + b" "):
            return verdict_of(self._wire, text)
        if text.partition(b" ")[0] in self._unpaid:
            yield from self._late(text)
            return None
        yield from self._relay(text)
        self._begun = True
        return TAGLESS if UNTAGGED_BAD.match(text) else None

    def _relay(self, text: bytes) -> Script:
        """An untagged response, with the literals in it."""
        if not text.startswith(b"* "):
            raise broken(text)
        yield from self._pass_on(text)
        if STATUS.match(text):
            return  # human text, whatever it ends with
        while match := LITERAL.search(text):
            if len(match[1]) > 9:
                raise broken(text)
            self.midway = True
            yield Pass(BACKEND, Counted(int(match[1])))
            heard = yield from self.hear((BACKEND,), Patience.DATA, REPLIES)
            assert isinstance(heard, Line)
            text = heard.text
            yield Send(CLIENT, text + b"\r\n")
            self.midway = False
