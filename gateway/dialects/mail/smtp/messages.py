"""Mail transactions: MAIL, DATA, BDAT (RFC 3030), BURL (RFC 4468), and the trace field."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final

from ....protocol.filters import Counted
from ....protocol.framing import Lines
from ....protocol.vocabulary import (
    Abort,
    Await,
    Close,
    Line,
    Lost,
    Note,
    Pass,
    Peek,
    Request,
    Script,
    Send,
    Tally,
    Trouble,
)
from ....telemetry.catalogue import PROTOCOL_ERROR
from ... import sasl
from ...base import Terms
from ...bounds import REPLY_LINE, REPLY_OCTETS
from ...conversation import BACKEND, CLIENT, TOO_EARLY, broken, within_bounds
from .. import ehlo, extensions
from ..message import Message, Newlines
from ..received import declared, protocol_keyword, received
from .exchange import COMMAND_LINE, FINAL, GO_AHEAD
from .greeting import Greeting
from .replies import ASIDE, REPLY, VERDICT, Reply

SWALLOWED_CHUNK: Final = 1024 * 1024
"""Octets of a refused BDAT chunk that we read on; with more the session ends."""
LARGEST_CHUNK: Final = 2**31 - 65536
"""A backend that counts in 32 bits would take the rest of a larger chunk, and our header, for commands."""
_CHUNK: Final = re.compile(rb"[\0\s]*BDAT(?![A-Za-z0-9_-])", re.IGNORECASE)
_BDAT: Final = re.compile(rb"([0-9]{1,19})(?: +(LAST))?\Z", re.IGNORECASE)
MUST_STARTTLS: Final = b"530 5.7.0 Must issue a STARTTLS command first"
EXTENDED_LINE: Final = 2048
"""MAIL and RCPT, where the backend offers an extension that lengthens them (RFC 1870, 3461, 4954 ...)."""
_WITHHELD: Final = {
    (burl, requiretls): frozenset([b"BURL"] * burl + [b"REQUIRETLS"] * requiretls)
    for burl in (False, True)
    for requiretls in (False, True)
}
VERDICTS: Final = Lines(REPLY_OCTETS)


class Messages(Greeting):
    """The mail that the client hands in."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._authenticated = False
        self._extended = False  # the client has said EHLO
        self._chunking = False  # the backend's latest EHLO reply offers it
        self._lengthened = False  # ... an extension that makes commands longer
        self._traces = terms.options.get("received") != "no"
        self._messages = 0
        self._end_transaction()

    def farewell(self) -> bytes:
        idle = self.reached and not self._outstanding and not self._mail and not self._authenticated
        return b"QUIT\r\n" if idle else b""

    @property
    def _withheld(self) -> frozenset[bytes]:
        """Extensions that do not work in this session, as things are."""
        return _WITHHELD[
            # Our trace field could not come before what the backend fetches.
            self._traces and not self._chunking,
            # The promise would not hold on both legs (RFC 8689).
            not (self.terms.backend_verified and self.secured is not None),
        ]

    def _longest(self, verb: bytes) -> int:
        if verb in ehlo.AUTH:
            return sasl.REQUEST_LINE
        return EXTENDED_LINE if self._lengthened and verb in (b"MAIL", b"RCPT") else COMMAND_LINE

    def _end_transaction(self) -> None:
        self._mail = False
        self._recipients = 0
        self._utf8 = False
        self._traced = False

    def _spoil(self) -> None:
        """The backend has refused data, and may have dropped the transaction: nothing more is sent of it."""
        self._recipients = 0

    @property
    def _verdicts(self) -> int:
        """How many replies a whole message gets."""
        return 1

    def _mail_from(self, verb: bytes, text: bytes, argument: bytes) -> Script:
        utf8 = b"SMTPUTF8" in argument.upper().split()
        if self._traces and argument.upper().find(b"SIZE=") >= 0:
            # Its date is always as long.  What may still be added: `A` for an AUTH, and an empty line behind it.
            more = len(self._field(utf8=utf8, authenticated=True)) + 2
            greater = declared(text, more)
            text = greater if len(greater) <= self._longest(verb) else text
        reply = yield from self._relay(verb, text)
        if reply.positive:
            self._end_transaction()
            self._mail = True
            self._utf8 = utf8

    def _trace(self) -> bytes:
        """The Received: field of this transaction; empty if it has one, or is to have none."""
        if self._traced or not self._traces:
            return b""
        self._traced = True
        return self._field(utf8=self._utf8, authenticated=self._authenticated)

    def _field(self, *, utf8: bool, authenticated: bool) -> bytes:
        return received(
            name=self._name,
            client=self.terms.client,
            secured=self.secured,
            hostname=self.terms.hostname,
            keyword=protocol_keyword(
                extended=self._extended,
                utf8=utf8,
                tls=self.secured is not None,
                authenticated=authenticated,
                lmtp=self.protocol == "lmtp",
            ),
            identity=f"{self.terms.session}-{self._messages + 1}",
            date=self.terms.now(),
        )

    def _data(self, text: bytes) -> Script:
        reply = yield from self._ask(b"DATA", text, GO_AHEAD)
        if reply.code != b"354":
            self._spoil()  # as far as we know: a chunk might now be taken for commands
            yield from self._pass_on(reply)
            return
        self._mail = True  # whatever the backend thinks: a message is under way
        yield Send(CLIENT, reply.octets)
        message = Message(Newlines(self.terms.options.get("newlines", "normalize")), self._trace())
        early = yield from self._accepting(message)
        if message.offended:
            yield Abort(BACKEND)
            yield Note("client-bare-newline")
            yield Send(CLIENT, b"521 5.5.2 Bare newline in message data\r\n")
            yield Close("client-bare-newline")
        if early and self._verdicts > 1:
            # Nobody knows about whom it is: the success of another recipient would be told as this one's.
            self._outstanding = b"DATA"
            raise broken(TOO_EARLY)
        yield from self._verdict(b"DATA")
        if early:
            raise broken(TOO_EARLY)

    def _accepting(self, message: Message) -> Generator[Request, Any, bool]:
        """The client's message goes to the backend.  Returns whether that gives its verdict before the end."""
        try:
            *lines, rest = (yield Pass(CLIENT, message)).split(b"\n")
        except Lost as lost:
            if lost.side is BACKEND:
                heard = yield Await((BACKEND,), FINAL, VERDICTS)  # why it left, if it said so
                yield from self._unasked(heard.text if isinstance(heard, Line) else b"")
            raise
        return bool(rest) or any(map(VERDICT.match, lines))

    def _verdict(self, verb: bytes) -> Script:
        """What the backend says to a whole message.

        One rule stands above all others here: who has sent a message that the backend took is never told a failure, or
        would deliver it again.  So, other than everywhere else, nothing that surrounds a verdict ends the wait for it,
        and a verdict of which a line is there counts, although the rest is lost.
        """
        self._outstanding = verb
        delivered = False
        rest: bytes | None = None
        for more in reversed(range(self._verdicts)):
            lines: list[bytes] = []
            trouble: Trouble | None = None
            try:
                rest = yield from self._judged(lines, rest, more=more > 0)
            except Trouble as befallen:
                if not lines:
                    raise
                trouble = befallen
            reply = Reply((*lines[:-1], lines[-1][:3] + b" " + lines[-1][4:] if lines[-1][3:] else lines[-1]))
            if reply.positive and not delivered:
                delivered = True
                yield from self._delivered()
            if more and trouble is None:
                yield Send(CLIENT, reply.octets)  # whatever it is: it is about one recipient
                continue
            self._outstanding = verb if more else b""
            self._end_transaction()
            yield from self._pass_on(reply)
            if trouble is not None:
                raise trouble
        if rest is not None:
            yield from self._unasked(rest)

    def _judged(self, lines: list[bytes], first: bytes | None, *, more: bool) -> Generator[Request, Any, bytes | None]:
        """Collect the lines of a verdict, of which `first` may be there already.  Returns the line behind it that
        ended it, if one did.

        A line with another code begins another reply: a positive one that had begun stands, a refusal gives way (421
        may come at any time, RFC 5321 3.8) unless `more` verdicts are due.  3yz is no verdict, and neither is what is
        no reply at all.
        """
        told = False
        octets = 0
        while True:
            if first is None:
                heard = yield Await((BACKEND,), FINAL, VERDICTS)
                text = heard.text if isinstance(heard, Line) else b""
            else:
                text, first = first, None
            if len(text) > REPLY_LINE:
                text = text[:COMMAND_LINE]  # its code is what counts, and clients take no such line
            match = VERDICT.match(text)
            if match is None:
                if ASIDE.match(text):
                    yield from self._aside(text, shown=not lines)
                elif not told:
                    told = True
                    yield Note(PROTOCOL_ERROR, (("detail", f"before its verdict: {text[:80]!r}"),))
                continue
            code, mark, words = match.groups()
            if lines and code != lines[0][:3]:
                if more or lines[0].startswith(b"2"):
                    return text
                lines.clear()
            lines.append(text if REPLY.match(text) else code + (mark or b" ") + words)
            octets += len(text)
            if mark != b"-":
                return None
            within_bounds(len(lines), octets)

    def _delivered(self) -> Script:
        self._messages += 1
        self.trusted = True
        yield Tally("messages")

    def _bdat(self, argument: bytes) -> Script:
        match _BDAT.match(argument):
            case None:
                yield from self._bad_chunk()
            case found:
                yield from self._take_chunk(int(found[1]), last=found[2] is not None)

    def _bad_chunk(self) -> Script:
        """The octets that follow cannot be told from commands."""
        yield Send(CLIENT, b"501 5.5.4 Syntax: BDAT count [LAST]\r\n")
        yield Close("client-bad-bdat")

    def _take_chunk(self, octets: int, *, last: bool) -> Script:
        refusal = self._bdat_refusal()
        if refusal:
            if octets > SWALLOWED_CHUNK:
                yield Send(CLIENT, b"421 4.7.0 %s Too many errors\r\n" % self.terms.hostname)
                yield Close("client-refused-chunk")
            # RFC 3030 2: a refused chunk is still read, or it would be taken for commands.
            yield Pass(CLIENT, Counted(octets), forward=False)
            yield from self._refuse(refusal)
            return
        if octets > LARGEST_CHUNK:
            yield Send(CLIENT, b"552 5.3.4 Chunk exceeds the limit\r\n")
            yield Close("client-refused-chunk")
        header = b""
        if octets or last:
            header = self._trace()
        if header and octets:
            first = yield Peek(CLIENT)
            if first[:1] in (b" ", b"\t"):
                header += b"\r\n"
        self._outstanding = b"BDAT"
        yield Send(BACKEND, b"BDAT %d%s\r\n%s" % (octets + len(header), b" LAST" if last else b"", header))
        yield Pass(CLIENT, Counted(octets))
        if last:
            yield from self._verdict(b"BDAT")
        else:
            reply = yield from self._reply()
            if not reply.positive:
                # RFC 3030 2: only RSET is certain now, and a chunk might be taken for commands.
                self._spoil()
            yield from self._pass_on(reply)

    def _bdat_refusal(self) -> bytes:
        if self.closed:
            return MUST_STARTTLS
        if self._must_greet:
            return self.greet_first
        if not self._chunking:
            return b"502 5.5.1 Command not implemented"
        if not self._recipients:
            return b"503 5.5.1 Need RCPT command"
        return b""

    def _burl(self, text: bytes, argument: bytes) -> Script:
        """RFC 4468.  What the backend fetches comes behind our trace field, sent as a chunk."""
        if extensions.refuses_command(b"BURL", self._withheld):
            yield from self._refuse(b"502 5.5.1 Command not implemented")
            return
        header = self._trace() if self._recipients else b""
        if header:
            self._outstanding = b"BDAT"
            yield Send(BACKEND, b"BDAT %d\r\n%s" % (len(header), header))
            reply = yield from self._reply(relayed=False)
            if not reply.positive:
                self._spoil()
                yield from self._pass_on(reply)
                return
        if argument.upper().split()[-1:] == [b"LAST"]:
            if not self.reached:
                yield from self._reach(b"BURL")
            yield Send(BACKEND, text + b"\r\n")
            yield from self._verdict(b"BURL")
            return
        reply = yield from self._ask(b"BURL", text, FINAL)
        if not reply.positive:
            self._spoil()  # the backend may have dropped the transaction: further chunks are swallowed
        yield from self._pass_on(reply)


def begins_chunk(line: bytes) -> bool:
    """Whether the client sends the octets of a chunk behind this line, however bad it is."""
    return _CHUNK.match(line) is not None
