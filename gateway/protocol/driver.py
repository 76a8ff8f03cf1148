"""The driver: feeds what both sides say to a script and returns what is to be done, as lists of actions.

Rules that hold for every dialect live here and nowhere else:

* No plaintext crosses into TLS: at a StartTLS the inbox of that side holds nothing but the beginning
  of a TLS record, or the session ends (RFC 3207 4.2, RFC 9051 6.2.1, RFC 2595; `_switch`).
* From the go-ahead to the end of the handshake, and after a failed one, not an octet is said to that
  side (`_say`).
* The script hears one line at a time, and only of the sides that it asked for (lock-step); what else
  arrives stays in a bounded inbox.

The driver knows no socket and no clock.  Whoever owns it reports what happened (`receive`, `ended`,
`dialled`, `secured`, `expire` ...) and performs the returned actions in order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ..records import dataclass
from .framing import BEGIN
from .inbox import HEAD, Inbox
from .vocabulary import (
    BACKEND,
    CLIENT,
    SIDES,
    Abort,
    Action,
    Await,
    Close,
    Cut,
    Dial,
    Forward,
    Greeted,
    Label,
    Lost,
    Note,
    Pass,
    Patience,
    Peek,
    Proven,
    Rejected,
    Script,
    Secured,
    Send,
    Side,
    Splice,
    StartTLS,
    Stopped,
    Take,
    Tally,
    TLSFailed,
    Trouble,
    Unavailable,
    Unserved,
    Violation,
    Wait,
)

PLAINTEXT_INBOX: Final = 16 * 1024
"""Octets of a side that may lie unread before TLS: a handful of commands, thirty times over."""
CROWDED: Final = PLAINTEXT_INBOX // 2
"""Octets below which every side is read on."""
SECURE_INBOX: Final = 64 * 1024
"""The same inside TLS: one SASL line of the greatest size (RFC 4954 4 names 12288 as sufficient)."""
SWALLOWED_FOR_THE_LOST: Final = 1024 * 1024
"""Octets of a message that we read on when its backend is gone, so that the client hears why."""

TLS_HANDSHAKE: Final = b"\x16"


@dataclass(frozen=True, slots=True)
class Foreign:
    """How clients begin that speak another protocol: they end the session."""

    pattern: re.Pattern[bytes]
    """Each alternative is a named group.  The group `tls` counts only before TLS."""
    events: Mapping[str, str]
    """By the group's name: the event."""

    def event(self, octets: bytearray, secured: bool) -> str | None:
        """The event if these octets are foreign; `secured` tells whether they came inside TLS."""
        match = self.pattern.match(octets)
        if match is None:
            return None
        kind = match.lastgroup
        return None if kind is None or (kind == "tls" and secured) else self.events[kind]


_PENDING: Final = object()
_HEARING: Final = (Await, Pass, Take, Peek, Forward, StartTLS)
"""What one side has to say something for."""
_TELLING: Final = (Note, Proven, Rejected, Tally, Greeted, Unserved, Label, Cut)
"""What is only handed over."""


class _Sides:
    """What both sides have said and nobody has acted on, and the rules on what they may be told."""

    __slots__ = ("_actions", "_ends", "_foreign", "_inboxes", "_mute", "_passing", "_secured", "crowded")

    def __init__(self, foreign: Foreign | None) -> None:
        self._foreign = foreign
        self._inboxes = {side: Inbox(side) for side in SIDES}
        self._secured: dict[Side, Secured | None] = dict.fromkeys(SIDES)
        self._ends: dict[Side, bool] = {}  # sides that are gone, and whether in order
        self._mute: set[Side] = set()
        self._passing = dict.fromkeys(SIDES, 0)  # octets still to come of a unit that goes through
        self._actions: list[Action] = []
        self.crowded = False
        """Whether there is a side that is perhaps not wanted.  It is looked at when somebody has said something."""

    def early(self, side: Side) -> bytes:
        """The ciphertext that was read together with the last plaintext; belongs to the TLS half."""
        return self._inboxes[side].drain()

    def _unread(self) -> bool:
        """Whether anything lies there."""
        client, backend = self._inboxes.values()
        return bool(client.octets or backend.octets)

    def _say(self, said: Send) -> None:
        """The only way out: what is said together becomes one write, and a muted side hears nothing."""
        if not said.data or said.side in self._mute:
            return
        actions = self._actions
        if actions:
            last = actions[-1]
            if isinstance(last, Send) and last.side is said.side:
                actions[-1] = Send(said.side, last.data + said.data)
                return
        actions.append(said)

    def _forget(self, side: Side) -> None:
        """Whoever was there is gone, and what it said is not the next one's."""
        self._inboxes[side] = Inbox(side)
        self._passing[side] = 0
        self._secured[side] = None
        self._ends.pop(side, None)
        self._mute.discard(side)

    def _switch(self, wait: StartTLS) -> None:
        """The one place where plaintext could cross into TLS, and does not."""
        inbox = self._inboxes[wait.side]
        if wait.blanks:
            inbox.skip(wait.blanks)
        early = inbox.peek()
        if early and (wait.side is BACKEND or not early.startswith(TLS_HANDSHAKE)):
            # A client may send its ClientHello along (RFC 9051 6.2.1); a backend never speaks first.
            key = "starttls-injection" if wait.side is CLIENT else "backend-starttls-injection"
            if wait.side is CLIENT:
                self._say(Send(wait.side, wait.last_words))
            self._mute.add(wait.side)
            shown = early[:BEGIN] if wait.side is CLIENT else early[:32]
            raise Violation(wait.side, key, f"{len(inbox.octets)} octets behind it, beginning with {shown!r}")
        self._mute.add(wait.side)
        self._actions.append(wait)

    def _refuse_foreign(self, octets: bytearray) -> None:
        """Raises Violation if the client, which has said these octets, speaks another protocol."""
        if self._foreign is not None:
            key = self._foreign.event(octets, self._secured[CLIENT] is not None)
            if key is not None:
                raise Violation(CLIENT, key)

    def _pending(self, side: Side) -> object:
        if side in self._ends:
            raise Lost(side, self._ends[side])
        return _PENDING

    def _passes(self, side: Side, octets: bytes | bytearray, wait: Forward) -> tuple[int, bool | None]:
        """How many of these octets go to the other side, and whether the unit behind them is wanted.

        Says what goes, also where a unit behind it is none (raises Violation).
        """
        wanted: bool | None = None
        size = len(octets)
        end = min(self._passing[side], size)
        self._passing[side] -= end
        try:
            while end < size:
                wanted = False
                end = wait.skim(side, octets, end)
                if end < size:
                    head = bytes(octets[end : end + HEAD])
                    length = wait.units.length(side, head)
                    wanted = None if length is None else wait.wanted(side, head)
                    if wanted is not False:
                        break
                    assert length is not None
                    end += length
                if end > size:
                    self._passing[side] = end - size
                    end = size
        finally:
            # All of a chunk is the usual case: nothing is copied.
            passed = octets if end == size and isinstance(octets, bytes) else bytes(octets[:end])
            self._say(Send(side.other, passed))
        return end, wanted

    def _forward_from(self, side: Side, wait: Forward) -> Any:
        """Pass on what this side has said.  Returns the unit that is wanted, if it is there.

        That is handed out between two units of the other side: an answer to it must not land inside one.
        """
        inbox = self._inboxes[side]
        end, wanted = self._passes(side, inbox.octets, wait)
        inbox.take(end)
        return wait.units.unit(inbox) if wanted and not self._passing[side.other] else None


class Negotiation(_Sides):
    """One script under way.  Every method returns the actions that follow, in order."""

    __slots__ = (
        "_script",
        "_spoken",
        "_stopping",
        "_swallowed",
        "over",
        "waiting",
    )

    def __init__(self, script: Script, foreign: Foreign | None = None) -> None:
        super().__init__(foreign)
        self._script = script
        self._spoken = False  # the script has heard the client
        self._swallowed = 0
        self._stopping = False
        self.waiting: Wait | None = None
        self.over = False
        """The last action was Close or Splice; nothing may be reported any more."""

    # --- what happened -----------------------------------------------------------------------

    def start(self) -> list[Action]:
        return self._resume(None)

    def receive(self, side: Side, octets: bytes) -> list[Action]:
        if isinstance(self.waiting, Forward) and not (self._stopping or self._unread()):
            # Nobody waits for the end of a unit, so that a chunk goes as it is.
            try:
                end, _ = self._passes(side, octets, self.waiting)
            except Trouble as trouble:
                return self._throw(trouble)
            if end == len(octets):
                return self._handed_over()
            octets = octets[end:]
        inbox = self._inboxes[side]
        inbox.feed(octets)
        if side is CLIENT and self._before_the_greeting():
            try:
                self._refuse_foreign(inbox.octets)
            except Violation as violation:
                return self._throw(violation)
        actions = self._proceed()
        if self.crowded or len(inbox.octets) >= CROWDED:
            self.crowded = any(len(each.octets) >= CROWDED for each in self._inboxes.values())
        return actions

    def ended(self, side: Side, orderly: bool) -> list[Action]:
        """That side will say no more: it closed its direction in order, or the connection broke."""
        self._ends[side] = orderly
        if not orderly:
            self._mute.add(side)
        if isinstance(self.waiting, StartTLS) and self.waiting.side is side:
            return self._throw(TLSFailed(side, "connection closed during the handshake"))
        if side is CLIENT and (not orderly or (self._before_the_greeting() and not self._has_spoken())):
            return self._throw(Lost(side, orderly))
        return self._proceed()

    def dialled(self) -> list[Action]:
        return self._resume(None)

    def undialled(self, detail: str) -> list[Action]:
        return self._throw(Unavailable("backend-connect-failed", detail))

    def answered(self, answer: object) -> list[Action]:
        """To the Question that was the last action."""
        return self._resume(answer)

    def secured(self, side: Side, facts: Secured) -> list[Action]:
        self._secured[side] = facts
        self._mute.discard(side)
        return self._resume(facts)

    def unsecured(self, side: Side, detail: str) -> list[Action]:
        return self._throw(TLSFailed(side, detail))

    def expire(self, trouble: Trouble) -> list[Action]:
        """A deadline passed."""
        return self._throw(trouble)

    def stop(self) -> list[Action]:
        """The gateway shuts down: end now if nothing is under way, else at the next boundary."""
        self._stopping = True
        if isinstance(self.waiting, StartTLS) or self._before_the_greeting() or self._at_boundary():
            return self._throw(Stopped())
        return []

    # --- what the owner may ask --------------------------------------------------------------

    def wants(self, side: Side) -> bool:
        """Whether to go on reading that side."""
        unread = len(self._inboxes[side].octets)
        if unread < CROWDED:
            return True
        match self.waiting:
            case Await(sides=sides) if side in sides:
                return True
            case Forward() if not self._passing[side.other]:  # else a unit may wait, with anything behind it
                return True
            case Take(side=source) | Peek(side=source) | Pass(source=source) if source is side:
                return True
        return unread < (SECURE_INBOX if self._secured[side] else PLAINTEXT_INBOX) // 2

    # --- the script --------------------------------------------------------------------------

    def _proceed(self) -> list[Action]:
        """Resume the script if what it waits for is there."""
        waiting = self.waiting
        try:
            answer = self._hear(waiting) if isinstance(waiting, Await) else self._satisfy(waiting)
        except Trouble as trouble:
            return self._throw(trouble)
        if answer is _PENDING:
            return self._handed_over()
        return self._resume(answer)

    def _throw(self, trouble: Trouble) -> list[Action]:
        for side in SIDES:
            if self._passing[side]:
                self._mute.add(side.other)  # our words would land inside a unit
        return self._resume(None, trouble)

    def _resume(self, answer: Any, trouble: Trouble | None = None) -> list[Action]:
        script = self._script
        while True:
            self.waiting = None
            try:
                request = script.send(answer) if trouble is None else script.throw(trouble)
            except StopIteration:
                self._splice()
                break
            answer = trouble = None
            # The most frequent ones first, and no `match`: it takes longer to find that a value is of another class.
            if isinstance(request, Send):
                self._say(request)
            elif isinstance(request, _HEARING):
                self.waiting = request
                try:
                    if isinstance(request, Await):
                        answer = self._hear(request)
                    elif isinstance(request, StartTLS):
                        self._switch(request)
                        break
                    else:
                        answer = self._satisfy(request)
                except Trouble as caught:
                    trouble = caught
                    continue
                if answer is _PENDING:
                    break
            elif isinstance(request, _TELLING):
                self._actions.append(request)
            elif isinstance(request, Abort):
                self._ends[request.side] = False
                self._mute.add(request.side)
                self._actions.append(request)
            else:
                self._actions.append(request)
                if isinstance(request, Close):
                    self._finish()
                else:
                    self.waiting = request
                    if isinstance(request, Dial):
                        self._forget(BACKEND)
                break
        actions, self._actions = self._actions, []  # as `_handed_over` does
        return actions

    def _handed_over(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def _finish(self) -> None:
        self.over = True
        self._script.close()

    def _splice(self) -> None:
        """What was read ahead goes on raw, in order, before the legs copy to each other (RFC 2920 and
        the like allow a client to send its next commands with the login)."""
        for side in SIDES:
            rest = self._inboxes[side].drain()
            if rest:
                self._say(Send(side.other, rest))
        self._actions.append(Splice())
        self._finish()

    # --- waiting -----------------------------------------------------------------------------

    def _satisfy(self, wait: Wait | None) -> Any:
        """What the script waits for, if it is no Await, or _PENDING.  Raises what is to be thrown into it instead."""
        match wait:
            case Pass():
                return self._let_pass(wait)
            case Forward():
                return self._forward(wait)
            case Take(side=side, octets=octets):
                taken = self._inboxes[side].take(octets)
                return self._pending(side) if taken is None else taken
            case Peek(side=side):
                return self._inboxes[side].peek() or self._pending(side)
        return _PENDING

    def _hear(self, wait: Await) -> Any:
        if self._stopping and self._at_boundary():
            raise Stopped
        for side in wait.sides:
            inbox = self._inboxes[side]
            if inbox.octets:
                if side is CLIENT:
                    self._refuse_foreign(inbox.octets)
                heard = wait.framing.unit(inbox)
                if heard is not None:
                    if side is CLIENT:
                        self._spoken = True
                    return heard
            if self._ends:
                self._pending(side)
        return _PENDING

    def _let_pass(self, wait: Pass) -> Any:
        forwarded, rest = wait.filter.feed(self._inboxes[wait.source].drain())
        target = wait.source.other
        if wait.forward and target not in self._ends:
            self._say(Send(target, forwarded))
        elif wait.forward:
            self._swallowed += len(forwarded)
            if self._swallowed > SWALLOWED_FOR_THE_LOST:
                raise Lost(target, self._ends[target])
        if rest is None:
            return self._pending(wait.source)
        self._inboxes[wait.source].feed(rest)
        return bytes(self._inboxes[target].octets)

    def _forward(self, wait: Forward) -> Any:
        # The backend once more, since its unit may have waited for the end of one of the client's.
        for side in (BACKEND, CLIENT, BACKEND):
            unit = self._forward_from(side, wait)
            if unit is not None:
                return unit
            self._pending(side)
        if self._stopping and self._at_boundary():
            raise Stopped
        return _PENDING

    def _at_boundary(self) -> bool:
        if isinstance(self.waiting, Forward) and any(self._passing.values()):
            return False
        return isinstance(self.waiting, (Await, Forward)) and self.waiting.patience is Patience.COMMAND

    def _before_the_greeting(self) -> bool:
        return isinstance(self.waiting, Dial) or (
            isinstance(self.waiting, Await) and self.waiting.patience is Patience.GREETING
        )

    def _has_spoken(self) -> bool:
        """Whether the client has said what the backend may have to hear, though it says no more."""
        return self._spoken or bool(self._inboxes[CLIENT].octets)
