"""What is fuzzed: each parser as a function of octets that raises if anything is wrong.

Whatever a stranger can send is sent here: to sessions of each protocol, on either leg and at any moment (`smtp`,
`imap`, `pop3`, `managesieve`, `postgresql`, `irc`, `ftp`), to the filter of messages, the reader of PROXY headers, the
editors of capability lists, and, though its author is no stranger, to the reader of the configuration.

Besides exceptions and hangs they look for what may never be: see `AssertionError`s.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from gateway.config import ConfigurationError, Machine, parse
from gateway.dialects import DIALECTS, conversation
from gateway.dialects.base import BackendTLS, Identity, Policy, Terms
from gateway.dialects.mail import ehlo, extensions, strings
from gateway.dialects.mail.imap import capabilities, syntax
from gateway.dialects.mail.managesieve import syntax as sieve
from gateway.dialects.mail.message import END, Message, Newlines
from gateway.dialects.mail.pop3 import words as pop3_words
from gateway.protocol.driver import Negotiation
from gateway.protocol.filters import Counted
from gateway.protocol.proxyprotocol import Header, Origin, ProxyError
from gateway.protocol.vocabulary import (
    Action,
    Close,
    Dial,
    Expired,
    IsBroken,
    MayLogIn,
    Open,
    Patience,
    Send,
    Side,
    Splice,
    StartTLS,
)
from tests.pure.playbook import LISTENING, TLS13, terms

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND

# --- sessions -------------------------------------------------------------------------------------

SEPARATOR = b"\xff"
"""Between the steps of a session; the octet itself is never part of one."""
MOST = 32768
"""Octets of one session; a larger one only takes longer."""

GUARDED = frozenset(b"AUTH MAIL RCPT DATA BDAT BURL LOGIN AUTHENTICATE APPEND SELECT USER PASS APOP RETR DELE".split())
"""What no backend may hear while TLS is required and is not there."""
OWN = b"AUTH TLS\r\n"
"""What the gateway itself says to an FTP server that has TLS: no client's AUTH goes through."""
_ANSWERS = "tests.pure.contract.answers.%s"
PASSED: Mapping[str, re.Pattern[bytes]] = {
    name: re.compile(
        rb"(?:%s)*" % importlib.import_module(_ANSWERS % name.replace("-", "_")).ANSWERS.before_tls, re.DOTALL
    )
    for name, dialect in DIALECTS.items()
    if dialect.first is CLIENT
}
"""All that it may hear then, of clients that speak first."""

Ends = frozenset[Side]


class Session:
    """A negotiation with somebody who performs its actions and looks at each."""

    def __init__(self, protocol: str, agreed: Terms) -> None:
        self._terms = agreed
        self._verb = 1 if protocol == "imap" else 0
        self._passed = PASSED.get(protocol)
        self.negotiation = Negotiation(DIALECTS[protocol].script(agreed))
        self._switching: Side | None = None
        self._mute: set[Side] = set()
        self._secure = False
        self.closed = False
        self.heard = b""
        self.dials = 0

    @property
    def _guarded(self) -> bool:
        return self._terms.policy is Policy.REQUIRED and not self._secure

    def take(self, actions: Iterable[Action]) -> None:
        for action in actions:
            assert not self.closed, f"{action} behind the end"
            match action:
                case Send(side, octets):
                    assert octets, "a send of nothing"
                    assert side not in self._mute, f"{octets!r} in the clear behind the go-ahead"
                    if side is BACKEND and self._guarded:
                        self._look(octets)
                case StartTLS(side):
                    assert self._switching is None
                    self._switching = side
                    self._mute.add(side)
                    early = self.negotiation.early(side)
                    assert not early or (side is CLIENT and early.startswith(b"\x16")), early
                case Dial():
                    self.dials += 1
                    self._mute.discard(BACKEND)
                    if self._switching is BACKEND:
                        self._switching = None
                case MayLogIn():
                    self.take(self.negotiation.answered(True))
                case IsBroken():
                    self.take(self.negotiation.answered(True))
                case Open():
                    self.take(self.negotiation.answered(LISTENING))
                case Close() | Splice():
                    self.closed = True
                    assert not (isinstance(action, Splice) and self._guarded), "a splice in the clear"
        assert self.closed == self.negotiation.over

    def _look(self, octets: bytes) -> None:
        """At what the backend hears while nothing that matters may reach it."""
        if self._passed is not None:
            assert self._passed.fullmatch(octets), f"the backend hears {octets!r}"
            return
        if octets == OWN and self._terms.backend_tls is BackendTLS.STARTTLS:
            return
        for line in octets.split(b"\n"):
            words = line.upper().split()[self._verb : self._verb + 1]
            assert not GUARDED & set(words), f"the backend hears {line!r}"

    def step(self, kind: bytes, octets: bytes) -> None:
        negotiation = self.negotiation
        waiting = negotiation.waiting
        if isinstance(waiting, Dial):
            # At once, unless this step is its failure; what comes while dialling is for the client alone to say.
            if kind == b"U":
                self.take(negotiation.undialled("refused"))
                return
            if kind == b"d" and octets and CLIENT is not self._switching:
                self.take(negotiation.receive(CLIENT, octets))
                return
            self.take(negotiation.dialled())
        elif self._switching is not None:
            side, self._switching = self._switching, None
            if kind == b"F":
                self.take(negotiation.unsecured(side, "no shared cipher"))
                return
            self._mute.discard(side)
            self._secure = self._secure or side is CLIENT
            self.take(negotiation.secured(side, TLS13))
        if self.closed or isinstance(negotiation.waiting, Dial):
            return
        match kind:
            case b"C" | b"c" if octets and self._switching is not CLIENT:
                self._receive(CLIENT, octets, kind == b"c")
            case b"B" | b"b" if octets and self._switching is not BACKEND:
                self._receive(BACKEND, octets, kind == b"b")
            case b"E":
                self.take(negotiation.ended(CLIENT, orderly=True))
            case b"e":
                self.take(negotiation.ended(BACKEND, orderly=True))
            case b"R":
                self.take(negotiation.ended(CLIENT, orderly=False))
            case b"r":
                self.take(negotiation.ended(BACKEND, orderly=False))
            case b"X":
                side = BACKEND if octets[:1] == b"b" else CLIENT
                self.take(negotiation.expire(Expired(side, Patience.REPLY)))
            case b"S":
                self.take(negotiation.stop())

    def _receive(self, side: Side, octets: bytes, singly: bool) -> None:
        size = 1 if singly else len(octets)
        for at in range(0, len(octets), size):
            if self.closed or self._switching is side or isinstance(self.negotiation.waiting, Dial):
                return
            self.take(self.negotiation.receive(side, octets[at : at + size]))


def _terms(flags: bytes, protocol: str) -> Terms:
    """Four octets -> what was agreed on before the session."""
    policy, ways, backend, more = flags
    identities = [
        name for name in ("none", "xclient", "id", "webirc") if name in {"none", *DIALECTS[protocol].identities}
    ]
    return terms(
        policy=list(Policy)[policy % len(Policy)],
        implicit=bool(ways & 1),
        lazy=bool(ways & 2),
        proxied=bool(ways & 4),
        received=not ways & 8,
        backend_tls=list(BackendTLS)[backend % len(BackendTLS)],
        identity=Identity(identities[more % len(identities)]),
        newlines=list(Newlines)[(more >> 4) % len(Newlines)],
        origin=Origin(("192.0.2.10", 40000), ("192.0.2.1", 25)),
    )


def session(protocol: str, octets: bytes) -> None:
    """Four octets of terms, then steps: a letter and what is said, see `Session.step`."""
    if len(octets) < 4 or len(octets) > MOST:
        return
    talk = Session(protocol, _terms(octets[:4], protocol))
    talk.take(talk.negotiation.start())
    for step in octets[4:].split(SEPARATOR):
        if talk.closed:
            return
        if step:
            talk.step(step[:1], step[1:])


# --- messages ---------------------------------------------------------------------------------------

LENIENT = (b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\r\n", b"\r\n.\r", b"\n.\r", b"\r.\n", b"\r\r\n.")
"""What some server takes for an end of data."""


def message(octets: bytes) -> None:
    """An octet of options, one that says how it is cut, and a message."""
    if len(octets) < 2 or len(octets) > MOST:
        return
    newlines = list(Newlines)[octets[0] % len(Newlines)]
    header = b"Received: by gw\r\n" if octets[0] & 4 else b""
    data = octets[2:]
    whole = _filtered(newlines, header, [data])
    size = octets[1] % 7 + 1
    pieces = _filtered(newlines, header, [data[at : at + size] for at in range(0, len(data), size)])
    # How much of an offending message had left is for the network to decide.
    assert whole == pieces or newlines is Newlines.REJECT, (whole, pieces)
    told, rest, offended = whole
    if rest is not None and not offended:
        assert told.endswith(END)
        body = b"\r\n" + told.removeprefix(header)
        assert b"\r\n.\r\n" not in body[:-3], "the message ends twice"
        if newlines is Newlines.NORMALIZE:
            assert b"\0" not in body
            assert body.count(b"\r") == body.count(b"\n") == body.count(b"\r\n")
            assert not [end for end in LENIENT if end in body[:-5] + body[-1:] and end != b"\r\n."]
    counted = Counted(octets[0])
    passed, left = counted.feed(data)
    assert passed + (left or b"") == data


def _filtered(newlines: Newlines, header: bytes, pieces: Iterable[bytes]) -> tuple[bytes, bytes | None, bool]:
    """What leaves, what is behind the end (None: there is none), whether it offended."""
    parser = Message(newlines, header)
    told, rest = b"", None
    for piece in pieces:
        if rest is not None:
            rest += piece
            continue
        more, rest = parser.feed(piece)
        told += more
    return told, rest, parser.offended


# --- PROXY headers ----------------------------------------------------------------------------------


def proxy(octets: bytes) -> None:
    """A header, whole and octet by octet."""
    if len(octets) <= 4096:
        assert _told([octets]) == _told([octets[at : at + 1] for at in range(len(octets))])


def _told(pieces: Iterable[bytes]) -> object:
    header = Header()
    origin, rest = None, None
    for piece in pieces:
        if rest is not None:
            rest += piece
            continue
        try:
            told = header.feed(piece)
        except ProxyError as error:
            return str(error)
        if told is not None:
            origin, rest = told.origin, told.rest
    return origin, rest


# --- lists of capabilities ----------------------------------------------------------------------------


def lists(octets: bytes) -> None:
    """An octet that says whose, and lines; editing twice is editing once, and what must be hidden is."""
    if not octets or len(octets) > MOST:
        return
    kind, lines = octets[0] % 4, octets[1:].split(b"\r\n")
    match kind:
        case 0:
            for stage in conversation.Stage:
                told = ehlo.edit(lines, stage)
                assert ehlo.edit(told, stage) == told
                # The first line is the domain, which is never touched; the last may be our own.
                words = [ehlo.keyword(line) for line in told[1:]]
                assert words.count(b"STARTTLS") == (stage is not conversation.Stage.SECURE)
                assert not any(extensions.is_hidden(word) for word in words)
                assert stage is not conversation.Stage.CLOSED or not ehlo.AUTH & set(words)
                assert b"EXTERNAL" not in ehlo.mechanisms(told[1:])
        case 1:
            for line in lines:
                for level in conversation.Stage:
                    once = capabilities.edit_line(line, level)
                    assert capabilities.edit_line(once, level) == once
                    tokens = capabilities.capabilities(once)
                    if level is conversation.Stage.SECURE:
                        assert b"STARTTLS" not in tokens
                        assert b"AUTH=EXTERNAL" not in tokens
                    if level is conversation.Stage.CLOSED:
                        assert not [token for token in tokens if token.startswith(b"AUTH=")]
        case 2:
            for place in pop3_words.HIDDEN:
                kept = pop3_words.edit_capabilities(lines, place)
                assert pop3_words.edit_capabilities(kept, place) == kept
                keys = {line.split()[0].upper() for line in kept if line.split()}
                assert b"STLS" not in keys
                assert b"XCLIENT" not in keys
        case _:
            for line in lines:
                try:
                    edited = syntax.edit_id(line)
                except syntax.Malformed:
                    continue
                assert syntax.edit_id(edited) == edited


def sieve_lists(octets: bytes) -> None:
    """A reply of ManageSieve's: read whole, and its capabilities edited twice as once."""
    if len(octets) > MOST:
        return
    lines = [line for line in strings.units(octets) if sieve.is_capability(line)]
    for stage in (conversation.Stage.CLOSED, conversation.Stage.OPEN, conversation.Stage.SECURE):
        told = sieve.edit_capabilities(lines, stage)
        assert sieve.edit_capabilities(told, stage) == told
        names = [sieve.capability(line)[0] for line in told]
        assert names.count(b"STARTTLS") == (stage is not conversation.Stage.SECURE)
        assert b"XCLIENT" not in names
        assert b"EXTERNAL" not in sieve.mechanisms(told)
        assert stage is not conversation.Stage.CLOSED or not sieve.mechanisms(told)
    sieve.listed(octets)


# --- the configuration ----------------------------------------------------------------------------------

MACHINE = Machine(
    Path("/"), hostname=lambda: "mx.example.org", complaint=lambda path: None, is_local=lambda host: False
)


def config(octets: bytes) -> None:
    """A file: it is read, or its mistakes are told."""
    if len(octets) > MOST:
        return
    text = octets.decode("utf-8", "replace")
    with suppress(ConfigurationError):
        parse(text, "gateway.ini", DIALECTS, MACHINE)


def _of(protocol: str) -> Callable[[bytes], None]:
    return lambda octets: session(protocol, octets)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    **{protocol: _of(protocol) for protocol in DIALECTS},
    "message": message,
    "proxy": proxy,
    "lists": lists,
    "sieve-lists": sieve_lists,
    "config": config,
}
