"""MySQL: the greeting, TLS, the numbers of packets, plugins, bad input; each octet case cut at every position."""

from __future__ import annotations

import pytest

from gateway.dialects.base import BackendTLS, Identity, Policy
from gateway.dialects.database import mysql
from gateway.dialects.database.mysql import AUTHENTICATION, DIALECT
from gateway.protocol.vocabulary import Close, Dial, Expired, Greeted, Patience, Side, Unserved
from gateway.protocol.waiting import lateness
from tests.pure.contract.answers.mysql import (
    ANSWERS,
    DENIED,
    NATIVE,
    SSL_REQUEST,
    STRANGER,
    error,
    greeting,
    login,
    packet,
)
from tests.pure.contract.party import HERE
from tests.pure.contract.test_identity import HEADERS
from tests.pure.looking import Looking
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    PROVEN,
    REJECTED,
    SPLICE,
    TLS13,
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
HELLO = b"\x16\x03\x01\x02\x00\x01" + bytes(60)
REQUIRED = error(2, 3159, b"HY000", b"TLS required")
LOST = b"the connection to the server was lost"
BAD = "client-protocol-error"
OK = b"\0\0\0\2\0\0\0"
GARBLED = aborts(BAD)


def greeted(**changes: object) -> Playbook:
    limits = {name: changes.pop(name) for name in ("may_log_in", "others") if name in changes}
    agreed = terms(**changes)
    play = Playbook(DIALECT, agreed, **limits)  # type: ignore[arg-type]
    play = play.start(tls(b"")).secured(DIAL) if agreed.implicit else play.start(DIAL)
    told = greeting(ssl=not agreed.implicit)
    return play.dialled().backend(greeting(), Greeted(), to_client(told))


def inside(**changes: object) -> Playbook:
    return greeted(**changes).client(SSL_REQUEST, tls(b"")).secured()


def asked(plugin: bytes = b"mysql_native_password", **changes: object) -> Playbook:
    """The client has said who it is."""
    return inside(**changes).client(login(2, plugin=plugin), to_backend(login(1, plugin=plugin, ssl=False)))


# --- TLS with the client -----------------------------------------------------------------------------


def test_the_octets_are_those_of_mariadb() -> None:
    told = bytes.fromhex("4d000000 0a") + b"5.5.5-10.11.19-MariaDB\0"
    assert len(greeting()) == len(greeting(ssl=True))
    assert greeting()[5:28] == told[5:]
    assert len(SSL_REQUEST) == 36


@pytest.mark.parametrize("policy", [Policy.REQUIRED, Policy.AUTH_ONLY])
def test_a_login_in_the_clear_is_refused(policy: Policy) -> None:
    for first in (login(1, ssl=False), login(1)):
        greeted(policy=policy).client(first, to_client(REQUIRED), close("tls-required")).run()


def test_a_login_in_the_clear_passes_where_it_may() -> None:
    for first in (login(1, ssl=False), login(1)):
        play = greeted(policy=Policy.OPTIONAL).client(first, to_backend(login(1, ssl=False)))
        play.returns(packet(2, OK), note("auth", result="ok"), PROVEN, SPLICE).run()


def test_no_login_is_taken_for_tls() -> None:
    """A packet of 790 octets begins with 16 03 00, as the TLS of 1996 does."""
    user = b"j" * (790 - len(login(1, user=b"")) + 4)
    first = login(1, user=user, ssl=False)
    assert first[:3] == b"\x16\x03\0"
    greeted(policy=Policy.OPTIONAL).passes(first).run((WHOLE, 99))


def test_who_always_used_tls_is_held_to_it() -> None:
    dates = {"first_tls": "2023-11-14T22:13:20Z", "last_tls": "2023-11-15T22:13:20Z"}
    agreed = terms(policy=Policy.OPTIONAL, insists=True)
    play = Playbook(DIALECT, agreed, always=dates).start(DIAL).dialled()
    play.backend(greeting(), to_client(greeting(ssl=True)))
    play.client(login(1, ssl=False), note("downgrade", action="refused", **dates), to_client(REQUIRED),
                close("tls-required")).run()  # fmt: skip


def test_the_numbers_are_counted_anew_up_to_the_verdict() -> None:
    play = asked().waits(Patience.REPLY)
    play.backend(packet(2, OK), note("auth", result="ok", mechanism="MYSQL_NATIVE_PASSWORD", user=b"joe"), PROVEN,
                 to_client(packet(3, OK)), SPLICE)  # fmt: skip
    query = packet(0, b"\x03select 1")
    play.asks(query, packet(1, b"x")).run()


def test_a_client_hello_in_the_same_segment_belongs_to_the_handshake() -> None:
    greeted().client(SSL_REQUEST + HELLO, tls(b"", early=HELLO)).run()


def test_octets_behind_ssl_request_end_the_session() -> None:
    for behind in (login(2), b"\r\n", b"\x15\x03", login(2)[:9]):
        greeted().client(SSL_REQUEST + behind, *aborts("starttls-injection")).run((WHOLE,))


def test_on_an_implicit_port_nothing_is_renumbered() -> None:
    greeted(implicit=True).asks(login(1, ssl=False), packet(2, OK), PROVEN, SPLICE).run()


def test_a_failed_handshake_is_told_to_nobody() -> None:
    play = greeted().client(SSL_REQUEST, tls(b""))
    play.unsecured(*aborts("tls-failed")).run()


# --- logins ------------------------------------------------------------------------------------------


def test_another_plugin_is_asked_for() -> None:
    switch, answer = b"\xfeclient_ed25519\0" + b"s" * 32, b"a" * 64
    play = asked().backend(packet(2, switch), to_client(packet(3, switch)))
    play.client(packet(4, answer), to_backend(packet(3, answer)))
    play.backend(packet(4, OK), note("auth", result="ok", mechanism="CLIENT_ED25519"), to_client(packet(5, OK)), SPLICE)
    play.run()
    old = b"\xfe"
    asked().backend(packet(2, old), to_client(packet(3, old))).client(packet(4, b""), to_backend(packet(3, b""))).run()


@pytest.mark.parametrize(
    "data", [b"\x60\x82\x01token", b"\x02Code: ", b"\x04Password: ", b"\x01\xfe", b"r=x,s=y,i=4096"]
)
def test_what_a_plugin_says_passes(data: bytes) -> None:
    """Not all of it begins with MORE_DATA."""
    play = asked(b"auth_gssapi_client").backend(packet(2, data), to_client(packet(3, data)))
    play.client(packet(4, b"answer"), to_backend(packet(3, b"answer")))
    named = note("auth", result="ok", mechanism="AUTH_GSSAPI_CLIENT")
    play.backend(packet(4, OK), named, to_client(packet(5, OK)), SPLICE).run()


def test_a_second_password_may_be_asked_for() -> None:
    factor = b"\x02caching_sha2_password\0" + b"s" * 20
    play = asked().backend(packet(2, factor), to_client(packet(3, factor)))
    play.client(packet(4, b"hash"), to_backend(packet(3, b"hash")))
    refused = (note("backend-clear-password"), to_client(error(5, 1251, b"08004", CLEAR)), close("backend-refused"))
    play.backend(packet(4, b"\1\4"), *refused).run()
    refused = (note("backend-clear-password"), to_client(error(3, 1251, b"08004", CLEAR)), close("backend-refused"))
    asked().backend(packet(2, b"\x02mysql_clear_password\0"), *refused).run()


@pytest.mark.parametrize(("code", "rejected"), [(1045, 1), (1698, 1), (1049, 0), (1040, 0)])
def test_wrong_passwords_are_counted_and_other_errors_are_not(code: int, rejected: int) -> None:
    play = asked().backend(error(2, code, b"28000", b"no"), note("auth", result="failed", user=b"joe"),
                           to_client(error(3, code, b"28000", b"no")), close("backend-closed")).run()  # fmt: skip
    assert play.rejected == rejected


def test_the_last_failed_login_ends_the_session() -> None:
    play = asked(failed_logins=1).backend(error(2, 1045, b"28000", b"no"), REJECTED,
        to_client(error(3, 1045, b"28000", b"no")), ABORT_BACKEND, close("too-many-failed-logins"))  # fmt: skip
    play.run()


def test_above_the_limit_the_backend_is_not_asked() -> None:
    limited = error(3, 1226, b"42000", b"too many failed logins, try again later")
    play = inside(may_log_in=lambda: False)
    play.client(login(2), note("refused", limit="auth-failures-per-minute"), to_client(limited), close("refused")).run()


CLEAR = b"the password of this user would cross the network in the clear behind the gateway"


@pytest.mark.parametrize(
    "plugin", [b"mysql_clear_password", b"sha256_password", b"dialog", b"authentication_openid_connect_client"]
)
def test_a_password_that_would_be_in_the_clear_is_refused(plugin: bytes) -> None:
    refused = (note("backend-clear-password"), to_client(error(3, 1251, b"08004", CLEAR)), close("backend-refused"))
    inside().client(login(2, plugin=plugin), *refused).run()
    asked().backend(packet(2, b"\xfe" + plugin + b"\0"), *refused).run()
    for changes in ({"backend_local": True}, {"backend_tls": BackendTLS.IMPLICIT}):
        play = Playbook(DIALECT, terms(**changes)).start(DIAL)
        if "backend_tls" in changes:
            play.dialled(tls(b"", BACKEND)).secured()
        else:
            play.dialled()
        play.backend(greeting(), to_client(greeting(ssl=True))).client(SSL_REQUEST, tls(b"")).secured()
        play.client(login(2, plugin=plugin), to_backend(login(1, plugin=plugin, ssl=False))).run()
    open_ = greeted(policy=Policy.OPTIONAL)
    open_.passes(login(1, plugin=plugin, ssl=False)).run()


def test_caching_sha2_works_for_users_whom_the_server_remembers() -> None:
    fast, whole = b"\1\3", b"\1\4"
    play = asked(b"caching_sha2_password").backend(packet(2, fast), to_client(packet(3, fast)))
    play.backend(packet(3, OK), note("auth", result="ok"), to_client(packet(4, OK)), SPLICE).run()
    play = asked(b"caching_sha2_password").backend(packet(2, whole), note("backend-clear-password"),
        to_client(error(3, 1251, b"08004", CLEAR)), close("backend-refused"))  # fmt: skip
    play.run()


def test_how_a_login_says_its_plugin() -> None:
    fixed = bytes(28) + b"joe\0"

    def read(flags: int, rest: bytes) -> mysql.Login:
        return mysql.read_login(flags.to_bytes(4, "little") + fixed + rest)

    native = b"mysql_native_password"
    assert read(0x200, b"") == (b"joe", native)
    assert read(0x80200, b"password\0dialog\0") == (b"joe", b"dialog")
    assert read(0x80208, b"password\0shop\0dialog\0") == (b"joe", b"dialog")
    assert read(0x88200, b"\2abdialog\0") == (b"joe", b"dialog")
    assert read(0x88200, b"") == (b"joe", b"")
    assert read(0x280200, b"\xfc\3\0abcdialog\0") == (b"joe", b"dialog")
    assert read(0x280200, b"\xfd\3\0\0abcdialog\0") == (b"joe", b"dialog")
    assert read(0x280200, b"") == (b"joe", b"")
    for flags, rest in ((0, b""), (0x280200, b"\xfe\0")):
        with pytest.raises(ValueError, match=r"no Handshake|too long"):
            read(flags, rest)


# --- the backend -------------------------------------------------------------------------------------


def dialled(**changes: object) -> Playbook:
    others = bool(changes.pop("others", False))
    return Playbook(DIALECT, terms(**changes), others=others).start(DIAL).dialled()


def sorry(key: str) -> tuple[Expected, ...]:
    return aborts(key, ANSWERS.unavailable)


NO_GREETINGS = {
    "SSH": b"SSH-2.0-x\r\n",
    "SMTP": b"220 mail.example.org ESMTP\r\n",
    "another version": packet(0, b"\x09" + greeting()[5:]),
    "another number": packet(1, greeting()[4:]),
    "nothing": packet(0, b""),
    "half a greeting": packet(0, greeting()[4:40]),
    "no version": packet(0, b"\x0a" + b"x" * 60),
    "16 MB": b"\xff\xff\xff\0\x0a",
}


@pytest.mark.parametrize("name", NO_GREETINGS)
def test_first_words_that_are_no_greeting(name: str) -> None:
    dialled().backend(NO_GREETINGS[name], *sorry("backend-bad-greeting")).run()
    play = dialled(others=True).backend(NO_GREETINGS[name], Dial("backend-bad-greeting")).dialled()
    play.backend(greeting(), to_client(greeting(ssl=True))).run()


def test_a_backend_that_refuses_is_told_of() -> None:
    full = error(0, 1040, b"", b"Too many connections")
    refused = (note("backend-refused", text=b"Too many connections"), to_client(full), close("backend-refused"))
    dialled().backend(full, *refused).run()


def test_a_backend_that_is_not_there() -> None:
    Playbook(DIALECT, terms()).start(DIAL).undialled(*sorry("backend-connect-failed")).run()


def test_a_proxy_header_of_ours_comes_before_everything() -> None:
    for identity, header in HEADERS.items():
        agreed = terms(identity=identity, origin=HERE, lazy=identity is Identity.PROXY_V2)
        play = Playbook(DIALECT, agreed).start(DIAL).dialled(to_backend(header))
        play.backend(greeting(), to_client(greeting(ssl=True))).run()


def test_an_answer_that_is_none() -> None:
    asked().backend(packet(2, b""), *aborts("backend-protocol-error", error(3, 1158, b"08S01", LOST))).run()


# --- TLS to the backend ------------------------------------------------------------------------------

STARTTLS = BackendTLS.STARTTLS
SWITCH = tls(b"", BACKEND)


def secure(**changes: object) -> Playbook:
    """The server offers TLS, and the gateway must have it."""
    agreed = terms(backend_tls=STARTTLS, **changes)
    play = Playbook(DIALECT, agreed)
    play = play.start(tls(b"")).secured(DIAL) if agreed.implicit else play.start(DIAL)
    return play.dialled().backend(greeting(ssl=True), Greeted(), to_client(greeting(ssl=not agreed.implicit)))


def test_the_server_is_asked_for_tls_with_the_clients_own_abilities() -> None:
    """It takes them from SSLRequest.  Each leg counts its own packets."""
    inner = secure().client(SSL_REQUEST, tls(b"")).secured().client(login(2), to_backend(SSL_REQUEST), SWITCH)
    inner.secured(to_backend(login(2))).returns(packet(3, OK), PROVEN, SPLICE).run()
    first = secure(implicit=True).client(login(1, ssl=False), to_backend(SSL_REQUEST), SWITCH)
    first.secured(to_backend(login(2))).backend(packet(3, OK), PROVEN, to_client(packet(2, OK)), SPLICE).run()
    clear = secure(policy=Policy.OPTIONAL).client(login(1, ssl=False), to_backend(SSL_REQUEST), SWITCH)
    clear.secured(to_backend(login(2)))
    clear.backend(packet(3, NATIVE[4:]), to_client(packet(2, NATIVE[4:])))
    clear.client(packet(3, b"hash"), to_backend(packet(4, b"hash")))
    clear.backend(packet(5, OK), to_client(packet(4, OK)), SPLICE).run()


def test_inside_tls_to_the_server_a_password_may_pass() -> None:
    play = secure().client(SSL_REQUEST, tls(b"")).secured()
    play.client(login(2, plugin=b"mysql_clear_password"), to_backend(SSL_REQUEST), SWITCH)
    play.secured(to_backend(login(2, plugin=b"mysql_clear_password"))).run()


def test_a_server_that_does_not_offer_tls_is_not_used() -> None:
    key = "backend-tls-failed"
    dialled(backend_tls=STARTTLS).backend(greeting(), *sorry(key)).run()
    play = dialled(backend_tls=STARTTLS, others=True).backend(greeting(), Dial(key)).dialled()
    play.returns(greeting(ssl=True)).run()
    full = error(0, 1040, b"", b"Too many connections")
    dialled(backend_tls=STARTTLS).returns(full, note("backend-refused"), close("backend-refused")).run()


def test_a_server_that_fails_at_tls_is_no_longer_the_first() -> None:
    key = "backend-tls-failed"
    play = secure().client(SSL_REQUEST, tls(b"")).secured().client(login(2), to_backend(SSL_REQUEST), SWITCH)
    lost = to_client(error(3, 1158, b"08S01", LOST))
    play.unsecured(Unserved(key), note(key), lost, ABORT_BACKEND, close(key)).run()
    play = secure().client(SSL_REQUEST, tls(b"")).secured().client(login(2), to_backend(SSL_REQUEST), SWITCH)
    play.ended(CLIENT, False, ABORT_BACKEND, close("client-lost")).run()


def test_a_client_that_fails_meanwhile_speaks_against_no_server() -> None:
    stage = Stage(DIALECT, terms(backend_tls=STARTTLS, implicit=True))
    stage.take(stage.negotiation.start())
    stage.secured(TLS13)
    stage.take(stage.negotiation.dialled())
    stage.receive(BACKEND, greeting(ssl=True))
    stage.receive(CLIENT, login(1, ssl=False))
    assert stage.switching is BACKEND
    stage.take(stage.negotiation.unsecured(CLIENT, "plaintext inside TLS"))
    assert Unserved("tls-failed") not in stage.deeds
    assert stage.deeds[-1] == Close("tls-failed", "plaintext inside TLS")


def test_what_a_server_says_in_the_clear_behind_its_greeting_is_an_attack() -> None:
    key = "backend-starttls-injection"
    for behind in (packet(2, OK), b"x", HELLO):
        play = Playbook(DIALECT, terms(backend_tls=STARTTLS)).start(DIAL).dialled()
        play.backend(greeting(ssl=True) + behind, to_client(greeting(ssl=True)))
        play.client(SSL_REQUEST, tls(b"")).secured()
        lost = to_client(error(3, 1158, b"08S01", LOST))
        play.client(login(2), to_backend(SSL_REQUEST), note(key), lost, ABORT_BACKEND, close(key)).run((WHOLE,))


# --- how it ends -------------------------------------------------------------------------------------


def test_the_backend_is_lost_before_its_verdict() -> None:
    asked().ended(BACKEND, True, *aborts("backend-lost", error(3, 1158, b"08S01", LOST))).run()
    switch = packet(2, b"\xfeclient_ed25519\0x")
    asked().backend(switch, to_client(packet(3, switch[4:]))).ended(BACKEND, True, *aborts("backend-lost")).run()


def test_who_is_late_hears_nothing() -> None:
    switch = packet(2, b"\xfeclient_ed25519\0x")
    question = asked().backend(switch, to_client(packet(3, switch[4:])))
    for play, patience in ((greeted(), Patience.COMMAND), (inside(), Patience.COMMAND), (question, AUTHENTICATION)):
        late = Expired(CLIENT, patience)
        play.waits(patience).expire(late, *aborts("client-timeout")).run()
    dialled().expire(Expired(CLIENT, Patience.COMMAND), *aborts("client-timeout")).run()


def test_a_server_that_does_not_answer_a_login() -> None:
    late = lateness(asked().stage().negotiation.waiting)
    assert (late.key, late.detail) == ("backend-timeout", "waiting for: reply")
    ending = (to_client(error(3, 1158, b"08S01", LOST)), ABORT_BACKEND, close("backend-timeout"))
    asked().waits(Patience.REPLY).expire(late, note("backend-timeout"), *ending).run()


def test_a_gateway_that_stops() -> None:
    stop = to_client(error(0, 1053, b"", b"the server is stopping"))
    dialled().stop(stop, ABORT_BACKEND, close("shutdown")).run()
    greeted().stop(ABORT_BACKEND, close("shutdown")).run()


# --- bad input ---------------------------------------------------------------------------------------

BAD_INPUT = {
    "16 MB": b"\xff\xff\xff\x01",
    "above the limit": b"\xfd\xff\0\x01",
    "nothing": packet(1, b""),
    "31 octets": packet(1, b"\x84\xaa\xbf\0" + bytes(27)),
    "another number": packet(0, SSL_REQUEST[4:]),
    "a query": packet(0, b"\x03select 1"),
}
FOREIGN = {
    "HTTP": (b"GET / HTTP/1.1\r\n\r\n", "http-client"),
    "a PROXY header": (b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n", "unexpected-proxy-header"),
    "a ClientHello": (HELLO, "tls-on-plaintext-port"),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_ends_the_session(name: str) -> None:
    greeted().client(BAD_INPUT[name], *GARBLED).run()


@pytest.mark.parametrize("name", FOREIGN)
def test_strangers_hear_nothing(name: str) -> None:
    said, key = FOREIGN[name]
    greeted().client(said, *aborts(key)).run()


def test_inside_tls_there_is_one_login() -> None:
    for said in (login(1), packet(2, login(2)[4:30]), packet(2, SSL_REQUEST[4:]), b"\xff\xff\xff\x02"):
        inside().client(said, *GARBLED).run()
    inside().client(packet(2, b"\x84\xa8\xbf\0" + login(2)[8:]), *GARBLED).run()
    asked().client(b"\xff\xff\xff\x03", *GARBLED).run()
    asked().backend(b"\xff\xff\xff\x02", *aborts("backend-protocol-error", error(3, 1158, b"08S01", LOST))).run()


CASES = {
    **BAD_INPUT,
    **{name: said for name, (said, _) in FOREIGN.items()},
    "SSLRequest": SSL_REQUEST,
    "a login in the clear": login(1, ssl=False),
}


@pytest.mark.parametrize("name", CASES)
def test_a_case_that_is_cut_anywhere_has_the_same_answer(name: str) -> None:
    assert len(cut_anywhere(lambda: greeted().stage(), CASES[name])) == 1


def test_a_login_that_is_cut_anywhere_has_the_same_answer() -> None:
    answer = packet(2, OK)
    for at in range(1, len(login(2))):
        stage = Stage(DIALECT, terms())
        stage.take(stage.negotiation.start())
        stage.take(stage.negotiation.dialled())
        stage.receive(BACKEND, greeting()[:at])
        stage.receive(BACKEND, greeting()[at:])
        stage.receive(CLIENT, SSL_REQUEST)
        stage.secured(TLS13)
        stage.receive(CLIENT, login(2)[:at])
        stage.receive(CLIENT, login(2)[at:])
        for piece in (answer[:at], answer[at:]):
            stage.receive(BACKEND, piece)
        assert stage.spliced
        assert stage.heard_by(CLIENT) == greeting(ssl=True) + packet(3, OK)
        assert stage.heard_by(BACKEND) == login(1, ssl=False)


# --- looking at a server -----------------------------------------------------------------------------


def test_check_logs_in_as_nobody() -> None:
    looking = Looking(DIALECT)
    looking.play.dialled().backend(greeting(), to_backend(STRANGER)).backend(NATIVE, close("quit"))
    survey = looking.found()
    assert survey.greeted
    assert survey.access.logins == ("mysql_native_password",)
    assert survey.offered is None
    assert mysql.readable(survey.greeting) == b"5.5.5-10.11.19-MariaDB"
    assert mysql.readable(DENIED).startswith(b"Access denied for user")
    assert survey.end == Close("quit")


def test_what_is_no_greeting_is_shown_as_it_is() -> None:
    full = error(0, 1040, b"", b"Too many connections")
    looking = Looking(DIALECT)
    looking.play.dialled().backend(full, close("backend-refused"))
    assert looking.found().access.logins is None
    assert mysql.readable(full) == b"Too many connections"
    assert mysql.readable(b"x") == b"x"
    assert mysql.plugin_of(b"") == b""


def test_no_password_is_told_with_a_fault() -> None:
    said = login(1, plugin=b"mysql_clear_password", auth=b"secret\0")  # its number should be 2
    play = inside().client(said, *GARBLED).run((WHOLE,))
    assert not [each for each in play.notes if "secret" in repr(each)]
