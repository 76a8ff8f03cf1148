"""What `probe` says to HTTP and IPP servers, and what it makes of their replies."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.dialects.web.http.head import RESPONSE_HEAD, WHOLE, asks_for_password
from gateway.protocol.inbox import Inbox
from gateway.protocol.vocabulary import Close, Side, Unit, Violation
from tests.pure.probes import Server, play, talk

HOST = b"Host: probe.example.net\r\n"
UPGRADE = b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n\r\n"
FIRST = b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"
ASK = b"OPTIONS * HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
PAGES = {
    "http": b"HEAD / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
    "ipp": b"HEAD /admin/ HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n",
}
GO = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: TLS/1.0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nServer: old\r\nContent-Length: 4\r\n\r\nbody"
LAST = b"HTTP/1.1 200 OK\r\nServer: old\r\nConnection: close\r\n\r\n"
PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
BASIC = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: %s\r\nContent-Length: 1000\r\n\r\n"

every_protocol = pytest.mark.parametrize("protocol", PAGES)


class Web(Server):
    """Inside TLS it answers the request that asked for TLS, and then what stood behind it if it runs that."""

    def secured(self) -> bytes:
        return (OK if self.starttls in self.heard else b"") + super().secured()


def server(protocol: str = "http", answers: Mapping[bytes, bytes] | None = None) -> Server:
    return Web({UPGRADE: GO, FIRST: OK, ASK: LAST, PAGES[protocol]: PAGE, **(answers or {})}, UPGRADE)


@every_protocol
def test_a_page_is_looked_at_in_the_clear(protocol: str) -> None:
    there, one = server(protocol), talk(protocol)
    assert play(one.in_the_clear(), there) == Close("quit")
    assert there.heard == [FIRST, PAGES[protocol]]
    assert one.greeted
    assert one.answer == OK
    assert [attempt.taken(reply) for attempt, reply in one.tried] == [False]


def test_a_page_that_wants_a_password_is_noticed() -> None:
    there, one = server(answers={PAGES["http"]: BASIC % b'Basic realm="x"'}), talk("http")
    play(one.in_the_clear(), there)
    assert [attempt.taken(reply) for attempt, reply in one.tried] == [True]
    told = [b"Basic", b'Digest nonce="a", BASIC realm="x"', b"Negotiate", b'Digest realm="basic"', b"Basics"]
    assert [asks_for_password(BASIC % each) for each in told] == [True, True, False, False, False]
    assert not asks_for_password(BASIC.replace(b"401", b"407") % b"Basic")


@every_protocol
@pytest.mark.parametrize("inject", [False, True])
def test_an_honest_server_says_nothing_more_than_it_is_asked(protocol: str, inject: bool) -> None:
    there, one = server(protocol), talk(protocol)
    assert play(one.secured(implicit=False, inject=inject), there) == Close("quit")
    assert (one.go_ahead, one.failure, one.behind, one.surplus) == (GO, "", "", b"")
    assert one.inside == LAST
    assert there.heard == [UPGRADE, ASK]


def test_tls_comes_first_on_an_implicit_port() -> None:
    there, one = server(), talk("http")
    assert play(one.secured(implicit=True), there) == Close("quit")
    assert there.heard == [ASK]


def test_a_request_behind_the_upgrade_that_is_answered_inside_tls_is_noticed() -> None:
    there, one = server(), talk("http")
    there.executes = True
    assert play(one.secured(implicit=False, inject=True), there) == Close("quit")
    assert one.surplus == LAST


@pytest.mark.parametrize("answer", [b"220 mx.example.org\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + b"x" * RESPONSE_HEAD])
def test_a_server_of_another_protocol_ends_the_talk(answer: bytes) -> None:
    with pytest.raises(Violation, match=r"backend-(protocol-error|line-too-long)"):
        play(talk("http").in_the_clear(), server(answers={FIRST: answer}))


def test_a_response_is_whole_with_its_body() -> None:
    inbox = Inbox(Side.BACKEND)
    inbox.feed(OK[:-1])
    assert WHOLE.unit(inbox) is None
    inbox.feed(OK[-1:] + b"more")
    assert WHOLE.unit(inbox) == Unit(Side.BACKEND, OK)
    assert inbox.octets == b"more"
