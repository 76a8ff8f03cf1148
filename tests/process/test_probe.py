"""`starttls-gateway probe`: verdict and exit status for servers of every kind."""

from __future__ import annotations

import datetime
import hashlib
import json
import socket
import ssl
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.rdatatype
import dns.rrset
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.cli.probe.facts import Facts
from gateway.cli.probe.names import MISSING, ask
from gateway.cli.probe.verdict import findings
from gateway.wire.tls.stranger import TLSA
from tests.process import conftest
from tests.process.conftest import Front
from tests.process.legacy import CAPA, CAPABILITY, EHLO, SERVERS, Answers
from tests.process.recording import Connection, Script
from tests.process.running import DEADLINE, ROOT, Identity
from tests.process.secured import GO_AHEAD, VERBS, presenting, shake_hands
from tests.process.words import LINES

Serve = Callable[[Script], str]


@pytest.fixture
def serve(serve: conftest.Serve) -> Serve:
    """Script -> the address of a server that plays it."""
    return lambda script: serve(script).address.replace("127.0.0.1", "localhost")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", "probe", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=6 * DEADLINE,
    )


def probed(protocol: str, address: str, *options: str) -> tuple[int, Mapping[str, Any]]:
    done = run(protocol, address, "--timeout", "5", "--ehlo", "probe.example.net", "--json", *options)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def names(found: Mapping[str, Any]) -> set[str]:
    return {one["finding"] for one in found["findings"]}


def expect(name: str, protocol: str, address: str, *options: str) -> Mapping[str, Any]:
    """What is told of a server with this finding alone."""
    code, found = probed(protocol, address, *options)
    assert (code, names(found)) == (1, {name})
    return found


# --- servers -------------------------------------------------------------------------------------

CLOSED: Mapping[str, Answers] = {
    "smtp": {
        b"EHLO": b"250-legacy.example.test\r\n250-PIPELINING\r\n250 STARTTLS\r\n",
        b"AUTH": b"538 5.7.11 Encryption required\r\n",
    },
    "imap": {
        b"CAPABILITY": b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED\r\nTAG OK done\r\n",
        b"AUTHENTICATE": b"TAG NO [PRIVACYREQUIRED] TLS first\r\n",
    },
    "pop3": {
        b"CAPA": b"+OK\r\nSTLS\r\nUIDL\r\n.\r\n",
        b"AUTH": b"-ERR TLS first\r\n",
        b"USER": b"-ERR TLS first\r\n",
    },
}
"""How a server answers before TLS that takes no password there."""
every_probed = pytest.mark.parametrize("protocol", CLOSED)
every_spoken = pytest.mark.parametrize("protocol", LINES)
INSIDE: Mapping[str, Answers] = {
    "smtp": {b"EHLO": b"250-legacy.example.test\r\n250 AUTH PLAIN\r\n"},
    "imap": {b"CAPABILITY": b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nTAG OK done\r\n"},
    "pop3": {b"CAPA": b"+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n"},
}


def server(
    protocol: str,
    context: ssl.SSLContext,
    *,
    before: Answers | None = None,
    behind: bytes = b"",
    drops: bool = True,
) -> Script:
    """A server with STARTTLS.  `before` are other answers in the clear; `behind` follows the go-ahead; unless it
    `drops` what stands behind STARTTLS, it answers that inside TLS."""

    def inside(connection: Connection) -> None:
        connection.say(GO_AHEAD[protocol].replace(b"sgw1", b"sgw2") + behind)
        if drops:
            connection.unread = b""
        shake_hands(connection, context)
        said = connection.say

        def swallow(_: bytes) -> None:
            vars(connection)["say"] = said

        vars(connection)["say"] = swallow
        SERVERS[protocol](INSIDE[protocol])(connection)

    return SERVERS[protocol]({**CLOSED[protocol], **(before or {}), VERBS[protocol]: inside})


@pytest.fixture(scope="module")
def context(identity: Identity) -> ssl.SSLContext:
    return presenting(identity.certificate)


# --- verdicts ------------------------------------------------------------------------------------


@every_spoken
def test_the_gateway_is_good(front: Front, identity: Identity, protocol: str) -> None:
    host, port = front.gateway.address(f"{protocol}-required")
    since = front.gateway.log.mark()
    code, found = probed(protocol, f"localhost:{port}", "--starttls", "--ca", str(identity.authority))
    assert (code, found["verdict"], found["findings"]) == (0, "good", []), host
    assert found["tls"]["version"] == "TLSv1.3"
    assert [one["accepted"] for one in found["tls"]["versions"]] == [True, True, False, False]
    assert found["starttls"]["runs_injected_commands"] is False
    assert found["certificate"]["objections"] == []
    assert [remark for remark in found["remarks"] if "APOP" not in remark] == []
    assert front.gateway.log.events("auth", since) == []


@every_spoken
def test_an_implicit_port_of_the_gateway_is_good(front: Front, identity: Identity, protocol: str) -> None:
    _, port = front.gateway.address(f"{protocol}-required", "implicit")
    code, found = probed(protocol, f"localhost:{port}", "--implicit", "--ca", str(identity.authority))
    assert (code, found["findings"]) == (0, [])
    assert found["starttls"] is None
    assert found["greeting"] or protocol == "irc"


@every_probed
def test_a_good_server_is_good(serve: Serve, identity: Identity, context: ssl.SSLContext, protocol: str) -> None:
    address = serve(server(protocol, context))
    code, found = probed(protocol, address, "--ca", str(identity.authority))
    assert (code, found["verdict"], found["findings"]) == (0, "good", [])
    text = run(protocol, address, "--ca", str(identity.authority))
    assert text.returncode == 0
    assert "Good: a client that insists on TLS gets it" in text.stdout
    assert text.stdout.isascii()


STRIPPED: Mapping[str, Answers] = {
    "smtp": {b"EHLO": b"250-legacy.example.test\r\n250 PIPELINING\r\n"},
    "imap": {b"CAPABILITY": b"* CAPABILITY IMAP4rev1 LOGINDISABLED\r\nTAG OK done\r\n"},
    "pop3": {b"CAPA": b"+OK\r\nUIDL\r\n.\r\n"},
}
NEVER: Mapping[str, Answers] = {
    "smtp": {b"STARTTLS": b"502 5.5.1 not implemented\r\n"},
    "imap": {b"STARTTLS": b"TAG BAD unknown\r\n"},
    "pop3": {b"STLS": b"-ERR unknown\r\n"},
}


@every_probed
def test_a_stripped_starttls_is_told_from_one_that_is_not_there(
    serve: Serve, identity: Identity, context: ssl.SSLContext, protocol: str
) -> None:
    address = serve(server(protocol, context, before=STRIPPED[protocol]))
    expect("starttls-stripped", protocol, address, "--ca", str(identity.authority))

    plain = SERVERS[protocol]({**CLOSED[protocol], **STRIPPED[protocol], **NEVER[protocol]})
    found = expect("no-starttls", protocol, serve(plain))
    assert found["tls"]["version"] is None

    refusing = SERVERS[protocol]({**CLOSED[protocol], **NEVER[protocol]})
    expect("starttls-refused", protocol, serve(refusing))


def test_a_firewall_that_writes_over_starttls_is_recognised(serve: Serve, context: ssl.SSLContext) -> None:
    masked = {b"EHLO": b"250-legacy.example.test\r\n250-SIZE\r\n250 XXXXXXXA\r\n", b"STARTTLS": b"500 unknown\r\n"}
    code, found = probed("smtp", serve(SERVERS["smtp"]({**CLOSED["smtp"], **masked})))
    assert code == 1
    assert "starttls-stripped" in names(found)


def test_an_expired_certificate(serve: Serve, tmp_path: Path) -> None:
    authority, now = trustme.CA(), datetime.datetime.now(datetime.timezone.utc)
    ca, leaf = tmp_path / "ca.pem", tmp_path / "leaf.pem"
    authority.cert_pem.write_to_path(str(ca))
    day = datetime.timedelta(days=1)
    issued = authority.issue_cert("localhost", not_before=now - 30 * day, not_after=now - 3 * day)
    issued.private_key_and_cert_chain_pem.write_to_path(str(leaf))
    found = expect("certificate-expired", "smtp", serve(server("smtp", presenting(leaf))), "--ca", str(ca))
    assert found["certificate"]["days_left"] == -3 - 1
    issued = authority.issue_cert("localhost", not_before=now - 30 * day, not_after=now + 3 * day)
    issued.private_key_and_cert_chain_pem.write_to_path(str(leaf))
    expect("certificate-expires", "smtp", serve(server("smtp", presenting(leaf))), "--ca", str(ca))


def test_a_certificate_that_no_client_takes(serve: Serve, identity: Identity, context: ssl.SSLContext) -> None:
    address = serve(server("imap", context))
    expect("certificate-name", "imap", address, "--ca", str(identity.authority), "--name", "other.example.org")
    expect("certificate-untrusted", "imap", address)


@every_probed
def test_commands_injected_behind_starttls(
    serve: Serve, identity: Identity, context: ssl.SSLContext, protocol: str
) -> None:
    address = serve(server(protocol, context, drops=False))
    found = expect("command-injection", protocol, address, "--ca", str(identity.authority))
    assert found["starttls"]["runs_injected_commands"] is True


@every_probed
def test_words_injected_behind_the_go_ahead(
    serve: Serve, identity: Identity, context: ssl.SSLContext, protocol: str
) -> None:
    address = serve(server(protocol, context, behind=b"250 injected\r\n"))
    found = expect("response-injection", protocol, address, "--ca", str(identity.authority))
    assert "injected" in found["starttls"]["behind_go_ahead"]


OFFERS: Mapping[str, Answers] = {
    "smtp": {b"EHLO": EHLO},
    "imap": {b"CAPABILITY": b"* CAPABILITY %s\r\nTAG OK done\r\n" % CAPABILITY},
    "pop3": {b"CAPA": CAPA},
}
TAKES: Mapping[str, Answers] = {
    "smtp": {b"AUTH": b"334 \r\n", b"*": b"501 5.7.0 cancelled\r\n"},
    "imap": {b"AUTHENTICATE": b"+ \r\n"},
    "pop3": {b"USER": b"+OK\r\n"},
}


@every_probed
def test_credentials_in_the_clear_offered_or_taken_in_silence(
    serve: Serve, identity: Identity, context: ssl.SSLContext, protocol: str
) -> None:
    for before in (OFFERS, TAKES):
        address = serve(server(protocol, context, before=before[protocol]))
        code, found = probed(protocol, address, "--ca", str(identity.authority))
        assert code == 1
        assert "credentials-in-the-clear" in names(found)


def test_old_tls(serve: Serve, identity: Identity) -> None:
    context = presenting(identity.certificate)
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    expect("old-tls", "smtp", serve(server("smtp", context)), "--ca", str(identity.authority))
    with warnings.catch_warnings(action="ignore"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    expect("old-tls-only", "smtp", serve(server("smtp", context)), "--ca", str(identity.authority))


def test_no_forward_secrecy(serve: Serve, tmp_path: Path) -> None:
    authority = trustme.CA()
    ca, leaf = tmp_path / "ca.pem", tmp_path / "leaf.pem"
    authority.cert_pem.write_to_path(str(ca))
    issued = authority.issue_cert("localhost", key_type=trustme.KeyType.RSA)
    issued.private_key_and_cert_chain_pem.write_to_path(str(leaf))
    context = presenting(leaf)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-GCM-SHA256")
    found = expect("no-forward-secrecy", "smtp", serve(server("smtp", context)), "--ca", str(ca))
    assert "TLS 1.3 is not there" in found["remarks"]


def test_a_handshake_that_fails(serve: Serve) -> None:
    def broken(connection: Connection) -> None:
        connection.say(b"220 go\r\n")
        connection.receive()
        connection.say(b"this is no TLS\r\n")

    expect("tls-failed", "smtp", serve(SERVERS["smtp"]({**CLOSED["smtp"], b"STARTTLS": broken})))
    expect("no-tls", "smtp", serve(SERVERS["smtp"]({})), "--implicit")


def test_a_server_that_cannot_be_reached_or_turns_us_away(serve: Serve) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        code, found = probed("smtp", f"127.0.0.1:{taken.getsockname()[1]}")
    assert (code, found["verdict"], found["findings"]) == (2, "unreachable", [])
    assert "refused" in found["unreachable"]
    code, found = probed("smtp", serve(lambda connection: connection.say(b"554 5.7.1 go away\r\n")))
    assert (code, found["verdict"]) == (2, "unreachable")
    done = run("smtp", serve(lambda connection: None))
    assert done.returncode == 2
    assert "Nothing is known about this server." in done.stdout
    assert "say --implicit" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    "arguments",
    [
        ("gopher", "localhost"),
        ("smtp", "localhost:0"),
        ("smtp", "unix:/run/x"),
        ("smtp", "localhost", "--ca", "/nonexistent.pem"),
        ("smtp", "localhost", "--timeout", "0"),
        ("smtp", "localhost", "--resolver", "unix:/run/x"),
    ],
)
def test_wrong_usage_is_told(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert "starttls-gateway probe: error: " in done.stderr
    assert done.stdout == ""


# --- DNS -----------------------------------------------------------------------------------------


class NameServer:
    """Answers from a table, on loopback."""

    def __init__(self, records: Mapping[tuple[str, str], str], authentic: bool) -> None:
        self._records = records
        self._authentic = authentic
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._socket.getsockname())
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            octets, place = self._socket.recvfrom(4096)
            if not octets:
                return
            query = dns.message.from_wire(octets)
            answer = dns.message.make_response(query)
            question = query.question[0]
            kind = dns.rdatatype.to_text(question.rdtype)
            if text := self._records.get((question.name.to_text(omit_final_dot=True), kind)):
                answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, text))
            if self._authentic:
                answer.flags |= dns.flags.AD
            self._socket.sendto(answer.to_wire(), place)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(DEADLINE)
        self._socket.close()


@pytest.mark.parametrize(
    ("fits", "authentic", "findings"), [(True, True, set()), (False, True, {"dane-mismatch"}), (False, False, set())]
)
def test_dane(
    serve: Serve, identity: Identity, context: ssl.SSLContext, fits: bool, authentic: bool, findings: set[str]
) -> None:
    address = serve(server("smtp", context))
    port = address.rpartition(":")[2]
    options = ("--ca", str(identity.authority), "--name", "mail.example.test")
    _, plain = probed("smtp", address, "--ca", str(identity.authority))
    digest = plain["certificate"]["sha256"] if fits else "00" * 32
    names_ = NameServer({(f"_{port}._tcp.mail.example.test", "TLSA"): f"3 0 1 {digest}"}, authentic)
    try:
        code, found = probed("smtp", address, *options, "--resolver", names_.address)
    finally:
        names_.close()
    assert names(found) == findings
    assert code == (1 if findings else 0)
    assert found["dns"]["dane"] == {"records": 1, "secure": authentic, "matches": fits, "error": None}
    assert found["dns"]["mta_sts"]["mode"] is None
    assert any("DNSSEC" in remark for remark in found["remarks"]) is not authentic


POLICY = b"version: STSv1\r\nmode: %s\r\nmx: *.example.test\r\nmx: mx.example.org\r\nmax_age: 86400\r\n"


@pytest.fixture
def sts() -> Iterator[tuple[str, int]]:
    server = NameServer({("_mta-sts.example.test", "TXT"): '"v=STSv1; id=1"'}, authentic=False)
    yield "127.0.0.1", int(server.address.rpartition(":")[2])
    server.close()


@pytest.mark.parametrize(
    ("policy", "mode", "lists", "error"),
    [
        (POLICY % b"enforce", "enforce", True, ""),
        (POLICY % b"testing", "testing", True, ""),
        (POLICY.replace(b"*.example.test", b"other.example.test") % b"enforce", "enforce", False, ""),
        (POLICY % b"strict", "", False, "the policy's mode is 'strict', and none of enforce, testing, none"),
        (b"mode: none\nmax_age: 1\n", "", False, "the policy has no version: STSv1"),
        (b"version: STSv1\nmode: none\n", "", False, "the policy has no max_age"),
        (b"version: STSv1\nmode: enforce\nmax_age: 1\n", "", False, "the policy lists no mx"),
        (OSError("connection refused"), "", False, "the policy cannot be fetched: connection refused"),
    ],
)
def test_mta_sts(sts: tuple[str, int], policy: bytes | OSError, mode: str, lists: bool, error: str) -> None:
    def fetch(domain: str) -> bytes:
        assert domain == "example.test"
        if isinstance(policy, OSError):
            raise policy
        return policy

    told = ask("mx1.example.test", 25, None, sts, mx=True, fetch=fetch)
    assert told.skipped == ""
    assert told.sts is not None
    assert (told.sts.domain, told.sts.mode, told.sts.lists_host, told.sts.error) == ("example.test", mode, lists, error)
    facts = Facts("smtp", "mx1.example.test:25", "mx1.example.test", implicit=False, offered=True, sts=told.sts)
    facts.version, facts.failure = "TLSv1.3", ""
    assert ("mta-sts-broken" in {one.problem for one in findings(facts)}) is bool(error)


def test_a_host_that_the_named_domain_does_not_list_is_a_finding(sts: tuple[str, int]) -> None:
    told = ask("mail.elsewhere.test", 25, "example.test", sts, mx=False, fetch=lambda _: POLICY % b"enforce")
    facts = Facts("smtp", "x:25", "mail.elsewhere.test", implicit=False, offered=True, sts=told.sts)
    assert "mta-sts-mismatch" in {one.problem for one in findings(facts)}


def test_without_dnspython_a_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dns.resolver", None)
    assert ask("mx.example.test", 25, None, None, mx=True).skipped == MISSING
    assert "has no records" in ask("192.0.2.1", 25, None, None, mx=True).skipped


@pytest.mark.parametrize("matching", [0, 1, 2])
@pytest.mark.parametrize("selector", [0, 1])
def test_tlsa_records_of_every_kind(selector: int, matching: int) -> None:
    authority = trustme.CA()
    leaf, root, other = (
        x509.load_pem_x509_certificate(pem.bytes())
        for pem in (
            authority.issue_cert("a.example.test").cert_chain_pems[0],
            authority.cert_pem,
            trustme.CA().issue_cert("a.example.test").cert_chain_pems[0],
        )
    )

    def record(usage: int, certificate: x509.Certificate) -> TLSA:
        octets = certificate.public_bytes(Encoding.DER)
        if selector:
            octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        data = [octets, hashlib.sha256(octets).digest(), hashlib.sha512(octets).digest()][matching]
        return TLSA(usage, selector, matching, data)

    chain = (leaf, root)
    assert record(3, leaf).matches(chain)
    assert record(2, root).matches(chain)
    assert not record(3, root).matches(chain)
    assert not record(2, leaf).matches(chain)
    assert not record(3, other).matches(chain)
