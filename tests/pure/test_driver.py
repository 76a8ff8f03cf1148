"""The driver's rules, with scripts made for the purpose."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import Dialect, Terms
from gateway.dialects.mail import FOREIGN
from gateway.protocol.driver import PLAINTEXT_INBOX, SECURE_INBOX, SWALLOWED_FOR_THE_LOST, Negotiation
from gateway.protocol.filters import Counted
from gateway.protocol.framing import Lines
from gateway.protocol.vocabulary import (
    Abort,
    Await,
    Close,
    Dial,
    Expired,
    Line,
    Lost,
    Note,
    Opaque,
    Pass,
    Patience,
    Peek,
    Proven,
    Request,
    Script,
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
    Violation,
)
from tests.pure.playbook import (
    ABORT_BACKEND,
    DELIVERED,
    DIAL,
    PROVEN,
    SINGLE,
    SPLICE,
    TLS13,
    WHOLE,
    Noted,
    Playbook,
    Stage,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
BOTH = (BACKEND, CLIENT)
COMMAND = Await(BOTH, Patience.COMMAND, Lines(100))
REPLY = Await((BACKEND,), Patience.REPLY, Lines(100))
GREETING = Await((BACKEND,), Patience.GREETING, Lines(100))


def acts(*requests: Request) -> Dialect:
    """A dialect whose script makes these requests and says what it was resumed with; a trouble ends it."""

    def script(agreed: Terms) -> Script:
        try:
            for request in fresh(requests):
                answer = yield request
                if answer is not None:
                    yield Note("heard", (("what", answer),))
        except Trouble as trouble:
            yield Send(CLIENT, b"goodbye")
            yield Send(BACKEND, b"farewell")
            yield Close(trouble.key, trouble.detail)

    return Dialect("test", script, lambda hostname: b"", lambda hostname: b"", {}, {}, foreign=FOREIGN)


def fresh(requests: Iterable[Request]) -> Iterator[Request]:
    """The same requests with filters of their own: these have a memory."""
    for request in requests:
        yield replace(request, filter=deepcopy(request.filter)) if isinstance(request, Pass) else request


def heard(what: object) -> Noted:
    return note("heard", what=what)


def play(*requests: Request) -> Playbook:
    return Playbook(acts(*requests), terms())


def ended_by(
    trouble: type[Trouble], dialect: Callable[[Terms], Script], happen: Callable[[Negotiation], object]
) -> bool:
    """Whether that is what the script is told when this happens."""
    told: list[Trouble] = []

    def listening(agreed: Terms) -> Script:
        try:
            yield from dialect(agreed)
        except Trouble as caught:
            told.append(caught)
            yield Close("")

    negotiation = Negotiation(listening(terms()))
    negotiation.start()
    happen(negotiation)
    return [type(each) for each in told] == [trouble]


# --- deciding before doing -----------------------------------------------------------------------


def test_actions_come_in_order_and_sends_to_one_side_as_one() -> None:
    dialect = acts(
        Send(CLIENT, b"a"), Send(CLIENT, b"b"), Send(BACKEND, b"c"), Send(BACKEND, b""), Note("n"), Send(BACKEND, b"d"),
        Proven(), Tally("messages"), Close("done", "why"),
    )  # fmt: skip
    negotiation = Negotiation(dialect.script(terms()))
    assert negotiation.start() == [
        Send(CLIENT, b"ab"),
        Send(BACKEND, b"c"),
        Note("n"),
        Send(BACKEND, b"d"),
        Proven(),
        Tally("messages"),
        Close("done", "why"),
    ]
    assert negotiation.over


def test_a_script_hears_the_backend_first_and_one_line_at_a_time() -> None:
    script = (Dial(), COMMAND, Send(BACKEND, b"x"), REPLY, COMMAND, COMMAND, Close("done"))
    book = play(*script).start(DIAL).client(b"one\r\ntwo\r\nthree\r\n").backend(b"early\r\n").dialled(to_backend(b"x"))
    book.backend(b"reply\r\n", close("done")).run(cuts=(WHOLE,))
    said = [Line(BACKEND, b"early"), Line(BACKEND, b"reply"), Line(CLIENT, b"one"), Line(CLIENT, b"two")]
    assert [each.fields for each in book.notes] == [(("what", line),) for line in said]


def test_pipelined_lines_wait_for_their_turn() -> None:
    book = play(
        COMMAND, Send(BACKEND, b"x"), REPLY, Send(CLIENT, b"y"), COMMAND, Send(CLIENT, b"z"), Close("done")
    ).start()
    book.client(b"one\r\ntwo\r\n", to_backend(b"x")).backend(b"reply\n", to_client(b"yz"), close("done")).run()


def test_returning_is_the_splice_and_what_was_read_ahead_goes_first() -> None:
    book = play(Await((BACKEND,), Patience.REPLY, Lines(100)), Send(CLIENT, b"ok"), Proven(), Tally("messages")).start()
    book.client(b"next\r\nhal", *())
    book.backend(
        b"ok\r\ntail", to_client(b"ok"), PROVEN, DELIVERED, to_backend(b"next\r\nhal"), to_client(b"tail"), SPLICE
    ).run(cuts=(WHOLE,))


def test_a_new_dial_forgets_the_old_backend() -> None:
    book = play(
        Dial(), GREETING, Abort(BACKEND), Send(BACKEND, b"lost"), Dial(), Send(BACKEND, b"hi"), REPLY, Close("x")
    )
    book.start(DIAL).dialled().backend(b"bad\nold", ABORT_BACKEND, DIAL).dialled(to_backend(b"hi"))
    book.backend(b"new\n", heard(Line(BACKEND, b"new")), close("x")).run(cuts=(WHOLE,))


# --- the switch ------------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [b"x", b"\r\n", b"NOOP\r\n", b"\0", b"\x15\x03\x03"])
@pytest.mark.parametrize("side", Side)
def test_no_plaintext_crosses_into_tls(early: bytes, side: Side) -> None:
    book = play(Await((side,), Patience.REPLY, Lines(100)), StartTLS(side, b"go"), Send(side, b"never")).start()
    said = b"STARTTLS\r\n" + early
    if side is CLIENT:
        book.client(said, to_client(b"go"), to_backend(b"farewell"), close("starttls-injection"))
    else:
        book.backend(said, to_client(b"goodbye"), close("backend-starttls-injection"))
    book.run(cuts=(WHOLE,))
    assert f"{len(early)} octets" in book.detail


def test_the_password_of_a_client_that_does_not_wait_for_tls_is_not_told() -> None:
    book = play(Await((CLIENT,), Patience.REPLY, Lines(100)), StartTLS(CLIENT, b"go")).start()
    book.client(b"STARTTLS\r\nAUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", to_client(b"go"), to_backend(b"farewell"),
                close("starttls-injection")).run(cuts=(WHOLE,))  # fmt: skip
    assert "AUTH" in book.detail
    assert "AGpv" not in book.detail


def test_a_client_hello_may_come_along_but_no_server_hello() -> None:
    hello = b"\x16\x03\x01..."
    play(Await((CLIENT,), Patience.REPLY, Lines(100)), StartTLS(CLIENT, b"go")).start().client(
        b"STARTTLS\r\n" + hello, tls(b"go", early=hello)
    ).secured(SPLICE).run()
    play(REPLY, StartTLS(BACKEND)).start().backend(
        b"ok\r\n" + hello, to_client(b"goodbye"), close("backend-starttls-injection")
    ).run(cuts=(WHOLE,))


def test_nothing_is_said_to_a_side_in_its_handshake_or_after_a_failed_one() -> None:
    play(StartTLS(CLIENT, b"go")).start(tls(b"go")).unsecured(to_backend(b"farewell"), close("tls-failed")).run()
    play(StartTLS(BACKEND)).start(tls(b"", BACKEND)).unsecured(to_client(b"goodbye"), close("backend-tls-failed")).run()
    play(StartTLS(CLIENT), Send(CLIENT, b"hi"), REPLY).start(tls(b"")).secured(to_client(b"hi"), note("heard")).run()


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("orderly", [True, False])
def test_a_side_that_leaves_its_handshake(side: Side, orderly: bool) -> None:
    assert ended_by(TLSFailed, acts_raw(StartTLS(side)), lambda negotiation: negotiation.ended(side, orderly))


def test_the_other_side_may_leave_during_a_handshake() -> None:
    book = play(StartTLS(CLIENT, b"go"), REPLY).start(tls(b"go")).ended(BACKEND, True)
    book.secured(to_client(b"goodbye"), to_backend(b"farewell"), close("backend-lost")).run()


def acts_raw(*requests: Request) -> Callable[[Terms], Script]:
    def script(agreed: Terms) -> Script:
        yield from fresh(requests)

    return script


# --- ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [COMMAND, REPLY, GREETING, Dial(), Take(BACKEND, 5), Pass(BACKEND, Counted(5))])
def test_a_reset_of_the_client_is_told_at_once(wait: Request) -> None:
    assert ended_by(Lost, acts_raw(wait), lambda negotiation: negotiation.ended(CLIENT, False))


@pytest.mark.parametrize("wait", [COMMAND, Take(CLIENT, 5), Peek(CLIENT), Pass(CLIENT, Counted(5)), Dial(), GREETING])
def test_an_orderly_end_of_the_client_is_told_where_it_matters(wait: Request) -> None:
    assert ended_by(Lost, acts_raw(wait), lambda negotiation: negotiation.ended(CLIENT, True))


def test_an_orderly_end_waits_for_the_reply() -> None:
    book = play(COMMAND, REPLY, Send(CLIENT, b"reply"), COMMAND).start().client(b"QUIT\r\n").ended(CLIENT, True)
    book.backend(b"ok\n", to_client(b"replygoodbye"), to_backend(b"farewell"), close("client-lost")).run()


def test_a_client_that_asked_before_the_greeting_and_left_is_still_answered() -> None:
    book = play(Dial(), GREETING, COMMAND, Close("done")).start(DIAL).client(b"QUIT\r\n").ended(CLIENT, True)
    book.dialled().backend(b"hi\n", close("done")).run()


def test_what_a_side_said_before_its_end_is_heard() -> None:
    book = play(Peek(CLIENT), REPLY, Send(CLIENT, b"x"), REPLY).start().backend(b"last\nhal").ended(BACKEND, True)
    book.client(b"!", to_client(b"xgoodbye"), to_backend(b"farewell"), close("backend-lost")).run()


def test_a_broken_leg_hears_nothing_more() -> None:
    play(COMMAND).start().ended(BACKEND, False, to_client(b"goodbye"), close("backend-lost")).run()
    play(COMMAND).start().ended(CLIENT, False, to_backend(b"farewell"), close("client-lost")).run()


def test_an_aborted_leg_hears_nothing_more() -> None:
    book = play(Abort(BACKEND), Send(BACKEND, b"x"), REPLY).start(
        ABORT_BACKEND, to_client(b"goodbye"), close("backend-lost")
    )
    book.run()
    assert book.detail == "connection reset"


def test_undialled() -> None:
    assert ended_by(Unavailable, acts_raw(Dial()), lambda negotiation: negotiation.undialled("refused"))


def test_deadlines() -> None:
    late = Expired(CLIENT, Patience.COMMAND)
    assert ended_by(Expired, acts_raw(COMMAND), lambda negotiation: negotiation.expire(late))


# --- a shutdown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [COMMAND, Dial(), StartTLS(CLIENT)])
def test_a_shutdown_ends_what_is_idle_at_once(wait: Request) -> None:
    assert ended_by(Stopped, acts_raw(wait), lambda negotiation: negotiation.stop())


def test_a_shutdown_lets_what_is_under_way_end() -> None:
    book = play(REPLY, Send(CLIENT, b"reply"), COMMAND).start().client(b"next\n").stop()
    book.backend(b"ok\n", to_client(b"replygoodbye"), to_backend(b"farewell"), close("shutdown")).run()


# --- other waits -----------------------------------------------------------------------------------------


def test_counted_octets_and_a_look_ahead() -> None:
    book = play(Take(CLIENT, 3), Peek(CLIENT), Take(CLIENT, 2), Close("done")).start()
    book.client(b"ab").client(b"c", heard(b"abc")).client(b"d", heard(b"d")).client(b"e", heard(b"de"), close("done"))
    book.run()


def test_octets_pass_and_the_rest_is_kept() -> None:
    book = play(Pass(CLIENT, Counted(4)), Pass(CLIENT, Counted(2), forward=False), COMMAND, Close("done")).start()
    book.passes(b"ab").client(b"cdxxline\n", to_backend(b"cd"), close("done")).run()
    play(Pass(BACKEND, Counted(2)), Close("done")).start().backend(b"abc", to_client(b"ab"), close("done")).run()


def test_what_passes_to_nobody_is_read_on_for_a_while() -> None:
    book = play(Pass(CLIENT, Counted(100)), REPLY).start().ended(BACKEND, True).client(b"x" * 99)
    book.client(b"x", to_client(b"goodbye"), to_backend(b"farewell"), close("backend-lost")).run()
    much = SWALLOWED_FOR_THE_LOST
    book = play(Pass(CLIENT, Counted(much * 2))).start().ended(BACKEND, True).client(b"x" * much)
    book.client(b"x", to_client(b"goodbye"), to_backend(b"farewell"), close("backend-lost")).run(cuts=(WHOLE,))


def test_a_security_layer_is_not_a_line() -> None:
    layered = Await(BOTH, Patience.COMMAND, Lines(100, layered=True))
    play(layered, Close("done")).start().client(b"\0\0\0\x10", heard(Opaque(CLIENT)), close("done")).run()
    play(layered, Close("done")).start().client(b"x\n", close("done")).run()


@pytest.mark.parametrize(
    ("octets", "key"),
    [
        (b"GET / HTTP/1.1\r\n", "http-client"),
        (b"post /x", "http-client"),
        (b"OPTIONS *", "http-client"),
        (b"CONNECT example.org:25", "http-client"),
        (b"Host: x", "http-client"),
        (b"\x16\x03\x01", "tls-on-plaintext-port"),
    ],
)
def test_other_protocols(octets: bytes, key: str) -> None:
    end = (to_client(b"goodbye"), to_backend(b"farewell"), close(key))
    for wait in (COMMAND, Await((CLIENT,), Patience.DATA, Lines(100))):
        play(wait).start().client(octets, *end).run()
    play(Dial()).start(DIAL).client(octets, *end).run()
    play(GREETING).start().client(octets, *end).run()
    if key == "http-client":
        play(StartTLS(CLIENT), COMMAND).start(tls(b"")).secured().client(octets, *end).run()
    else:
        play(StartTLS(CLIENT), COMMAND, Close("x")).start(tls(b"")).secured().client(octets + b"\n", close("x")).run()


@pytest.mark.parametrize("octets", [b"GETS / x\n", b"HEADER x\n", b"a GET / x\n", b"GET x\n"])
def test_what_only_looks_like_another_protocol(octets: bytes) -> None:
    play(COMMAND, Close("x")).start().client(octets, close("x")).run()


def test_an_endless_line_is_told_to_the_script() -> None:
    book = play(COMMAND).start()
    book.client(b"x" * 66000, to_client(b"goodbye"), to_backend(b"farewell"), close("client-line-too-long"))
    book.run(cuts=(WHOLE, 1000))


# --- what the owner may ask -----------------------------------------------------------------------------------


def test_whom_to_read() -> None:
    play(COMMAND).start().wants(CLIENT).wants(BACKEND).run()
    for wait in (
        Await((CLIENT,), Patience.COMMAND, Lines(10**6)),
        Take(CLIENT, 10**6),
        Pass(CLIENT, Counted(10**6), forward=False),
    ):
        play(wait).start().client(b"x" * SECURE_INBOX).wants(CLIENT).run(cuts=(WHOLE, 5000))
    play(Peek(CLIENT)).start().wants(CLIENT).wants(BACKEND).run()


@pytest.mark.parametrize(("secure", "capacity"), [(False, PLAINTEXT_INBOX), (True, SECURE_INBOX)])
def test_a_side_that_nobody_listens_to_is_read_until_its_inbox_is_half_full(secure: bool, capacity: int) -> None:
    book = play(*([StartTLS(CLIENT)] if secure else []), REPLY)
    book.start(*([tls(b"")] if secure else []))
    if secure:
        book.secured()
    book.client(b"x" * (capacity // 2 - 1)).wants(CLIENT).client(b"x").wants(CLIENT, False).run(cuts=(WHOLE, 1000))


def test_phases() -> None:
    book = play(Dial(), GREETING, COMMAND, StartTLS(CLIENT), REPLY).start(DIAL).phase("dialling").dialled()
    book.phase("greeting").backend(b"hi\n").phase("plaintext").client(b"x\n", tls(b"")).phase("handshake")
    book.secured().phase("secure").run()


# --- properties -------------------------------------------------------------------------------------------------


def echo(agreed: Terms) -> Script:
    """Says everything that it hears to the other side, marked; understands nothing."""
    try:
        while True:
            told = yield COMMAND
            yield Send(told.side.other, b"<%s>" % getattr(told, "text", type(told).__name__.encode()))
            if isinstance(getattr(told, "text", None), bytes) and told.text.startswith(b"#"):
                yield Pass(told.side, Counted(3))
    except Trouble as trouble:
        yield Close(trouble.key)


ECHO = Dialect("echo", echo, lambda hostname: b"", lambda hostname: b"", {}, {}, foreign=FOREIGN)
PIECES = st.lists(st.binary(max_size=10) | st.sampled_from([b"\r\n", b"#\n", b"abc\r\n", b"GET /"]))


@given(PIECES, st.sampled_from(Side))
def test_how_the_network_cuts_changes_nothing(pieces: list[bytes], side: Side) -> None:
    """On either leg.  (How what one side says and what the other says interleave is no matter of cutting.)"""
    outcomes = []
    for cut in (WHOLE, SINGLE):
        stage = Stage(ECHO, terms(), cut)
        stage.take(stage.negotiation.start())
        for octets in pieces:
            stage.receive(side, octets)
        last = stage.deeds[-1] if stage.deeds else None
        outcomes.append((stage.heard_by(side.other), last if isinstance(last, Close) else None))
    assert outcomes[0] == outcomes[1]


def test_the_pure_half_is_pure() -> None:
    """Who imports it has loaded neither Twisted nor OpenSSL."""
    code = (
        "import sys, gateway.dialects, gateway.protocol.driver;"
        "print(sorted({'twisted', 'zope', 'ssl', 'OpenSSL', 'asyncio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_values_are_compared_by_what_they_hold() -> None:
    """That nobody changes one is mypy's to see."""
    assert {Send(CLIENT, b"x"), Send(CLIENT, b"x")} == {Send(CLIENT, b"x")}
    assert Splice() == SPLICE
    assert Violation(CLIENT, "k", "d").args == ("k", "d")
    assert TLS13.sni == "mail.example.org"
