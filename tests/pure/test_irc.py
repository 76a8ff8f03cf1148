"""IRC: what is allowed before TLS, the registration, who the client is; each octet case cut at every position."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.access import Seen
from gateway.dialects.base import BackendTLS, Identity, Policy
from gateway.dialects.chat.irc import DIALECT
from gateway.dialects.chat.irc.syntax import (
    Message,
    access,
    answered,
    capabilities,
    edit_listing,
    is_last,
    listed,
    mechanisms,
    parse,
    too_long,
    webirc,
)
from gateway.dialects.survey import Survey
from gateway.dialects.talk import Talk
from gateway.protocol.proxyprotocol import Origin
from gateway.protocol.vocabulary import Close, Dial, Expired, Patience, Side
from tests.pure.contract.answers.irc import LISTED, LOGIN, PING, PONG, WELCOME, closing
from tests.pure.contract.party import CALLERS, HERE, SWITCH
from tests.pure.looking import Looking
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
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
from tests.pure.probes import Server, talk
from tests.pure.probes import play as played

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
(PARTY,) = [party for party in CALLERS if party.dialect is DIALECT]
GO_AHEAD = PARTY.answers.starttls.answered
REQUIRED = (to_client(PARTY.answers.closed_login), close("tls-required"))
REGISTER = b"NICK joe\r\nUSER joe 0 * :Joe\r\n"
NOT_REGISTERED = b":gw.example.org 451 * :You have not registered\r\n"
UNKNOWN = b":gw.example.org 421 * * :Unknown command\r\n"


def fresh(**changes: Any) -> Playbook:
    return Playbook(DIALECT, terms(**changes)).start()


def registering(play: Playbook | None = None, **changes: Any) -> Playbook:
    """Inside TLS; the backend has heard NICK and USER."""
    play = play or PARTY.opened(implicit=True, **changes)
    return play.client(REGISTER, DIAL).dialled(to_backend(PING)).backend(PONG, to_backend(REGISTER))


# --- messages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "message"), [
    (b"NICK joe", Message(b"NICK", (b"joe",))),
    (b"nick", Message(b"NICK", ())),
    (b"  @a=b;c :joe  User joe 0   * :Joe  Doe ", Message(b"USER", (b"joe", b"0", b"*", b"Joe  Doe "))),
    (b":irc.example.test 001 joe :", Message(b"001", (b"joe", b""))),
    (b"CAP LS ", Message(b"CAP", (b"LS",))),
    (b"JOIN :", Message(b"JOIN", (b"",))),
    (b"PONG a:b", Message(b"PONG", (b"a:b",))),
    (b"", None), (b"   ", None), (b":joe", None), (b"@a NICK\tjoe", None), (b"\tWEBIRC x", None), (b"12 x", None),
    (b"NICK-joe", None), (b"@ WEBIRC x", None), (b": WEBIRC x", None), (b"\x02WEBIRC x", None), (b"1234 x", None),
])  # fmt: skip
def test_a_message_has_a_verb_and_parameters(line: bytes, message: Message | None) -> None:
    assert parse(line) == message


@given(st.binary(max_size=40), st.booleans())
def test_whatever_holds_the_verb_in_front_is_seen(before: bytes, prefixed: bool) -> None:
    """A server that skips blanks, tags and a prefix finds no WEBIRC in what we take for another command."""
    line = (b":x " if prefixed else b"") + b" " * (len(before) % 3) + b"wEbIrC a b c d" + before
    message = parse(line)
    assert message is None or message.verb.startswith(b"WEBIRC")


def test_how_long_a_line_may_be() -> None:
    assert not too_long(b"x" * 510)
    assert too_long(b"x" * 511)
    assert not too_long(b"@" + b"t" * 4094 + b" " + b"x" * 510)
    assert too_long(b"@" + b"t" * 4095 + b" " + b"x")
    assert too_long(b"@t " + b"x" * 511)
    assert too_long(b"@" + b"t" * 600)


# --- lists of capabilities ---------------------------------------------------------------------------


@pytest.mark.parametrize(("line", "inside", "clear"), [
    (b":i CAP * LS :multi-prefix", b":i CAP * LS :multi-prefix", b":i CAP * LS :multi-prefix tls"),
    (b":i CAP * LS :a tls ", b":i CAP * LS :a", b":i CAP * LS :a tls"),
    (b":i CAP * LS * :a tls sts=port=6697", b":i CAP * LS * :a", b":i CAP * LS * :a"),
    (b"CAP * LS a", b"CAP * LS :a", b"CAP * LS :a tls"),
    (b"@t=1 :i cap joe ls :", b"@t=1 :i cap joe ls :", b"@t=1 :i cap joe ls :tls"),
    (b":i CAP * LS :sasl=PLAIN,EXTERNAL", b":i CAP * LS :sasl=PLAIN", b":i CAP * LS :sasl=PLAIN tls"),
    (b":i CAP * LS :sasl=EXTERNAL sasl SASL=X", b":i CAP * LS :sasl sasl=X", b":i CAP * LS :sasl sasl=X tls"),
    (b":i CAP * LS :sasl=SCRAM-SHA-256-PLUS,SCRAM-SHA-256,PLAIN", b":i CAP * LS :sasl=PLAIN",
     b":i CAP * LS :sasl=PLAIN tls"),
    (b":i CAP * ACK :tls", b":i CAP * ACK :tls", b":i CAP * ACK :tls"),
    (b":i 001 joe :CAP * LS", b":i 001 joe :CAP * LS", b":i 001 joe :CAP * LS"),
    (b":i NOTICE * :CAP x LS :tls", b":i NOTICE * :CAP x LS :tls", b":i NOTICE * :CAP x LS :tls"),
    (b"@time=1 :i CAP joe NEW :tls sasl=PLAIN,EXTERNAL", b"@time=1 :i CAP joe NEW :sasl=PLAIN",
     b"@time=1 :i CAP joe NEW :sasl=PLAIN"),
    (b":i CAP * DEL :sasl sts", b":i CAP * DEL :sasl", b":i CAP * DEL :sasl"),
])  # fmt: skip
def test_the_backends_own_tls_is_not_offered_and_ours_is(line: bytes, inside: bytes, clear: bytes) -> None:
    assert edit_listing(line, secured=True) == inside
    assert edit_listing(line, secured=False) == clear
    assert edit_listing(inside, secured=True) == inside
    assert edit_listing(clear, secured=False) == clear


def test_what_a_look_reads() -> None:
    assert listed(b":i CAP * LS * :a b\r\n:i CAP * LS :c\r\n") == [b"a", b"b", b"c"]
    assert listed(b":i 421 * CAP :Unknown command\r\n") is None
    assert capabilities(b":i CAP * LS :") == []
    assert not is_last(b":i CAP * NEW :a")


@pytest.mark.parametrize("line", [b":i CAP * NEW :sts=port=6697\r\n", b":i CAP * DEL :tls\r\n", b"CAP joe new sts\r\n"])
def test_news_of_the_servers_own_tls_are_not_told(line: bytes) -> None:
    registering().backend(line).returns(b":i CAP * NEW :away\r\n").run()
    assert mechanisms([b"sasl", b"a", b"sasl=plain,,X"]) == [b"PLAIN", b"X"]
    assert answered(b"", b"")
    assert not answered(b"CAP LS 302", b":i CAP * LS * :a\r\n")
    assert answered(b"CAP LS 302", b":i CAP * LS * :a\r\n:i CAP * LS :b\r\n")
    assert answered(b"CAP LS 302", PONG + b":i 421 * CAP :Unknown command\r\n")
    assert not answered(b"CAP LS 302", PONG + b":i NOTICE * :wait\r\n\r\n")
    assert not answered(b"QUIT", b"ERROR :bye\r\n")
    seen = Seen(b"", None, None, ())
    assert access(seen) == access(replace(seen, shown=[b"a"]))
    assert access(replace(seen, offered=[b"tls"])).starttls
    assert access(replace(seen, shown=[b"sasl=PLAIN"])).logins == ("SASL PLAIN",)


# --- before TLS --------------------------------------------------------------------------------------


def test_irssis_opening_in_one_segment_starts_tls() -> None:
    told = b":gw.example.org CAP * LS :tls\r\n" + NOT_REGISTERED
    play = fresh().client(b"CAP LS 302\r\nJOIN :\r\nSTARTTLS\r\n", to_client(told), tls(GO_AHEAD))
    registering(play.secured()).run()


@pytest.mark.parametrize(("said", "told"), [
    (b"CAP LS\r\n", b":gw.example.org CAP * LS :tls\r\n"),
    (b"cap ls 302\n", b":gw.example.org CAP * LS :tls\r\n"),
    (b"CAP LIST\r\n", b":gw.example.org CAP * LIST :\r\n"),
    (b"CAP REQ :tls\r\n", b":gw.example.org CAP * ACK :tls\r\n"),
    (b"CAP REQ tls\r\n", b":gw.example.org CAP * ACK :tls\r\n"),
    (b"CAP REQ :sasl tls <x>\r\n", b":gw.example.org CAP * NAK :sasl tls\r\n"),
    (b"CAP END\r\n", b""),
    (b"CAP\r\n", NOT_REGISTERED), (b"CAP FOO\r\n", NOT_REGISTERED), (b"PING x\r\n", NOT_REGISTERED),
    (b"LIST\r\n", NOT_REGISTERED), (b"\r\n", b""), (b"  \r\n", b""),
    (b"WEBIRC p g h 1.2.3.4\r\n", UNKNOWN), (b"SERVER a 1 :x\r\n", UNKNOWN), (b"\xff\r\n", UNKNOWN),
    (b"STARTTLS x\r\n", b":gw.example.org 691 * :STARTTLS failed (it takes no parameters)\r\n"),
    (b"NI\0CK joe\r\n", b":gw.example.org 400 * * :Invalid characters\r\n"),
    (b"NICK a\rUSER b 0 * :c\r\n", b":gw.example.org 400 * * :Invalid characters\r\n"),
    (b"x" * 511 + b"\r\n", b":gw.example.org 417 * :Input line was too long\r\n"),
    (b"x" * 9000 + b"\r\n", b":gw.example.org 417 * :Input line was too long\r\n"),
])  # fmt: skip
@pytest.mark.parametrize("policy", [Policy.REQUIRED, Policy.AUTH_ONLY])
def test_the_gateway_speaks_for_itself_before_tls(policy: Policy, said: bytes, told: bytes) -> None:
    fresh(policy=policy).client(said, to_client(told)).client(b"STARTTLS\r\n", tls(GO_AHEAD)).run((WHOLE, 7))


@pytest.mark.parametrize(
    "said", [b"NICK joe", b"@a :x user joe 0 * :Joe", b"PASS x", b"AUTHENTICATE PLAIN", b"OPER a b"]
)
def test_who_registers_in_the_clear_is_told_and_cut_off(said: bytes) -> None:
    fresh().client(said + b"\r\n", *REQUIRED).run()


def test_a_client_may_leave_before_the_backend_is_there() -> None:
    for play in (fresh(), PARTY.inside()):
        play.client(b"QUIT :bye\r\n", to_client(closing(b"Client exited")), close("quit")).run()


def test_too_many_bad_commands() -> None:
    play = fresh(bad_commands=2).client(b"LIST\r\n", to_client(NOT_REGISTERED))
    words = to_client(NOT_REGISTERED + closing(b"Too many invalid commands"))
    play.client(b"LIST\r\n", words, ABORT_BACKEND, close("too-many-bad-commands")).run()


def test_starttls_inside_tls_is_answered_by_the_gateway() -> None:
    """ngIRCd would say nothing, and irssi would wait."""
    again = to_client(b":gw.example.org 691 * :STARTTLS failed (TLS is already active)\r\n")
    for play in (PARTY.inside(), PARTY.opened(implicit=True)):
        registering(play.client(b"STARTTLS\r\n", again)).client(b"STARTTLS\r\n", again).run()


# --- in the clear, where that is allowed -------------------------------------------------------------


def test_optional_forwards_in_the_clear_and_offers_tls() -> None:
    play = fresh(policy=Policy.OPTIONAL).client(b"CAP REQ :tls\r\n", to_client(b":gw.example.org CAP * ACK :tls\r\n"))
    play.client(b"CAP LS 302\r\n", DIAL).dialled(to_backend(PING)).backend(PONG, to_backend(b"CAP LS 302\r\n"))
    play.backend(b":i CAP * LS :sasl\r\n", to_client(b":i CAP * LS :sasl tls\r\n"))
    play.client(b"WEBIRC a b c d\r\n", to_client(UNKNOWN)).asks(REGISTER, WELCOME, PROVEN, SPLICE).passes(
        b"STARTTLS\r\n"
    ).run()


def test_what_the_backend_heard_in_the_clear_is_left_behind() -> None:
    """Somebody on the way may have said it."""
    play = fresh(policy=Policy.OPTIONAL).client(b"PASS x\r\nNICK evil\r\n", DIAL).dialled(to_backend(PING))
    play.backend(PONG, to_backend(b"PASS x\r\nNICK evil\r\n")).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.client(b"USER joe 0 * :Joe\r\n", DIAL).dialled(to_backend(PING))
    play.backend(PONG, to_backend(b"USER joe 0 * :Joe\r\n"))
    play.backend(WELCOME, *aborts("backend-protocol-error", PARTY.answers.unavailable)).run()


# --- the registration --------------------------------------------------------------------------------


def test_both_sides_speak_when_they_like() -> None:
    play = registering()
    for octets in (b":i NOTICE * :*** Looking up your hostname\r\n", b":i 433 * joe :Nickname is already in use\r\n"):
        play.returns(octets)
    play.asks(b"NICK jim\r\nCAP END\r\nFOO\r\n", b"PING :123\r\n").passes(b"PONG :123\r\n")
    more = b":i 002 jim :x\r\n\xff\0\r"
    play.returns(WELCOME + more, PROVEN, SPLICE)
    play.passes(b"WEBIRC\0\r").run()
    assert [told for told in play.notes if told.event == "auth"] == []


@pytest.mark.parametrize("begun", [b"CAP LS 302\r\n", b"NICK joe\r\n", b"USER joe 0 * :Joe\r\n", b"PASS x\r\n"])
def test_a_welcome_before_the_registration_is_not_believed(begun: bytes) -> None:
    play = PARTY.inside().client(begun, DIAL).dialled(to_backend(PING)).backend(PONG, to_backend(begun))
    play.backend(WELCOME, *aborts("backend-protocol-error", PARTY.answers.unavailable)).run()


def test_a_backend_that_does_not_speak_irc() -> None:
    ending = aborts("backend-protocol-error", PARTY.answers.unavailable)
    registering().backend(b"\r\n", *ending).run()
    registering().backend(b"x" * 9000 + b"\r\n", *ending).run((WHOLE, 999))


def test_what_a_server_says_before_its_answer_is_for_the_client() -> None:
    notice = b"NOTICE AUTH :*** Checking Ident\r\n"
    play = PARTY.inside().client(b"NICK joe\r\n", DIAL).dialled(to_backend(PING)).backend(notice)
    play.backend(PONG, to_client(notice), to_backend(b"NICK joe\r\n")).run()
    play = PARTY.inside().client(b"NICK joe\r\n", DIAL).dialled(to_backend(PING))
    play.backend(notice * 1000, *PARTY.sorry("backend-bad-greeting")).run((WHOLE,))
    play = PARTY.inside().client(b"NICK joe\r\n", DIAL).dialled(to_backend(PING))
    long = b":irc NOTICE * :" + b"x" * 8000 + b"\r\n"
    play.backend(long * 33, *PARTY.sorry("backend-bad-greeting")).run((WHOLE,))


def test_a_server_that_turns_the_client_away() -> None:
    refusal = PARTY.answers.refusal
    ending = (note("backend-refused", text=refusal.rstrip()), to_client(refusal), close("backend-refused"))
    PARTY.dialled(others=True).backend(refusal, *ending).run()
    registering().backend(refusal, *ending).run()


def test_a_client_that_leaves() -> None:
    said = b"QUIT :bye\r\n"
    error = b"ERROR :Closing link\r\n"
    registering().asks(said, error, close("quit")).run()
    registering().passes(said).ended(BACKEND, True, close("quit")).run()
    play = registering().passes(said).ended(CLIENT, True)  # it may close at once
    play.returns(error, close("quit")).run()
    heard = b":i 433 * joe :Nickname is already in use\r\n"
    play = registering().returns(heard)
    play.ended(CLIENT, True, to_backend(b"QUIT\r\n"), close("client-closed")).run()
    registering().ended(CLIENT, True, ABORT_BACKEND, close("client-lost")).run()
    registering().ended(BACKEND, True, *aborts("backend-lost", closing(b"Connection to server lost"))).run()


# --- logins ------------------------------------------------------------------------------------------

ASKED = b"AUTHENTICATE +\r\n"
SECRET = b"AUTHENTICATE AGpvZQBzZWNyZXQ=\r\n"


def dialogue(**changes: Any) -> Playbook:
    """The server has the client's credentials."""
    play = PARTY.inside(**changes).client(b"AUTHENTICATE PLAIN\r\n", DIAL).dialled(to_backend(PING))
    play.backend(PONG, to_backend(b"AUTHENTICATE PLAIN\r\n")).returns(ASKED)
    return play.passes(SECRET)


def test_sasl_is_told_and_does_not_splice() -> None:
    success = b":i 903 joe :SASL authentication successful\r\n"
    play = dialogue().returns(success, note("auth", result="ok", mechanism="PLAIN", user=b"joe"))
    play.asks(REGISTER, WELCOME, PROVEN, SPLICE).run()


@pytest.mark.parametrize(("numeric", "counts"), [(b"904", True), (b"902", True), (b"905", False), (b"906", False)])
def test_a_sasl_login_that_fails(numeric: bytes, counts: bool) -> None:
    failure = b":i %s joe :SASL authentication failed\r\n" % numeric
    play = dialogue().returns(failure, note("auth", result="failed", mechanism="PLAIN", user=b"joe"))
    assert play.passes(b"AUTHENTICATE X\r\n").run().rejected == counts
    play = dialogue(failed_logins=1)
    told = (to_client(failure),)
    if counts:
        told = (REJECTED, to_client(failure + closing(b"Too many failed logins")), to_backend(b"QUIT\r\n"),
                close("too-many-failed-logins"))  # type: ignore[assignment]  # fmt: skip
    play.backend(failure, *told).run()


@pytest.mark.parametrize("mechanism", [b"EXTERNAL", b"external", b"SCRAM-SHA-256-PLUS", b"", b"\xff"])
def test_mechanisms_that_cannot_work_are_refused(mechanism: bytes) -> None:
    refusal = to_client(b":gw.example.org 904 * :SASL authentication failed\r\n")
    PARTY.inside().client(b"AUTHENTICATE " + mechanism + b"\r\n", refusal).run()


FAILURE = b":i 904 joe :SASL authentication failed\r\n"
ABORTED = b":i 906 joe :SASL authentication aborted\r\n"
AGAIN = b"AUTHENTICATE PLAIN\r\n"


def cancelled() -> Playbook:
    """The server has asked, and the client takes its login back."""
    play = PARTY.inside().client(AGAIN, DIAL).dialled(to_backend(PING)).backend(PONG, to_backend(AGAIN))
    return play.returns(ASKED).passes(b"AUTHENTICATE *\r\n")


@pytest.mark.parametrize("mechanism", [b"EXTERNAL", b"SCRAM-SHA-256-PLUS"])
@pytest.mark.parametrize("begin", [cancelled, dialogue])
def test_a_client_that_does_not_wait_for_the_verdict_gets_no_other_mechanism(begin: Any, mechanism: bytes) -> None:
    refusal = to_client(b":gw.example.org 904 * :SASL authentication failed\r\n")
    begin().client(b"AUTHENTICATE " + mechanism + b"\r\n", refusal).run()


def test_an_open_part_of_a_response_is_no_way_to_another_mechanism() -> None:
    part = b"AUTHENTICATE " + b"A" * 400 + b"\r\n"
    refusal = to_client(b":gw.example.org 904 * :SASL authentication failed\r\n")
    play = PARTY.inside().client(AGAIN, DIAL).dialled(to_backend(PING)).backend(PONG, to_backend(AGAIN))
    play.returns(ASKED).passes(part)
    play.passes(b"AUTHENTICATE AA==\r\n")
    play.client(b"AUTHENTICATE EXTERNAL\r\n", refusal).run((WHOLE, 999))


def test_a_login_that_begins_before_the_verdict_on_another_one_counts() -> None:
    failed = note("auth", result="failed", mechanism="PLAIN")
    play = cancelled().passes(AGAIN).backend(ABORTED, failed, to_client(ABORTED))
    play.returns(ASKED).passes(SECRET)
    assert play.backend(FAILURE, failed, REJECTED, to_client(FAILURE)).run().rejected == 1


def test_a_response_that_comes_too_early_is_not_told_as_a_mechanism() -> None:
    early = b"AUTHENTICATE AGpvZQB4\r\n"
    play = PARTY.inside().client(AGAIN, DIAL).dialled(to_backend(PING)).backend(PONG, to_backend(AGAIN))
    play.asks(early, ASKED)
    play.returns(FAILURE, note("auth", result="failed", mechanism="PLAIN"), REJECTED).run()


def test_channel_binding_that_cannot_work_is_told() -> None:
    offer = b":i CAP * LS :sasl=SCRAM-SHA-256-PLUS,PLAIN\r\n"
    play = (
        registering().backend(offer, note("backend-channel-binding"), to_client(b":i CAP * LS :sasl=PLAIN\r\n")).run()
    )
    assert [told.once for told in play.notes] == [True]


def test_the_servers_password() -> None:
    wrong = b":i 464 joe :Password incorrect\r\n"
    play = PARTY.logs_in(PARTY.ready())
    play.returns(WELCOME, note("auth", result="ok", mechanism="PASS"), PROVEN, SPLICE).run()
    play = PARTY.logs_in(PARTY.ready())
    play.returns(wrong, note("auth", result="failed", mechanism="PASS"), REJECTED)
    error = b"ERROR :Closing link\r\n"
    play.returns(error, close("backend-closed")).run()
    # ngIRCd says it in one line.
    denied = b"ERROR :Access denied: Bad password?\r\n"
    failed = note("auth", result="failed", mechanism="PASS")
    play = PARTY.logs_in(PARTY.ready())
    assert play.backend(denied, failed, to_client(denied), close("backend-closed")).run().rejected == 1
    # Nobody has said a password.
    assert registering().returns(wrong).run().rejected == 0


def test_above_the_limit_the_backend_is_not_asked() -> None:
    limited = (note("refused", limit="auth-failures-per-minute"), to_client(PARTY.answers.limited), close("refused"))
    for said in (LOGIN, b"AUTHENTICATE PLAIN\r\n"):
        PARTY.inside(may_log_in=lambda: False).client(said, *limited).run()


# --- who the client is -------------------------------------------------------------------------------

TOLD = b"WEBIRC hook starttls-gateway 192.0.2.10 192.0.2.10"


def telling(identity: Identity = Identity.WEBIRC, **changes: Any) -> Playbook:
    agreed = {"identity": identity, "origin": HERE, "secret": "hook", "implicit": True, **changes}
    return PARTY.opened(**agreed).client(b"NICK joe\r\n", DIAL)


def test_webirc_tells_the_address_and_that_the_client_is_inside_tls() -> None:
    telling().dialled(to_backend(TOLD + b" :secure\r\n" + PING)).backend(PONG, to_backend(b"NICK joe\r\n")).run()
    play = telling(implicit=False, policy=Policy.OPTIONAL)
    play.dialled(to_backend(TOLD + b"\r\n" + PING)).backend(PONG, to_backend(b"NICK joe\r\n")).run()


@pytest.mark.parametrize(("address", "word"), [("2001:db8::10", b"2001:db8::10"), ("::1", b"0::1")])
def test_an_address_never_begins_with_a_colon(address: str, word: bytes) -> None:
    agreed = terms(origin=Origin((address, 1), ("::1", 2)), secret="hook")
    assert webirc(agreed, secured=False) == b"WEBIRC hook starttls-gateway %s %s" % (word, word)


@pytest.mark.parametrize("answer", [
    b":irc.example.test 464 * :Invalid password\r\n",
    b"ERROR :Closing link: (x@127.0.0.1) [WEBIRC: you don't match any configured WebIRC hosts.]\r\n",
])  # fmt: skip
def test_a_server_that_does_not_believe_the_gateway_is_not_used(answer: bytes) -> None:
    play = telling().dialled(to_backend(TOLD + b" :secure\r\n" + PING))
    play.backend(answer, *PARTY.sorry("backend-identity-refused")).run()


def test_a_server_that_bans_the_client_it_was_told_of_says_so() -> None:
    banned = b"ERROR :Closing Link: (K-lined)\r\n"
    play = telling().dialled(to_backend(TOLD + b" :secure\r\n" + PING))
    play.returns(banned, note("backend-refused"), close("backend-refused")).run()


def test_a_client_without_an_address_is_not_served() -> None:
    play = PARTY.opened(implicit=True, identity=Identity.WEBIRC, origin=None, secret="hook")
    play.client(b"NICK joe\r\n", *PARTY.sorry("backend-identity-refused")).run()


def test_webirc_is_said_inside_the_backends_tls_only() -> None:
    play = telling(backend_tls=BackendTLS.STARTTLS).dialled(to_backend(b"STARTTLS\r\n"))
    play.backend(b":i NOTICE * :*** wait\r\n").backend(PARTY.go, SWITCH)
    play.secured(to_backend(TOLD + b" :secure\r\n" + PING)).backend(PONG, to_backend(b"NICK joe\r\n")).run()


# --- looking at a server -----------------------------------------------------------------------------


def looked(*steps: tuple[bytes, tuple[Expected, ...]]) -> Survey:
    looking = Looking(DIALECT)
    looking.play.dialled(to_backend(PING))
    for said, then in steps:
        looking.play.backend(said, *then)
    return looking.found()


@pytest.mark.parametrize("blanks", [b" " * 40_000, b" " * 20_000 + b"*" + b" " * 20_000])
def test_blanks_in_a_listing_are_read_once(blanks: bytes) -> None:
    """Twice would take seconds."""
    line = b"CAP * LS" + blanks
    before = time.process_time()
    assert edit_listing(line + b":tls a", secured=True).endswith(b":a")
    assert edit_listing(line + b"a b", secured=True) == line + b"a b"
    assert time.process_time() - before < 1


def test_a_look_waits_for_the_whole_list() -> None:
    look = PARTY.answers.look
    assert look is not None
    (_, pong), (ask, listed), (leave, bye) = look.exchanges
    head, tail = b":irc.example.test CAP * LS * :away-notify\r\n", listed
    survey = looked((pong, (to_backend(ask),)), (head, ()), (tail, (to_backend(leave),)), (bye, (close("quit"),)))
    assert survey.greeted
    assert survey.greeting == PONG
    assert survey.offered == [b"away-notify", *look.offered]
    assert survey.shown == [b"away-notify", *look.shown]
    assert survey.access.logins == look.logins
    assert survey.end == Close("quit")


def test_a_look_at_a_server_that_knows_no_capabilities() -> None:
    unknown = b":i 421 * CAP :Unknown command\r\n"
    survey = looked((PONG, (to_backend(b"CAP LS 302\r\n"),)), (unknown, (to_backend(b"QUIT\r\n"),)))
    assert (survey.greeted, survey.offered) == (True, None)
    assert survey.access.logins is None


# --- whatever is said --------------------------------------------------------------------------------

WORDS = [*PARTY.answers.words.split(), b":", b" ", b"@a ", b":x ", b"\r\n", b"\n", b"\r", b"\0", b"*", b"LS 302"]


@given(
    st.lists(st.tuples(st.sampled_from(Side), st.lists(st.sampled_from(WORDS), max_size=8).map(b" ".join)), max_size=12)
)
def test_no_client_says_webirc(said: list[tuple[Side, bytes]]) -> None:
    stage = PARTY.opening(implicit=True)
    for side, octets in said:
        if stage.negotiation.over:
            break
        stage.receive(side, octets + b"\r\n")
        if stage.deeds and stage.deeds[-1] == Dial() == DIAL and not stage.negotiation.over:
            stage.take(stage.negotiation.dialled())
            stage.receive(BACKEND, PONG)
    if not stage.spliced:
        assert not re.search(rb"(?i)(?:^|[\r\n])[ ]*(?:@\S* )?(?::\S* )?WEBIRC", stage.heard_by(BACKEND))


def test_a_client_that_is_late() -> None:
    late = Expired(CLIENT, Patience.COMMAND)
    words = to_client(closing(b"Connection timed out"))
    registering().expire(late, note("client-timeout"), words, ABORT_BACKEND, close("client-timeout")).run()


# --- a look from outside -----------------------------------------------------------------------------

ASK = b"CAP LS 302\r\n"
GO = b":i NOTICE * :wait\r\n:i 670 * :go\r\n"


def probed(answers: Mapping[bytes, bytes], *, inject: bool = False, executes: bool = False) -> Talk:
    there = Server(answers, b"STARTTLS\r\n", executes=executes, hangs_up=False)
    one = talk("irc")
    played(one.secured(implicit=False, inject=inject), there)
    return one


@pytest.mark.parametrize("inject", [False, True])
def test_a_probe_finds_a_server_honest(inject: bool) -> None:
    answers = {ASK: b":i CAP * LS * :a\r\n" + LISTED, b"STARTTLS\r\n": GO}
    one = probed(answers, inject=inject)
    assert (one.failure, one.behind, one.surplus) == ("", "", b"")
    assert listed(one.inside) == [b"a", b"multi-prefix", b"sasl=PLAIN,EXTERNAL", b"tls"]


def test_a_probe_notices_a_server_that_runs_what_stands_behind_starttls() -> None:
    answers = {ASK: LISTED, b"STARTTLS\r\n": GO, b"PING starttls-gateway-probe\r\n": PONG}
    assert probed(answers, inject=True, executes=True).surplus


@pytest.mark.parametrize("answer", [b"", b":i 691 * :STARTTLS is not enabled\r\n"])
def test_a_probe_of_a_server_without_starttls(answer: bytes) -> None:
    """ngIRCd does not answer at all."""
    one = probed({ASK: LISTED, b"STARTTLS\r\n": answer})
    assert (one.go_ahead, one.failure) == (answer, "the server refuses it")


def test_a_server_of_another_protocol_that_says_nothing_is_late() -> None:
    assert DIALECT.probing is not None
    assert DIALECT.question is not None
    one = Talk(replace(DIALECT.probing, silent=False), DIALECT.question, b"probe.example.net")
    with pytest.raises(Expired):
        played(one.secured(implicit=False), Server({}, b"STARTTLS\r\n", hangs_up=False))
