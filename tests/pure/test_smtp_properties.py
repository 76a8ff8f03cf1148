"""Whatever is said, and however the network cuts it: SMTP's properties, against backends strict and sloppy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dialects.base import Policy
from gateway.dialects.mail import extensions
from gateway.dialects.mail.message import Newlines
from gateway.dialects.mail.smtp import DIALECT
from gateway.protocol.vocabulary import Close, Dial, Expired, Patience, Send, Side, Splice
from tests.pure.playbook import TLS13, Stage, Switch, terms
from tests.pure.smtp_talk import GREETING, REPLY
from tests.pure.test_filters import BACKENDS, STRICT

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND


@dataclass
class Legacy:
    """A backend that trusts our address.  What it takes for a command is in `commands`."""

    end: bytes = STRICT
    """What ends a message for it, as a pattern that begins with a line end."""
    splits_at_cr: bool = False
    esmtp: bool = True
    counts_in_32_bits: bool = False
    swallows: bool = True
    """... the chunks that come outside a transaction.  RFC 3030 2 has them all swallowed; who does not even do so
    inside one must not be offered a gateway that passes CHUNKING on."""
    refuses: frozenset[int] = frozenset()
    """Numbers of commands that it answers 550; a refused message ends its transaction."""
    commands: list[bytes] = field(default_factory=list)
    messages: list[bytes] = field(default_factory=list)
    unread: bytes = b""
    _state: str = "command"
    _chunk: int = 0
    _recipients: int = 0
    _prompts: int = 0

    def hear(self, octets: bytes) -> bytes:
        """What it answers."""
        self.unread += octets
        replies = b""
        while (reply := self._step()) is not None:
            replies += reply
        return replies

    def _step(self) -> bytes | None:
        if self._state == "data":
            end = re.search(STRICT + rb"|" + self.end, b"\r\n" + self.unread)
            if end is None:
                return None
            self.messages.append(self.unread[: end.end() - 2])
            self.unread = self.unread[end.end() - 2 :]
            self._state, self._recipients = "command", 0
            return b"250 2.0.0 Ok: queued\r\n"
        if self._state == "chunk":
            if len(self.unread) < self._chunk:
                return None
            self.unread = self.unread[self._chunk :]
            self._state = "command"
            return b"250 chunk\r\n" if self._recipients else b"554 no\r\n"
        line_end = re.search(rb"\r\n|\r|\n" if self.splits_at_cr else rb"\r?\n", self.unread)
        if line_end is None:
            return None
        line, self.unread = self.unread[: line_end.start()], self.unread[line_end.end() :]
        if self._state == "sasl":
            self._prompts -= 1
            if self._prompts and line != b"*":
                return b"334 \r\n"
            self._state = "command"
            return b"501 cancelled\r\n" if line == b"*" else b"235 ok\r\n"
        return self._command(line)

    def _command(self, line: bytes) -> bytes:
        self.commands.append(line)
        verb, *arguments = line.upper().split() or [b""]
        refused = len(self.commands) in self.refuses
        if verb == b"BDAT" and arguments and arguments[0].isdigit():
            count = int(arguments[0]) % 2**32 if self.counts_in_32_bits else int(arguments[0])
            if not self._recipients and not self.swallows:
                return b"503 no\r\n"
            if refused:
                self._recipients = 0
            self._state, self._chunk = "chunk", count
            return b""
        if refused:
            if verb == b"DATA":
                self._recipients = 0
            return b"550 no\r\n"
        match verb:
            case b"EHLO":
                self._recipients = 0
                return REPLY if self.esmtp else b"502 what\r\n"
            case b"RCPT":
                self._recipients += 1
            case b"DATA":
                self._state = "data"
                return b"354 Go ahead\r\n"
            case b"AUTH":
                self._state, self._prompts = "sasl", 2
                return b"334 \r\n"
            case b"QUIT":
                return b"221 2.0.0 Bye\r\n"
            case b"RSET" | b"HELO" | b"MAIL":
                self._recipients = 0
            case b"":
                return b"500 what\r\n"
        return b"250 ok\r\n"


def cut(octets: bytes, sizes: Iterable[int]) -> list[bytes]:
    """Pieces of these sizes, again and again."""
    pieces: list[bytes] = []
    steps = list(sizes) or [len(octets) or 1]
    while octets:
        size = steps[len(pieces) % len(steps)]
        pieces.append(octets[:size])
        octets = octets[size:]
    return pieces


class Talk:
    """A negotiation between a client's octets and a Legacy."""

    def __init__(self, backend: Legacy, sizes: Iterable[int] = (), **agreed: Any) -> None:
        self.stage = Stage(DIALECT, terms(**agreed))
        self.backend = backend
        self.sizes = list(sizes)
        self._done = 0
        self._greeted = False
        self.stage.take(self.stage.negotiation.start())
        self.pump()

    def client(self, octets: bytes) -> None:
        for piece in cut(octets, self.sizes):
            if self.stage.switching:  # TLS goes up with the first octet behind the go-ahead
                self.stage.secured(TLS13)
            self.stage.receive(CLIENT, piece)
            self.pump()

    def pump(self) -> None:
        while self._done < len(self.stage.deeds):
            deed = self.stage.deeds[self._done]
            self._done += 1
            answer = b""
            match deed:
                case Dial():
                    self.stage.take(self.stage.negotiation.dialled())
                    answer = GREETING
                case Send(side, octets) if side is BACKEND:
                    answer = self.backend.hear(octets)
                case Switch() if not self.stage.negotiation.over and deed.side is CLIENT and deed.early == b"":
                    continue
            for piece in cut(answer, self.sizes):
                self.stage.receive(BACKEND, piece)

    @property
    def over(self) -> bool:
        return self.stage.negotiation.over


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""
SEGMENTS = st.sampled_from(
    [
        b"EHLO a\r\n", b"HELO a\r\n", b"MAIL FROM:<a>\r\n", b"RCPT TO:<b>\r\n", b"DATA\r\n", b".\r\n", b"RSET\r\n",
        b"NOOP\r\n", b"QUIT\r\n", b"STARTTLS\r\n", b"STARTTLS x\r\n", b"VRFY x\r\n", b"\r\n", b"\n", b"\r", b"\0", b".",
        b"XCLIENT ADDR=1.2.3.4\r\n", b"XFORWARD A=b\r\n", b" ", b"x", b"\xff", b"TURN\r\n", b"BURL x LAST\r\n",
        b"BDAT 22\r\n", b"BDAT 22 LAST\r\n", b"BDAT 0 LAST\r\n", b"BDAT 4294967296 LAST\r\n", b"BDAT 0\r\n",
        b"AUTH LOGIN\r\n", b"AUTH EXTERNAL\r\n", b"AUTH external\r\n", b"AUTH DIGEST-MD5\r\n", b"*\r\n", b"eA==\r\n",
        b"AUTH PLAIN eA==\r\n", b"x" * 600 + b"\r\n", b"GET / HTTP/1.0\r\n", b"\x16\x03\x01",
        b"\r\n.\n", b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\r\n", b"a\r\n", b"b\n",
    ]
)  # fmt: skip
ENVELOPE = st.just(b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\n")
EVIL = b"XCLIENT ADDR=1.2.3.4\r\n"
ATTACKS = st.sampled_from(
    [
        b"BDAT 22\r\n" + EVIL, b"BDAT 22 LAST\r\n" + EVIL, b"BDAT 4294967301\r\nhello" + EVIL, b"DATA\r\nx\n.\n" + EVIL,
        b"HELO a\r\nAUTH DIGEST-MD5\r\neA==\r\neA==\r\n\0\r\n" + EVIL, b"AUTH LOGIN\r\n\0\r\n" + EVIL, b"NOOP\r" + EVIL,
        b"VRFY " + b"x" * 508 + EVIL,
    ]
)  # fmt: skip
STREAMS = st.lists(st.one_of(SEGMENTS, SEGMENTS, ENVELOPE, ATTACKS), max_size=14).map(b"".join)
SIZES = st.lists(st.integers(min_value=1, max_value=40), max_size=4)
LEGACIES = st.builds(
    Legacy,
    end=st.sampled_from(sorted(BACKENDS.values())),
    splits_at_cr=st.booleans(),
    esmtp=st.sampled_from([True, True, True, False]),
    counts_in_32_bits=st.booleans(),
    swallows=st.booleans(),
    refuses=st.frozensets(st.integers(min_value=1, max_value=12), max_size=2),
)
EHLO = b"EHLO client.example.com\r\n"


def verbs(commands: Iterable[bytes]) -> set[bytes]:
    return {re.split(rb"[\s=:]", command.strip().upper())[0] for command in commands}


@pytest.mark.no_cover
@settings(UNHURRIED, max_examples=250)
@given(LEGACIES, STREAMS, SIZES, st.sampled_from(Policy), st.booleans(), st.booleans())
def test_no_backend_however_sloppy_hears_a_command_that_speaks_for_others(
    backend: Legacy, stream: bytes, sizes: list[int], policy: Policy, tls: bool, received: bool
) -> None:
    talk = Talk(backend, sizes, policy=policy, implicit=tls, received=received, bad_commands=100)
    if tls:
        talk.stage.secured(TLS13)
        talk.pump()
    talk.client(EHLO)
    talk.client(stream)
    heard = verbs(backend.commands)
    assert not {verb for verb in heard if extensions.refuses_command(verb)}
    assert not heard & {b"STARTTLS", b"TURN", b"ATRN", b"GET"}
    assert not [line for line in backend.commands if line.upper().split()[:2] == [b"AUTH", b"EXTERNAL"]]
    if not tls and policy is not Policy.OPTIONAL and not any(isinstance(deed, Switch) for deed in talk.stage.deeds):
        assert b"AUTH" not in heard


@settings(UNHURRIED, max_examples=100)
@given(LEGACIES, STREAMS, SIZES, st.booleans())
def test_in_the_clear_and_required_the_backend_hears_nothing_that_matters(
    backend: Legacy, stream: bytes, sizes: list[int], lazy: bool
) -> None:
    talk = Talk(backend, sizes, policy=Policy.REQUIRED, lazy=lazy, bad_commands=100)
    talk.client(stream.replace(b"STARTTLS\r\n", b""))
    assert verbs(backend.commands) <= {b"EHLO", b"HELO", b"QUIT"}
    if lazy:
        assert not backend.commands
    elif backend.esmtp and not backend.refuses:
        assert b"HELO" not in verbs(backend.commands)


HONEST = st.lists(
    st.sampled_from(
        [
            b"NOOP\r\n", b"VRFY a\r\n", b"RSET\r\n", EHLO, b"FOO\r\n", b"XCLIENT A=b\r\n", b"\n", b"AUTH EXTERNAL\r\n",
            b"AUTH LOGIN\r\neA==\r\neQ==\r\n", b"AUTH LOGIN\r\n*\r\n", b"STARTTLS\r\n",
            b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n.\r\n",
            b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\nDATA\r\n a\r\n..\r\nb\nc\rd\0\r\n.\r\n",
            b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\nBDAT 5\r\n\r\n.\r\nBDAT 1 LAST\r\nx",
            b"MAIL FROM:<a>\r\nRCPT TO:<b>\r\nBURL x LAST\r\n", b"BDAT 7\r\nXCLIENT",
        ]
    ),
    max_size=8,
).map(b"".join)  # fmt: skip


def said(talk: Talk) -> list[object]:
    """Everything that was done, as far as the cuts may not matter."""
    return [
        talk.stage.heard_by(CLIENT),
        talk.stage.heard_by(BACKEND),
        talk.backend.commands,
        talk.backend.messages,
        [deed for deed in talk.stage.deeds if isinstance(deed, Close | Splice)],
    ]


@settings(UNHURRIED, max_examples=100)
@given(HONEST, HONEST, SIZES, st.sampled_from(Policy), st.sampled_from(Newlines))
def test_how_the_network_cuts_octets_changes_nothing(
    clear: bytes, secure: bytes, sizes: list[int], policy: Policy, newlines: Newlines
) -> None:
    clear = clear.replace(b"STARTTLS\r\n", b"") + b"RSET\r\nSTARTTLS\r\n"
    played = []
    for cuts in ([], sizes, [1]):
        talk = Talk(Legacy(), cuts, policy=policy, newlines=newlines)
        talk.client(EHLO + clear)
        talk.client(EHLO + secure + b"QUIT\r\n")
        assert talk.over
        played.append(said(talk))
        if newlines is Newlines.REJECT:
            played[-1][1] = b""  # how much of an offending message went on before it offended is the network's choice
    assert played[0] == played[1] == played[2]


@settings(UNHURRIED, max_examples=250)
@given(st.data(), st.sampled_from(Policy), st.booleans(), st.booleans())
def test_garbage_from_either_side_never_raises(data: st.DataObject, policy: Policy, lazy: bool, implicit: bool) -> None:
    stage = Stage(DIALECT, terms(policy=policy, lazy=lazy, implicit=implicit, bad_commands=100))
    negotiation = stage.negotiation
    stage.take(negotiation.start())
    replies = st.one_of(
        st.sampled_from([b"250 ok\r\n", b"354 go\r\n", b"334 \r\n", b"235 ok\r\n", REPLY, b"220 hi\r\n", b"421 x\r\n",
                         b"250-x\r\n", b"502 what\r\n", b"\r\n", b"x" * 9000]),
        st.binary(max_size=20),
    )  # fmt: skip
    closed = 0
    for _ in range(data.draw(st.integers(min_value=0, max_value=25))):
        if negotiation.over or stage.spliced:
            break
        match negotiation.waiting:
            case Dial():
                if data.draw(st.booleans()):
                    stage.take(negotiation.dialled())
                else:
                    stage.take(negotiation.undialled("refused"))
                continue
        if stage.switching:
            if data.draw(st.integers(min_value=0, max_value=5)):
                stage.secured(TLS13)
            else:
                stage.unsecured("no")
            continue
        match data.draw(st.integers(min_value=0, max_value=30)):
            case 0:
                side = data.draw(st.sampled_from(Side))
                stage.take(negotiation.ended(side, data.draw(st.booleans())))
            case 1:
                stage.take(negotiation.expire(Expired(data.draw(st.sampled_from(Side)), Patience.DATA)))
            case 2:
                stage.take(negotiation.stop())
            case number if number % 2:
                stage.receive(CLIENT, data.draw(st.one_of(STREAMS, st.binary(max_size=30))))
            case _:
                stage.receive(BACKEND, data.draw(replies))
    closed = sum(isinstance(deed, Close | Splice) for deed in stage.deeds)
    assert closed == negotiation.over
