"""What old servers really say comes through, with exactly the edits that TLS and safety demand.

Each recorded server is a scripted backend: before TLS under each policy, after STARTTLS, and on an
implicit port; the client's side is what was recorded there.  An oracle that shares no code with the
dialects says what must follow from each step.  A command that ends the session (or a reply that does)
is played once, and then left out of another performance, so that what was recorded behind it is heard
as well.  Lists that the source cut off are played as they are (the server closes there) and completed.
A reply that the recording lacks is played so, too, and the exchange is then left out.

What stands in angle brackets is an event and no line of the client's.  While the client says nothing
(`<idle>`), the server speaks by itself; `<message>` behind DATA has the server's verdict on the message.
Nobody can tell what the client did at another event: it is left out with its reply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from gateway.dialects import DIALECTS
from gateway.dialects.base import Policy
from gateway.dialects.mail import ehlo, extensions
from gateway.dialects.mail.message import Newlines
from gateway.protocol.vocabulary import Side
from tests.pure.oracle import ORACLES, IMAPOracle, Outcome, POP3Oracle, SMTPOracle, wire
from tests.pure.playbook import SINGLE, WHOLE, terms
from tests.pure.rig import Happening, Rig

Server = Mapping[str, Any]

PLAINTEXT, AFTER_STARTTLS, IMPLICIT = "plaintext", "after STARTTLS", "implicit"
PHASES = (PLAINTEXT, AFTER_STARTTLS, IMPLICIT)

MESSAGE = b"Subject: x\r\n\r\nhello\r\n.\r\n"
BARE = b"Subject: x\r\n\r\nbare\nnewline\r\n.\r\n"
BARE_EVENT = "<DATA with a bare LF>"
EVENT = re.compile(r"<[^<>]*>\Z")
SILENCE = re.compile(r"<.*\b(?:idle|idling|silence|silent|nothing|time-?out|timed out|waits?|waiting)\b.*>\Z", re.I)
WHOLE_MESSAGE = re.compile(r"<(?:.* )?(?:message|mail|body|end of data)>\Z", re.I)

STARTTLS = {"smtp": b"STARTTLS", "imap": b"tls1 STARTTLS", "pop3": b"STLS"}
FAREWELL = {
    "smtp": (b"QUIT", (b"221 mail.example.test closing",)),
    "imap": (b"bye1 LOGOUT", (b"* BYE see you", b"bye1 OK done")),
    "pop3": (b"QUIT", (b"+OK bye",)),
}


@dataclass(frozen=True)
class Exchange:
    """What a client says, and what the server answers, in lines without terminator."""

    send: bytes
    reply: Sequence[bytes]
    number: int = -1
    """Its place in the recording; below 0 for what was added."""
    body: bytes = b""
    """The message, if the server asks for one."""
    verdict: Sequence[bytes] = ()
    response: bool = False
    """Recorded as an answer to a challenge."""
    silent: bool = False
    """The client says nothing: the reply is what the server says by itself."""


def test_what_an_old_server_says_is_relayed_with_the_right_edits(server: Server) -> None:
    for variant in variants(server):
        for policy, phase, cut, newlines in product(Policy, PHASES, (WHOLE, SINGLE), newline_policies(variant)):
            left_out: set[int] = set()
            while (ended := Performance(variant, policy, phase, cut, newlines).play(left_out)) is not None:
                left_out.add(ended)


def test_T01_every_extension_that_a_recorded_server_offers_is_in_the_table(server: Server) -> None:
    if server["protocol"] == "smtp":
        asked = [(server["hello"], server["reply"]), *((more["send"], more["reply"]) for more in server["more"])]
        offers = [
            reply[1:] for send, reply in asked if send.upper().startswith("EHLO") and reply and reply[0][:3] == "250"
        ]
        words = {ehlo.keyword(line[4:].encode("utf-8")) for lines in offers for line in lines} - {b""}
        assert [word for word in words if extensions.known(word) is None] == []


def variants(server: Server) -> Iterator[Server]:
    yield server
    if server["hello"] and not server["reply"]:
        yield {**server, "hello": ""}
    if server.get("truncated"):
        *lines, last = server["reply"]
        yield {**server, "reply": [*lines, last[:3] + " " + last[4:]]}


def newline_policies(server: Server) -> tuple[Newlines, ...]:
    """A server that refuses bare newlines shows that only where we let them through."""
    bare = any(more["send"] == BARE_EVENT for more in server["more"])
    return (Newlines.NORMALIZE, Newlines.PASS) if bare else (Newlines.NORMALIZE,)


class Performance:
    """One session with one recorded server."""

    def __init__(self, server: Server, policy: Policy, phase: str, cut: int, newlines: Newlines) -> None:
        self.server = server
        self.protocol: str = server["protocol"]
        self.charset = server.get("charset", "ascii")
        self.eol = server.get("eol", "\r\n").encode()
        self.phase = phase
        self.newlines = newlines
        agreed = terms(policy=policy, implicit=phase == IMPLICIT, newlines=newlines)
        self.rig = Rig(DIALECTS[self.protocol], agreed, cut)
        self.oracle: SMTPOracle | IMAPOracle | POP3Oracle = ORACLES[self.protocol](policy, phase == IMPLICIT)
        self.title = f"{policy.value}, {phase}"

    def play(self, left_out: set[int]) -> int | None:
        """The number of the exchange that ended the session before its time, or None."""
        happening = self.rig.start()
        if self.phase == IMPLICIT:
            assert happening.switched
            happening = self.rig.secured()
        assert happening.dialled
        self.rig.dialled()
        greeting = self.lines(self.server["greeting"])
        hoped = self.oracle.greeting(greeting)
        self.compare(hoped, self.rig.backend(self.wire(greeting)))
        if hoped.over:
            return None
        for exchange in self.script(left_out):
            if exchange.response and not self.oracle.dialogue:
                continue  # the challenge was refused by us: no client would answer
            if exchange.silent and self.oracle.data:
                continue
            if self.perform(exchange):
                return exchange.number if exchange.number >= 0 else None
        return None

    # --- the script ----------------------------------------------------------------------------

    def script(self, left_out: set[int]) -> list[Exchange]:
        recorded = [each for each in self.recorded() if each.number not in left_out]
        hello = self.hello()
        script = [hello] if hello.send and hello.number not in left_out else []
        if self.phase == PLAINTEXT:
            script += [
                each for each in recorded if not self.inside_tls(each) and each.send.upper() not in STARTTLS.values()
            ]
            script = [each for each in script if each.send.upper().split()[1:] != [b"STARTTLS"]]
        else:
            if self.phase == AFTER_STARTTLS:
                script += self.upgrade(hello, recorded)
            script += recorded
        return [*script, Exchange(*FAREWELL[self.protocol])]

    def upgrade(self, hello: Exchange, recorded: Sequence[Exchange]) -> list[Exchange]:
        """STARTTLS, and what clients say next: hello, answered as the server did inside TLS or a second time."""
        again = [Exchange(STARTTLS[self.protocol], ())]
        if self.protocol == "smtp":
            again.append(Exchange(b"HELP", ()))  # nothing goes before EHLO
        if hello.send:
            same = [each for each in recorded if each.send.split()[-1:] == hello.send.split()[-1:]]
            same = [each for each in same if each.send == hello.send or self.inside_tls(each)]
            inside = [each for each in same if self.inside_tls(each)]
            second = (inside or [each for each in same if each.send == hello.send] or [hello])[0]
            again.append(Exchange(second.send, second.reply))
        if self.protocol == "smtp" and not (hello.send and again[-1].reply[:1] and again[-1].reply[0][:3] == b"250"):
            again.append(Exchange(b"EHLO client.example.test", (b"250 mail.example.test",)))
        return again

    def hello(self) -> Exchange:
        send = self.server["hello"].encode(self.charset)
        if self.protocol == "imap" and send:
            send = b"a001 " + send
        return Exchange(send, self.lines(self.server["reply"]))

    def recorded(self) -> Iterator[Exchange]:
        challenged = False
        events = [each["send"] if EVENT.match(each["send"]) else "" for each in self.server["more"]]
        for number, more in enumerate(self.server["more"]):
            send, reply = more["send"].encode(self.charset), self.lines(more["reply"])
            exchange = Exchange(send, reply, number, response=challenged)
            if events[number] and events[number] != BARE_EVENT:
                if reply and SILENCE.match(events[number]):
                    yield replace(exchange, send=b"", silent=True)
                continue
            if more["send"] == BARE_EVENT:
                verdict = reply if self.newlines is Newlines.PASS else (b"250 ok",)
                exchange = replace(exchange, send=b"DATA", reply=(b"354 go ahead",), body=BARE, verdict=verdict)
            elif reply and reply[0].startswith(b"354"):
                following = "".join(events[number + 1 : number + 2])
                judged = WHOLE_MESSAGE.match(following) and self.lines(self.server["more"][number + 1]["reply"])
                exchange = replace(exchange, body=MESSAGE, verdict=judged or (b"250 queued",))
            yield exchange
            challenged = bool(reply) and self.challenges(send, reply[-1])

    def challenges(self, send: bytes, last: bytes) -> bool:
        """Whether the client's next line is an answer to this one."""
        if last[:3].upper() == b"+OK":  # to AUTH without data it is a go-ahead
            return self.protocol == "pop3" and len(send.split()) == 2 and send.upper().startswith(b"AUTH ")
        return last.startswith((b"334", b"+"))

    def inside_tls(self, exchange: Exchange) -> bool:
        return exchange.number >= 0 and bool(self.server["more"][exchange.number].get("tls"))

    def lines(self, texts: Sequence[str]) -> tuple[bytes, ...]:
        return tuple(text.encode(self.charset) for text in texts)

    def wire(self, lines: Sequence[bytes]) -> bytes:
        return b"".join(line + self.eol for line in lines)

    # --- the performance -----------------------------------------------------------------------

    def perform(self, exchange: Exchange) -> bool:
        """Play one exchange.  Returns whether the session is over."""
        if self.oracle.spliced:
            assert self.rig.spliced, self.told()
            if not exchange.silent:
                self.compare(Outcome(heard=exchange.send + b"\r\n"), self.rig.client(exchange.send + b"\r\n"))
            self.compare(Outcome(told=self.wire(exchange.reply)), self.rig.backend(self.wire(exchange.reply)))
            return False
        if exchange.silent:
            hoped = self.oracle.unasked(exchange.reply)
            self.compare(hoped, self.rig.backend(self.wire(exchange.reply)))
            return bool(hoped.over)
        hoped = self.oracle.command(exchange.send)
        self.compare(hoped, self.rig.client(exchange.send + b"\r\n"))
        if hoped.switched:
            self.oracle.switch()
            self.compare(Outcome(), self.rig.secured())
        if hoped.over or not hoped.heard:
            return bool(hoped.over)
        if self.answer(exchange.reply):
            return True
        if self.oracle.data:
            self.submit(exchange)
        return False

    def answer(self, lines: Sequence[bytes]) -> bool:
        hoped = self.oracle.reply(lines)
        happening = self.rig.backend(self.wire(lines))
        self.compare(hoped, happening)
        assert self.rig.spliced == self.oracle.spliced, self.told()
        assert happening.dialled == hoped.afresh, self.told()
        if hoped.afresh:
            self.compare(Outcome(), self.rig.dialled())
            self.compare(Outcome(heard=hoped.again), self.rig.backend(self.wire(self.lines(self.server["greeting"]))))
            return self.answer(self.hello().reply)
        if hoped.heard:  # HELO, asked by the gateway itself of a server that has no EHLO
            return self.answer(self.helo())
        if hoped.unfinished:
            hoped = self.oracle.lost()
            self.compare(hoped, self.rig.ended(Side.BACKEND, True))
        return bool(hoped.over)

    def helo(self) -> Sequence[bytes]:
        known = [each.reply for each in self.recorded() if each.send.upper().startswith(b"HELO")]
        return known[0] if known else (b"250 mail.example.test",)

    def submit(self, exchange: Exchange) -> None:
        happening = self.rig.client(exchange.body)
        trace, end, heard = happening.heard.partition(b" +0000\r\n")
        assert trace.startswith(b"Received: from "), self.told()
        assert end, self.told()
        normalized = exchange.body.replace(b"\r", b"").replace(b"\n", b"\r\n")
        assert heard == (exchange.body if self.newlines is Newlines.PASS else normalized), self.told()
        assert not happening.told, self.told()
        self.oracle.data = False
        self.compare(Outcome(wire(exchange.verdict)), self.rig.backend(self.wire(exchange.verdict)))

    def compare(self, hoped: Outcome, happening: Happening) -> None:
        assert happening.told == hoped.told, f"hoped for {hoped}\n{self.told()}"
        assert happening.over == hoped.over, f"hoped for {hoped}\n{self.told()}"
        assert happening.switched == hoped.switched, f"hoped for {hoped}\n{self.told()}"
        if hoped.over:
            assert happening.heard in (b"", b"QUIT\r\n") or happening.heard.endswith(b" LOGOUT\r\n"), self.told()
        else:
            assert happening.heard == hoped.heard, f"hoped for {hoped}\n{self.told()}"

    def told(self) -> str:
        return "\n".join([self.title, *self.rig.transcript])
