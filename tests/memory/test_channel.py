"""What processes of one gateway tell each other arrives whole, in order, and with its descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from gateway.app.ports import Change
from gateway.app.workers import channel as module
from gateway.app.workers.channel import Channel
from gateway.app.workers.forwarding import EventsToMaster, Told, Way, pass_on
from gateway.app.workers.messages import LONGEST, MOST_DESCRIPTORS, Incoming, Message, Unintelligible, Wire, line
from gateway.app.workers.orders import Given, packed, unpacked
from gateway.app.workers.seats import LONGEST as LONGEST_DELAY
from gateway.app.workers.seats import STEADY, Seat
from gateway.app.workers.vigil import Vigil
from gateway.config.values import TLS, Configuration, Limits, Timeouts
from tests.memory.stepping import SteppedReactor


class Talk:
    """A channel under test, and the other end as a process without a reactor has it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        theirs.settimeout(10)
        self.reactor = SteppedReactor()
        self.heard: list[Message] = []
        self.descriptors: list[int] = []
        self.lost = 0
        self.channel = Channel(self.reactor, ours, self._hear, self._lose)
        self.wire = Wire(theirs)

    def _hear(self, message: Message, descriptors: list[int]) -> None:
        self.heard.append(message)
        self.descriptors += descriptors

    def _lose(self) -> None:
        self.lost += 1

    def rest(self) -> list[Message]:
        """All that the other end hears until the end."""
        found: list[Message] = []
        while (heard := self.wire.hear()) is not None:
            found += [message for message, _ in heard]
        return found


@pytest.fixture
def talk() -> Iterator[Talk]:
    made = Talk()
    yield made
    made.channel.close()
    made.wire.close()
    for descriptor in made.descriptors:
        os.close(descriptor)


# --- messages --------------------------------------------------------------------------------------


def test_a_message_is_one_line_whatever_it_holds() -> None:
    octets = line({"text": 'a\nb"\u2028', "octets": b"\xff\n", "path": os, "none": None})
    assert octets.count(b"\n") == 1
    ((message, _),) = Incoming().take(octets)
    assert message["text"] == 'a\nb"\u2028'
    assert message["octets"] == "\\xff\n"


def test_messages_come_whole_however_they_are_cut() -> None:
    octets = b"".join(line({"number": number}) for number in range(20))
    incoming = Incoming()
    found = [message for at in range(len(octets)) for message in incoming.take(octets[at : at + 1])]
    assert [message["number"] for message, _ in found] == list(range(20))


@pytest.mark.parametrize("octets", [b"x\n", b"[]\n", b'{"descriptors":1}\n', b'{"descriptors":"x"}\n', b"\xff\n"])
def test_what_is_no_message_is_not_taken_for_one(octets: bytes) -> None:
    with pytest.raises(Unintelligible):
        Incoming().take(octets)


def test_a_message_without_an_end_does_not_fill_the_memory() -> None:
    with pytest.raises(Unintelligible, match="without an end"):
        Incoming().take(bytes(LONGEST + 1))


def test_more_descriptors_than_the_kernel_passes_at_once_come_in_order(talk: Talk) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context(open(os.devnull, "rb")) for _ in range(2 * MOST_DESCRIPTORS + 3)]
        talk.wire.say({"files": True}, [file.fileno() for file in files])
        talk.wire.say({"end": True})
        talk.reactor.step_until(lambda: {"end": True} in talk.heard)
    assert [message for message in talk.heard if message] == [{"files": True, "descriptors": len(files)}, {"end": True}]
    assert len(talk.descriptors) == len(files)


# --- a channel -------------------------------------------------------------------------------------


def test_both_sides_hear_each_other(talk: Talk) -> None:
    talk.channel.say({"a": 1})
    talk.channel.say({"b": 2})
    assert [message for message, _ in talk.wire.hear() or ()] == [{"a": 1}, {"b": 2}]
    talk.wire.say({"c": 3})
    talk.reactor.step_until(lambda: talk.heard == [{"c": 3}])


def test_nothing_that_is_said_is_lost_and_events_are_counted_that_are(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 100_000)
    for number in range(1000):
        talk.channel.tell({"event": number, "padding": "x" * 1000})
    talk.channel.say({"important": True})
    found: list[Message] = []

    def read_on() -> bool:
        talk.wire.socket.setblocking(False)
        with suppress(BlockingIOError):
            found.extend(message for message, _ in talk.wire.hear() or ())
        return {"important": True} in found

    talk.reactor.step_until(read_on)
    events = [message["event"] for message in found if "event" in message]
    assert events == list(range(len(events))), "the first ones, in order"
    dropped = 1000 - len(events)
    assert dropped == talk.channel.dropped > 0
    talk.channel.tell({"event": "later"})
    talk.reactor.step_until(lambda: read_on() and {"event": "later"} in found)
    assert {"dropped": dropped} in found
    assert talk.channel.dropped == 0


def test_the_end_of_the_other_side_is_told_once_and_silences(talk: Talk) -> None:
    talk.wire.close()
    talk.reactor.step_until(lambda: talk.lost)
    talk.channel.say({"a": 1})
    assert not talk.channel.hand({"a": 1}, ())
    talk.channel.close()
    assert (talk.lost, talk.reactor.readers) == (1, {})


def test_the_end_of_this_process_is_not_that_of_the_other(talk: Talk) -> None:
    talk.channel.connectionLost(Failure(ConnectionLost()))  # type: ignore[no-untyped-call]
    assert (talk.lost, talk.reactor.readers) == (0, {})


def test_a_stranger_on_the_other_side_is_the_end(talk: Talk) -> None:
    talk.wire.socket.sendall(b"GET / HTTP/1.1\r\n")
    talk.reactor.step_until(lambda: talk.lost)
    assert talk.heard == []


def test_what_is_said_last_arrives(talk: Talk) -> None:
    talk.channel.say({"first": True})
    talk.channel.finish({"last": True})
    assert talk.rest() == [{"first": True}, {"last": True}]
    assert talk.lost == 0


# --- events ----------------------------------------------------------------------------------------


class Ear:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def emit(self, event: str, /, **fields: object) -> None:
        self.told.append((event, fields))

    def bound(self, /, **fields: object) -> Ear:
        return self


def test_an_event_arrives_at_the_master_with_its_fields_in_order() -> None:
    said: list[Message] = []
    way = Way(said.append)
    relay = EventsToMaster(way, budgeted=True).bound(service="imap", client=None)
    relay.emit("session", reason="quit", octets=b"\xff", seconds=0.25, proven=True)
    EventsToMaster(way).emit("log", message="x")
    own, sessions = Ear(), Ear()
    for message in said:
        ((taken, _),) = Incoming().take(line(message))
        pass_on(taken, own, sessions)
    assert own.told == [("log", {"message": "x"})]
    ((event, fields),) = sessions.told
    assert event == "session"
    assert list(fields.items()) == [
        ("service", "imap"), ("reason", "quit"), ("octets", "\\xff"), ("seconds", 0.25), ("proven", True)
    ]  # fmt: skip


def test_another_way_holds_for_relays_that_were_bound_before() -> None:
    first: list[Message] = []
    second: list[Message] = []
    way = Way(first.append)
    relay = EventsToMaster(way).bound(service="imap")
    way.tell = second.append
    relay.emit("session")
    assert (first, len(second)) == ([], 1)


def test_what_twisted_says_in_a_worker_becomes_an_event() -> None:
    said: list[Message] = []
    observer = Told(EventsToMaster(Way(said.append), constant={"worker": 1}))
    observer({"log_format": "a bug: {kind}", "kind": "ValueError", "isError": 0})
    observer({"log_format": None})
    (message,) = said
    assert message["fields"]["message"] == "a bug: ValueError"
    assert message["fields"]["worker"] == 1


# --- seats -----------------------------------------------------------------------------------------


def test_workers_that_die_at_once_are_started_less_and_less_often() -> None:
    seat, now = Seat(0, Vigil(Clock(), lambda: None)), 1000.0
    delays = []
    for _ in range(10):
        seat.since = now
        now += 1
        delays.append(seat.delay(now))
    assert delays == [0, 0.5, 1, 2, 4, 8, 16, LONGEST_DELAY, LONGEST_DELAY, LONGEST_DELAY]
    seat.since = now
    assert seat.delay(now + STEADY) == 0


# --- a configuration for all workers ---------------------------------------------------------------


def test_a_worker_that_reads_the_configuration_disturbs_no_other_one() -> None:
    """Descriptors that were passed share one offset: who moved it would let another worker read nothing."""
    configuration = Configuration("gw.example.org", 30.0, "text", TLS(()), (), Limits(), Timeouts())
    message, (file, *_) = packed(configuration, Change((), {}, ()))
    with os.fdopen(file, "rb"):
        before = os.lseek(file, 1, os.SEEK_SET)
        for _ in range(2):
            assert unpacked(message, [os.dup(file)], Given()) == configuration
            assert os.lseek(file, 0, os.SEEK_CUR) == before
