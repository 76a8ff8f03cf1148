"""Conversations as tests: what each side says, and what must follow from it.

    (
        Playbook(DIALECT, terms())
        .start(DIAL)
        .dialled()
        .returns(b"+OK hello\\r\\n")
        .client(b"STLS\\r\\n", tls(b"+OK Begin TLS negotiation now\\r\\n"))
        .secured()
        .passes(b"QUIT\\r\\n")
        .ended(Side.CLIENT, True, ABORT_BACKEND, close("client-lost"))
        .run()
    )

Nothing happens before `run`, which plays the script twice: every segment whole, and every octet a
segment of its own (`cuts`).  Adjacent sends to one side count as one.  Whatever else the negotiation
does at a step than the step expects is a failure, except what only tells the session something (Note,
Proven, Rejected, Tally, Identified, Greeted, Unserved): that is compared only where it is expected.  Notes are in
`notes` after a run, and `proven`, `rejected` and `delivered` are counted.
A script ends where its Playbook ends: it need not end the session.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, ClassVar

from gateway.config.values import Limits
from gateway.dialects.base import Dialect, Policy, Terms
from gateway.protocol.driver import Negotiation
from gateway.protocol.vocabulary import (
    Abort,
    Action,
    AlwaysSecured,
    Close,
    Cut,
    Dial,
    Greeted,
    Identified,
    IsBroken,
    Label,
    MayLogIn,
    Note,
    Open,
    Patience,
    Place,
    Proven,
    Rejected,
    Secured,
    Send,
    Side,
    Splice,
    StartTLS,
    Tally,
    Trouble,
    Unserved,
)
from gateway.protocol.waiting import phase_of

WHOLE = 0
"""A cut: segments as the script has them."""
SINGLE = 1
"""A cut: each octet a segment of its own."""

FAILED_LOGINS = Limits().auth_failures_per_session

TLS13 = Secured("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "X25519MLKEM768", "mail.example.org")


def terms(**changes: Any) -> Terms:
    """The terms of a plaintext port under `required`, changed as told."""
    usual = Terms(
        hostname=b"gw.example.org",
        implicit=False,
        policy=Policy.REQUIRED,
        lazy=False,
        bad_commands=10,
        failed_logins=FAILED_LOGINS,
        client="192.0.2.10",
        session="gw1-0001",
        now=lambda: datetime(2026, 11, 21, 10, 30, 0, tzinfo=timezone.utc),
    )
    options: dict[str, str] = dict(changes.pop("options", {}))
    options |= {name: _word(changes.pop(name)) for name in ("received", "newlines") if name in changes}
    return replace(usual, options=options, **changes)


def _word(value: object) -> str:
    """How the configuration file has it."""
    return ("yes" if value else "no") if isinstance(value, bool) else str(getattr(value, "value", value))


# --- what a step can expect ----------------------------------------------------------------------


@dataclass(frozen=True)
class Switch:
    """StartTLS, and the ciphertext that had come along with the plaintext before it."""

    side: Side
    last_words: bytes
    early: bytes = b""


@dataclass(frozen=True)
class Noted:
    """A Note with this event and at least these fields."""

    event: str
    fields: tuple[tuple[str, object], ...] = ()

    def describes(self, action: object) -> bool:
        return isinstance(action, Note) and action.event == self.event and set(self.fields) <= set(action.fields)


Expected = (
    Send
    | Switch
    | Noted
    | Close
    | Abort
    | Dial
    | Splice
    | Proven
    | Rejected
    | Tally
    | Identified
    | Greeted
    | Unserved
    | Open
    | Label
    | Cut
)
SILENT = (Note, Noted, Proven, Rejected, Tally, Identified, Greeted, Unserved)

DIAL = Dial()
SPLICE = Splice()
PROVEN = Proven()
REJECTED = Rejected()
DELIVERED = Tally("messages")
ABORT_BACKEND = Abort(Side.BACKEND)


def to_client(octets: bytes) -> Send:
    return Send(Side.CLIENT, octets)


def to_backend(octets: bytes) -> Send:
    return Send(Side.BACKEND, octets)


def tls(last_words: bytes, side: Side = Side.CLIENT, early: bytes = b"") -> Switch:
    return Switch(side, last_words, early)


def close(reason: str) -> Close:
    """The end; its detail is not compared (but see `Playbook.detail`)."""
    return Close(reason)


def note(event: str, **fields: object) -> Noted:
    return Noted(event, tuple(fields.items()))


def aborts(key: str, words: bytes = b"") -> tuple[Expected, ...]:
    """The end of a session that failed: why, the client's last words, and a backend that hears nothing more."""
    return note(key), to_client(words), ABORT_BACKEND, close(key)


def tidy(actions: Iterable[object]) -> list[object]:
    """Adjacent sends merged, the last words before TLS included, and the splice put last: what does not depend on how
    the octets were cut."""
    tidied: list[object] = []
    spliced = False
    for action in actions:
        last = tidied[-1] if tidied else None
        if isinstance(action, Send) and isinstance(last, Send) and last.side is action.side:
            tidied[-1] = Send(action.side, last.data + action.data)
        elif isinstance(action, Send) and not action.data:
            pass
        elif isinstance(action, Switch) and isinstance(last, Send) and last.side is action.side:
            tidied[-1] = replace(action, last_words=last.data + action.last_words)
        elif isinstance(action, Splice):
            spliced = True
        else:
            tidied.append(action)
    return [*tidied, SPLICE] if spliced else tidied


# --- a negotiation with somebody who performs its actions ------------------------------------------


LISTENING = Place("198.51.100.1", 50001)
"""Where a channel is listened for."""


class Stage:
    """One negotiation, fed as a session would feed it; everything that it did is in `deeds`."""

    def __init__(
        self,
        dialect: Dialect,
        agreed: Terms,
        cut: int = WHOLE,
        others: bool = False,
        may_log_in: Callable[[], bool] = lambda: True,
        moved: Callable[[str], str] = lambda client: "",
        always: Mapping[str, object] | None = None,
        place: Place | None = LISTENING,
        broken: bool = False,
    ) -> None:
        self.others = others
        self._may_log_in = may_log_in
        self._moved = moved
        self._always = always
        self._place = place
        self._broken = broken
        self.negotiation = Negotiation(dialect.script(agreed), dialect.foreign)
        self.cut = cut
        self.deeds: list[object] = []
        self.switching: Side | None = None
        self._early = b""
        self.spliced = False

    def take(self, actions: Iterable[Action]) -> None:
        """Do as a session does with the driver's actions."""
        for action in actions:
            match action:
                case StartTLS(side, last_words):
                    self.switching = side
                    self._early = self.negotiation.early(side)
                    self.deeds.append(Switch(side, last_words, self._early))
                    continue
                case Splice():
                    self.spliced = True
                case AlwaysSecured():
                    self.take(self.negotiation.answered(self._always))
                    continue
                case MayLogIn():
                    self.take(self.negotiation.answered(self._may_log_in()))
                    continue
                case Identified(client):
                    self.deeds.append(action)
                    self.take(self.negotiation.answered(self._moved(client)))
                    continue
                case IsBroken():
                    self.take(self.negotiation.answered(self._broken))
                    continue
                case Open():
                    self.deeds.append(action)
                    self.take(self.negotiation.answered(self._place))
                    continue
                case Dial(failed) if failed and not self.others:
                    self.take(self.negotiation.undialled("no address is left"))
                    continue
            self.deeds.append(action)

    def receive(self, side: Side, octets: bytes) -> None:
        """Octets from a side, cut as agreed; what a session would not hand in is not handed in."""
        size = self.cut or len(octets)
        for at in range(0, len(octets), size or 1):
            segment = octets[at : at + size]
            if self.spliced:
                self.deeds.append(Send(side.other, segment))
            elif self.switching is side:  # ciphertext now: the TLS half's, not the negotiation's
                self._early += segment
                last = self.deeds[-1] if self.deeds else None
                assert isinstance(last, Switch), f"{side.value} spoke during the handshake: {segment!r}"
                self.deeds[-1] = replace(last, early=self._early)
            elif at and side is Side.BACKEND and isinstance(self.negotiation.waiting, Dial):
                return  # that connection was dropped
            elif not self.negotiation.over:
                self.take(self.negotiation.receive(side, segment))

    def secured(self, facts: Secured) -> None:
        side, self.switching = self.switching, None
        assert side is not None, "no handshake is under way"
        self.take(self.negotiation.secured(side, facts))

    def unsecured(self, detail: str) -> None:
        side, self.switching = self.switching, None
        assert side is not None, "no handshake is under way"
        self.take(self.negotiation.unsecured(side, detail))

    def outcome(self) -> tuple[object, ...]:
        """What both sides were told, and what became of the session: nothing of this depends on the network's cuts."""
        end = getattr(self.deeds[-1], "reason", None) if self.deeds else None
        return self.heard_by(Side.CLIENT), self.heard_by(Side.BACKEND), end, self.spliced, self.switching

    def heard_by(self, side: Side) -> bytes:
        """All that this side was told so far, go-aheads included."""
        heard = b""
        for deed in self.deeds:
            match deed:
                case Send(to, octets) if to is side:
                    heard += octets
                case Switch(to, last_words) if to is side:
                    heard += last_words
        return heard


def cut_anywhere(begin: Callable[[], Stage], said: bytes) -> set[tuple[object, ...]]:
    """What becomes of octets of a client's that come in two segments, of all places where they may be cut."""
    outcomes: set[tuple[object, ...]] = set()
    for at in range(len(said)):
        stage = begin()
        for piece in (said[:at], said[at:]):
            stage.receive(Side.CLIENT, piece)
        outcomes.add(stage.outcome())
    return outcomes


# --- the script of a test --------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """Something happens, and this follows from it."""

    says: str
    happen: Callable[[Stage], None]
    expected: tuple[Expected, ...]


class Playbook:
    """A conversation, written down first and played by `run`."""

    unplayed: ClassVar[set[Playbook]] = set()
    """Those that were written and not run yet: a test that leaves one here fails (conftest.py)."""

    def __init__(
        self,
        dialect: Dialect,
        agreed: Terms | None = None,
        *,
        others: bool = False,
        may_log_in: Callable[[], bool] = lambda: True,
        moved: Callable[[str], str] = lambda client: "",
        always: Mapping[str, object] | None = None,
        place: Place | None = LISTENING,
        broken: bool = False,
    ) -> None:
        """With `others` the backend has more addresses: what follows a failed one is the script's matter.

        `may_log_in` and `moved` are the limits' answers to MayLogIn and Identified, `always` is the one to
        AlwaysSecured, `place` and `broken` are those to Open and IsBroken.
        """
        self._others = others
        self._limits = may_log_in, moved, always, place, broken
        self._dialect = dialect
        self._terms = agreed or terms()
        self._steps: list[Step] = []
        self.unplayed.add(self)
        self.notes: list[Note] = []
        self.proven = 0
        self.rejected = 0
        self.delivered = 0
        self.detail = ""
        """The detail of the Close, if there was one."""

    # what happens

    def start(self, *expected: Expected) -> Playbook:
        return self._step("start", lambda stage: stage.take(stage.negotiation.start()), expected)

    def client(self, octets: bytes, *expected: Expected) -> Playbook:
        return self._step(f"client: {octets!r}", lambda stage: stage.receive(Side.CLIENT, octets), expected)

    def backend(self, octets: bytes, *expected: Expected) -> Playbook:
        return self._step(f"backend: {octets!r}", lambda stage: stage.receive(Side.BACKEND, octets), expected)

    def passes(self, octets: bytes, *then: Expected) -> Playbook:
        """The client says this, and the backend hears it as it is."""
        return self.client(octets, to_backend(octets), *then)

    def returns(self, octets: bytes, *then: Expected) -> Playbook:
        """The backend says this, and the client hears it as it is."""
        return self.backend(octets, to_client(octets), *then)

    def asks(self, said: bytes, answered: bytes, *then: Expected) -> Playbook:
        """A command that passes, its answer, which returns, and what follows from that."""
        return self.passes(said).returns(answered, *then)

    def dials(self, octets: bytes, *then: Expected) -> Playbook:
        """The client says this, and the backend is dialled for it and hears it."""
        return self.client(octets, DIAL).dialled(to_backend(octets), *then)

    def dialled(self, *expected: Expected) -> Playbook:
        return self._step("dialled", lambda stage: stage.take(stage.negotiation.dialled()), expected)

    def undialled(self, *expected: Expected, detail: str = "connection refused") -> Playbook:
        return self._step("undialled", lambda stage: stage.take(stage.negotiation.undialled(detail)), expected)

    def secured(self, *expected: Expected, facts: Secured = TLS13) -> Playbook:
        return self._step("secured", lambda stage: stage.secured(facts), expected)

    def unsecured(self, *expected: Expected, detail: str = "no shared cipher") -> Playbook:
        return self._step("unsecured", lambda stage: stage.unsecured(detail), expected)

    def ended(self, side: Side, orderly: bool, *expected: Expected) -> Playbook:
        how = "closes" if orderly else "is reset"
        return self._step(
            f"{side.value} {how}", lambda stage: stage.take(stage.negotiation.ended(side, orderly)), expected
        )

    def expire(self, trouble: Trouble, *expected: Expected) -> Playbook:
        return self._step(
            f"expire {trouble.key}", lambda stage: stage.take(stage.negotiation.expire(trouble)), expected
        )

    def stop(self, *expected: Expected) -> Playbook:
        return self._step("stop", lambda stage: stage.take(stage.negotiation.stop()), expected)

    # what is the case

    def waits(self, patience: Patience) -> Playbook:
        """The negotiation is in a wait with this patience."""

        def check(stage: Stage) -> None:
            sides = getattr(stage.negotiation.waiting, "sides", ())
            assert tuple(sides) in ((), (Side.BACKEND,), (Side.CLIENT,), (Side.BACKEND, Side.CLIENT)), sides
            actual = getattr(stage.negotiation.waiting, "patience", None)
            assert actual is patience, f"waits with {actual}, not {patience}"

        return self._step(f"waits {patience.value}", check, ())

    def wants(self, side: Side, wanted: bool = True) -> Playbook:
        """The session should (not) read on that side now."""

        def check(stage: Stage) -> None:
            assert stage.negotiation.wants(side) is wanted, f"wants({side.value}) is not {wanted}"
            assert wanted or stage.negotiation.crowded, "not wanted and not crowded: nobody would ask"

        return self._step(f"wants {side.value} {wanted}", check, ())

    def phase(self, name: str) -> Playbook:
        def check(stage: Stage) -> None:
            phase = phase_of(stage.negotiation.waiting, stage.negotiation._secured[Side.CLIENT] is not None)
            assert phase == name, f"phase is {phase}, not {name}"

        return self._step(f"phase {name}", check, ())

    def then(self, *others: Callable[[Playbook], Playbook]) -> Playbook:
        """Go on with pieces of script that several tests share."""
        for other in others:
            other(self)
        return self

    # the performance

    def run(self, cuts: tuple[int, ...] = (WHOLE, SINGLE)) -> Playbook:
        self.unplayed.discard(self)
        for cut in cuts:
            self._play(cut)
        return self

    def stage(self) -> Stage:
        """As far as it is written, for tests that look at every deed from here on themselves."""
        self.unplayed.discard(self)
        stage = Stage(self._dialect, self._terms, WHOLE, self._others, *self._limits)
        for step in self._steps:
            step.happen(stage)
        stage.deeds.clear()
        return stage

    def _step(self, says: str, happen: Callable[[Stage], None], expected: tuple[Expected, ...]) -> Playbook:
        self._steps.append(Step(says, happen, expected))
        return self

    def _play(self, cut: int) -> None:
        stage = Stage(self._dialect, self._terms, cut, self._others, *self._limits)
        self.notes, self.proven, self.rejected, self.delivered, self.detail = [], 0, 0, 0, ""
        wanted: list[str] = []
        happened: list[str] = []
        for step in self._steps:
            stage.deeds.clear()
            wanted.append(f">> {step.says}")
            happened.append(f">> {step.says}")
            try:
                step.happen(stage)
            except AssertionError as error:
                raise AssertionError(self._told(cut, wanted, [*happened, f"!! {error}"])) from None
            self._collect(stage.deeds)
            hoped = tidy(silent(step.expected))
            deeds = tidy(Close(deed.reason) if isinstance(deed, Close) else deed for deed in silent(stage.deeds))
            wanted += [f"<< {deed}" for deed in hoped]
            happened += [f"<< {deed}" for deed in deeds]
            for expected in step.expected:
                if missing(expected, stage.deeds):
                    wanted.append(f"<< {expected}")
                    happened += [f"-- {deed}" for deed in stage.deeds if isinstance(deed, Note)]
            if wanted != happened:
                raise AssertionError(self._told(cut, wanted, happened))

    def _collect(self, deeds: Iterable[object]) -> None:
        for deed in deeds:
            match deed:
                case Note():
                    self.notes.append(deed)
                case Proven():
                    self.proven += 1
                case Rejected():
                    self.rejected += 1
                case Tally(what="messages"):
                    self.delivered += 1
                case Close(detail=detail):
                    self.detail = detail

    def _told(self, cut: int, wanted: list[str], happened: list[str]) -> str:
        manner = "single octets" if cut == SINGLE else f"pieces of {cut}" if cut else "whole segments"
        lines = difflib.ndiff(wanted, happened)
        return f"played in {manner} (- expected, + happened):\n" + "\n".join(line.rstrip("\n") for line in lines)

    def __str__(self) -> str:
        return " -> ".join(step.says for step in self._steps)


def silent(actions: Iterable[Any]) -> Iterator[Any]:
    """Without what is compared only where it is expected."""
    return (action for action in actions if not isinstance(action, SILENT))


def missing(expected: Expected, deeds: Iterable[object]) -> bool:
    match expected:
        case Noted():
            return not any(expected.describes(deed) for deed in deeds)
        case Proven() | Rejected() | Tally() | Identified() | Greeted() | Unserved():
            return expected not in deeds
    return False
