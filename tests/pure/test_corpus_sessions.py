"""What servers and clients of every protocol really said, played to the gateway.

A recorded session has both legs of a terminator that was made for the recording: its client says the same here, and its
backend answers what it hears, as long as it hears the same.  In every session:

* nothing raises, and a client that was answered then is answered;
* TLS begins where it began, and what a client says inside reaches the backend octet by octet;
* inside TLS the client is told what it was told then, but for an offer of STARTTLS;
* under `required` the backend hears before TLS nothing but what the contract's answers allow.

Answers before TLS are the recorder's own and are not compared.

A recorded server was talked to directly.  It stands behind the gateway here: once for a client inside TLS, once in the
clear under each policy.  A command that reaches it unchanged gets its recorded answer, and the client is told no line
that the server did not say, apart from edited lists.  Where the gateway answers by itself, the recorded answer is left
out.  Where it says something else to the server, or the first of several commands, the recording has no answer to that:
the play ends there.
"""

from __future__ import annotations

import importlib
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from typing import Any, Final

from gateway.dialects import DIALECTS
from gateway.dialects.base import Policy
from gateway.protocol.vocabulary import Side
from tests.pure.contract.form import ClientFirst, Named, Shared
from tests.pure.playbook import SINGLE, WHOLE, terms
from tests.pure.rig import Happening, Rig

Entry = Mapping[str, Any]
Step = Mapping[str, Any]

ESCAPE: Final = re.compile(rb"\\(x[0-9a-f]{2}|.)", re.DOTALL)
OWN: Final = (b"STARTTLS\r\n", b"PORT ", b"EPRT ", b"PROT C\r\n", b"EPSV ALL\r\n")
CUT: Final = re.compile(r"\.\.\.\[(?:cut )?\d+\]")
"""Where the recorder has left octets out: the play ends before."""
OFFER: Final = re.compile(rb'(?m)^(?:(?:250[ -])?"?STARTTLS"?| AUTH TLS| PBSZ| PROT| EPRT)\r\n')
"""What terminators add and take away by themselves; EPRT is active mode."""
PLACE: Final = re.compile(rb"\((?:\|\|\|[0-9]+\||[0-9,]+)\)")
"""Where a data connection is listened for: the terminator's own (RFC 959 5.4, RFC 2428 3)."""
CODE: Final = re.compile(rb"[0-9]{3}[ -]")
LABEL: Final = re.compile(rb'"?[A-Z-]+"?(?= )')
"""Of a line in a list of capabilities, which may be edited."""


def label(line: bytes) -> bytes:
    found = LABEL.match(line)
    return found[0] if found else b""


def octets(escaped: str) -> bytes:
    return ESCAPE.sub(_unescaped, escaped.encode("latin-1"))


def _unescaped(match: re.Match[bytes]) -> bytes:
    sign = match[1]
    return (
        bytes.fromhex(sign[1:].decode()) if len(sign) == 3 else {b"r": b"\r", b"n": b"\n", b"t": b"\t"}.get(sign, sign)
    )


def comparable(told: bytes) -> bytes:
    return PLACE.sub(b"()", OFFER.sub(b"", told))


def answers(protocol: str) -> Named:
    found: Named = importlib.import_module(f"tests.pure.contract.answers.{protocol.replace('-', '_')}").ANSWERS
    return found


def test_a_recorded_session_goes_on_as_it_did(session: Entry) -> None:
    if "client" in session:
        for cut, steps in product((WHOLE, SINGLE), connections(session["steps"])):
            Replay(session, steps, cut).play()
    else:
        for cut, (policy, implicit) in product(
            (WHOLE, SINGLE), ((Policy.REQUIRED, True), *((p, False) for p in Policy))
        ):
            Visit(session, policy, cut, implicit=implicit).play()


def whole(steps: Sequence[Step]) -> list[Step]:
    """Up to the first step that the recorder has shortened."""
    cut = [any(CUT.search(value) for value in step.values() if isinstance(value, str)) for step in steps]
    return list(steps[: cut.index(True)] if any(cut) else steps)


def connections(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """A recording of one port may hold several connections: a client that speaks in the clear again has come anew."""
    one: list[Step] = []
    secured = False
    for step in whole(steps):
        if secured and step["leg"] == "client" and "send" in step and not step.get("in_tls"):
            yield one
            one, secured = [], False
        secured = secured or "tls" in step or "tls_failed" in step
        one.append(step)
    yield one


class Play:
    """One connection to the gateway."""

    def __init__(self, protocol: str, policy: Policy, cut: int, *, implicit: bool) -> None:
        self.protocol = protocol
        self.policy = policy
        self.rig = Rig(DIALECTS[protocol], terms(policy=policy, implicit=implicit, received=False), cut)
        self.secured = False
        self.told = b""
        self.heard = b""
        self.before = b""
        """What the backend heard before TLS with the client."""
        self.switched = False

    def look(self, happening: Happening) -> None:
        self.told += happening.told
        self.heard += happening.heard
        self.switched = self.switched or happening.switched
        if not self.secured:
            self.before += happening.heard
        if happening.dialled:
            self.look(self.rig.dialled())
            self.answer_greeting()
            self.answer_knock()

    def answer_greeting(self) -> None:
        raise NotImplementedError

    def answer_knock(self) -> None:
        """What the gateway itself asks a backend whose client speaks first (IRC)."""
        form = answers(self.protocol)
        if isinstance(form, ClientFirst) and form.knock and self.heard.startswith(form.knock):
            self.heard = self.heard.removeprefix(form.knock)
            self.look(self.rig.backend(form.greeting))

    def start(self) -> None:
        self.look(self.rig.start())
        if self.switched:
            self.shake_hands()

    def shake_hands(self, failure: str = "") -> None:
        assert self.switched, self.say("the client was to begin its handshake")
        self.switched = False
        self.secured = not failure
        self.look(self.rig.unsecured(failure) if failure else self.rig.secured())

    def leave(self) -> None:
        if not self.rig.over and not self.rig.spliced:
            self.look(self.rig.ended(Side.CLIENT, False))
            assert self.rig.over, self.say("the session is still there")
        form = answers(self.protocol)
        if self.policy is Policy.REQUIRED and isinstance(form, Shared):
            allowed = rb"(?:%s)*(?:%s)?" % (form.before_tls, re.escape(form.farewell))
            assert re.fullmatch(allowed, self.before, re.DOTALL), self.say(
                f"before TLS the backend hears {self.before!r}"
            )

    def say(self, fault: str) -> str:
        return "\n".join([fault, *self.rig.transcript])


class Replay(Play):
    """A recorded client with its recorded backend."""

    def __init__(self, entry: Entry, steps: Sequence[Step], cut: int) -> None:
        super().__init__(entry["protocol"], Policy.REQUIRED, cut, implicit=entry["mode"] == "implicit")
        # The gateway itself answers these, and says no to most: a second STARTTLS, active mode, data in the clear.
        own = [bool(step.get("in_tls")) and octets(step.get("send", "")).startswith(OWN) for step in steps]
        self.steps = steps = steps[: own.index(True)] if any(own) else steps
        self.backend = deque(
            (key == "gateway_to_backend", octets(step[key]))
            for step in steps
            for key in ("gateway_to_backend", "backend_to_gateway")
            if key in step
        )
        self.inside = 0
        """Where in `told` TLS begins."""
        self.hoped = b""
        """What the client was told inside TLS."""

    def answer_greeting(self) -> None:
        self.answer()

    def answer(self) -> None:
        """The backend says what it said, as far as it has heard what it had heard then."""
        while self.backend and not self.rig.over:
            hears, said = self.backend[0]
            if hears and not self.heard.startswith(said):
                return
            self.backend.popleft()
            if hears:
                self.heard = self.heard[len(said) :]
            else:
                self.look(self.rig.backend(said))

    def play(self) -> None:
        self.start()
        before = b""
        for step in self.steps:
            if step["leg"] == "client" and "send" in step and not self.rig.over:
                before = self.told
                self.look(self.rig.client(octets(step["send"])))
                self.answer()
            elif "tls" in step or "tls_failed" in step:
                if not self.secured and not (self.rig.over and "tls_failed" in step):
                    self.inside = len(self.told)
                    self.shake_hands(str(step.get("tls_failed", "")))
                    self.answer()
            elif step["leg"] == "client" and "reply" in step:
                assert self.told != before or self.switched or self.secured or self.rig.over, self.say(
                    "the client is not answered"
                )
                self.hoped += octets(step["reply"]) if step.get("in_tls") else b""
        told = self.told[self.inside :]
        if self.secured:
            assert not [said for hears, said in self.backend if hears], self.say("the backend hears less")
            assert comparable(told) == comparable(self.hoped), self.say(f"the client was told {self.hoped!r}")
        self.leave()


class Visit(Play):
    """A recorded server, and what was said to it."""

    def __init__(self, entry: Entry, policy: Policy, cut: int, *, implicit: bool) -> None:
        super().__init__(entry["protocol"], policy, cut, implicit=implicit)
        self.steps = deque(whole(entry["steps"]))
        form = answers(self.protocol)
        self.greeting = form.greeting if isinstance(form, Shared) else b""
        if DIALECTS[self.protocol].first is Side.BACKEND and "reply" in self.steps[0]:
            self.greeting = octets(self.steps.popleft()["reply"])

    def answer_greeting(self) -> None:
        if DIALECTS[self.protocol].first is Side.BACKEND:
            self.look(self.rig.backend(self.greeting))

    def play(self) -> None:
        self.start()
        steps = [step for step in self.steps if "note" not in step]
        for asked, answered in pairwise([*steps, {}]):
            if self.rig.over or "send" not in asked or not self.exchange(octets(asked["send"]), answered):
                break
        self.leave()

    def exchange(self, said: bytes, answered: Step) -> bool:
        """Whether the play can go on."""
        self.heard = b""
        self.look(self.rig.client(said))
        if self.switched:
            self.shake_hands()
            return False
        if self.heard != said:
            return not self.heard
        reply = octets(answered.get("reply", ""))
        self.told = b""
        self.look(self.rig.backend(reply))
        # XML has no lines; a list is edited by whole tags.
        end = rb"(?=<)" if reply.startswith(b"<") else rb"\r\n"
        lines = [CODE.sub(b"", line) for line in re.split(end, reply)]
        told = [CODE.sub(b"", line) for line in re.split(end, self.told)]
        edited = {label(line) for line in lines}
        strange = [line for line in told if line not in lines and not OFFER.match(line + b"\r\n")]
        strange = [line for line in strange if not label(line) or label(line) not in edited]
        assert not strange, self.say(f"the client is told {strange}, and the server said {reply!r}")
        return True
