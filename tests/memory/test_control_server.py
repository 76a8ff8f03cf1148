"""One conversation at the control socket, and what becomes of it when something goes wrong behind it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from gateway.app.control.messages import LONGEST, ROWS, Answer, Request
from gateway.app.control.place import ControlSocket
from gateway.app.control.server import PATIENCE, Conversation, Server
from gateway.config.values import Control
from gateway.telemetry.events import Events
from tests.memory.stepping import Turns


class Reactor(Turns):
    def addReader(self, reader: object) -> None:
        pass

    removeReader = addReader


class Transport(StringTransport):
    reads = True
    """Whether what is written has gone at once."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.handle = handle

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)  # type: ignore[no-untyped-call]
        self.read()
        while self.reads and self.producer is producer:
            self.read()

    def read(self) -> None:
        """What was written last."""
        assert self.producer is not None
        self.producer.resumeProducing()

    @property
    def said(self) -> bytes:
        octets: bytes = self.value()  # type: ignore[no-untyped-call]
        return octets

    def getHandle(self) -> socket.socket:
        return self.handle


class House:
    def __init__(self, directory: Path) -> None:
        self.reactor = Reactor()
        self.lines: list[str] = []
        self.answers: list[Any] = []
        self.asked: list[Request] = []
        self.pair = socket.socketpair()
        control = ControlSocket(Control(str(directory / "control")))
        self.server = Server(self.reactor, control, self.ask, Events(self.lines.append))

    def ask(self, request: Request) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self) -> tuple[Conversation, Transport]:
        conversation = self.server.buildProtocol(None)
        transport = Transport(self.pair[0])
        conversation.makeConnection(transport)  # type: ignore[no-untyped-call]
        return conversation, transport


@pytest.fixture
def house(directory: Path) -> Iterator[House]:
    house = House(directory)
    yield house
    house.server.stop()
    for sock in house.pair:
        sock.close()


def answers(transport: Transport) -> list[Any]:
    return [json.loads(line) for line in transport.said.splitlines()]


def test_an_answer_may_come_later_and_in_its_order(house: House) -> None:
    """As it will where a process has to ask others first."""
    later: Deferred[Answer] = Deferred()
    house.answers = [later, Answer({"second": 2})]
    conversation, transport = house.call()
    line = Request("status").line()
    conversation.dataReceived(line[:10])
    conversation.dataReceived(line[10:] + line)
    assert len(house.asked) == 1
    later.callback(Answer({"first": 1}))
    assert [answer["result"] for answer in answers(transport)] == [{"first": 1}, {"second": 2}]


def test_a_bug_in_an_answer_is_told_to_both_sides(house: House) -> None:
    said: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        said.append(event["kind"])

    globalLogPublisher.addObserver(observe)
    try:
        house.answers = [ZeroDivisionError("oh no"), Answer({"still": "there"})]
        conversation, transport = house.call()
        conversation.dataReceived(Request("status").line() * 2)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert said == ["ZeroDivisionError"]
    first, second = answers(transport)
    assert first["problems"] == ["the gateway failed to answer; its log says why"]
    assert second["result"] == {"still": "there"}


def test_who_has_gone_before_the_answer_harms_nothing(house: House) -> None:
    later: Deferred[Answer] = Deferred()
    house.answers = [later]
    conversation, transport = house.call()
    conversation.dataReceived(Request("status").line())
    conversation.connectionLost()
    later.callback(Answer({}))
    assert transport.said == b""
    assert house.reactor.getDelayedCalls() == []


def test_who_says_no_more_hears_the_answers_and_is_sent_away(house: House) -> None:
    """As `echo ... | socat - UNIX:...` asks."""
    later: Deferred[Answer] = Deferred()
    house.answers = [later, Answer({"second": 2})]
    conversation, transport = house.call()
    conversation.dataReceived(Request("status").line() * 2)
    conversation.readConnectionLost()
    assert not transport.disconnecting
    later.callback(Answer({"first": 1}))
    assert [answer["result"] for answer in answers(transport)] == [{"first": 1}, {"second": 2}]
    assert transport.disconnecting


def test_who_says_no_more_and_waits_for_nothing_is_sent_away(house: House) -> None:
    conversation, transport = house.call()
    conversation.readConnectionLost()
    assert transport.disconnecting
    conversation.connectionLost()
    assert house.reactor.getDelayedCalls() == []


def test_who_asks_nothing_is_sent_away(house: House) -> None:
    _, transport = house.call()
    house.reactor.advance(PATIENCE - 1)
    assert not transport.disconnecting
    house.reactor.advance(1)
    assert transport.disconnecting


def test_who_does_not_read_the_answer_is_cut_off(house: House) -> None:
    """Or sixteen stopped commands would keep everybody else out."""
    house.answers = [Answer({})]
    conversation, transport = house.call()
    transport.reads = False
    conversation.dataReceived(Request("status").line())
    house.reactor.advance(PATIENCE)
    assert transport.disconnecting
    assert not transport.disconnected
    house.reactor.advance(PATIENCE)
    assert transport.disconnected


def test_who_asks_and_asks_and_does_not_read_fills_no_buffer(house: House) -> None:
    many = 10 * LONGEST // len(Request("who").line())
    house.answers = [Answer({"number": number}) for number in range(many + 1)]
    conversation, transport = house.call()
    transport.reads = False
    conversation.dataReceived(Request("who").line() * many)
    assert len(answers(transport)) == len(house.asked) == 1
    assert transport.producerState == "paused"
    transport.reads = True
    transport.read()
    assert [answer["result"]["number"] for answer in answers(transport)] == list(range(many))
    assert transport.producerState == "producing"
    conversation.dataReceived(Request("who").line())
    assert len(house.asked) == many + 1


def test_a_line_that_is_too_long_is_told_and_ends_the_conversation(house: House) -> None:
    conversation, transport = house.call()
    transport.reads = False
    for _ in range(3):
        conversation.dataReceived(b"x" * (LONGEST + 1))
    transport.read()
    assert [answer["problems"] for answer in answers(transport)] == [[f"a line of more than {LONGEST} octets"]]
    assert transport.disconnecting


def test_only_what_changes_something_is_told_in_the_log(house: House) -> None:
    house.answers = [Answer({})] * 2
    conversation, _ = house.call()
    conversation.dataReceived(Request("who", "imap").line() + Request("kick", "192.0.2.1").line())
    (line,) = house.lines
    assert " event=control command=kick about=192.0.2.1 user=" in line


def test_a_long_answer_is_said_a_piece_in_a_turn_and_the_next_one_waits(house: House) -> None:
    rows = [{"id": str(number)} for number in range(3 * ROWS)]
    house.answers = [Answer({"sessions": rows}), Answer({"second": 2})]
    conversation, transport = house.call()
    transport.reads = False
    conversation.dataReceived(Request("who").line() * 2)
    said = [len(transport.said)]
    while len(house.asked) == 1:
        transport.read()
        said.append(len(transport.said))
    assert len(said) == 6
    assert said == sorted(set(said))
    assert [answer["result"] for answer in answers(transport)] == [{"sessions": rows}, {"second": 2}]


def test_who_goes_in_the_middle_of_an_answer_hears_no_more(house: House) -> None:
    house.answers = [Answer({"sessions": [{}] * 3 * ROWS})]
    conversation, transport = house.call()
    transport.reads = False
    conversation.dataReceived(Request("who").line() * 2)
    assert transport.producer is not None
    transport.producer.stopProducing()
    conversation.connectionLost()
    assert len(house.asked) == 1
    assert house.reactor.getDelayedCalls() == []
