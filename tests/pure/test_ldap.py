"""LDAP: what is refused before TLS, binds, what is forwarded, bad input; each octet case cut at every position."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.dialects.access import Seen
from gateway.dialects.base import BackendTLS, Policy
from gateway.dialects.directory import ber, messages
from gateway.dialects.directory.ldap import DIALECT
from gateway.dialects.survey import Survey
from gateway.protocol.vocabulary import Expired, Greeted, Patience, Side
from tests.pure.contract.answers.ldap import (
    CHALLENGE,
    DOWN,
    GO,
    LOGIN,
    ROOT,
    STARTTLS,
    STARTTLS_NAME,
    UNBIND,
    entry,
    message,
    notice,
    result,
    sasl,
    search,
    simple,
    tlv,
)
from tests.pure.contract.party import CALLERS, SWITCH
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
    Stage,
    aborts,
    close,
    cut_anywhere,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
(PARTY,) = [party for party in CALLERS if party.dialect is DIALECT]

WHO = message(9, 0x77, tlv(0x80, b"1.3.6.1.4.1.4203.1.11.3"))
"""Who am I? (RFC 4532)."""
REQUESTS = {
    "bind": (simple(5, b"cn=joe", b"secret"), 0x61),
    "anonymous bind": (simple(5, b"", b""), 0x61),
    "search": (search(5), 0x65),
    "modify": (message(5, 0x66, tlv(4, b"cn=joe"), tlv(0x30)), 0x67),
    "add": (message(5, 0x68, tlv(4, b"cn=joe"), tlv(0x30)), 0x69),
    "delete": (message(5, 0x4A, b"cn=joe"), 0x6B),
    "rename": (message(5, 0x6C, tlv(4, b"cn=joe"), tlv(4, b"cn=ann"), tlv(1, b"\xff")), 0x6D),
    "compare": (message(5, 0x6E, tlv(4, b"cn=joe"), tlv(0x30, tlv(4, b"cn"), tlv(4, b"joe"))), 0x6F),
    "extended": (WHO.replace(b"\2\1\x09", b"\2\1\5", 1), 0x78),
}
OTHERS = {name: REQUESTS[name] for name in ("search", "delete", "rename", "extended")}
"""What passes under `auth-only`."""
ABANDON = message(6, 0x50, b"\5")
PASSWORD = simple(2, b"cn=joe", b"secret")
WELCOME = result(2, 0x61, 0)
WRONG = result(2, 0x61, 49)
NOT_UNDERSTOOD = notice(2, b"not understood")
BAD = "client-protocol-error"


def coded(ident: int, tag: int, code: bytes) -> bytes:
    """A result whose code is a number of any length."""
    return message(ident, tag, tlv(0x0A, code), tlv(4), tlv(4))


def fresh(**changes: object) -> Playbook:
    return Playbook(DIALECT, terms(**changes)).start()


def served(**changes: object) -> Playbook:
    """Inside TLS, behind an anonymous bind that the backend has taken."""
    agreed = terms(**{"implicit": True, **changes})
    play = Playbook(DIALECT, agreed).start(tls(b"")).secured()
    bind, welcome = simple(1, b"", b""), result(1, 0x61, 0)
    steps: tuple[Expected, ...] = (to_backend(bind),)
    play.client(bind, DIAL)
    if agreed.backend_tls is BackendTLS.STARTTLS:
        play.dialled(to_backend(STARTTLS)).backend(GO, SWITCH).secured(*steps)
    else:
        play.dialled(*steps)
    return play.returns(welcome, PROVEN)


def ending(words: bytes, key: str, *, known: bool = False) -> tuple[Expected, ...]:
    last: Expected = to_backend(UNBIND) if known else ABORT_BACKEND
    return (note(key), to_client(words), last, close(key))


# --- before TLS --------------------------------------------------------------------------------------


def test_the_octets_are_those_of_the_rfc() -> None:
    assert STARTTLS.hex() == "301d02010177188016312e332e362e312e342e312e313436362e3230303337"
    assert len(GO) == 38
    assert DOWN.hex().startswith("30370201007832 0a0134 0400 0413".replace(" ", ""))
    refused = bytes.fromhex("3018020101 6113 0a010d 0400 040c") + b"TLS required"
    fresh().client(simple(1, b"", b""), to_client(refused)).run()


@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_waits_for_tls_in_its_own_words(name: str) -> None:
    request, tag = REQUESTS[name]
    fresh().client(request, to_client(result(5, tag, 13, b"TLS required"))).client(STARTTLS, tls(GO)).run()


CHANGE = message(5, 0x77, tlv(0x80, b"1.3.6.1.4.1.4203.1.11.1"), tlv(0x81, tlv(0x30, tlv(0x82, b"new"))))
"""Password Modify (RFC 3062)."""
HELD = {
    "password modify": (CHANGE, 0x78, 1),
    "an unknown extended request": (message(5, 0x77, tlv(0x80, b"1.2.3"), tlv(0x81, b"x")), 0x78, 0),
    "an extended request without a name": (message(5, 0x77, tlv(0x81, b"x")), 0x78, 0),
    "an extended request with a bad length": (message(5, 0x77, b"\x80\x80"), 0x78, 0),
    "an extended request with nothing": (message(5, 0x77), 0x78, 0),
    "modify": (message(5, 0x66, tlv(4, b"cn=joe"), tlv(0x30, tlv(4, b"USERPassword"))), 0x67, 1),
    "add": (message(5, 0x68, tlv(4, b"cn=joe"), tlv(0x30, tlv(4, b"unicodePwd"))), 0x69, 1),
    "compare": (message(5, 0x6E, tlv(4, b"cn=joe"), tlv(0x30, tlv(4, b"userPassword"), tlv(4, b"x"))), 0x6F, 1),
    "modify of something else": (*REQUESTS["modify"], 0),
}


@pytest.mark.parametrize("name", HELD)
def test_what_may_hold_a_password_waits_for_tls(name: str) -> None:
    """Also behind what passes, and under `required`.  A password that was shown is told of."""
    request, tag, shown = HELD[name]
    refused = to_client(result(5, tag, 13, b"TLS required"))
    for policy in (Policy.AUTH_ONLY, Policy.REQUIRED):
        play = fresh(policy=policy).client(request, refused).run()
        assert [each.event for each in play.notes].count("password-in-clear") == shown
    bind, welcome = simple(1, b"", b""), result(1, 0x61, 0)
    play = fresh(policy=Policy.AUTH_ONLY).dials(bind)
    play.returns(welcome).client(request, refused)
    play.passes(search(6)).run()


def test_what_holds_none_passes_before_tls() -> None:
    for name in ("search", "delete", "rename", "extended"):
        request, _ = REQUESTS[name]
        fresh(policy=Policy.AUTH_ONLY).dials(request).run()
        bind, welcome = simple(1, b"", b""), result(1, 0x61, 0)
        play = fresh(policy=Policy.AUTH_ONLY).dials(bind)
        play.returns(welcome).passes(request).run()
        fresh(policy=Policy.OPTIONAL).dials(CHANGE).run()


def test_what_may_hold_a_password_and_is_large_ends_the_session() -> None:
    for tag in (0x68, 0x77):
        large = b"\x30\x83\2\0\0\2\1\x08" + bytes([tag]) + b"\x83\1\xff\xf8" + bytes(100)
        fresh(policy=Policy.AUTH_ONLY).client(large, *ending(NOT_UNDERSTOOD, BAD)).run((WHOLE,))


def test_what_holds_no_password_and_is_large_dials_once() -> None:
    long = ber.write(0x30, ber.number(5), ber.write(0x77, WHO[7:], bytes(70_000)))
    play = fresh(policy=Policy.AUTH_ONLY).client(long, DIAL)
    play.dialled(note(BAD), to_client(NOT_UNDERSTOOD), to_backend(UNBIND), close(BAD)).run((WHOLE, 9999))


@pytest.mark.parametrize("ident", [0, 1, 127, 128, 255, 256, 32767, 32768, 2**31 - 1])
def test_the_message_id_is_echoed(ident: int) -> None:
    request = message(ident, 0x77, tlv(0x80, STARTTLS_NAME))
    name = tlv(0x8A, STARTTLS_NAME)
    fresh().client(search(ident), to_client(result(ident, 0x65, 13, b"TLS required"))).client(
        request, tls(result(ident, 0x78, 0, b"", name))
    ).run()


def test_lengths_may_be_longer_than_they_need_be() -> None:
    """Windows writes all of them so."""
    inside = b"\2\x81\1\7\x77\x84\0\0\0\x1c\x80\x84\0\0\0\x16" + STARTTLS_NAME
    request = b"\x30\x84" + len(inside).to_bytes(4, "big") + inside
    fresh().client(request, tls(result(7, 0x78, 0, b"", tlv(0x8A, STARTTLS_NAME)))).run()


def test_abandon_and_unbind_have_no_answer() -> None:
    fresh().client(ABANDON).client(UNBIND, close("quit")).run()
    PARTY.inside().client(ABANDON).client(UNBIND, close("quit")).run()
    served().passes(ABANDON).passes(UNBIND, close("quit")).run()


def test_starttls_has_no_value() -> None:
    request = message(4, 0x77, tlv(0x80, STARTTLS_NAME), tlv(0x81, b"x"))
    fresh().client(request, to_client(result(4, 0x78, 2, b"StartTLS has no value"))).run()
    empty = message(4, 0x77, tlv(0x80, STARTTLS_NAME), tlv(0x81, b""))
    fresh().client(empty, tls(result(4, 0x78, 0, b"", tlv(0x8A, STARTTLS_NAME)))).run()


def test_there_is_no_tls_inside_tls() -> None:
    refused = to_client(result(1, 0x78, 1, b"TLS already started"))
    PARTY.inside().client(STARTTLS, refused).run()
    served().client(STARTTLS, refused).run()
    served(backend_tls=BackendTLS.STARTTLS).client(STARTTLS, refused).run()


def test_requests_that_are_refused_are_counted() -> None:
    refused = to_client(result(5, 0x65, 13, b"TLS required"))
    words = result(5, 0x65, 13, b"TLS required") + notice(52, b"too many failures")
    play = fresh(bad_commands=3).client(search(5), refused).client(search(5), refused)
    play.client(search(5), *ending(words, "too-many-bad-commands")).run()


@pytest.mark.parametrize(("bind", "told"), [
    (PASSWORD, True), (sasl(2, b"PLAIN", b"\0a\0b"), True), (sasl(2, b"plain", b"\0a\0b"), True),
    (sasl(2, b"PLAIN"), False), (sasl(2, b"CRAM-MD5"), False), (sasl(2, b"EXTERNAL", b""), False),
])  # fmt: skip
@pytest.mark.parametrize("policy", [Policy.REQUIRED, Policy.AUTH_ONLY])
def test_a_password_that_came_in_the_clear_is_told(bind: bytes, told: bool, policy: Policy) -> None:
    """`ldapsearch -Z` goes on without TLS where it was refused."""
    play = fresh(policy=policy).client(bind, to_client(result(2, 0x61, 13, b"TLS required"))).run()
    assert [each.event for each in play.notes].count("password-in-clear") == told


@pytest.mark.parametrize("policy", [Policy.AUTH_ONLY, Policy.OPTIONAL])
@pytest.mark.parametrize("request_", [*(pair[0] for pair in OTHERS.values()), simple(5, b"", b""),
                                      simple(5, b"cn=joe", b"")])  # fmt: skip
def test_auth_only_lets_everything_through_but_credentials(policy: Policy, request_: bytes) -> None:
    fresh(policy=policy).dials(request_).run()


def test_what_was_bound_in_the_clear_does_not_count_inside() -> None:
    """Somebody on the way may have bound as himself: a fresh connection is made, and only that one is asked."""
    bind, welcome = simple(1, b"", b""), result(1, 0x61, 0)
    play = fresh(policy=Policy.AUTH_ONLY).dials(bind)
    play.returns(welcome).client(STARTTLS, tls(GO)).backend(b"late").secured()
    play.dials(PASSWORD).returns(WELCOME, SPLICE).run()


def test_a_name_that_came_in_the_clear_is_nobodys_inside() -> None:
    """Somebody on the way may have begun a login; the log must not name him for the one inside TLS."""
    begun, more = sasl(1, b"SCRAM-SHA-256", b"n,,n=mallory,r=x"), result(1, 0x61, 14)
    joe = sasl(2, b"SCRAM-SHA-256", b"n,,n=joe,r=x")
    play = fresh(policy=Policy.OPTIONAL).dials(begun).returns(more)
    play.client(STARTTLS, tls(GO)).secured().dials(joe)
    play.returns(WELCOME, note("auth", result="ok", user=b"joe"), PROVEN, SPLICE).run()


def test_another_mechanism_begins_anew() -> None:
    """RFC 4511 4.2.1."""
    begun, more = sasl(1, b"SCRAM-SHA-256", b"n,,n=mallory,r=x"), result(1, 0x61, 14)
    joe = sasl(2, b"PLAIN", b"\0joe\0secret")
    play = (
        served()
        .asks(begun, more)
        .asks(joe, WELCOME, note("auth", result="ok", mechanism="PLAIN", user=b"joe"), PROVEN, SPLICE)
    )
    play.run()


def test_starttls_waits_for_what_is_outstanding() -> None:
    """RFC 4511 4.14.1."""
    refused = to_client(result(1, 0x78, 1, b"other operations are outstanding"))
    one, done = entry(5, b"", cn=[b"x"]), result(5, 0x65, 0)

    def asked() -> Playbook:
        play = fresh(policy=Policy.OPTIONAL).dials(search(5))
        return play.returns(one).client(STARTTLS, refused)

    asked().returns(done).client(STARTTLS, tls(GO)).run()
    asked().passes(ABANDON).client(STARTTLS, tls(GO)).run()


def test_a_login_in_the_clear_leaves_the_session_inspected() -> None:
    play = fresh(policy=Policy.OPTIONAL).dials(PASSWORD)
    play.returns(WELCOME, PROVEN).client(STARTTLS, tls(GO)).run()


# --- binds -------------------------------------------------------------------------------------------


def bound(bind: bytes = PASSWORD, **changes: object) -> Playbook:
    return served(**changes).passes(bind).waits(Patience.REPLY)


def test_a_login_that_succeeds_is_the_end_of_looking() -> None:
    play = bound().returns(WELCOME, note("auth", result="ok", mechanism="SIMPLE", user=b"cn=joe"), PROVEN, SPLICE)
    play.passes(STARTTLS[:9]).run()


def test_a_login_as_the_first_request() -> None:
    PARTY.inside().dials(PASSWORD).returns(WELCOME, Greeted(), note("auth", result="ok"), PROVEN, SPLICE).run()


@pytest.mark.parametrize("changes", [{"backend_tls": BackendTLS.STARTTLS}, {"backend_local": True}])
def test_where_the_backend_could_know_the_gateway_all_heads_are_looked_at(changes: dict[str, Any]) -> None:
    external = sasl(7, b"External")
    refused = to_client(result(7, 0x61, 7, b"EXTERNAL is not available here"))
    play = bound(**changes).returns(WELCOME, PROVEN).client(external, refused)
    play.passes(search(8)).client(STARTTLS, to_client(result(1, 0x78, 1, b"TLS already started")))
    play.run()
    PARTY.inside(**changes).client(external, refused).run()
    bound_ = to_client(result(7, 0x61, 7, b"EXTERNAL-PLUS is not available here"))
    PARTY.inside(**changes).client(sasl(7, b"External-Plus"), bound_).run()


def test_an_anonymous_bind_is_no_login() -> None:
    play = bound(simple(2, b"", b"")).returns(WELCOME, PROVEN)
    play.client(STARTTLS, to_client(result(1, 0x78, 1, b"TLS already started"))).run()
    assert play.notes == []
    play = bound(sasl(2, b"ANONYMOUS", b"me")).returns(WELCOME, PROVEN).run()
    no = result(2, 0x61, 53, b"unauthenticated bind (DN with no password) disallowed")
    play = bound(simple(2, b"cn=joe", b"")).returns(no).run()
    assert (play.notes, play.rejected) == ([], 0)


@pytest.mark.parametrize(("code", "rejected"), [(49, 1), (53, 0), (52, 0), (1, 0)])
def test_wrong_passwords_are_counted_and_other_refusals_are_not(code: int, rejected: int) -> None:
    no = result(2, 0x61, code)
    play = bound().returns(no, note("auth", result="failed", mechanism="SIMPLE"))
    assert play.client(STARTTLS, to_client(result(1, 0x78, 1, b"TLS already started"))).run().rejected == rejected


@pytest.mark.parametrize(("code", "text", "named"), [
    (13, b"confidentiality required", "OpenLDAP"), (8, b"00002028: LdapErr: DSID-0C090259, comment: x", "Active"),
    (8, b"", "OpenLDAP"),
])  # fmt: skip
def test_a_server_that_takes_passwords_only_under_tls_is_told_of(code: int, text: bytes, named: str) -> None:
    no = result(2, 0x61, code, text)
    play = bound().returns(no, note("backend-refuses-plaintext-auth")).run()
    (cure,) = [str(dict(each.fields)["cure"]) for each in play.notes if each.event != "auth"]
    assert named in cure
    assert play.rejected == 0


def test_the_last_failed_login_ends_the_session() -> None:
    play = bound(failed_logins=2).returns(WRONG, REJECTED).passes(PASSWORD)
    words = WRONG + notice(52, b"too many failures")
    play.backend(WRONG, REJECTED, *ending(words, "too-many-failed-logins", known=True)[1:]).run()


def test_above_the_limit_the_backend_is_not_asked() -> None:
    limited = to_client(PARTY.answers.limited)
    for login in PARTY.answers.logins:
        play = PARTY.inside(may_log_in=lambda: False)
        play.client(login, note("refused", limit="auth-failures-per-minute"), limited).run()
    PARTY.inside(may_log_in=lambda: False).client(simple(2, b"", b""), DIAL).run()


@pytest.mark.parametrize("bind", [
    message(2, 0x60), message(2, 0x60, tlv(2, b"\3"), tlv(4)), message(2, 0x60, tlv(4), tlv(4), tlv(0x80)),
    message(2, 0x60, tlv(2, b"\3"), tlv(4), tlv(0x81, b"krb4")),
    message(2, 0x60, tlv(2, b"\3"), tlv(4), tlv(0x80, b"x"), tlv(0xA3, tlv(4, b"EXTERNAL"))),
    message(2, 0x60, tlv(2, b"\3"), tlv(4), tlv(0xA3)), sasl(2, b"EXTERNAL", b"", b""),
    message(2, 0x60, tlv(2, b"\3"), tlv(4), tlv(0xA3, tlv(0x24, tlv(4, b"EXTERNAL")))),
    sasl(2, b"EXTERNAL\0"), sasl(2, b"external\0x", b""), sasl(2, b" EXTERNAL"), sasl(2, b"GSSAPI\0", b"ticket"),
    message(2, 0x60, tlv(2, b"\3"), tlv(4), b"\x80\x05abc"), message(2, 0x60, tlv(2, b"\3"), tlv(4), b"\xa3"),
])  # fmt: skip
def test_a_bind_that_can_be_read_in_two_ways_is_refused(bind: bytes) -> None:
    PARTY.inside().client(bind, to_client(result(2, 0x61, 2, b"malformed bind request"))).run()


def test_controls_behind_a_bind_pass() -> None:
    bind = message(2, 0x60, tlv(2, b"\3"), tlv(4, b"cn=joe"), tlv(0x80, b"x"), controls=tlv(0xA0))
    bound(bind).run()


def test_what_others_are_told_before_the_answer_to_a_bind_passes() -> None:
    one, done = entry(8, b"", cn=[b"x"]), result(8, 0x65, 0)
    huge = b"\x30\x83\1\x11\x78\2\1\x08\x64\x83\1\x11\x70" + bytes(70000)
    play = served().passes(search(8)).client(PASSWORD + search(9), to_backend(PASSWORD))
    play.returns(one + done).returns(huge)
    play.returns(WELCOME, to_backend(search(9)), SPLICE).run((WHOLE, 999))


def test_the_answer_to_another_bind_is_no_verdict() -> None:
    """It passes, as what is said to others does, and the login is still to be judged."""
    bound().returns(result(7, 0x61, 0)).returns(WELCOME, PROVEN, SPLICE).run()


def test_a_backend_that_is_lost_in_a_large_message() -> None:
    """Nothing of ours lands inside it."""
    begin = b"\x30\x83\2\0\0\2\1\x08\x64\x83\1\xff\0" + bytes(50)
    play = bound().returns(begin)
    play.ended(BACKEND, True, *aborts("backend-lost")).run((WHOLE,))


@pytest.mark.parametrize("answer", [message(2, 0x61), message(2, 0x61, tlv(0x0A, b"\0")),
                                    message(2, 0x61, tlv(4) * 3), message(2, 0x61, b"\x0a\x05\0"),
                                    coded(2, 0x61, b""), coded(2, 0x61, b"\0" * 5)])  # fmt: skip
def test_an_answer_without_a_result_is_none(answer: bytes) -> None:
    bound().backend(answer, *ending(DOWN, "backend-protocol-error")).run()


def test_sasl_takes_as_long_as_it_takes() -> None:
    play = PARTY.logs_in(PARTY.ready())
    play.backend(
        PARTY.answers.accepted,
        note("auth", result="ok", mechanism="CRAM-MD5"),
        SPLICE,
        to_client(PARTY.answers.accepted),
    ).run()


LAYERS: dict[str, Any] = {"backend_tls": BackendTLS.STARTTLS}
"""Where security layers pass, and heads are looked at."""
LAYERED = bytes.fromhex("0000003c") + bytes(60)


def layered() -> Playbook:
    """The client has logged in by a mechanism that may have a security layer."""
    return bound(sasl(2, b"GSSAPI", b"ticket"), **LAYERS).returns(WELCOME, PROVEN)


def test_a_security_layer_ends_the_inspection() -> None:
    """What it carries cannot be read."""
    layered().passes(LAYERED, SPLICE).run((WHOLE,))
    layered().returns(LAYERED, SPLICE).run((WHOLE,))


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"CRAM-MD5", b""])
def test_a_success_without_credentials_is_none(mechanism: bytes) -> None:
    """It is the gateway whom the backend would let in."""
    play = bound(sasl(2, mechanism)).backend(WELCOME, *ending(DOWN, "backend-protocol-error")).run()
    assert play.proven == 1  # the anonymous bind


def test_only_the_next_octets_begin_a_security_layer() -> None:
    """RFC 4513 5.2: it is there at once, or not at all."""
    for late in (LAYERED, b"\0" + search(8)[1:]):  # the second one would be a message, but for its first octet
        play = layered().passes(search(8))
        play.client(late, *aborts(BAD, NOT_UNDERSTOOD)).run((WHOLE,))
    served().client(LAYERED, *ending(NOT_UNDERSTOOD, BAD, known=True)).run()


@pytest.mark.parametrize("mechanism", [b"GSSAPI", b"gss-spnego", b"DIGEST-MD5", b"KERBEROS_V4", b"NTLM"])
def test_where_the_backend_knows_the_gateways_user_there_is_no_layer(mechanism: bytes) -> None:
    """EXTERNAL could be said inside it, and nobody would see that."""
    refused = result(2, 0x61, 7, mechanism.upper() + b" is not available here")
    served(backend_local=True).client(sasl(2, mechanism, b"ticket"), to_client(refused)).run()


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"ANONYMOUS", b"SCRAM-SHA-256", b"OAUTHBEARER"])
def test_without_a_security_layer_the_inspection_goes_on(mechanism: bytes) -> None:
    """Else a client could say by one octet that nobody looks at its binds any more."""
    play = bound(sasl(2, mechanism, b"joe"), backend_local=True).returns(WELCOME, PROVEN)
    play.client(bytes.fromhex("0000003c") + bytes(60), *ending(NOT_UNDERSTOOD, BAD, known=True)).run((WHOLE,))


# --- what is forwarded -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_requests_pass_and_so_do_their_answers(name: str) -> None:
    request, tag = OTHERS[name]
    answer = result(5, tag, 0)
    play = served(backend_tls=BackendTLS.STARTTLS).asks(request, answer).run()
    play = PARTY.inside().dials(request)
    play.returns(answer).passes(request).run()


def test_what_changes_the_directory_is_said_to_one_address_only() -> None:
    """An answer that is lost says nothing of the change: the next address would make it again."""
    request, _ = REQUESTS["delete"]
    words = to_client(result(5, 0x6B, 52, b"backend unavailable") + DOWN)
    play = PARTY.inside(others=True).dials(request, Greeted())
    play.ended(BACKEND, True, note("backend-lost"), words, ABORT_BACKEND, close("backend-lost")).run()


def test_a_large_message_passes_in_pieces_and_nothing_lands_in_it() -> None:
    begin = b"\x30\x83\2\0\0\2\1\x08"
    add = begin + b"\x68\x83\1\xff\xf8" + bytes(131072 - 8)
    for play in (PARTY.inside().dials(add[:70000]),
                 served().passes(add[:70000])):  # fmt: skip
        play.passes(add[70000:])
        play.client(STARTTLS, to_client(result(1, 0x78, 1, b"TLS already started"))).run((WHOLE,))
    photo = begin + b"\x64\x83\1\xff\xf8" + bytes(131072 - 8)
    refused = to_client(result(1, 0x78, 1, b"TLS already started"))
    play = served().returns(photo[:100]).client(STARTTLS)
    play.returns(photo[100:], refused).run((WHOLE,))


ONE = entry(5, b"", cn=[b"x" * 9])
ENTRIES = {
    "three": (entry(300, b"x" * 200, cn=[b"y" * 300]) * 3, None),
    "five octets": (b"\x30\x84\0\0\0\x0a\2\1\1\x64\2\4\0\4\1x" * 2, None),
    "two octets": (b"\x30\x81\x0b\2\1\1\x64\2\4\0\4\2xx" * 2, None),
    "the last one is not whole": (ONE * 2 + ONE[:-1], 3 * len(ONE)),
    "the last head is not whole": (ONE * 2 + ONE[:12], 2 * len(ONE)),
    "16 MiB": (b"\x30\x84\1\0\0\0" + ONE[2:], 6 + 2**24),
    "more than that": (b"\x30\x84\1\0\0\1" + ONE[2:], 0),
    "then the result": (ONE + result(5, 0x65, 0), len(ONE)),
    "of another search": (ONE + entry(6, b"", cn=[b"x" * 99]) + entry(700, b"", cn=[b"x" * 9]), None),
    "short": (ONE + b"\x30\x07\2\1\5\x64\2\4\0" + bytes(9), len(ONE)),
    "indefinite": (b"\x30\x80" + ONE[2:], 0),
    "no length": (b"\x30\x85" + ONE[2:], 0),
    "no id": (b"\x30\x0a\4\1\1\x64\2\4\0\4\1x" + bytes(9), 0),
    "a long id": (b"\x30\x0b\2\5\0\0\0\0\1\x64\2\4\0" + bytes(9), 0),
    "a negative id": (b"\x30\x0a\2\1\x81\x64\2\4\0\4\1x" + bytes(9), 0),
    "no message": (b"\x31" + ONE[1:], 0),
}


@pytest.mark.parametrize("kind", [bytes, bytearray])
@pytest.mark.parametrize("name", ENTRIES)
def test_entries_are_skimmed(name: str, kind: type[bytes | bytearray]) -> None:
    octets, end = ENTRIES[name]
    assert ber.skim(kind(octets), 0, 0x64) == (len(octets) if end is None else end)
    assert ber.skim(kind(b"x" + octets), 1, 0x64) == 1 + (len(octets) if end is None else end)


@given(st.lists(st.sampled_from(["entry", "done", "search"]), max_size=12), st.integers(1, 60))
def test_what_is_skimmed_passes_as_what_is_looked_at_well(kinds: list[str], cut: int) -> None:
    said = {"entry": entry(5, b"cn=x", cn=[b"y"]), "done": result(5, 0x65, 0), "search": search(5)}
    stage = PARTY.opening(cut, implicit=True)
    stage.receive(CLIENT, simple(1, b"", b""))
    stage.take(stage.negotiation.dialled())
    told = result(1, 0x61, 0) + b"".join(said[kind] for kind in kinds)
    stage.receive(BACKEND, told)
    assert stage.heard_by(CLIENT) == told


def test_a_large_first_answer_passes() -> None:
    photo = b"\x30\x83\2\0\0\2\1\x05\x64\x83\1\xff\xf8" + bytes(131072 - 8)
    play = PARTY.inside().dials(search(5))
    play.returns(photo[:99]).returns(photo[99:]).run((WHOLE,))
    play = PARTY.inside().dials(PASSWORD)
    play.returns(photo).returns(WELCOME, SPLICE).run((WHOLE, 999))


def test_the_first_request_in_the_clear_may_be_large_where_it_may_pass() -> None:
    add = b"\x30\x83\2\0\0\2\1\x08\x68\x83\1\xff\xf8" + bytes(131072 - 8)
    fresh(policy=Policy.OPTIONAL).dials(add).run((WHOLE,))


def test_a_disconnection_of_the_backends_passes() -> None:
    theirs = notice(52, b"slapd shutting down")
    play = served().returns(theirs)
    play.ended(BACKEND, True, *aborts("backend-closed", DOWN)).run()


def test_each_outstanding_request_is_answered_when_the_backend_is_lost() -> None:
    words = result(5, 0x65, 52, b"backend unavailable") + result(9, 0x78, 52, b"backend unavailable") + DOWN
    play = served().passes(search(5) + WHO)
    play.ended(BACKEND, False, *ending(words, "backend-lost")).run()


def test_more_requests_than_any_server_takes_end_the_session() -> None:
    many = b"".join(search(ident) for ident in range(1, 1001))
    play = served().passes(many)
    play.client(search(1001), *ending(NOT_UNDERSTOOD, BAD)).run((WHOLE,))


def test_a_client_that_leaves_is_said_goodbye_for() -> None:
    served().ended(CLIENT, True, to_backend(UNBIND), close("client-closed")).run()
    play = served().passes(search(5))
    play.ended(CLIENT, True, ABORT_BACKEND, close("client-lost")).run()


def test_an_idle_client_hears_nothing() -> None:
    served().expire(Expired(CLIENT, Patience.COMMAND), to_backend(UNBIND), close("client-timeout")).run()


@pytest.mark.parametrize("no", [
    result(1, 0x61, 0), message(1, 0x78), search(1), b"\x30\x83\2\0\0\2\1\x01\x78\x83\1\xff\xf8" + bytes(100),
    b"\x30\x83\2\0\0\2\1\1\x78\x83\1\xff\xf8\x0a\1\0\4\0\4\0" + bytes(100), coded(1, 0x78, b"\1" * 2000),
])  # fmt: skip
def test_an_answer_to_our_starttls_that_is_none(no: bytes) -> None:
    PARTY.asked().backend(no, *PARTY.sorry("backend-bad-greeting")).run((WHOLE,))


# --- bad input ---------------------------------------------------------------------------------------

BAD_INPUT = {
    "an indefinite length": bytes.fromhex("3080 0201 01"),
    "a length of 2 GiB": bytes.fromhex("3084 7fffffff 020101"),
    "a length of 4 GiB": bytes.fromhex("3084 ffffffff 020101"),
    "a length of five octets": bytes.fromhex("3085 0000000005 020101"),
    "a reserved length": bytes.fromhex("30ff"),
    "more than 16 MiB": bytes.fromhex("3084 01000001 020101"),
    "an empty message": bytes.fromhex("3000"),
    "no operation": bytes.fromhex("3003 020101"),
    "half an operation": bytes.fromhex("3004 020101 63"),
    "an operation beyond its message": bytes.fromhex("3006 020101 6302 00"),
    "an operation of 2 GiB": bytes.fromhex("300a 020101 6384 7fffffff 00"),
    "an indefinite operation": bytes.fromhex("3007 020101 6380 0000"),
    "a negative message id": bytes.fromhex("3005 0201ff 4200"),
    "a message id of five octets": bytes.fromhex("3009 02050000000001 4200"),
    "a message id of no octet": bytes.fromhex("3004 0200 4200"),
    "a message id that is none": bytes.fromhex("3005 040101 4200"),
    "nesting instead of an id": bytes.fromhex("300a 3008 3006 3004 3002 3000"),
    "an unknown operation": bytes.fromhex("3005 020101 4300"),
    "a response": result(1, 0x61, 0),
    "a set": bytes.fromhex("3105 020101 4200"),
    "SSH": b"SSH-2.0-x\r\n",
}
FOREIGN = {
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "http-client"),
    "a PROXY header": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "unexpected-proxy-header"),
    "a ClientHello": (b"\x16\x03\x01\x02\x00\x01" + bytes(60), "tls-on-plaintext-port"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_of_a_client_ends_the_session_with_a_notice(name: str) -> None:
    said = BAD_INPUT[name]
    fresh().client(said, *ending(NOT_UNDERSTOOD, BAD)).run()
    PARTY.inside().client(said, *ending(NOT_UNDERSTOOD, BAD)).run()
    served().client(said, *ending(NOT_UNDERSTOOD, BAD, known=True)).run()


@pytest.mark.parametrize("name", [name for name in BAD_INPUT if name not in ("a response", "an unknown operation")])
def test_bad_input_of_a_backend_ends_the_session(name: str) -> None:
    served().backend(BAD_INPUT[name], *aborts("backend-protocol-error", DOWN)).run()


@pytest.mark.parametrize("name", FOREIGN)
def test_strangers_hear_nothing(name: str) -> None:
    said, key = FOREIGN[name]
    fresh().client(said, *aborts(key)).run()


@pytest.mark.parametrize("tag", [0x60, 0x42, 0x50])
def test_what_must_be_read_whole_may_not_be_large(tag: int) -> None:
    large = b"\x30\x83\2\0\0\2\1\1" + bytes([tag]) + b"\x83\1\xff\xf8" + bytes(60)
    PARTY.inside().client(large, *ending(NOT_UNDERSTOOD, BAD)).run()
    served().client(large, *ending(NOT_UNDERSTOOD, BAD, known=True)).run()


def test_before_tls_messages_are_short() -> None:
    longest = search(5, b"x" * (4096 - len(search(5, b"x" * 200)) + 200))
    assert len(longest) == 4096
    fresh().client(longest, to_client(result(5, 0x65, 13, b"TLS required"))).run((WHOLE, 999))
    fresh().client(search(5, b"x" * 4096), *ending(NOT_UNDERSTOOD, BAD)).run()


ODD_NAME = message(3, 0x77, b"\x80\x80abc")
"""Of indefinite length."""


def test_an_extended_request_without_a_name_is_the_backends_to_refuse() -> None:
    cut, short, other = (message(3, 0x77, each) for each in (b"\x80\x16abc", b"\x80", tlv(0x81, STARTTLS_NAME)))
    for request in (message(3, 0x77), short, message(3, 0x77, tlv(0x80, b"1.2")), cut, ODD_NAME, other):
        served().passes(request).run()


# --- every position ----------------------------------------------------------------------------------

CASES = {
    **BAD_INPUT,
    **{name: said for name, (said, _) in FOREIGN.items()},
    **{name: request for name, (request, _) in REQUESTS.items()},
    "StartTLS": STARTTLS,
    "Unbind": UNBIND,
    "Abandon": ABANDON,
    "EXTERNAL": sasl(3, b"EXTERNAL"),
    "two requests": search(5) + WHO,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("known", ["fresh", "inside", "served"])
def test_a_case_that_is_cut_anywhere_has_the_same_answer(name: str, known: str) -> None:
    def begin() -> Stage:
        stage = PARTY.opening(implicit=known != "fresh")
        if known == "served":
            stage.receive(CLIENT, simple(1, b"", b""))
            stage.take(stage.negotiation.dialled())
            stage.receive(BACKEND, result(1, 0x61, 0))
        return stage

    assert len(cut_anywhere(begin, CASES[name])) == 1


@given(st.lists(st.sampled_from(sorted(CASES)), max_size=6), st.integers(1, 40), st.sampled_from(Policy))
def test_how_the_network_cuts_changes_nothing(names: list[str], cut: int, policy: Policy) -> None:
    outcomes = []
    for size in (WHOLE, cut):
        stage = PARTY.opening(size, policy=policy)
        for name in names:
            if stage.negotiation.over or stage.switching:
                break
            stage.receive(CLIENT, CASES[name])
        outcomes.append(stage.outcome())
    assert outcomes[0] == outcomes[1]


@example(ident=2**31 - 1, text=b"x" * 300)
@given(ident=st.integers(0, 2**31 - 1), text=st.binary(max_size=300))
def test_what_is_written_is_read_again(ident: int, text: bytes) -> None:
    written = messages.result(ident, 0x61, 49, text)
    head = ber.head(written)
    assert head is not None
    assert head.ident == ident
    assert messages.result_of(written, head.operation) == (49, text)
    assert ber.measure(written) == len(written)
    for at in range(len(written)):
        assert (ber.head(written[:at]) or head) == head


# --- looking at a server -----------------------------------------------------------------------------


def looked(answer: bytes) -> Survey:
    looking = Looking(DIALECT)
    looking.play.dialled(to_backend(ROOT)).backend(answer, to_backend(UNBIND), close("quit"))
    return looking.found()


def test_check_asks_for_the_root_dse() -> None:
    look = PARTY.answers.look
    assert look is not None
    survey = looked(look.exchanges[0].answered)
    assert (survey.offered, survey.shown, survey.access.logins) == (look.offered, look.shown, look.logins)
    assert survey.access.starttls
    assert survey.greeted


def test_a_server_that_does_not_tell() -> None:
    survey = looked(result(1, 0x65, 13, b"TLS confidentiality required"))
    assert (survey.offered, survey.access.logins) == (None, None)
    assert messages.readable(survey.greeting) == b"result 13: TLS confidentiality required"


def test_answers_are_readable() -> None:
    seen = entry(1, b"", supportedSASLMechanisms=[b"PLAIN", b"LOGIN"], cn=[])
    assert messages.readable(seen) == b"supportedSASLMechanisms: PLAIN LOGIN\ncn: "
    for odd in (b"", b"\x30", message(1, 0x64, tlv(4)), message(1, 0x64, tlv(4), tlv(0x30, tlv(4))), message(1, 0x61),
                coded(1, 0x61, b"\1" * 2000)):  # fmt: skip
        messages.readable(odd)
        assert messages.listed(odd) is None
    assert messages.logins(Seen(b"", None, [b"PLAIN"], ())).starttls is None
    offered = [b"EXTERNAL", b"ANONYMOUS", b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS", b"1.2.3"]
    assert messages.logins(Seen(b"", None, offered, ())).logins == ("SIMPLE", "SCRAM-SHA-256")


def test_a_cram_challenge_is_no_login() -> None:
    play = PARTY.inside().dials(LOGIN).returns(CHALLENGE).run()
    assert play.notes == []


def test_starttls_that_is_too_long_ends_the_session_at_once() -> None:
    """It stays where it is, and would be refused again and again."""
    request = ber.write(0x77, ber.write(0x80, STARTTLS_NAME), ber.write(0x81, b"x" * 70_000))
    long = ber.write(0x30, ber.number(5), request)
    served().client(long, *ending(NOT_UNDERSTOOD, BAD, known=True)).run((WHOLE, 9999))
    play = fresh(policy=Policy.OPTIONAL).client(long, *ending(NOT_UNDERSTOOD, BAD))
    play.run((WHOLE, 9999))


def test_no_password_is_told_with_a_fault() -> None:
    for said in (PASSWORD.replace(b"\2\1\2", b"\2\1\xff", 1), b"1" + PASSWORD[1:]):
        play = served().client(said, *ending(NOT_UNDERSTOOD, BAD, known=True)).run((WHOLE,))
        assert not [each for each in play.notes if "joe" in repr(each) or "secret" in repr(each)]
