"""What goes wrong between real sockets, by the numbers of the conformance table, and what everybody is told then."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.process.conftest import Front
from tests.process.legacy import SERVERS
from tests.process.recording import Backend, Connection, greet, silent
from tests.process.running import DEADLINE, Gateway, Identity, Service, running
from tests.process.wire import Client, Ending
from tests.process.words import GREETING, LINES

PROTOCOLS = tuple(GREETING)
MODES = ("starttls", "implicit")

each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)
each_speaker = pytest.mark.parametrize("protocol", LINES)
"""Also where the client speaks first."""
each_mode = pytest.mark.parametrize("mode", MODES)


def begin(front: Front, service: str, mode: str) -> Client:
    """Connected, inside TLS where it begins at once, greeting or no greeting."""
    client = front.connect(service, mode, greeted=False)
    if mode == "implicit":
        client.shake_hands(front.trusting)
    return client


# --- the backend at its beginning -----------------------------------------------------------------


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Iterator[Gateway]:
    """A gateway whose backends are not there: their port is taken, so that nobody can listen on it by chance."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        backend = f"127.0.0.1:{taken.getsockname()[1]}"
        services = [Service(protocol, backend) for protocol in PROTOCOLS]
        services += [
            Service(f"{protocol}-unix", "unix:/nowhere/at/all", protocol, ("starttls",)) for protocol in PROTOCOLS
        ]
        with running(tmp_path_factory.mktemp("gateway"), identity, services) as gateway:
            yield gateway


@pytest.mark.parametrize(("suffix", "mode", "error"), [
    ("", "starttls", "ECONNREFUSED"), ("", "implicit", "ECONNREFUSED"), ("-unix", "starttls", "ENOENT"),
])  # fmt: skip
@each_protocol
def test_G01_a_backend_that_is_not_there_is_told_as_unavailable(
    closed: Gateway, trusting: ssl.SSLContext, protocol: str, suffix: str, mode: str, error: str
) -> None:
    since = closed.log.mark()
    with Client(closed.address(protocol + suffix, mode)) as client:
        if mode == "implicit":
            client.shake_hands(trusting)
        assert client.rest() == LINES[protocol].unavailable
        assert client.ending is (Ending.FIN if mode == "starttls" else Ending.CLOSE_NOTIFY)
    # A backend that has just failed is not asked again at once.
    detail = closed.log.wait("backend-connect-failed", since, service=protocol + suffix)["detail"]
    assert error in detail or "a moment ago" in detail
    assert closed.log.wait("session", since)["reason"] == "backend-connect-failed"


def close_at_once(connection: Connection) -> None:
    """Accept, and be gone."""


FAILING = {
    "silence": silent,
    "close": close_at_once,
    "ssh": greet(b"SSH-2.0-x\r\n"),
    "web": greet(b"HTTP/1.1 400 Bad Request\r\n"),
    "zeros": greet(b"\0\0\r\n"),
    "endless": greet(b"x" * 100_000),
}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory, identity: Identity, trusting: ssl.SSLContext) -> Iterator[Front]:
    """A backend for each case, as the gateway remembers for a moment which one has failed."""
    names = [f"{protocol}-{case}-{mode}" for protocol in PROTOCOLS for case in FAILING for mode in MODES]
    backends = {name: Backend(FAILING[name.split("-")[1]]) for name in names}
    services = [
        Service(name, backend.address, name.split("-")[0], (name.split("-")[2],)) for name, backend in backends.items()
    ]
    options = {"timeouts": {"greeting": "2 s"}}
    with running(tmp_path_factory.mktemp("gateway"), identity, services, options=options) as gateway:
        yield Front(gateway, backends, trusting)
    for backend in backends.values():
        backend.close()


def check_unavailable(failing: Front, name: str, client: Client, event: str) -> None:
    assert client.rest() == LINES[name.split("-")[0]].unavailable
    failing.wait(event, service=name)
    backend = failing.backends[name].connection()
    backend.wait_until_ended()
    assert backend.heard == b""


def test_G02_a_backend_that_never_greets_is_given_up(failing: Front) -> None:
    names = [f"{protocol}-silence-{mode}" for protocol in PROTOCOLS for mode in MODES]
    for name, client in [(name, begin(failing, name, name.split("-")[2])) for name in names]:
        check_unavailable(failing, name, client, "backend-greeting-timeout")


@pytest.mark.parametrize("case", ["ssh", "web", "zeros", "endless"])
@each_mode
@each_protocol
def test_G03_a_backend_that_greets_with_garbage_is_unavailable(
    failing: Front, protocol: str, mode: str, case: str
) -> None:
    name = f"{protocol}-{case}-{mode}"
    check_unavailable(failing, name, begin(failing, name, mode), "backend-bad-greeting")
    assert failing.wait("backend-bad-greeting", service=name)["detail"]


@each_mode
@each_protocol
def test_G03_a_backend_that_closes_before_its_greeting_is_unavailable(failing: Front, protocol: str, mode: str) -> None:
    name = f"{protocol}-close-{mode}"
    check_unavailable(failing, name, begin(failing, name, mode), "backend-connect-failed")


REFUSALS = {
    "smtp": (b"554-No service here,\r\n554 go away\r\n", b"421 4.3.2 come back later\r\n"),
    "imap": (b"* BYE [ALERT] Too many connections\r\n", b"* BYE\r\n"),
    "pop3": (b"-ERR [SYS/TEMP] Too many connections\r\n", b"-ERR\r\n"),
    "lmtp": (b"554-No service here,\r\n554 go away\r\n", b"421 4.3.2 come back later\r\n"),
    "managesieve": (b'BYE (TRYLATER) "Too many connections"\r\n', b'BYE "Go"\r\n'),
    "nntp": (b"400 Too many connections\r\n", b"502 Not for you\r\n"),
    "acap": (b'* BYE (TRYLATER) "Too many connections"\r\n', b'* BYE "Go"\r\n'),
}


@pytest.mark.parametrize("number", [0, 1])
@each_mode
@each_protocol
def test_G04_the_refusal_of_a_backend_is_relayed_in_its_own_words(
    front: Front, protocol: str, mode: str, number: int
) -> None:
    service, refusal = f"{protocol}-required", REFUSALS[protocol][number]

    def refuse(connection: Connection) -> None:
        connection.say(refusal)
        if connection.line() == b"QUIT":
            connection.say(b"221 Bye\r\n")

    front.backends[service].play(refuse)
    client = begin(front, service, mode)
    if refusal.startswith(b"554"):
        # RFC 5321 3.1: the client says QUIT, and may say nothing else.
        assert client.hear(rb"^554 [^\n]*\n") == refusal
        client.say(b"EHLO x\r\n")
        assert client.line().startswith(b"503 ")
        client.say(b"QUIT\r\n")
        assert client.rest() == b"221 Bye\r\n"
    else:
        assert client.rest() == refusal
    assert front.wait("backend-refused", service=service)["text"].startswith(refusal.decode()[:4])


# --- the backend at its end -----------------------------------------------------------------------


def fall_silent(connection: Connection) -> None:
    """Close in order, from the side of the backend."""
    connection.socket.shutdown(socket.SHUT_WR)


ENDS = {"fin": fall_silent, "reset": Connection.reset}
each_end = pytest.mark.parametrize("end", ENDS)


@each_end
@each_speaker
def test_G17_a_backend_that_goes_while_it_owes_nothing(front: Front, protocol: str, end: str) -> None:
    service = f"{protocol}-required"
    client = front.secure(service)
    ENDS[end](front.backends[service].connection())
    assert client.rest() == LINES[protocol].lost_idle
    assert front.wait("session", service=service)["reason"] == "backend-closed"


@each_end
@each_speaker
def test_G17_a_backend_that_goes_with_a_command_outstanding(front: Front, protocol: str, end: str) -> None:
    service, words = f"{protocol}-required", LINES[protocol]
    verb = words.verb(words.hello)
    asked = threading.Event()

    def go(connection: Connection) -> None:
        asked.set()
        ENDS[end](connection)

    client = front.secure(service)
    # The connection is there already: what it answers from now on is decided by its own script.
    front.leave()
    front.clients.clear()
    front.since = front.gateway.log.mark()
    front.backends[service].play(SERVERS[protocol]({verb: go}))
    client = front.connect(service, "implicit")
    client.say(words.hello)
    assert client.rest() == words.lost_busy
    assert asked.is_set()
    front.wait("backend-lost", service=service)


HALF_REPLIES = {
    # command, what the backend says of its reply, what the client gets of it
    "smtp": (b"HELP", b"HELP\r\n", b"214-first\r\n214-sec", b"214-first\r\n"),
    "imap": (b"NOOP", b"n NOOP\r\n", b"* OK first\r\n* 1 EXI", b"* OK first\r\n"),
    "pop3": (b"CAPA", b"CAPA\r\n", b"+OK\r\nTOP\r\nUI", b"+OK\r\nTOP\r\n"),
    "lmtp": (b"HELP", b"HELP\r\n", b"214-first\r\n214-sec", b"214-first\r\n"),
    # A list is edited as a whole.
    "managesieve": (b"CAPABILITY", b"CAPABILITY\r\n", b'"SIEVE" "fileinto"\r\n"SAS', b""),
    "nntp": (b"CAPABILITIES", b"CAPABILITIES\r\n", b"101 list\r\nVERSION 2\r\nREA", b"101 list\r\nVERSION 2\r\n"),
    "acap": (b"NOOP", b"n NOOP\r\n", b'n OK "do', b""),
}


@each_protocol
def test_G17_a_backend_that_goes_in_the_middle_of_a_reply_leaves_it_at_that(front: Front, protocol: str) -> None:
    service = f"{protocol}-required"
    verb, command, half, told = HALF_REPLIES[protocol]

    def break_off(connection: Connection) -> None:
        connection.say(half)
        fall_silent(connection)

    front.backends[service].play(SERVERS[protocol]({verb: break_off}))
    client = front.connect(service, "implicit")
    if protocol in ("smtp", "lmtp"):
        client.say(LINES[protocol].hello)
        client.hear(LINES[protocol].hello_)
    client.say(command)
    rest = client.rest()
    assert rest in (told, half), rest
    assert front.wait("session", service=service)["reason"] == "backend-lost"


@each_mode
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_G17_a_backend_that_closes_in_the_splice_closes_it_without_a_word(
    front: Front, protocol: str, mode: str
) -> None:
    service, words = f"{protocol}-required", LINES[protocol]
    client = front.enter(service, mode)
    backend = front.backends[service].connection()
    backend.say(b"* 1 FETCH (BODY[] {100}\r\nhalf of it")
    fall_silent(backend)
    assert client.rest() == b"* 1 FETCH (BODY[] {100}\r\nhalf of it"
    assert client.ending is Ending.CLOSE_NOTIFY
    assert front.wait("session", service=service)["reason"] in ("backend-closed", "backend-lost")
    assert backend.heard.endswith(words.login)


@each_mode
@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_G17_a_backend_that_is_reset_in_the_splice_does_not_look_complete(
    front: Front, protocol: str, mode: str
) -> None:
    service = f"{protocol}-required"
    client = front.enter(service, mode)
    backend = front.backends[service].connection()
    backend.say(b"* 1 FETCH (BODY[] {100}\r\nhalf of it")
    client.hear(rb"half of it")
    backend.reset()
    assert client.rest() == b""
    assert client.ending is Ending.RESET
    assert front.wait("session", service=service)["reason"] == "backend-lost"


def test_G17_a_client_whose_backend_goes_within_its_message_hears_so_at_the_end(front: Front) -> None:
    service = "smtp-required"
    gone = threading.Event()

    def go(connection: Connection) -> None:
        connection.say(b"354 Go ahead\r\n")
        connection.until(b"half")
        connection.reset()
        gone.set()

    front.backends[service].play(SERVERS["smtp"]({b"DATA": go}))
    client = front.secure(service)
    in_data(client)
    client.say(b"Subject: half\r\n\r\n")
    assert gone.wait(DEADLINE)
    client.say(b"the other one\r\n.\r\n")
    assert client.rest() == LINES["smtp"].lost_busy
    assert front.wait("session", service=service)["reason"] == "backend-lost"


def in_data(client: Client) -> None:
    client.say(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nDATA\r\n")
    client.hear(rb"^354 [^\n]*\n")


# --- the client at its end ------------------------------------------------------------------------

GOES = ("reset", "finish")
each_going = pytest.mark.parametrize("going", GOES)


@each_protocol
def test_G18_a_client_that_resets_at_a_boundary(front: Front, protocol: str) -> None:
    service = f"{protocol}-required"
    client = front.secure(service)
    backend = front.backends[service].connection()
    before = backend.heard
    client.reset()
    assert backend.wait_until_ended() == "reset"
    assert backend.heard == before


@each_speaker
def test_a_client_that_closes_at_a_boundary_is_left_for_with_a_word(front: Front, protocol: str) -> None:
    service = f"{protocol}-required"
    client = front.secure(service)
    backend = front.backends[service].connection()
    client.close_notify()
    client.finish()
    assert backend.wait_until_ended() == "fin"
    assert backend.heard.endswith(LINES[protocol].polite)
    assert front.wait("session", service=service)["reason"] == "client-closed"


@each_going
def test_G18_a_client_that_goes_in_the_middle_of_a_message_completes_nothing(front: Front, going: str) -> None:
    client = front.secure("smtp-required")
    in_data(client)
    client.say(b"Subject: half\r\n\r\nThe first line\r\n")
    backend = front.backends["smtp-required"].connection()
    backend.wait_for(b"The first line")
    getattr(client, going)()
    assert backend.wait_until_ended() == "reset"
    assert backend.heard.endswith(b"The first line\r\n")
    assert front.wait("session")["reason"] == "client-lost"


def test_G18_a_client_that_goes_with_the_dot_under_way_completes_nothing(front: Front) -> None:
    client = front.secure("smtp-required")
    in_data(client)
    client.say(b"Subject: half\r\n\r\nThe first line\r\n.")
    backend = front.backends["smtp-required"].connection()
    backend.wait_for(b"Subject: half")
    client.close_notify()
    client.finish()
    assert backend.wait_until_ended() == "reset"
    assert re.search(rb"The first line(\r\n\.?)?\Z", backend.heard)


@each_going
def test_G18_a_client_that_goes_in_the_middle_of_a_chunk_completes_nothing(front: Front, going: str) -> None:
    client = front.secure("smtp-required")
    client.say(b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@example.test>\r\nBDAT 1000 LAST\r\nSubject: half")
    backend = front.backends["smtp-required"].connection()
    backend.wait_for(b"Subject: half")
    getattr(client, going)()
    assert backend.wait_until_ended() == "reset"
    assert backend.heard.endswith(b"Subject: half")


@each_going
def test_G18_a_client_that_goes_in_the_middle_of_a_literal_before_login(front: Front, going: str) -> None:
    front.backends["imap-required"].play(SERVERS["imap"]({b"LOGIN": b"+ OK\r\n"}))
    client = front.secure("imap-required")
    client.say(b"l LOGIN {5}\r\n")
    assert client.line() == b"+ OK\r\n"
    client.say(b"gre")
    backend = front.backends["imap-required"].connection()
    getattr(client, going)()
    assert backend.wait_until_ended() == "reset"
    assert b"LOGOUT" not in backend.heard


def test_G18_a_client_that_resets_in_the_splice_completes_nothing(front: Front) -> None:
    client = front.enter("imap-required")
    client.say(b"a APPEND INBOX {1000}\r\nSubject: half")
    backend = front.backends["imap-required"].connection()
    backend.wait_for(b"Subject: half")
    client.reset()
    assert backend.wait_until_ended() == "reset"
    assert backend.heard.endswith(b"Subject: half")
    assert front.wait("session")["reason"] == "client-lost"


@each_going
def test_G18_deletions_are_not_committed_for_a_client_that_did_not_say_so(front: Front, going: str) -> None:
    client = front.enter("pop3-required")
    client.say(b"DELE 1\r\n")
    assert client.line() == b"+OK DELE by the backend\r\n"
    backend = front.backends["pop3-required"].connection()
    getattr(client, going)()
    ending = backend.wait_until_ended()
    assert ending == ("reset" if going == "reset" else "fin")
    assert backend.heard.endswith(b"DELE 1\r\n")


# --- clients that speak something else ------------------------------------------------------------


@each_mode
@each_protocol
def test_G20_a_line_without_end_is_refused_and_reaches_nobody(front: Front, protocol: str, mode: str) -> None:
    service = f"{protocol}-required"
    client = front.connect(service, mode)
    backend = front.backends[service].connection()
    client.say(b"x" * 70 * 1024)
    client.finish()
    assert re.match(LINES[protocol].too_long_, client.rest())
    backend.wait_until_ended()
    assert b"xxx" not in backend.heard


@each_protocol
def test_G20_T09_a_line_that_is_too_long_is_refused_and_the_next_one_heard(front: Front, protocol: str) -> None:
    service, words = f"{protocol}-required", LINES[protocol]
    client = front.connect(service)
    client.say(b"x" * 15_000 + b"\r\n")
    client.say(words.hello)
    heard = client.hear(words.hello_)
    assert b"ong" in heard.splitlines()[0]
    assert b"xxx" not in front.backends[service].connection().heard


MAIL_IN_A_FORM = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\na LOGIN u p\r\nUSER u\r\nQUIT\r\n"


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: mail\r\nContent-Length: 90\r\n\r\n" + MAIL_IN_A_FORM,
        b"CONNECT h:25 HTTP/1.1\r\n\r\nUSER u\r\n",
    ],
    ids=["GET", "POST", "CONNECT"],
)
@each_mode
@each_speaker
def test_G21_C3_browsers_are_turned_away(front: Front, protocol: str, mode: str, request_: bytes) -> None:
    service = f"{protocol}-required"
    client = begin(front, service, mode)
    client.say(request_)
    rest = client.rest()
    assert b"QUIT" not in rest
    greeting = re.compile(LINES[protocol].greeting_, re.DOTALL | re.MULTILINE)
    assert greeting.sub(b"", rest, count=1).count(b"\r\n") <= 1
    front.wait("http-client", service=service)
    assert front.wait("session", service=service)["reason"] == "http-client"
    if protocol in GREETING:
        backend = front.backends[service].connection()
        backend.wait_until_ended()
        heard = backend.heard
        assert not [word for word in (b"MAIL", b"LOGIN", b"USER", b"EHLO x", b"HTTP") if word in heard]


@each_speaker
def test_G21_A16_tls_on_a_plaintext_port_is_told_apart(front: Front, protocol: str) -> None:
    service = f"{protocol}-required"
    client = front.connect(service, greeted=False)
    with pytest.raises(ssl.SSLError):
        client.shake_hands(front.trusting)
    front.wait("tls-on-plaintext-port", service=service)
    assert front.wait("session", service=service)["reason"] == "tls-on-plaintext-port"
    client = front.connect(service)
    client.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64))
    assert client.rest() == b"", "nothing is echoed"


@each_speaker
def test_G21_A16_plaintext_on_an_implicit_port_is_told_apart(front: Front, protocol: str) -> None:
    service = f"{protocol}-required"
    client = front.connect(service, "implicit", greeted=False)
    client.say(LINES[protocol].hello)
    rest = client.rest()
    assert rest == b"" or rest.startswith(b"\x15\x03")
    assert front.wait("tls-failed", service=service)["key"] == "client-tls-failed"


@each_mode
@each_speaker
def test_G26_application_protocols_never_stand_in_the_way_of_mail(
    front: Front, identity: Identity, protocol: str, mode: str
) -> None:
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.set_alpn_protocols(["foo"])
    client = front.connect(f"{protocol}-required", mode, greeted=False)
    if mode == "starttls":
        client.hear(LINES[protocol].greeting_)
        client.say(LINES[protocol].starttls)
        assert client.line() == LINES[protocol].go_ahead
    client.shake_hands(context)
    client.say(LINES[protocol].hello)
    client.hear(LINES[protocol].hello_)


# --- ends that are none ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close_notify", "finish", "both"])
@each_mode
@each_speaker
def test_G27_after_quit_all_ends_are_good_ends(front: Front, protocol: str, mode: str, how: str) -> None:
    service, words = f"{protocol}-required", LINES[protocol]
    client = front.secure(service, mode)
    client.say(words.quit)
    if how != "finish":
        client.close_notify()
    if how != "close_notify":
        client.finish()
    if how == "finish":
        # Its answer still comes: a FIN says that the client will not talk, not that it will not listen.
        assert re.match(words.quit_, client.rest())
        assert client.ending is Ending.CLOSE_NOTIFY
    backend = front.backends[service].connection()
    assert backend.wait_until_ended() == "fin"
    assert backend.heard.endswith(words.quit)
    assert front.wait("session", service=service)["reason"] == "quit"


@each_protocol
def test_G27_in_the_clear_too(front: Front, protocol: str) -> None:
    service, words = f"{protocol}-required", LINES[protocol]
    client = front.connect(service)
    client.say(words.quit)
    client.finish()
    assert re.match(words.quit_, client.rest())
    assert client.ending is Ending.FIN
    assert front.backends[service].connection().wait_until_ended() == "fin"


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
def test_a_splice_whose_client_has_said_all_still_gets_all_answers(front: Front, protocol: str) -> None:
    service, words = f"{protocol}-required", LINES[protocol]
    verb = words.verb(words.login)

    def answer_late(connection: Connection) -> None:
        connection.say({"imap": b"l OK LOGIN by the backend\r\n", "pop3": b"+OK PASS by the backend\r\n"}[protocol])
        connection.read_on()
        connection.say(b"late answer\r\n" * 1000)

    front.backends[service].play(SERVERS[protocol]({verb: answer_late}))
    client = front.enter(service)
    client.finish()
    assert client.rest() == b"late answer\r\n" * 1000
    assert front.wait("session")["reason"] == "client-closed"


def test_a_lazy_backend_is_dialled_when_it_is_needed(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext
) -> None:
    backends = {protocol: Backend(SERVERS[protocol](None)) for protocol in PROTOCOLS}
    services = [Service(protocol, f"{protocol}-store", modes=("starttls",)) for protocol in PROTOCOLS]
    options = {
        f"backend:{protocol}-store": {"address": backend.address, "connect": "lazy"}
        for protocol, backend in backends.items()
    }
    options["backend:smtp-store"]["allow_relay"] = "yes"
    with running(tmp_path, identity, services, options=options) as gateway:
        for protocol, words in GREETING.items():
            with Client(gateway.address(protocol)) as client:
                client.hear(rb"(gw\.example\.test |ACAP )[^\n]*\n")
                client.say(words.starttls)
                assert client.line() == words.go_ahead
                client.shake_hands(trusting)
                # These go on with the backend's capabilities.
                assert protocol in ("managesieve", "acap") or backends[protocol].connections.empty()
                client.say(words.hello)
                client.hear(words.hello_)
                client.say(words.quit)
                client.hear(words.quit_)
                assert client.rest() == b""
    for backend in backends.values():
        backend.close()
