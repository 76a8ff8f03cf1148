"""The demo as somebody meets it who types what it says, in a process of its own; and its legacy servers alone."""

from __future__ import annotations

import ftplib
import imaplib
import io
import poplib
import re
import smtplib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import pytest

from gateway.demo import PORTS
from gateway.demo.instructions import instructions
from tests.process.wire import Client
from tests.pure.contract.answers import postgresql

# As twistd would start it, but on ports that the system chooses.
RUN_DEMO = """
from twisted.internet import reactor
from gateway import demo
from gateway.telemetry.events import Events
service = demo.Demo(Events(lambda line: print(line, flush=True)), dict.fromkeys(demo.PORTS, 0))
# Not before the reactor minds signals: a test may be over at once.
reactor.callWhenRunning(service.privilegedStartService)
reactor.callWhenRunning(service.startService)
reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
reactor.run()
"""
RUN_LEGACY = """
import sys
from pathlib import Path
from twisted.internet import reactor
from gateway.demo.legacy import listen
for protocol, port in listen(reactor, Path(sys.argv[1])).items():
    print(protocol, port.getHost().port, flush=True)
reactor.run()
"""


@dataclass
class Run:
    process: subprocess.Popen[str]
    ports: dict[str, int]
    certificate: Path = Path()

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificate))


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    process.communicate(timeout=10)


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What it prints, for 30 seconds: a process that says nothing more must not hold the tests for ever."""
    assert process.stdout is not None
    patience = Timer(30, process.kill)
    patience.start()
    try:
        # Not `yield from`, which would close it with this generator.
        for line in process.stdout:  # noqa: UP028
            yield line
    finally:
        patience.cancel()


@pytest.fixture
def demo() -> Iterator[Run]:
    process = start(RUN_DEMO)
    try:
        found: list[int] = []
        certificate = None
        for line in lines(process):
            if address := re.search(r"event=listening .*\b127\.0\.0\.1:(\d+)", line):
                found.append(int(address[1]))
            if path := re.search(r"The certificate: (\S+)", line):
                certificate = Path(path[1])
            if len(found) == len(PORTS) and certificate:
                break
        assert certificate, "the demo ended before it listened"
        yield Run(process, dict(zip(PORTS, found, strict=True)), certificate)
    finally:
        stop(process)


@pytest.fixture
def legacy(tmp_path: Path) -> Iterator[Run]:
    with legacy_servers(tmp_path) as run:
        yield run


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """For tests of which each has a server of its own."""
    with legacy_servers(tmp_path_factory.mktemp("legacy")) as run:
        yield run


@contextmanager
def legacy_servers(directory: Path) -> Iterator[Run]:
    process = start(RUN_LEGACY, str(directory))
    try:
        ports: dict[str, int] = {}
        for line in lines(process):
            protocol, port = line.split()
            ports[protocol] = int(port)
            if len(ports) == 10:
                break
        yield Run(process, ports)
    finally:
        stop(process)


def newest_by_imap(session: imaplib.IMAP4) -> bytes:
    session.login("demo", "demo")
    session.select()
    _, fetched = session.fetch("*", "(RFC822)")
    session.logout()
    assert isinstance(fetched[0], tuple)
    return fetched[0][1]


def newest_by_pop3(session: poplib.POP3) -> bytes:
    session.user("demo")
    session.pass_("demo")
    _, retrieved, _ = session.retr(session.stat()[0])
    session.quit()
    return b"".join(line + b"\r\n" for line in retrieved)


def test_a_mail_sent_over_starttls_is_read_back_by_imap_and_pop3(demo: Run) -> None:
    with smtplib.SMTP("localhost", demo.ports["smtp"]) as session:
        session.starttls(context=demo.trusting())
        session.sendmail("me@example.org", ["you@example.org"], b"Subject: Hello\r\n\r\n.Over STARTTLS.\r\n")

    by_imap = newest_by_imap(imaplib.IMAP4_SSL("localhost", demo.ports["imaps"], ssl_context=demo.trusting()))
    by_pop3 = newest_by_pop3(poplib.POP3_SSL("localhost", demo.ports["pop3s"], context=demo.trusting()))

    assert by_imap == by_pop3
    assert by_imap.endswith(b"Subject: Hello\r\n\r\n.Over STARTTLS.\r\n")
    unfolded = b" ".join(by_imap.split())
    assert re.search(rb"Received: from [^;]* \(using TLSv1\.3 with cipher TLS_\w+ [^;]* with ESMTPS ", unfolded)


def test_pop3_with_stls_and_imap_with_starttls_show_the_welcome(demo: Run) -> None:
    mailbox = poplib.POP3("localhost", demo.ports["pop3"])
    mailbox.stls(context=demo.trusting())
    assert b"Subject: Welcome" in newest_by_pop3(mailbox)

    session = imaplib.IMAP4("localhost", demo.ports["imap"])
    session.starttls(demo.trusting())
    assert b"Subject: Welcome" in newest_by_imap(session)


def test_submission_takes_the_password_over_starttls_and_over_tls(demo: Run) -> None:
    with smtplib.SMTP("localhost", demo.ports["submission"]) as session:
        session.starttls(context=demo.trusting())
        session.login("demo", "demo")
    with smtplib.SMTP_SSL("localhost", demo.ports["submissions"], context=demo.trusting()) as session:
        session.login("demo", "demo")


def test_every_command_that_it_prints_works_as_it_stands(demo: Run) -> None:
    commands = re.findall(r"^  (.*)$", instructions(demo.certificate, demo.ports), re.MULTILINE)
    assert [re.split(r"[ ]", command)[0] for command in commands] == [
        *("openssl", "printf", "curl", "curl", "curl", "printf", "printf", "curl", "psql", "curl", "curl")
    ]
    shown = []
    for command in commands:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, f"{command}\n{done.stderr}(Debian packages: curl, openssl, postgresql-client)"
        shown.append(done.stdout + done.stderr)
    assert "Verification: OK" in shown[0]
    assert all("Over STARTTLS." in output for output in shown[2:5])
    assert "This server has never heard of TLS." in shown[5]
    assert '"welcome"' in shown[6]
    assert shown[7] == shown[8] == shown[9] == "This server has never heard of TLS.\n"
    assert "welcome.txt" in shown[10]


def test_it_takes_its_certificate_along_when_it_ends(demo: Run) -> None:
    stop(demo.process)
    assert not demo.certificate.parent.exists()


def test_the_legacy_servers_know_no_tls(legacy: Run) -> None:
    with smtplib.SMTP("127.0.0.1", legacy.ports["smtp"]) as session:
        session.ehlo()
        assert not session.has_extn("starttls")
        assert session.esmtp_features["auth"].split() == ["LOGIN", "PLAIN"]
    imap = imaplib.IMAP4("127.0.0.1", legacy.ports["imap"])
    assert "STARTTLS" not in imap.capabilities
    imap.logout()
    pop3 = poplib.POP3("127.0.0.1", legacy.ports["pop3"])
    assert "STLS" not in pop3.capa()
    pop3.quit()


def test_the_legacy_servers_give_back_the_octets_that_they_got(legacy: Run) -> None:
    # Every line begins with a dot, so that one stands at the edge of every chunk.
    mail = b"Subject: Dots\r\n\r\n" + b"".join(b".%d\r\n" % number for number in range(20_000))
    with smtplib.SMTP("127.0.0.1", legacy.ports["smtp"]) as session:
        session.sendmail("me@example.org", ["one@example.org", "two@example.org"], mail)
    by_imap = newest_by_imap(imaplib.IMAP4("127.0.0.1", legacy.ports["imap"]))
    mailbox = poplib.POP3("127.0.0.1", legacy.ports["pop3"])
    assert newest_by_pop3(mailbox) == by_imap
    assert by_imap.endswith(mail)
    assert by_imap.count(b"Subject: Dots") == 1


@pytest.mark.parametrize(
    ("criteria", "found"),
    [
        ('SUBJECT "welcome"', b"1"),
        ('NOT FROM "nobody@"', b"1"),
        ("SINCE 1-Jan-2020", b"1"),
        ("SENTBEFORE 1-Jan-2020", None),
        ('TEXT "heard of TLS"', b"1"),
    ],
)
def test_the_legacy_imap_server_searches(legacy: Run, criteria: str, found: bytes | None) -> None:
    session = imaplib.IMAP4("127.0.0.1", legacy.ports["imap"])
    session.login("demo", "demo")
    session.select()
    assert session.search(None, criteria)[1] == [found]
    session.logout()


def test_the_legacy_imap_server_keeps_flags_and_fetches_in_parts(legacy: Run) -> None:
    session = imaplib.IMAP4("127.0.0.1", legacy.ports["imap"])
    session.login("demo", "demo")
    session.select()
    session.store("1", "+FLAGS", "(\\Deleted)")
    assert session.fetch("1", "(FLAGS)")[1] == [rb"1 (FLAGS (\Deleted))"]
    assert session.fetch("1", "(BODY.PEEK[]<5.6>)")[1][0] == (b"1 (BODY[]<5> {6}", b" The g")
    assert session.fetch("1", "(BODY.PEEK[HEADER.FIELDS (Subject)])")[1][0] == (
        b"1 (BODY[HEADER.FIELDS (Subject)] {20}",
        b"Subject: Welcome\r\n\r\n",
    )
    assert session.expunge()[1] == [b"1"]
    session.logout()


def test_the_legacy_sieve_server_keeps_scripts_whatever_is_in_them(others: Run) -> None:
    with Client(("127.0.0.1", others.ports["managesieve"])) as client:
        client.hear(rb"^OK [^\n]*\n")
        client.say(b'LISTSCRIPTS\r\nAUTHENTICATE "PLAIN" "AGRlbW8AZGVtbw=="\r\n')
        assert client.line() + client.line() == b'NO "Unknown command"\r\nOK "Logged in"\r\n'
        client.say(b'PUTSCRIPT "a\\"b" {8+}\r\nLOGOUT\r\n\r\nSETACTIVE "a\\"b"\r\nGETSCRIPT {3}\r\na"b\r\nLOGOUT\r\n')
        assert client.rest() == b'OK\r\nOK\r\n{8}\r\nLOGOUT\r\n\r\nOK\r\nOK "Bye"\r\n'


def test_the_legacy_news_server_takes_posts_after_a_login(others: Run) -> None:
    with Client(("127.0.0.1", others.ports["nntp"])) as client:
        client.say(b"POST\r\nAUTHINFO USER demo\r\nAUTHINFO PASS demo\r\nPOST\r\nSubject: x\r\n\r\n..\r\n.\r\n")
        client.say(b"GROUP demo.gateway\r\nARTICLE 2\r\nQUIT\r\n")
        lines = client.rest().split(b"\r\n")
        assert [line[:3] for line in lines[:7]] == [b"200", b"480", b"381", b"281", b"340", b"240", b"211"]
        assert lines[8:] == [b"Newsgroups: demo.gateway", b"Subject: x", b"", b"..", b".", b"205 Bye", b""]


def test_the_legacy_chat_server_brings_words_to_others(others: Run) -> None:
    address = ("127.0.0.1", others.ports["irc"])
    with Client(address) as grete, Client(address) as hansel:
        for client, name in ((grete, b"grete"), (hansel, b"hansel")):
            client.say(b"NICK %s\r\nUSER %s 0 * :x\r\nJOIN #demo\r\n" % (name, name))
            client.hear(rb"JOIN #demo\r\n")
        grete.say(b"PRIVMSG #demo :hello\r\nQUIT\r\n")
        assert hansel.hear(rb"hello\r\n").endswith(b":grete!grete@legacy.demo PRIVMSG #demo :hello\r\n")


def test_the_legacy_ftp_server_keeps_files(others: Run) -> None:
    with ftplib.FTP() as client:
        client.connect("127.0.0.1", others.ports["ftp"])
        with pytest.raises(ftplib.error_perm):
            client.login("demo", "wrong")
        client.login("demo", "demo")
        assert "AUTH" not in client.sendcmd("FEAT")
        client.storbinary("STOR x", io.BytesIO(b"content"))
        assert sorted(client.nlst(".")) == ["welcome.txt", "x"]
        came = io.BytesIO()
        client.retrbinary("RETR x", came.write)
        assert came.getvalue() == b"content"


def test_the_legacy_database_knows_one_user(others: Run) -> None:
    with Client(("127.0.0.1", others.ports["postgresql"])) as client:
        client.say(postgresql.ANSWERS.starttls.said)
        assert client.hear(b"N") == b"N"
    for password, expected in ((b"wrong", b"28P01"), (b"demo", b"legacy.demo")):
        with Client(("127.0.0.1", others.ports["postgresql"])) as client:
            client.say(postgresql.startup(b"demo"))
            client.hear(b"\0\0\0\3")
            client.say(b"p" + (5 + len(password)).to_bytes(4, "big") + password + b"\0")
            client.hear(expected)


def test_the_legacy_lmtp_server_answers_for_each_recipient(others: Run) -> None:
    with Client(("127.0.0.1", others.ports["lmtp"])) as client:
        client.say(
            b"EHLO x\r\nLHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nRCPT TO:<c@example.org>\r\n"
        )
        client.say(b"DATA\r\n")
        assert b"500 This is LMTP" in client.hear(rb"^354 [^\n]*\n")
        client.say(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
        assert re.fullmatch(rb"250 [^\n]*\n250 [^\n]*\n221 [^\n]*\n", client.rest())
