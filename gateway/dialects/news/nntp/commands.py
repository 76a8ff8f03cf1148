"""NNTP (RFC 3977, RFC 4642, RFC 4643, RFC 8054), inspected from the greeting on.

Everything is inspected: before TLS, since STARTTLS may come at any time; inside, since a login may.  That ends with a
login, with a feed that the server takes, or with COMPRESS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from ....protocol.framing import Lines
from ....protocol.vocabulary import (
    Close,
    Line,
    Lost,
    Note,
    Patience,
    Proven,
    Script,
    Send,
    Side,
    StartTLS,
    TooLong,
    Violation,
)
from ... import access, sasl, users
from ...base import Dialect, Policy, Question, Terms, patience
from ...bounds import RESPONSES
from ...conversation import BACKEND, BOTH, CLIENT, Stage, broken, converse, foreign, login_note
from ...masking import Verbs
from ...probing import Attempt, Probing
from ...reach import Hearing
from .exchange import WANTS_ARTICLE, Ending, Exchange, First
from .words import (
    ADDED,
    COMMAND,
    LEAVES,
    NO_WAY,
    STREAMS,
    brings_article,
    edit_capabilities,
    listed,
    logins,
    of_nntp,
    too_long,
)

MUST_STARTTLS: Final = b"483 Encryption required, use STARTTLS"
SYNTAX: Final = b"501 Syntax error"
TOO_LONG: Final = b"501 Line too long"

ALWAYS_OPEN: Final = frozenset({b"CAPABILITIES", b"STARTTLS", b"QUIT"})
HARMLESS: Final = frozenset({b"DATE", b"HELP"})
"""Open before TLS, too, where the backend is there to answer."""
FEEDING: Final = frozenset({b"CHECK", b"IHAVE", b"MODE", b"TAKETHIS"})
"""MODE is MODE STREAM here (RFC 4644 2.3)."""
SERVING: Final = FEEDING | frozenset({
    b"ARTICLE", b"BODY", b"GROUP", b"HDR", b"HEAD", b"LAST", b"LIST", b"LISTGROUP", b"NEWGROUPS", b"NEWNEWS", b"NEXT",
    b"OVER", b"POST", b"STAT", b"XGTITLE", b"XHDR", b"XINDEX", b"XOVER", b"XPAT", b"XPATH", b"XROVER",
})  # fmt: skip
"""Commands that read, post or feed."""

PAIRED: Final = frozenset({
    b"AUTHINFO", b"CAPABILITIES", b"COMPRESS", b"IHAVE", b"MODE", b"POST", b"STARTTLS", b"TAKETHIS", b"XFEATURE",
})  # fmt: skip
"""Commands of which the gateway must know the reply."""

LINES: Final = Lines(sasl.REQUEST_LINE + len(b"AUTHINFO "), commands=True)


class NNTP(Exchange):
    """One session's state; what is not in an attribute here is the generator's own place."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._user = False  # the backend remembers a user name
        self._streams = False  # ... and reads the article behind a TAKETHIS
        self._selected = False  # ... and a newsgroup

    def talk(self) -> Script:
        while True:
            heard = yield from self._next()
            match heard:
                case Line(side=Side.BACKEND, text=text):
                    yield from self._unasked(text)
                case Line(text=text) if not text.strip():
                    pass  # INN does not answer empty lines
                case Line(text=text):
                    if (yield from self._command(text)):
                        return
                case TooLong():
                    yield Note("client-line-too-long")
                    yield from self._unreadable(heard.begin, TOO_LONG)
                case _:
                    yield from self._unreadable(heard.begin, b"501 Invalid characters")

    def _next(self) -> Hearing[Any]:
        if not self._unpaired:
            return (yield from self.hear(BOTH, Patience.COMMAND, LINES))
        try:
            # No command is a boundary here: a stop would cut an article.
            return (yield from self.hear((BACKEND,) if self._left else BOTH, Patience.SPLICE, LINES))
        except Lost as lost:
            if self._left and lost.side is BACKEND:
                yield Close("quit")
            raise

    def _unasked(self, text: bytes) -> Script:
        """400 may come at any time.  Other lines are the rest of a reply, if nobody can tell where that ends."""
        if self._endless:
            self._endless = self._unpaired or text != b"."
            yield Send(CLIENT, text + b"\r\n")
        elif text[:3] == LEAVES:
            yield Send(CLIENT, text + b"\r\n")
            yield Close("backend-closed", "400")
        else:
            raise broken(text)

    def _command(self, line: bytes) -> Ending:
        """One command of the client.  Returns whether the session is to be spliced."""
        if too_long(line):
            yield Note("client-line-too-long")
            return (yield from self._unreadable(line, TOO_LONG))
        match = COMMAND.match(line)
        if match is None:
            return (yield from self._unreadable(line, b"500 Unknown command"))
        verb, arguments = match[1].upper(), (match[2] or b"").strip(sasl.BLANKS)
        if self._endless and (self._unpaired or verb != b"QUIT"):
            # A line of that reply could be taken for the reply to this one, and open a login that failed.
            if verb in PAIRED or self._waits_for_tls(verb, arguments):
                raise broken("a reply to an unknown command, of which nobody can tell where it ends")
            self._unpaired = self.midway = True  # words of ours have no place here any more
            self._left = verb == b"QUIT"
            yield Send(BACKEND, line + b"\r\n")
            return False
        if self._waits_for_tls(verb, arguments):
            return (yield from self._unreadable(line, (yield from self.first(MUST_STARTTLS))))
        return (yield from COMMANDS.get(verb, NNTP._other)(self, verb, line, arguments))

    def _unreadable(self, line: bytes, words: bytes) -> Ending:
        """Refuse a line of the client's, with the article that it sends behind it: no line of that is a command."""
        if self._unpaired:
            raise Violation(CLIENT, "client-protocol-error", "where the gateway has no answer of its own")
        if brings_article(line):
            yield from self._hand_in(forward=False)
        return (yield from self._refuse(words))

    def _waits_for_tls(self, verb: bytes, arguments: bytes) -> bool:
        if self.stage is not Stage.CLOSED:
            return False
        if self.terms.policy is Policy.AUTH_ONLY:
            return verb in (b"AUTHINFO", b"COMPRESS")
        return verb not in ALWAYS_OPEN and not (self.reached and (verb in HARMLESS or _reads(verb, arguments)))

    # --- commands ---

    def _capabilities(self, verb: bytes, line: bytes, arguments: bytes) -> Ending:
        reply = (yield from self._ask(line)) if self.reached or self.secured else b""
        if reply[:3] == b"101":
            stage = self.stage
            lines = yield from self.hear_list(reply, lambda lines: edit_capabilities(lines, stage), ADDED[stage])
            if stage is Stage.SECURE and logins(edit_capabilities(lines, stage)) == ():
                yield access.note(access.NO_LOGIN, "nntp", self.terms, NO_WAY, b"STARTTLS" in lines)
        elif self.secured is None and reply[:3] != LEAVES:
            # RFC 4642 2.1: a server with STARTTLS has CAPABILITIES, although one from before RFC 3977 has not.
            self.bad = 0
            told = (b"101 Capability list:", b"VERSION 2", *ADDED[self.stage], b".")
            yield Send(CLIENT, b"".join(line + b"\r\n" for line in told))
        else:
            return (yield from self._conclude(verb, reply))
        return False

    def _starttls(self, verb: bytes, line: bytes, arguments: bytes) -> Ending:
        """Never 480 or 483 (RFC 4642 2.2.1)."""
        if arguments:
            return (yield from self._refuse(SYNTAX))
        if self.secured is not None:
            return (yield from self._refuse(b"502 Already using a security layer"))
        if self._user:
            return (yield from self._refuse(b"502 STARTTLS not allowed between AUTHINFO USER and PASS"))
        self.secured = yield StartTLS(CLIENT, b"382 Continue with TLS negotiation\r\n")
        if self._selected:  # RFC 4642 2.2.2: it counts no more, and a fresh backend knows of none
            self.reached = self._selected = self._streams = False
            yield from self._reach()
        self.bad = 0
        return False

    def _compress(self, verb: bytes, line: bytes, arguments: bytes) -> Ending:
        """It needs no login, and what follows its success is not text (RFC 8054 2.2)."""
        if self.secured is None:
            return (yield from self._refuse(b"502 Command unavailable"))
        reply = yield from self._ask(line)
        if reply[:3] != b"206":
            return (yield from self._conclude(verb, reply))
        yield Proven()
        yield Send(CLIENT, reply + b"\r\n")
        return True

    def _xfeature(self, verb: bytes, line: bytes, arguments: bytes) -> Ending:
        """XFEATURE COMPRESS GZIP: lists would be no lines any more, and have no end that could be found."""
        return (yield from self._refuse(b"500 Unknown command"))

    def _quit(self, verb: bytes, line: bytes, arguments: bytes) -> Ending:
        reply = b"205 Connection closing"
        if self._endless:
            yield Send(BACKEND, line + b"\r\n")  # of its answer nobody can tell that it is the one
        elif self.reached:
            reply = yield from self.left(self._ask(line), reply)
        yield from self._conclude(verb, reply)
        if reply[:3] == b"205":
            yield Close("quit")
        return False

    def _takethis(self, verb: bytes, line: bytes, arguments: bytes) -> Ending:
        """The article follows at once (RFC 4644 2.5).

        A backend that does not know the command (nnrpd) takes each line of the article for a command, and a login in it
        would be neither refused in the clear nor counted.  So it is asked first whether it knows this one (2.3).
        """
        if not self._streams:
            reply = yield from self._ask(b"MODE STREAM")
            if reply[:1] not in (b"4", b"5") and reply[:3] != STREAMS:
                raise broken(f"to MODE STREAM: {reply[:80]!r}")
            if reply[:3] != STREAMS:
                yield from self._hand_in(forward=False)
                return (yield from self._conclude(verb, reply))
            self._streams = True
        yield Send(BACKEND, line + b"\r\n")
        return (yield from self._served(verb, arguments, (yield from self._hand_in())))

    def _other(self, verb: bytes, line: bytes, arguments: bytes) -> Ending:
        return (yield from self._served(verb, arguments, (yield from self._ask(line))))

    def _served(self, verb: bytes, arguments: bytes, reply: bytes) -> Ending:
        """A command that reads, posts or feeds.  If the backend takes it, this is a client that it serves.

        Only feeds are spliced by that: they never log in, and whoever may read could guess passwords behind it.
        """
        self._streams = self._streams or (verb == b"MODE" and reply[:3] == STREAMS)
        taken = reply[:1] == b"2" or reply[:3] == WANTS_ARTICLE.get(verb)
        self._selected = self._selected or (taken and verb in (b"GROUP", b"LISTGROUP"))
        self._reader = self._reader or (taken and _reads(verb, arguments))
        if taken and verb in SERVING and not _reads(verb, arguments):
            yield Proven()
            if self.secured is not None and verb in FEEDING:
                yield Send(CLIENT, reply + b"\r\n")
                return True
        return (yield from self._conclude(verb, reply))

    # --- logins ---

    def _authinfo(self, verb: bytes, line: bytes, arguments: bytes) -> Ending:
        """RFC 4643.  GENERIC and SIMPLE of RFC 2980 are refused: their dialogues are each server's own."""
        kind, _, rest = arguments.partition(b" ")
        kind, rest = kind.upper(), rest.strip(sasl.BLANKS)
        claim: users.Claim | bytes = SYNTAX
        if kind in (b"USER", b"PASS") and rest:
            claim = users.Claim("USER")
        elif kind == b"SASL":
            claim = users.Claim.asked(rest, SYNTAX, b"503 Mechanism not recognized")
        if isinstance(claim, bytes):
            return (yield from self._refuse(claim))
        if not (yield from self.may_log_in()):
            return (yield from self._refuse(b"403 Temporary authentication failure"))
        if kind == b"SASL":
            return (yield from self._dialogue(line, claim))
        if kind == b"USER" or not self._user:
            self._claimed = users.shortened(rest) if kind == b"USER" else b""
        reply = yield from self._ask(line)
        if reply[:3] == b"281":
            return (yield from self._logged_in(reply, b"USER"))
        if kind == b"USER" and reply[:3] == b"381":
            self._user = True
            yield Send(CLIENT, reply + b"\r\n")
            return False
        named, self._user = self._user, False
        # PASS without a name is out of sequence: 482.
        guessed = kind == b"USER" or named or reply[:3] != b"482"
        return (yield from self._login_failed(reply, b"USER", guessed=guessed))

    def _dialogue(self, line: bytes, claim: users.Claim) -> Ending:
        reply = yield from self._ask(line, RESPONSES)
        while reply[:3] == b"383":
            self._outstanding = True  # whatever is said now is taken for a response
            yield Send(CLIENT, reply + b"\r\n")
            said = yield from self._response()
            claim.hear(said)
            reply = yield from self._ask(said, RESPONSES)
        self._claimed = claim.user
        if reply[:3] not in (b"281", b"283"):
            return (yield from self._login_failed(reply, claim.mechanism, guessed=claim.tried))
        if claim.given:
            return (yield from self._logged_in(reply, claim.mechanism))
        # 281 to a client that has said nothing of itself proves nothing, whatever made the backend say it.
        yield login_note(claim.mechanism, "unproven", self._claimed)
        return (yield from self._conclude(b"AUTHINFO", reply, login=True))

    def _response(self) -> First:
        """The client's line in a dialogue; what is none takes it back, and the verdict is the backend's."""
        while True:
            match (yield from self.hear(BOTH, Patience.COMMAND, RESPONSES)):
                case Line(side=Side.BACKEND, text=text):
                    yield from self._unasked(text)
                case Line(text=text) if sasl.RESPONSE.match(text):
                    said: bytes = text
                    return said
                case _:
                    return sasl.CANCEL


def _reads(verb: bytes, arguments: bytes) -> bool:
    return verb == b"MODE" and arguments.upper() == b"READER"


COMMANDS: Final[Mapping[bytes, Callable[[NNTP, bytes, bytes, bytes], Ending]]] = {
    b"CAPABILITIES": NNTP._capabilities,
    b"STARTTLS": NNTP._starttls,
    b"COMPRESS": NNTP._compress,
    b"XFEATURE": NNTP._xfeature,
    b"QUIT": NNTP._quit,
    b"TAKETHIS": NNTP._takethis,
    b"AUTHINFO": NNTP._authinfo,
}
"""All other commands are the backend's.  Plain functions: bound methods would create a reference cycle."""


def _complete(command: bytes, heard: bytes) -> bool:
    """Whether a reply is whole: of the commands that `probe` says only CAPABILITIES has a list."""
    return not heard.startswith(b"101") or heard.endswith(b"\r\n.\r\n")


SHOWN: Final = Verbs(
    whole=SERVING | HARMLESS | ALWAYS_OPEN | {b"COMPRESS"},
    first=frozenset({b"AUTHINFO"}),
)

DIALECT = Dialect(
    name="nntp",
    script=lambda terms: converse(NNTP(terms)),
    unavailable=NNTP.unavailable,
    busy=NNTP.busy,
    # RFC 3977 3.1: at least 3 minutes; INN closes after 10, and is to close first.
    patience=patience(660.0),
    policies={119: Policy.AUTH_ONLY},
    foreign=foreign("http-client"),
    identities=frozenset({"proxy-v1", "proxy-v2"}),
    alpn=(b"nntp",),
    question=Question(lambda hostname: b"CAPABILITIES", b"QUIT", listed, of_nntp),
    shown=SHOWN,
    probing=Probing(
        port=119,
        implicit=frozenset({563}),
        starttls=b"STARTTLS",
        injected=b"DATE",
        complete=_complete,
        agrees=lambda reply: reply.startswith((b"200", b"201", b"382")),
        # The name comes last: behind it some servers hear nothing but PASS.
        attempts=(
            Attempt(b"AUTHINFO SASL PLAIN", lambda reply: reply.startswith(b"383"), b"*"),
            Attempt(b"AUTHINFO USER starttls-gateway-probe", lambda reply: reply.startswith(b"381")),
        ),
    ),
)
