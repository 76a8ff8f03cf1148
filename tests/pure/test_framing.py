"""Units that are not lines, and units that go through until one is wanted."""

from __future__ import annotations

import pytest

from gateway.dialects.base import Dialect, Terms
from gateway.protocol.filters import Counted
from gateway.protocol.framing import Units
from gateway.protocol.inbox import Inbox
from gateway.protocol.vocabulary import (
    Await,
    Close,
    Expired,
    Forward,
    Note,
    Pass,
    Patience,
    Script,
    Send,
    Side,
    TooLarge,
    Trouble,
    Unit,
)
from gateway.protocol.waiting import lateness
from tests.pure.playbook import Playbook, close, note, to_backend, to_client

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND


def measure(head: bytes) -> int | None:
    """A toy: one octet with the length of the whole unit, then its content.  0xFF begins no unit."""
    if len(head) < 2:
        return None
    if head[0] == 0xFF:
        raise ValueError("no length")
    return head[0]


def wanted(side: Side, head: bytes) -> bool | None:
    """Those whose content begins with `!`."""
    return head[1:2] == b"!" if len(head) > 2 or head[0] < 3 else None


UNITS = Units(measure, limit=8)
FORWARD = Forward(UNITS, wanted)


def dialect(*waits: Await | Forward, passed: bool = False) -> Dialect:
    """Tells what each wait is resumed with."""

    def script(agreed: Terms) -> Script:
        try:
            for wait in waits:
                heard = yield wait
                yield Note("heard", (("what", heard),))
                if isinstance(heard, TooLarge) and passed:
                    yield Pass(heard.side, Counted(heard.octets))
            yield Close("done")
        except Trouble as trouble:
            yield Send(CLIENT, b"goodbye")
            yield Close(trouble.key, trouble.detail)

    return Dialect("units", script, lambda hostname: b"", lambda hostname: b"", {}, {})


def heard(what: object) -> object:
    return note("heard", what=what)


AWAIT = Await((BACKEND, CLIENT), Patience.COMMAND, UNITS)


def test_a_unit_is_handed_out_whole_however_it_is_cut() -> None:
    play = Playbook(dialect(AWAIT, AWAIT)).start()
    play.client(
        b"\x03ab\x02c",
        note("heard", what=Unit(CLIENT, b"\x03ab")),
        note("heard", what=Unit(CLIENT, b"\x02c")),
        close("done"),
    )
    play.run()


def test_a_unit_above_the_limit_is_told_and_stays() -> None:
    told = note("heard", what=TooLarge(CLIENT, b"\x0912345678\x02x", 9))
    play = Playbook(dialect(AWAIT, AWAIT, passed=True)).start()
    play.client(
        b"\x0912345678\x02x",
        told,
        to_backend(b"\x0912345678"),
        note("heard", what=Unit(CLIENT, b"\x02x")),
        close("done"),
    )
    play.run((0,))


@pytest.mark.parametrize("wait", [AWAIT, FORWARD])
@pytest.mark.parametrize("side", Side)
def test_what_begins_no_unit_ends_the_session(wait: Await | Forward, side: Side) -> None:
    key = f"{side.value}-protocol-error"
    play = Playbook(dialect(wait)).start()
    happen = play.client if side is CLIENT else play.backend
    happen(b"\xff\xff", to_client(b"goodbye"), close(key)).run()
    assert "no length" in play.detail


def test_a_length_of_nothing_is_a_bug_of_the_dialect() -> None:
    inbox = Inbox(CLIENT)
    inbox.feed(b"\0\0")
    with pytest.raises(AssertionError):
        UNITS.unit(inbox)


def test_units_go_through_both_ways_until_one_is_wanted() -> None:
    play = Playbook(dialect(FORWARD)).start()
    play.client(b"\x03ab\xc8", to_backend(b"\x03ab")).client(b"x" * 100, to_backend(b"\xc8" + b"x" * 100))
    play.returns(b"\x02y").passes(b"x" * 99)
    play.client(b"\x03!", to_client(b"")).client(b"z\x02q", note("heard", what=Unit(CLIENT, b"\x03!z")), close("done"))
    play.run((0,))


def test_a_wanted_unit_above_the_limit_is_told() -> None:
    play = Playbook(dialect(FORWARD)).start()
    play.backend(b"\x09!x", note("heard", what=TooLarge(BACKEND, b"\x09!x", 9)), close("done")).run()


def test_inside_a_unit_nothing_is_said_to_its_receiver() -> None:
    play = Playbook(dialect(FORWARD)).start().returns(b"\x05ab")
    play.expire(Expired(CLIENT, Patience.COMMAND), close("client-timeout")).run((0,))


def test_a_shutdown_waits_for_the_end_of_a_unit() -> None:
    play = Playbook(dialect(FORWARD)).start().passes(b"\x05ab").stop()
    play.passes(b"cd", to_client(b"goodbye"), close("shutdown")).run((0,))
    play = Playbook(dialect(FORWARD)).start().stop(to_client(b"goodbye"), close("shutdown"))
    play.run()


def test_the_end_of_a_side_ends_it() -> None:
    play = Playbook(dialect(FORWARD)).start().backend(b"\x05")
    play.ended(BACKEND, True, to_client(b"goodbye"), close("backend-lost")).run()


def test_what_lies_behind_a_unit_that_has_to_wait_is_bounded() -> None:
    """A backend that hangs within a unit would let a client fill the memory."""
    waiting = b"\x03!a" + b"\x08" * 40_000
    play = Playbook(dialect(FORWARD)).start().returns(b"\x05ab")
    play.client(waiting).wants(CLIENT, False).wants(BACKEND)
    play.returns(b"cd", note("heard", what=Unit(CLIENT, b"\x03!a")), close("done")).run((0, 9000))


def test_who_is_late_and_that_both_sides_are_read() -> None:
    trouble = lateness(FORWARD)
    assert isinstance(trouble, Expired)
    assert trouble.side is CLIENT
    large = Units(lambda head: 20000, 20000)
    play = Playbook(dialect(Forward(large, lambda side, head: True))).start()
    play.client(b"x" * 9000).wants(CLIENT).wants(BACKEND).run((0,))
