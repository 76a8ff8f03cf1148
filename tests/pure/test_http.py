"""HTTP and its Upgrade to TLS: heads, the first request, the backend; each octet case cut at every position."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects import DIALECTS
from gateway.dialects.base import BackendTLS, Policy
from gateway.dialects.scripted import ScriptedClient
from gateway.dialects.web.http import HTTP, IPP
from gateway.dialects.web.http.head import Malformed, body_length, parse, response_fields, starts_tls, status
from gateway.dialects.web.http.upgrade import listed
from gateway.protocol.vocabulary import Close, Side
from tests.pure.contract.answers.http import GO_AHEAD, OK, OUR_WISH, POST, REQUEST, REQUIRED, WISH, closing, head
from tests.pure.contract.party import CALLERS, SWITCH
from tests.pure.looking import Looking
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    SPLICE,
    WHOLE,
    Expected,
    Playbook,
    aborts,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
(PARTY,) = [party for party in CALLERS if party.dialect is HTTP]
GET = head(b"GET / HTTP/1.1", b"Host: a")
REFUSED = (to_client(REQUIRED), close("tls-required"))


def bad(words: bytes = closing(b"400 Bad Request"), key: str = "client-protocol-error") -> tuple[Expected, ...]:
    return aborts(key, words)


def fresh(**changes: Any) -> Playbook:
    return Playbook(HTTP, terms(**changes)).start()


def inside(**changes: Any) -> Playbook:
    return PARTY.opened(implicit=True, **changes)


def test_ipp_is_http() -> None:
    assert replace(IPP, name="http", probing=HTTP.probing) == HTTP
    assert DIALECTS["ipp"] is IPP


# --- heads -------------------------------------------------------------------------------------------


def request(*fields: bytes, line: bytes = b"POST / HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return head(line, *([host] if host else []), *fields)


SMUGGLED = {
    "two lengths": request(b"Content-Length: 3", b"Content-Length: 3"),
    "two lengths in one": request(b"Content-Length: 3, 3"),
    "a length with a sign": request(b"Content-Length: +3"),
    "a length in another base": request(b"Content-Length: 0x3"),
    "a length that is none": request(b"Content-Length:"),
    "a length without end": request(b"Content-Length: " + b"1" * 19),
    "both": request(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
    "chunks in HTTP/1.0": request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
    "a blank before the colon": request(b"Content-Length : 3"),
    "a folded line": request(b"X: a", b" Transfer-Encoding: chunked"),
    "a bare LF": request(b"X: a\nTransfer-Encoding: chunked"),
    "a bare CR": request(b"X: a\rTransfer-Encoding: chunked"),
    "a NUL": request(b"X: a\0b"),
    "no colon": request(b"Transfer-Encoding"),
    "no name": request(b": a"),
    "no Host": request(host=b""),
    "two Hosts": request(b"host: b"),
}


@pytest.mark.parametrize("why", SMUGGLED)
@pytest.mark.parametrize("policy", [None, *Policy])
def test_requests_that_two_servers_may_read_in_two_ways_are_refused(policy: Policy | None, why: str) -> None:
    """Inside TLS, too.  Nobody is dialled."""
    play = fresh(policy=policy) if policy else inside()
    play.client(SMUGGLED[why] + b"0\r\n\r\n" + GET, *bad()).run((WHOLE, 7))


@pytest.mark.parametrize("line", [
    b"GET / HTTP/2.0", b"PRI * HTTP/2.0", b"GET /", b"GET  / HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ",
    b"GET /a b HTTP/1.1", b"GET\t/ HTTP/1.1", b"G(T / HTTP/1.1", b"", b"SSH-2.0-x", b"GET /\x01 HTTP/1.1",
    b"x" * 65 + b" / HTTP/1.1",
])  # fmt: skip
def test_first_lines_that_are_none_end_the_session_at_once(line: bytes) -> None:
    for play in (fresh(policy=Policy.OPTIONAL), inside()):
        play.client(line + b"\r\n", *bad()).run()


def test_a_request_line_with_a_bare_lf_is_none() -> None:
    fresh().client(b"GET / HTTP/1.1\nHost: a\n\n" + GET, *bad()).run((WHOLE,))


def test_how_long_a_head_may_be() -> None:
    least = len(request(b"X: "))
    longest = request(b"X: " + b"x" * (16 * 1024 - least))
    assert len(longest) == 16 * 1024
    inside().client(longest, DIAL).run((WHOLE, 977))
    words = closing(b"431 Request Header Fields Too Large")
    for octets in (request(b"X: x" + b"x" * (16 * 1024 - least)), b"GET /" + b"x" * 16 * 1024):
        inside().client(octets, *bad(words, "client-line-too-long")).run((WHOLE, 977))


@pytest.mark.parametrize(("fields", "asks"), [
    ((b"Upgrade: TLS/1.0", b"Connection: Upgrade"), True),
    ((b"upgrade: h2c, tls/1.2", b"connection: keep-alive, UPGRADE"), True),
    ((b"Connection: keep-alive", b"Connection:upgrade", b"Upgrade:,TLS/1.3"), True),
    ((b"Upgrade: TLS/1.0",), False),
    ((b"Upgrade: TLS/1.0", b"Connection: keep-alive"), False),
    ((b"Upgrade: h2c", b"Connection: Upgrade"), False),
    ((b"Upgrade: TLS/2.0", b"Connection: Upgrade"), False),
    ((b"Connection: Upgrade",), False),
])  # fmt: skip
def test_who_asks_for_tls(fields: tuple[bytes, ...], asks: bool) -> None:
    assert parse(request(*fields)).wants_tls is asks
    assert not parse(request(*fields, line=b"GET / HTTP/1.0")).wants_tls
    stripped = parse(parse(request(*fields)).without_upgrade())
    assert not stripped.wants_tls
    assert stripped.without_upgrade() == parse(request(*fields)).without_upgrade()


def test_what_the_backend_gets_of_a_request_that_asked() -> None:
    said = request(
        b"Connection: Upgrade, HTTP2-Settings, Keep-Alive", b"Upgrade: h2c, TLS/1.0", b"HTTP2-Settings: AAM",
        b"x-Odd:  kept \t",
        b"Content-Length: 0",
    )  # fmt: skip
    assert parse(said).without_upgrade() == request(b"Connection: Keep-Alive", b"x-Odd:  kept \t", b"Content-Length: 0")


@pytest.mark.parametrize(("fields", "body"), [
    ((), False), ((b"Content-Length: 0",), False), ((b"Content-Length: 00",), False), ((b"Content-Length: 1",), True),
    ((b"Transfer-Encoding: chunked",), True), ((b"Transfer-Encoding: identity",), True),
    ((b"Transfer-Encoding:",), False),
])  # fmt: skip
def test_which_request_has_a_body(fields: tuple[bytes, ...], body: bool) -> None:
    assert parse(request(*fields)).has_body is body


@given(st.binary(max_size=60))
def test_a_head_is_read_or_refused(octets: bytes) -> None:
    try:
        found = parse(b"GET / HTTP/1.1\r\nHost: a\r\n" + octets + b"\r\n\r\n")
    except Malformed:
        return
    assert b"".join([found.line, *(b"\r\n" + field.line for field in found.fields)]).endswith(octets.rstrip(b"\r\n"))


def test_what_is_read_of_a_response() -> None:
    assert status(OK) == 200
    assert response_fields(b"HTTP/1.0 200 OK\nA: b\n\n") == [(b"a", b"b")]
    assert body_length(OK) == 0
    assert body_length(b"HTTP/1.1 204 No Content\r\n\r\n") == 0
    assert body_length(b"HTTP/1.1 404 x\r\nContent-Length: 12\r\n\r\n") == 12
    for fields in (b"", b"Content-Length: x\r\n", b"Content-Length: 5\r\nConnection: Close\r\n",
                   b"Content-Length: 1000000\r\n", b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"):  # fmt: skip
        assert body_length(b"HTTP/1.1 200 OK\r\n%s\r\n" % fields) is None
    assert starts_tls(GO_AHEAD)
    assert not starts_tls(OK)
    assert not starts_tls(head(b"HTTP/1.1 101 x", b"Upgrade: websocket"))
    assert listed(b"") is None
    assert listed(OK) == [b"HTTP/1.1 200 OK", b"CUPS/2.4 IPP/2.1"]


# --- the first request -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", Policy)
def test_libcups_asks_for_tls_and_is_answered_inside(policy: Policy) -> None:
    play = fresh(policy=policy).client(WISH, tls(GO_AHEAD)).secured(DIAL).dialled(to_backend(REQUEST))
    play.returns(OK, PROVEN, SPLICE)
    play.asks(POST, b"\0raw").run()


def test_a_get_may_ask_too_and_is_not_waited_for() -> None:
    """Its answer may take long."""
    wish = GET.replace(b"Host", b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\nHost")
    play = fresh().client(wish, tls(GO_AHEAD)).secured(DIAL).dialled(to_backend(GET), PROVEN, SPLICE)
    play.returns(b"anything").run()


@pytest.mark.parametrize("policy", [Policy.REQUIRED, Policy.AUTH_ONLY])
@pytest.mark.parametrize("said", PARTY.answers.logins)
def test_other_requests_in_the_clear_are_told_to_ask_for_tls(policy: Policy, said: bytes) -> None:
    fresh(policy=policy).client(said, *REFUSED).run()


def test_G30_a_request_with_a_body_is_never_upgraded() -> None:
    """Else its body would be taken for the handshake, or for a request."""
    for more in (b"Content-Length: 4", b"Transfer-Encoding: chunked"):
        asks = request(b"Upgrade: TLS/1.0", b"Connection: Upgrade", more)
        for body in (b"", b"\x16\x03\x01\x00", GET):
            fresh().client(asks + body, *REFUSED).run((WHOLE,))
        play = fresh(policy=Policy.OPTIONAL).client(asks + b"abcd", DIAL)
        play.dialled(to_backend(request(more) + b"abcd"), SPLICE).run()


def test_optional_forwards_in_the_clear() -> None:
    play = fresh(policy=Policy.OPTIONAL).client(POST + POST, DIAL)
    play.dialled(to_backend(POST + POST), PROVEN, SPLICE).returns(OK).run()


def test_inside_tls_a_request_goes_as_it_came() -> None:
    wish = request(b"Upgrade: websocket", b"Connection: Upgrade", b"Expect: 100-continue", b"Content-Length: 3")
    inside().dials(wish, SPLICE).passes(b"abc").run()
    inside().dials(WISH).run()


def test_what_follows_options_goes_on_with_it() -> None:
    play = inside().client(REQUEST + GET[:9], DIAL).dialled(to_backend(REQUEST))
    play.backend(OK + b"HTTP", to_client(OK), to_backend(GET[:9]), to_client(b"HTTP"), SPLICE).run((WHOLE,))


def test_clients_that_say_nothing() -> None:
    """So does libcups, to see whether somebody is there: no failure."""
    for play in (fresh(), inside(), fresh().client(GET[:9])):
        play.ended(CLIENT, True, close("client-closed")).run()
    fresh().ended(CLIENT, False, ABORT_BACKEND, close("client-lost")).run()


def test_strangers_on_the_plaintext_port() -> None:
    for said, event, words in (
        (b"\x16\x03\x01", "tls-on-plaintext-port", ()),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "unexpected-proxy-header", (to_client(PARTY.answers.proxy_words),)),
        (b"\r\n\r\n\0\r\nQUIT\n", "unexpected-proxy-header", (to_client(PARTY.answers.proxy_words),)),
    ):
        fresh().client(said, note(event), *words, ABORT_BACKEND, close(event)).run((WHOLE,))


# --- the backend -------------------------------------------------------------------------------------


def test_a_response_without_end() -> None:
    octets = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65_536
    play = inside().dials(REQUEST)
    play.backend(octets, *PARTY.sorry("backend-bad-greeting")).run((WHOLE, 977))


def test_an_answer_that_is_no_refusal_passes_whatever_it_says() -> None:
    for answer in (closing(b"503 Service Unavailable"), b"HTTP/1.0 501 x\nA: b\n\n"):
        play = inside().dials(REQUEST)
        play.returns(answer, SPLICE).run()


SWITCHED = head(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: TLS/1.0, HTTP/1.1", b"Connection: Upgrade")


def test_the_answer_inside_tls_to_our_own_request_is_read_to_its_end() -> None:
    play = (
        inside(backend_tls=BackendTLS.STARTTLS)
        .client(POST, DIAL)
        .dialled(to_backend(OUR_WISH.replace(b"localhost:631", b"a")))
    )
    play.backend(SWITCHED, SWITCH).secured()
    play.backend(b"HTTP/1.1 404 x\r\nContent-Length: 4\r\n\r\nabcd", to_backend(POST), SPLICE).run()


def test_a_client_of_http_1_0_need_not_name_a_host() -> None:
    play = inside(backend_tls=BackendTLS.STARTTLS).client(head(b"GET / HTTP/1.0"), DIAL)
    play.dialled(to_backend(OUR_WISH.replace(b"localhost:631", b"gw.example.org"))).run()


@pytest.mark.parametrize("answer", [closing(b"200 OK"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"])
def test_a_backend_whose_answer_has_no_end_is_not_used(answer: bytes) -> None:
    play = (
        inside(backend_tls=BackendTLS.STARTTLS)
        .client(POST, DIAL)
        .dialled(to_backend(OUR_WISH.replace(b"localhost:631", b"a")))
    )
    play.backend(SWITCHED, SWITCH).secured().backend(answer, *PARTY.sorry("backend-bad-greeting")).run()


# --- looking at a server -----------------------------------------------------------------------------


def test_a_look_asks_once() -> None:
    look = PARTY.answers.look
    assert look is not None
    looking = Looking(HTTP)
    ((ask, answer),) = look.exchanges
    looking.play.dialled(to_backend(ask)).backend(answer, close("quit"))
    survey = looking.found()
    assert isinstance(survey, ScriptedClient)
    assert (survey.greeted, survey.offered, survey.shown) == (True, look.offered, look.shown)
    assert survey.access.logins is None
    assert survey.end == Close("quit")
