"""ManageSieve: commands under every policy, literals, dialogues and capability lists, beyond the common contract."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.access import Access, Seen
from gateway.dialects.base import BackendTLS, Identity, Policy
from gateway.dialects.conversation import Stage as Place
from gateway.dialects.mail import strings
from gateway.dialects.mail.managesieve import DIALECT, syntax
from gateway.protocol.vocabulary import Side
from tests.pure.contract.party import HERE, PARTIES
from tests.pure.looking import Looking
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
    SPLICE,
    WHOLE,
    Playbook,
    aborts,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

(SIEVE,) = (party for party in PARTIES if str(party) == "managesieve")
POLICIES = tuple(Policy)
OK = b'OK "done"\r\n'
UNKNOWN = b'NO "Unknown command"\r\n'
INVALID = b'NO "Invalid arguments"\r\n'
MUST = b'NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n'
UNSUPPORTED = b'NO "Unsupported authentication mechanism."\r\n'
UNAVAILABLE = b'BYE (TRYLATER) "Service temporarily unavailable"\r\n'
LOST = b'BYE (TRYLATER) "Connection to server lost"\r\n'
LOGIN = b'AUTHENTICATE "PLAIN" "AGEAYg=="\r\n'
GO_AHEAD = b'OK "Begin TLS negotiation now."\r\n'

# --- commands ----------------------------------------------------------------------------------------

COMMANDS = [
    # sent, and what follows under required, auth-only, optional: octets for the client, or (octets for the backend,)
    (b"CAPABILITY\r\n", (b"CAPABILITY\r\n",), (b"CAPABILITY\r\n",), (b"CAPABILITY\r\n",)),
    (b"capability \r\n", (b"CAPABILITY\r\n",), (b"CAPABILITY\r\n",), (b"CAPABILITY\r\n",)),
    (b'CAPABILITY "x"\r\n', INVALID, INVALID, INVALID),
    (b"NOOP\r\n", b'OK "NOOP completed"\r\n', (b"NOOP\r\n",), (b"NOOP\r\n",)),
    (b'NOOP "a\\"b"\r\n', b'OK (TAG "a\\"b") "Done"\r\n', (b'NOOP "a\\"b"\r\n',), (b'NOOP "a\\"b"\r\n',)),
    (b"noop {3}\r\na b\r\n", b'OK (TAG "a b") "Done"\r\n', (b'NOOP "a b"\r\n',), (b'NOOP "a b"\r\n',)),
    (b'NOOP "a" "b"\r\n', INVALID, INVALID, INVALID),
    (b"NOOP a\r\n", INVALID, INVALID, INVALID),
    (b'NOOP "a"x\r\n', INVALID, INVALID, INVALID),
    (b"LOGOUT\r\n", (b"LOGOUT\r\n",), (b"LOGOUT\r\n",), (b"LOGOUT\r\n",)),
    (b'LOGOUT "x"\r\n', INVALID, INVALID, INVALID),
    (b'STARTTLS "x"\r\n', *(b'NO "STARTTLS takes no arguments"\r\n',) * 3),
    (LOGIN, MUST, MUST, (LOGIN,)),
    (b'authenticate {5+}\r\nplain {8+}\r\nAGEAYg==\r\n', MUST, MUST, (b'AUTHENTICATE "plain" "AGEAYg=="\r\n',)),
    (b'AUTHENTICATE "PLAIN"\r\n', MUST, MUST, (b'AUTHENTICATE "PLAIN"\r\n',)),
    (b'AUTHENTICATE "PLAIN" ""\r\n', MUST, MUST, (b'AUTHENTICATE "PLAIN" ""\r\n',)),
    (b"AUTHENTICATE\r\n", MUST, MUST, INVALID),
    (b'AUTHENTICATE "PLAIN" "a" "b"\r\n', MUST, MUST, INVALID),
    (b'AUTHENTICATE "PLAIN" "*"\r\n', MUST, MUST, INVALID),
    (b'AUTHENTICATE "PL AIN"\r\n', MUST, MUST, INVALID),
    (b'AUTHENTICATE "PLAIN" {27+}\r\nXCLIENT ADDR=203.0.113.96\r\n\r\n', MUST, MUST, INVALID),
    (b'AUTHENTICATE "EXTERNAL" ""\r\n', MUST, MUST, UNSUPPORTED),
    (b'AUTHENTICATE "SCRAM-SHA-1-PLUS"\r\n', MUST, MUST, UNSUPPORTED),
    *((line, UNKNOWN, UNKNOWN, UNKNOWN) for line in (
        b"\r\n", b"A\r\n", b" NOOP\r\n", b"XCLIENT ADDR=192.0.2.1\r\n",
        b"FOO {27+}\r\nXCLIENT ADDR=203.0.113.96\r\n\r\n",
        b'PUTSCRIPT "a" {5+}\r\nkeep;\r\n', b'HAVESPACE "a" 5\r\n', b"LISTSCRIPTS\r\n", b"UNAUTHENTICATE\r\n",
    )),
]  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: repr(row[0][:40]))
def test_every_command_before_tls(row: tuple[object, ...], policy: Policy) -> None:
    said, outcome = row[0], row[1 + POLICIES.index(policy)]
    assert isinstance(said, bytes)
    play = SIEVE.greeted(policy=policy)
    if isinstance(outcome, bytes):
        SIEVE.leaves(play.client(said, to_client(outcome))).run()
    else:
        assert isinstance(outcome, tuple)
        play.client(said, to_backend(outcome[0])).run()


@pytest.mark.parametrize("row", COMMANDS, ids=lambda row: repr(row[0][:40]))
def test_inside_tls_it_is_as_in_the_clear_under_optional(row: tuple[object, ...]) -> None:
    said, outcome = row[0], row[-1]
    assert isinstance(said, bytes)
    if said.startswith(b"STARTTLS"):
        outcome = b'NO "TLS is already active"\r\n'
    expected = to_client(outcome) if isinstance(outcome, bytes) else to_backend(*outcome)  # type: ignore[misc]
    SIEVE.inside().client(said, expected).run()


def test_G30_a_literal_of_a_command_too_long_is_swallowed() -> None:
    play = SIEVE.inside().client(
        b"FOO " + b"x" * 5000 + b" {8+}\r\nLOGOUT\r\n\r\n", to_client(b'NO "Command too long"\r\n')
    )
    SIEVE.leaves(play).run((WHOLE,))


@pytest.mark.parametrize("line", [b"FOO \0", b"PUTSCRIPT \r"])
def test_G30_a_literal_behind_a_bad_line_is_swallowed(line: bytes) -> None:
    play = SIEVE.inside().client(line + b" {8+}\r\nLOGOUT\r\n\r\n", to_client(b'NO "Invalid characters"\r\n'))
    SIEVE.leaves(play).run()


@pytest.mark.parametrize(
    "said",
    [b"FOO {65537+}\r\n", b"FOO {999999999}\r\n", b"NOOP {60000+}\r\n" + b"x" * 60000 + b" {9999+}\r\n",
     b"FOO {4294967296+}\r\n", b"FOO {" + b"9" * 4090 + b"}\r\n"],
)  # fmt: skip
def test_literals_before_the_login_are_bounded(said: bytes) -> None:
    ending = (note("client-line-too-long"), to_client(b'BYE "Command too long"\r\n'), to_backend(b"LOGOUT\r\n"))
    SIEVE.inside().client(said, *ending, close("client-line-too-long")).run((WHOLE,))


def test_G30_a_length_may_begin_with_zeros() -> None:
    play = SIEVE.inside().client(
        b'PUTSCRIPT "a" {0000000000008+}\r\nLOGOUT\r\n\r\n', to_client(b'NO "Unknown command"\r\n')
    )
    SIEVE.leaves(play).run()


@pytest.mark.parametrize(("rest", "key", "words"), [
    (b"\0\r\n", "client-bad-command", b'BYE "Invalid command"\r\n'),
    (b" " + b"x" * 5000 + b"\r\n", "client-line-too-long", b'BYE "Command too long"\r\n'),
])  # fmt: skip
def test_behind_a_literal_nothing_can_be_refused(rest: bytes, key: str, words: bytes) -> None:
    ending = (note(key), to_client(words), to_backend(b"LOGOUT\r\n"), close(key))
    SIEVE.inside().client(b"NOOP {1+}\r\nx" + rest, *ending).run((WHOLE,))


# --- STARTTLS ----------------------------------------------------------------------------------------


def test_the_list_comes_again_before_what_the_client_says_next() -> None:
    """sieve-connect sends this at once, and counts on the order."""
    assert SIEVE.answers.reissue is not None
    play = SIEVE.greeted().client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured(to_backend(b"CAPABILITY\r\n"))
    play.client(b'NOOP "STARTTLS-RESYNC-CAPA"\r\n')
    listed = SIEVE.answers.reissue.answered
    play.returns(listed, to_backend(b'NOOP "STARTTLS-RESYNC-CAPA"\r\n')).run()


@pytest.mark.parametrize(("said", "bye"), [(b'NO "later"\r\n', False), (b'BYE "later"\r\n', True)])
def test_the_backend_does_not_list_again(said: bytes, bye: bool) -> None:
    play = SIEVE.greeted().client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured(to_backend(b"CAPABILITY\r\n"))
    play.returns(said)
    play.ended(
        Side.BACKEND,
        True,
        *[to_client(LOST)] * (not bye),
        ABORT_BACKEND,
        close("backend-lost" if bye else "backend-closed"),
    )
    play.run()


# --- lazy --------------------------------------------------------------------------------------------


def test_a_lazy_listener_speaks_for_itself_where_it_can() -> None:
    play = Playbook(DIALECT, terms(lazy=True)).start(to_client(SIEVE.answers.lazy_greeting))
    own = SIEVE.answers.lazy_greeting.replace(b"gw.example.org ready", b"Capability completed.")
    play.client(b"CAPABILITY\r\n", to_client(own)).client(b"NOOP\r\n", to_client(b'OK "NOOP completed"\r\n'))
    play.client(b"LOGOUT\r\n", to_client(b'OK "Logout completed."\r\n'), close("quit")).run()


def test_a_lazy_listener_dials_for_a_list_with_logins() -> None:
    """Under `optional` the client may log in, and needs the backend's mechanisms."""
    play = Playbook(DIALECT, terms(lazy=True, policy=Policy.OPTIONAL)).start(to_client(SIEVE.answers.lazy_greeting))
    greeting = b'"SASL" "PLAIN"\r\nOK\r\n'
    play.client(b"CAPABILITY\r\n", DIAL).dialled()
    play.backend(greeting, to_client(b'"SASL" "PLAIN"\r\n"STARTTLS"\r\nOK\r\n')).run()


def test_a_lazy_client_hears_the_refusal() -> None:
    ending = (to_client(b'BYE "busy"\r\n'), note("backend-refused"), close("backend-refused"))
    SIEVE.lazy_dials().dialled().backend(b'BYE "busy"\r\n', *ending).run()


# --- logins ------------------------------------------------------------------------------------------


def test_a_dialogue() -> None:
    play = SIEVE.inside().asks(b'AUTHENTICATE "login"\r\n', b'"VXNlcm5hbWU6"\r\n')
    play.client(b"{8+}\r\ndXNlcg==\r\n", to_backend(b'"dXNlcg=="\r\n'))
    play.returns(b"{12}\r\nUGFzc3dvcmQ6\r\n")
    play.asks(
        b'"c2VjcmV0"\r\n', b'OK (SASL "dj0x") "in"\r\n', note("auth", result="ok", mechanism="LOGIN"), PROVEN, SPLICE
    ).run()


def test_a_long_response_goes_as_a_literal() -> None:
    """RFC 5804 4: a quoted string has 1024 octets at most."""
    token = b"A" * 2000
    play = SIEVE.inside().client(b'AUTHENTICATE "OAUTHBEARER" "%s"\r\n' % token,
                                 to_backend(b'AUTHENTICATE "OAUTHBEARER" {2000+}\r\n%s\r\n' % token))  # fmt: skip
    play.returns(b'OK "in"\r\n', SPLICE).run()


@pytest.mark.parametrize(
    "said", [b'"*"', b"AGEAYg==", b'"x" "y"', b'"XCLIENT ADDR=1"', b"", b"\0", b'"x', b"x" * 70000]
)
def test_what_is_no_response_cancels_the_dialogue(said: bytes) -> None:
    play = SIEVE.inside().asks(b'AUTHENTICATE "PLAIN"\r\n', b'""\r\n').client(said + b"\r\n", to_backend(b'"*"\r\n'))
    told = b'NO "Authentication aborted by client."\r\n'
    play.returns(told, note("auth", result="failed"))
    SIEVE.leaves(play).run((WHOLE, 1000))
    assert play.rejected == 0


@pytest.mark.parametrize("said", [b'"\0" ', b"x" * 70000])
def test_G30_a_literal_behind_a_bad_response_is_swallowed(said: bytes) -> None:
    play = SIEVE.inside().asks(b'AUTHENTICATE "PLAIN"\r\n', b'""\r\n')
    play.client(said + b"{9+}\r\nNOOP\r\nNOO\r\n", to_backend(b'"*"\r\n'))
    told = b'NO "Authentication aborted by client."\r\n'
    SIEVE.leaves(play.returns(told)).run((WHOLE, 1000))


def test_a_verdict_may_come_while_a_response_is_awaited() -> None:
    play = SIEVE.inside().asks(b'AUTHENTICATE "PLAIN"\r\n', b'""\r\n').returns(b'NO "slow"\r\n')
    SIEVE.leaves(play).run()


@pytest.mark.parametrize("unasked", [b'"more"\r\n', b"what\r\n", b'OK "in"\r\n'])
def test_a_second_challenge_and_a_success_before_the_response_are_a_broken_protocol(unasked: bytes) -> None:
    play = SIEVE.inside().passes(b'AUTHENTICATE "PLAIN"\r\n')
    play.returns(b'""\r\n')
    play.backend(unasked, *aborts("backend-protocol-error", UNAVAILABLE)).run()
    assert play.proven == 0


@pytest.mark.parametrize("response", [b'""\r\n', b'"*"\r\n', b'"="\r\n'])
def test_T11_a_response_that_says_nothing_earns_no_success(response: bytes) -> None:
    play = SIEVE.inside().asks(b'AUTHENTICATE "PLAIN"\r\n', b'""\r\n').passes(response)
    play.backend(b'OK "in"\r\n', *aborts("backend-protocol-error", UNAVAILABLE)).run()
    assert play.proven == 0


@pytest.mark.parametrize("reply", [b'"a" "b"\r\n', b"+ go\r\n", b'OK "in"\r\n'])
def test_no_challenge_and_no_success_without_credentials(reply: bytes) -> None:
    play = SIEVE.inside().passes(b'AUTHENTICATE "PLAIN"\r\n')
    play.backend(reply, *aborts("backend-protocol-error", UNAVAILABLE)).run()
    assert play.proven == 0


def test_a_backend_that_wants_tls_itself() -> None:
    refusal = b'NO (ENCRYPT-NEEDED) "TLS first"\r\n'
    play = SIEVE.inside().asks(LOGIN, refusal, note("backend-refuses-plaintext-auth")).run()
    assert play.rejected == 0


def test_a_goodbye_in_place_of_a_verdict() -> None:
    bye = b'BYE "too many"\r\n'
    play = SIEVE.inside().asks(LOGIN, bye, note("auth", result="failed"))
    play.ended(Side.BACKEND, True, *aborts("backend-lost")).run()
    SIEVE.inside().asks(LOGIN, b'NO "wrong"\r\n', REJECTED).run()


# --- the backend -------------------------------------------------------------------------------------


def test_a_goodbye_that_nobody_asked_for() -> None:
    for bye in (b'BYE "Disconnected for inactivity."\r\n', b"BYE {4}\r\nidle\r\n"):
        play = SIEVE.inside().returns(bye)
        play.ended(Side.BACKEND, True, *aborts("backend-lost")).run()


def test_a_list_with_literals() -> None:
    listed = b'"SASL" {14}\r\nPLAIN EXTERNAL\r\n{5}\r\nSIEVE "a \\"b\\""\r\n"X" {2}\r\n\r\n\r\nOK {2}\r\nhi\r\n'
    play = SIEVE.inside().passes(b"CAPABILITY\r\n")
    told = b'"SASL" "PLAIN"' + listed[listed.index(b"\r\n{5}") :]
    SIEVE.leaves(play.backend(listed, to_client(told))).run()


@pytest.mark.parametrize("said", [
    b'"SASL" {999999}\r\n', b"x\r\n", b'"a" "b" "c"\r\n', b'"x" "' + b"x" * 9000 + b'"\r\n', b'"x"\r\n' * 1002,
    (b'"x" {8000}\r\n' + b"x" * 8000 + b"\r\n") * 40,
], ids=lambda said: repr(said[:20]))  # fmt: skip
def test_a_list_that_breaks_the_protocol(said: bytes) -> None:
    play = SIEVE.inside().passes(b"CAPABILITY\r\n")
    play.backend(said, *aborts("backend-protocol-error", UNAVAILABLE)).run((WHOLE,))


def test_a_backend_without_a_login_is_told_once() -> None:
    SIEVE.inside().asks(b"CAPABILITY\r\n", b'"SASL" ""\r\nOK\r\n', note("backend-refuses-plaintext-auth")).run()


def test_a_logout_that_is_answered_by_the_end() -> None:
    play = SIEVE.inside().passes(b"LOGOUT\r\n")
    play.ended(Side.BACKEND, True, to_client(b'OK "Logout completed."\r\n'), close("quit")).run()
    play = SIEVE.inside().asks(b"LOGOUT\r\n", b'NO "stay"\r\n')
    SIEVE.leaves(play).run()
    play = SIEVE.inside().passes(b"LOGOUT\r\n").backend(b"OK")
    play.ended(Side.BACKEND, True, *aborts("backend-lost")).run()


# --- the way to the backend --------------------------------------------------------------------------


def test_starttls_that_is_not_offered_is_not_tried() -> None:
    play = SIEVE.dialled(backend_tls=BackendTLS.STARTTLS)
    play.backend(b'"SASL" "PLAIN"\r\nOK\r\n', *SIEVE.sorry("backend-tls-failed")).run()


def test_a_backend_that_turns_away_inside_tls() -> None:
    play = SIEVE.switched().secured()
    play.returns(b'BYE "busy"\r\n', note("backend-refused"), close("backend-refused")).run()


@pytest.mark.parametrize("greeting", [b'"SASL" "PLAIN"\r\nOK\r\n', b'"XCLIENT"\r\nOK\r\n'])
def test_xclient_that_is_not_offered_or_refused(greeting: bytes) -> None:
    play = SIEVE.dialled(identity=Identity.XCLIENT, origin=HERE)
    key = "backend-identity-refused"
    if b"XCLIENT" not in greeting:
        play.backend(greeting, *SIEVE.sorry(key)).run()
        return
    asked = b"XCLIENT ADDR=192.0.2.10 PORT=40000 DESTADDR=198.51.100.1 DESTPORT=143 SESSION=gw1-0001 TTL=4\r\n"
    play.backend(greeting, to_backend(asked)).backend(b'NO "You are not from trusted IP"\r\n', *SIEVE.sorry(key)).run()


def test_the_client_leaves_before_the_greeting() -> None:
    play = SIEVE.dialled().client(b"GET / HTTP/1.1\r\n", *aborts("http-client", b'BYE "Invalid protocol"\r\n'))
    play.run((WHOLE,))


# --- pure functions ----------------------------------------------------------------------------------

value = st.binary(max_size=40)


@given(st.lists(value, min_size=1, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4))
def test_strings_come_back_however_they_are_written(values: list[bytes], literal: list[bool]) -> None:
    written = [
        b"{%d+}\r\n%s" % (len(each), each) if way else strings.string(each)
        for each, way in zip(values, literal, strict=False)
    ]
    assert strings.strings(b" ".join(written)) == values


@given(st.binary(max_size=60))
def test_anything_is_strings_or_malformed(text: bytes) -> None:
    try:
        values = strings.arguments(text)
    except strings.Malformed:
        return
    assert all(isinstance(each, bytes) for each in values)


@given(st.lists(st.sampled_from([b'"SASL" "PLAIN EXTERNAL"', b'"sasl" ""', b'"STARTTLS"', b'"XCLIENT"', b'"SIEVE" "x"',
                                 b'"SASL" "SCRAM-SHA-1 SCRAM-SHA-1-PLUS PLAIN"', b'{4}\r\nSASL "EXTERNAL"'])),
       st.sampled_from([Place.CLOSED, Place.OPEN, Place.SECURE]))  # fmt: skip
def test_an_edited_list_stays_as_it_is(lines: list[bytes], place: Place) -> None:
    told = syntax.edit_capabilities(lines, place)
    assert syntax.edit_capabilities(told, place) == told
    assert told.count(b'"STARTTLS"') == (place is not Place.SECURE)
    assert b'"XCLIENT"' not in told
    assert place is not Place.CLOSED or syntax.mechanisms(told) == []


def test_half_a_reply_is_not_complete() -> None:
    assert not syntax.complete(b"CAPABILITY", b'"SASL" {5}\r\n')
    assert not syntax.complete(b"CAPABILITY", b'"SASL" {5}\r\nPLAIN\r\n')
    assert syntax.complete(b'"*"', b"OK\r\n")
    assert syntax.complete(b'AUTHENTICATE "PLAIN"', b'""\r\n')
    assert syntax.listed(b"NO\r\n") is None


def test_a_look_reads_literals() -> None:
    looking = Looking(DIALECT)
    looking.play.dialled().backend(b'"SIEVE" "x"\r\nOK\r\n', to_backend(b"CAPABILITY\r\n"))
    looking.play.backend(b'"SASL" {5}\r\nPLAIN\r\n"STARTTLS"\r\nOK\r\n', to_backend(b"LOGOUT\r\n"))
    looking.play.backend(b"OK\r\n", close("quit"))
    survey = looking.found()
    assert survey.offered == [b"SASL PLAIN", b"STARTTLS"]
    assert survey.access.logins == ("AUTHENTICATE PLAIN",)


def test_strings_are_divided_by_blanks() -> None:
    assert strings.strings(b'"a" "b"') == [b"a", b"b"]
    with pytest.raises(strings.Malformed):
        strings.strings(b'"a""b"')
    with pytest.raises(strings.Malformed):
        strings.strings(b"{9}\r\nab")


def test_a_server_that_shows_nothing_tells_nothing_of_logins() -> None:
    assert syntax.of_managesieve(Seen(b"", None, None, ())) == Access()
