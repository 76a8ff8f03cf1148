"""The admin listener of a running gateway: figures are right, strangers are kept out, and sessions do not notice it."""

from __future__ import annotations

import base64
import http.client
import json
import os
import random
import signal
import socket
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from prometheus_client.parser import text_string_to_metric_families

from gateway.protocol.proxyprotocol import v2_local
from gateway.telemetry.metrics import PREFIX
from gateway.telemetry.report.store import Store
from tests.process.conftest import Front, Opening, Serve
from tests.process.legacy import SERVERS
from tests.process.programs import need
from tests.process.running import DEADLINE, Identity, Service, running, wait_until
from tests.process.wire import Client
from tests.process.words import WORDS

TOKEN = "a-secret-of-the-tests"
HOSTILE = b"<script>alert(1)</script>"
SESSIONS = 1000

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


@dataclass
class Admin(Front):
    """A gateway with an admin listener, over HTTPS if there is a `context`."""

    context: ssl.SSLContext | None = None

    @classmethod
    def of(cls, front: Front, context: ssl.SSLContext | None = None) -> Admin:
        return cls(front.gateway, front.backends, front.trusting, context=context)

    def ask(
        self, path: str, method: str = "GET", body: str | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        told = self.gateway.log.wait("admin-listening")["address"]
        host, _, port = told.rpartition(":")
        kind = http.client.HTTPConnection
        if self.context is None:
            connection: http.client.HTTPConnection = kind(host, int(port), timeout=DEADLINE)
        else:
            connection = http.client.HTTPSConnection(host, int(port), timeout=DEADLINE, context=self.context)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def status(self, path: str, method: str = "GET", **headers: str) -> int:
        return self.ask(path, method, **headers)[0].status

    def metrics(self) -> Samples:
        # Answers are kept for a second: what is asked for now may be from before.
        text = ""
        for accept in ("text/plain", "application/openmetrics-text"):
            text = self.ask("/metrics", Accept=accept)[1].decode()
        return samples(text)

    def fresh(self, holds: Callable[[Samples], bool], **headers: str) -> Samples:
        """Metrics for which that holds, as soon as there are some."""
        found: Samples = {}

        def asked() -> bool:
            nonlocal found
            found = samples(self.ask("/metrics", **headers)[1].decode())
            return holds(found)

        wait_until(asked)
        return found


def samples(text: str) -> Samples:
    return {
        (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(found: Samples, name: str, **labels: str) -> float:
    return sum(value for (one, of), value in found.items() if one == name and labels.items() <= dict(of).items())


ADMIN = {"listen": "127.0.0.1:0"}


@pytest.fixture
def front(opened: Opening) -> Iterator[Admin]:
    with opened(*WORDS, admin=ADMIN, timeouts={"handshake": "5 s", "linger": "500 ms"}) as front:
        yield Admin.of(front)


# --- figures -------------------------------------------------------------------------------------


class Crowd:
    """Clients that do one thing each, and count what they did."""

    def __init__(self, front: Admin) -> None:
        self._front = front
        self.did: Counter[str] = Counter()

    def _greeted(self, protocol: str, mode: str) -> Client:
        self.did["handshakes"] += mode == "implicit"
        return self._front.connect(protocol, mode)

    def _upgraded(self, protocol: str) -> Client:
        client = self._greeted(protocol, "starttls")
        client.say(WORDS[protocol].starttls)
        assert client.line() == WORDS[protocol].go_ahead
        client.shake_hands(self._front.trusting)
        self.did["handshakes"] += 1
        return client

    def _quit(self, client: Client, protocol: str) -> None:
        client.say(WORDS[protocol].quit)
        client.hear(WORDS[protocol].quit_)
        client.socket.close()

    def plaintext(self, protocol: str) -> None:
        client = self._greeted(protocol, "starttls")
        self._quit(client, protocol)
        self.did["none"] += 1

    def starttls(self, protocol: str) -> None:
        self._quit(self._upgraded(protocol), protocol)
        self.did["starttls"] += 1

    def implicit(self, protocol: str) -> None:
        self._quit(self._greeted(protocol, "implicit"), protocol)
        self.did["implicit"] += 1

    def login(self, protocol: str) -> None:
        self._front.enter(protocol, "implicit").socket.close()
        self.did.update(["handshakes", "implicit", "logins"])

    def injection(self, protocol: str) -> None:
        client = self._greeted(protocol, "starttls")
        client.say(WORDS[protocol].starttls + WORDS[protocol].hello)
        client.rest()
        client.socket.close()
        self.did["none"] += 1
        self.did["attacks"] += 1

    def garbage(self, protocol: str) -> None:
        client = Client(self._front.gateway.address(protocol, "implicit"))
        client.say(b"GET / HTTP/1.1\r\n\r\n")
        client.rest()
        client.socket.close()
        self.did["none"] += 1
        self.did["failed"] += 1

    def gone(self, protocol: str) -> None:
        self._greeted(protocol, "starttls").reset()
        self.did["none"] += 1


def test_after_a_thousand_sessions_the_metrics_are_what_the_clients_counted(front: Admin) -> None:
    crowd = Crowd(front)
    deeds = [crowd.plaintext, crowd.starttls, crowd.implicit, crowd.login, crowd.injection, crowd.garbage, crowd.gone]
    chance = random.Random(13)
    for number in range(SESSIONS):
        chance.choice(deeds)(chance.choice(list(WORDS)))
        if number == SESSIONS // 2:
            front.gateway.process.send_signal(signal.SIGHUP)
            front.gateway.log.wait("reload", result="ok")
    found = front.fresh(lambda found: total(found, "sessions_total") == SESSIONS and not total(found, "sessions"))
    did = crowd.did
    assert total(found, "connections_total") == SESSIONS
    for mode in ("none", "starttls", "implicit"):
        assert total(found, "sessions_total", tls=mode) == did[mode], mode
    assert total(found, "handshakes_total", leg="client") == did["handshakes"]
    assert total(found, "handshake_seconds_count", leg="client") == did["handshakes"]
    assert total(found, "handshake_failures_total", leg="client") == did["failed"]
    assert total(found, "logins_total", result="ok", tls="yes") == total(found, "logins_total") == did["logins"]
    assert total(found, "attacks_total", kind="starttls-injection") == did["attacks"]
    assert total(found, "session_seconds_count") == SESSIONS
    assert total(found, "backend_connects_total") == SESSIONS - did["failed"]
    # Every gauge of what is open is back at nothing.
    assert total(found, "sessions") == 0
    assert total(found, "stopping") == 0
    assert total(found, "workers") == 1


def test_two_workers_count_as_one_also_after_deaths_and_a_reload(opened: Opening) -> None:
    with opened(*WORDS, admin=ADMIN, gateway={"workers": "2"}) as one:
        front, gateway = Admin.of(one), one.gateway
        first = [int(gateway.log.wait("worker", count=number, state="serving")["pid"]) for number in (1, 2)]
        crowd = Crowd(front)
        deeds = [crowd.plaintext, crowd.starttls, crowd.implicit, crowd.login, crowd.injection, crowd.gone]

        def mixed(number: int) -> None:
            for place in range(number):
                deeds[place % len(deeds)](list(WORDS)[place % len(WORDS)])

        half = SESSIONS // 2
        mixed(half)
        front.fresh(lambda found: total(found, "sessions_total") == half)
        for number, pid in enumerate(first):
            os.kill(pid, signal.SIGKILL)
            gateway.log.wait("worker", state="serving", count=3 + number)
        gateway.process.send_signal(signal.SIGHUP)
        gateway.log.wait("reload", result="ok")
        mixed(SESSIONS - half)
        with front.connect("imap", "implicit"):
            found = front.fresh(lambda found: total(found, "sessions") == 1 and total(found, "workers") == 2)
            (listed,) = json.loads(front.ask("/sessions.json")[1])
            assert (listed["service"], listed["worker"] in (0, 1), listed["tls"]) == ("imap", True, "TLSv1.3")
        found = front.fresh(
            lambda found: total(found, "sessions_total") == SESSIONS + 1 and not total(found, "sessions")
        )
        for mode in ("none", "starttls", "implicit"):
            assert total(found, "sessions_total", tls=mode) == crowd.did[mode] + (mode == "implicit"), mode
        assert total(found, "handshakes_total", leg="client") == crowd.did["handshakes"] + 1
        assert total(found, "logins_total") == crowd.did["logins"]
        assert total(found, "attacks_total", kind="starttls-injection") == crowd.did["attacks"]
        assert total(found, "reloads_total", result="ok") == 1
        assert total(found, "connections_total") == SESSIONS + 1
        assert total(found, "stopping") == 0
        assert front.status("/readyz/imap") == 200
        page = front.ask("/")[1].decode()
        assert "2 serving" in page
        assert "certificate.pem" in page


def test_promtool_is_content_with_the_metrics(front: Admin) -> None:
    promtool = need("promtool", debian="prometheus")
    crowd = Crowd(front)
    for deed in (crowd.login, crowd.injection, crowd.garbage):
        deed("imap")
    front.fresh(lambda found: total(found, "sessions_total") == 3)
    text = front.ask("/metrics")[1]
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, timeout=DEADLINE)
    assert (checked.returncode, checked.stderr, checked.stdout) == (0, b"", b"")


def test_open_sessions_are_listed_and_counted_alike(front: Admin) -> None:
    with ExitStack() as stack:
        for protocol in WORDS:
            client = stack.enter_context(Client(front.gateway.address(protocol, "implicit")))
            client.shake_hands(front.trusting, name="mail.example.test")
            client.hear(WORDS[protocol].greeting_)
        found = front.fresh(lambda found: total(found, "sessions", phase="secure") == 3)
        assert total(found, "connections_total") == 3
        listed = json.loads(front.ask("/sessions.json")[1])
        assert sorted(one["service"] for one in listed) == sorted(WORDS)
        for one in listed:
            assert (one["tls"], one["phase"], one["client"]) == ("TLSv1.3", "secure", "127.0.0.1")
            assert one["backend"] == front.backends[one["service"]].address
            assert one["sent"] > 0
        page = front.ask("/")[1].decode()
        assert "3 open of " in page
    front.fresh(lambda found: total(found, "sessions") == 0)


def test_what_clients_call_themselves_is_shown_as_text(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, serve: Serve
) -> None:
    """In EHLO, as the server's name (SNI), in a client certificate, and as a user's name."""
    (tmp_path / "token").write_text(TOKEN)
    people = trustme.CA()
    people.cert_pem.write_to_path(str(tmp_path / "people.pem"))
    context = ssl.create_default_context(cafile=str(identity.authority))
    context.check_hostname = False
    people.issue_cert("x.example.test", common_name=HOSTILE.decode()).configure_cert(context)
    backend = serve(SERVERS["smtp"](None))
    options = {
        "admin": {"listen": "127.0.0.1:0", "token_file": "token"},
        "gateway": {"log_users": "yes"},
        "report": {"file": "r.db"},
        "tls": {"client_certificate": "request", "client_ca": "people.pem"},
    }
    with running(tmp_path, identity, [Service("smtp", backend.address)], options=options) as gateway:
        front = Admin(gateway, {"smtp": backend}, trusting)
        with Client(gateway.address("smtp", "implicit")) as client:
            client.shake_hands(context, name=HOSTILE.decode())
            client.hear(WORDS["smtp"].greeting_)
            client.say(b"EHLO " + HOSTILE + b"\r\n")
            client.hear(rb"^250 ")
            client.say(b"AUTH PLAIN " + base64.b64encode(b"\0" + HOSTILE + b"\0secret") + b"\r\n")
            client.hear(rb"^235 ")
            bearer = {"Authorization": f"Bearer {TOKEN}"}
            (listed,) = json.loads(front.ask("/sessions.json", **bearer)[1])
            assert listed["user"] == HOSTILE.decode()
            for path in ("/", "/metrics", "/report"):
                assert HOSTILE not in front.ask(path, **bearer)[1], path
        told = gateway.log.wait("session")
        assert (told["certificate"], told["user"]) == (HOSTILE.decode(), HOSTILE.decode())
        gateway.process.send_signal(signal.SIGHUP)
        gateway.log.wait("reload")
    assert f"user:{HOSTILE.decode()}" in {fact.network for fact in Store(tmp_path / "r.db").facts()}


def test_a_bare_connect_of_a_load_balancer_is_no_session(opened: Opening) -> None:
    with opened("imap", admin=ADMIN, gateway={"probes": "127.0.0.1"}) as one:
        front, gateway = Admin.of(one), one.gateway
        since = gateway.log.mark()
        for how in ("close", "reset") * 5:
            client = Client(gateway.address("imap"))
            getattr(client if how == "reset" else client.socket, how)()
        found = front.fresh(lambda found: total(found, "probes_total", service="imap") == 10)
        assert total(found, "connections_total") == total(found, "backend_connects_total") == 0
        assert not gateway.log.events("session", since)
        # Who waits for the greeting gets it, and who speaks first is not kept waiting.
        Crowd(front).starttls("imap")
        Crowd(front).implicit("imap")
        found = front.fresh(lambda found: total(found, "sessions_total") == 2)
        assert total(found, "probes_total") == 10
        stays = Client(gateway.address("imap"))
        gateway.terminate()
        assert stays.rest() == b""


@pytest.mark.parametrize("connect", ["eager", "lazy"])
def test_a_balancers_own_header_and_nothing_more_is_no_session(
    tmp_path: Path, identity: Identity, trusting: ssl.SSLContext, serve: Serve, connect: str
) -> None:
    backend = serve(SERVERS["imap"](None))
    options = {
        "admin": ADMIN,
        "gateway": {"probes": "127.0.0.1"},
        "backend:store": {"address": backend.address, "connect": connect},
    }
    service = Service("imap", "store", options={"accept_proxy": "127.0.0.1"})
    with running(tmp_path, identity, [service], options=options) as gateway:
        front = Admin(gateway, {"imap": backend}, trusting)
        since = gateway.log.mark()
        headers = (b"", b"PROXY UNKNOWN\r\n", v2_local())
        for mode in ("starttls", "implicit"):
            for header in headers:
                client = Client(gateway.address("imap", mode))
                client.say(header)
                client.socket.close()
        found = front.fresh(lambda found: total(found, "probes_total", service="imap") == 6)
        assert total(found, "connections_total") == total(found, "backend_connects_total") == 0
        assert not [one for one in gateway.log.told if "client" in one]
        # Whoever has more to say is served: the balancer itself, and a client of its own.
        for header in (v2_local(), b"PROXY TCP4 203.0.113.7 198.51.100.1 51000 143\r\n"):
            with Client(gateway.address("imap")) as client:
                client.say(header + b"a LOGOUT\r\n")
                assert b"a OK" in client.rest()
        # A second header is no command.
        with Client(gateway.address("imap")) as client:
            client.say(v2_local() + b"PROXY UNKNOWN\r\n")
            client.rest()
        gateway.log.wait("unexpected-proxy-header")
        with Client(gateway.address("imap")) as client:
            client.say(v2_local())
            client.hear(rb"^\* OK [^\n]*\n")
        assert {one["client"] for one in gateway.log.events("session", since)} == {"127.0.0.1", "203.0.113.7"}


# --- health --------------------------------------------------------------------------------------


def test_a_service_is_ready_until_its_backend_fails_or_the_gateway_stops(front: Admin) -> None:
    paths = ("/healthz", "/readyz", "/readyz/smtp", "/readyz/imap")
    assert [front.status(path) for path in paths] == [200, 200, 200, 200]
    assert front.status("/readyz/ftp") == 404
    front.backends["imap"].close()
    for _ in range(3):
        with Client(front.gateway.address("imap", "implicit")) as client:
            client.shake_hands(front.trusting)
            client.rest()
    front.fresh(lambda found: total(found, "ready", service="imap") == 0)
    assert [front.status(path) for path in paths] == [200, 200, 200, 503]
    stays = front.enter("smtp", "implicit")
    stays.say(b"MAIL FROM:<a@example.test>\r\n")
    stays.hear(rb"^250 ")
    stays.say(b"RCPT TO:<b@example.test>\r\n")
    stays.hear(rb"^250 ")
    stays.say(b"DATA\r\n")
    stays.hear(rb"^354 ")
    front.gateway.terminate()
    front.gateway.log.wait("stopping")
    front.fresh(lambda found: total(found, "stopping") == 1)
    assert [front.status(path) for path in paths] == [200, 503, 503, 503]
    stays.socket.close()


# --- who may ask ---------------------------------------------------------------------------------


def test_answers_have_a_strict_policy_and_strangers_get_none(front: Admin) -> None:
    answer, _ = front.ask("/")
    assert "default-src 'none'" in (answer.getheader("Content-Security-Policy") or "")
    assert "unsafe" not in (answer.getheader("Content-Security-Policy") or "")
    assert answer.getheader("X-Content-Type-Options") == "nosniff"
    assert front.status("/", Host="evil.example") == 421
    assert front.status("/healthz", Host="evil.example") == 421
    assert front.status("/", Host="gw.example.test") == 200
    assert front.status("/", "POST") == 405
    assert front.ask("/", "HEAD")[1] == b""
    assert front.status("/no-such-page") == 404
    assert front.status("/../../etc/passwd") == 404
    assert front.status("/style.css") == front.status("/page.js") == 200


def test_with_a_token_only_health_is_for_everybody(tmp_path: Path, opened: Opening) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with opened("imap", admin={**ADMIN, "token_file": "token", "tls": "yes"}) as one:
        front = Admin.of(one, one.trusting)
        assert [front.status(path) for path in ("/healthz", "/readyz", "/readyz/imap")] == [200, 200, 200]
        for path in ("/", "/metrics", "/sessions.json", "/style.css"):
            assert front.status(path) == 401
            assert front.status(path, Authorization="Bearer " + TOKEN[:-1]) == 401
            assert front.status(path, Authorization="Bearer " + TOKEN) == 200
        basic = base64.b64encode(f"admin:{TOKEN}".encode()).decode()
        assert front.status("/", Authorization="Basic " + basic) == 200


def test_a_unix_socket_is_for_its_group_and_asks_for_no_name(tmp_path: Path, opened: Opening) -> None:
    path = tmp_path / "admin.sock"
    with opened("imap", admin={"listen": f"unix:{path}"}) as one:
        one.gateway.log.wait("admin-listening", address=f"unix:{path}")
        assert path.stat().st_mode & 0o777 == 0o660
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(DEADLINE)
            sock.connect(str(path))
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: whatever\r\nConnection: close\r\n\r\n")
            heard = b"".join(iter(lambda: sock.recv(4096), b""))
        assert heard.startswith(b"HTTP/1.1 200 OK\r\n")


def test_bodies_and_crowds_of_requests_are_cut_off(front: Admin) -> None:
    told = front.gateway.log.wait("admin-listening")["address"]
    host, _, port = told.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as sock:
        sock.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 413 ")
    with ExitStack() as stack:
        crowd = [stack.enter_context(socket.create_connection((host, int(port)), timeout=DEADLINE)) for _ in range(70)]
        for sock in crowd[-6:]:
            assert sock.recv(1) == b"", "at most 64 are served"
        Crowd(front).login("imap")
