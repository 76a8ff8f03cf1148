"""Servers from the distribution that know TLS and want to know who the client is, and a load balancer."""

from __future__ import annotations

import grp
import itertools
import os
import pwd
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process import programs
from tests.process.running import CANARY, DEADLINE, LIFE, Log
from tests.process.servers import ATTEMPTS, Mailbox, _furnish, _stop, free_ports
from tests.process.wire import Client, Ending

SECURITY = ("none", "starttls", "implicit")
GATEWAY = "127.0.0.1"
"""Where the gateway comes from; the servers believe it in who its client is."""


class Speaker(Log):
    """What a program says, line by line."""

    def hear(self, pattern: str, since: int = 0) -> re.Match[str]:
        """The first line with it."""
        expression = re.compile(pattern)
        found: list[re.Match[str]] = []

        def heard() -> bool:
            found.extend(match for line in self._lines[since:] if (match := expression.search(line)))
            return bool(found) or self._ended

        with self._grown:
            self._grown.wait_for(heard, DEADLINE)
            said = "\n".join(self._lines[since:])
        assert found, f"no {pattern} in:\n{said}"
        return found[0]


@contextmanager
def speaking(
    command: Sequence[str], stream: str = "stdout", stdin: int = subprocess.DEVNULL
) -> Iterator[tuple[subprocess.Popen[str], Speaker]]:
    """A program until the end of the block, and what it says there."""
    process = subprocess.Popen(
        ["timeout", str(LIFE), *command],
        stdin=stdin,
        stdout=subprocess.PIPE if stream == "stdout" else None,
        stderr=subprocess.PIPE if stream == "stderr" else None,
        text=True,
        errors="replace",
    )
    source = process.stdout or process.stderr
    assert source is not None
    speaker = Speaker()
    draining = threading.Thread(target=speaker.take, args=(source,), daemon=True)
    draining.start()
    try:
        yield process, speaker
    finally:
        process.terminate()
        process.wait(DEADLINE)
        draining.join(DEADLINE)
        source.close()
        if process.stdin is not None:
            process.stdin.close()


@dataclass(frozen=True)
class Doors:
    """Where a server listens, by the way in which it is secured; the same where PROXY headers are expected."""

    plain: Mapping[str, str]
    proxied: Mapping[str, str]

    def address(self, identity: str, security: str) -> str:
        return (self.proxied if identity.startswith("proxy") else self.plain)[security]


def _doors(open_: int, implicit: int, proxied: int, proxied_implicit: int) -> Doors:
    """STARTTLS is offered on the same port as none."""

    def each(port: int, other: int) -> Mapping[str, str]:
        return {security: f"127.0.0.1:{other if security == 'implicit' else port}" for security in SECURITY}

    return Doors(each(open_, implicit), each(proxied, proxied_implicit))


# --- Dovecot ----------------------------------------------------------------------------------

_DOVECOT = """
base_dir = {directory}/run
state_dir = {directory}/run
log_path = /dev/stderr
protocols = imap pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{certificate}
disable_plaintext_auth = no
login_trusted_networks = {gateway}
haproxy_trusted_networks = {gateway}
haproxy_timeout = 20 secs
auth_mechanisms = plain login
auth_failure_delay = 0
mail_location = maildir:{directory}/mail/%u
first_valid_uid = 1
first_valid_gid = 1
mail_max_userip_connections = 100
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={mail_user} gid={mail_group} home={directory}/mail/%u
}}
service anvil {{
  {chroot}
}}
service stats {{
  {chroot}
}}
"""
_LOGIN = """
service {protocol}-login {{
  {chroot}
  inet_listener {protocol} {{
    port = {open}
  }}
  inet_listener {protocol}s {{
    port = {implicit}
    ssl = yes
  }}
  inet_listener {protocol}_proxied {{
    port = {proxied}
    haproxy = yes
  }}
  inet_listener {protocol}s_proxied {{
    port = {proxied_implicit}
    haproxy = yes
    ssl = yes
  }}
}}
"""


@dataclass(frozen=True)
class Dovecot:
    doors: Mapping[str, Doors]
    """By protocol."""
    log: Speaker


@contextmanager
def dovecot(directory: Path, certificate: Path) -> Iterator[Dovecot]:
    """IMAP and POP3 with TLS of their own; what it says about clients is in its log."""
    program = programs.need("dovecot", debian="dovecot-imapd dovecot-pop3d")
    me = pwd.getpwuid(os.geteuid())
    mail = me if me.pw_uid else pwd.getpwnam("nobody")
    group = grp.getgrgid(mail.pw_gid).gr_name
    # Only root may lock processes in, or have them run as somebody else.
    chroot = "chroot =" if me.pw_uid else ""
    settings = _DOVECOT.format(
        directory=directory,
        certificate=certificate,
        gateway=GATEWAY,
        password=CANARY,
        mail_user=mail.pw_name,
        mail_group=group,
        internal=me.pw_name if me.pw_uid else "dovecot",
        internal_group=group if me.pw_uid else "dovecot",
        login=me.pw_name if me.pw_uid else "dovenull",
        chroot=chroot,
    )
    (directory / "mail").mkdir()
    os.chown(directory / "mail", mail.pw_uid, mail.pw_gid)
    file = directory / "dovecot.conf"
    for _ in range(ATTEMPTS):
        ports = free_ports(8)
        logins = ""
        for protocol, four in (("imap", ports[:4]), ("pop3", ports[4:])):
            named = dict(zip(("open", "implicit", "proxied", "proxied_implicit"), four, strict=True))
            logins += _LOGIN.format(protocol=protocol, chroot=chroot, **named)
        file.write_text(settings + logins)
        with speaking([program, "-F", "-c", str(file)], "stderr") as (_, log):
            try:
                log.hear("starting up")
            except AssertionError:
                if "Address already in use" in log.text:
                    continue
                pytest.fail(f"Dovecot does not start:\n{log.text}")
            yield Dovecot({"imap": _doors(*ports[:4]), "pop3": _doors(*ports[4:])}, log)
            return
    pytest.fail("no free ports for Dovecot")


# --- Postfix ----------------------------------------------------------------------------------

# Whoever comes from the gateway's address may relay, as on many a machine that both share.
_MAIN = """
compatibility_level = 3.6
config_directory = {directory}/etc
queue_directory = {directory}/queue
data_directory = {directory}/data
maillog_file = {directory}/log/postfix.log
maillog_file_prefixes = /
mail_owner = postfix
myhostname = legacy.example.test
mydestination =
mynetworks = {gateway}
inet_interfaces = 127.0.0.1
inet_protocols = all
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = example.test
virtual_mailbox_maps = static:all
virtual_transport = lmtp:inet:{lmtp}
default_transport = discard:
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions =
smtpd_authorized_xclient_hosts = {gateway}
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_received_header = yes
smtpd_tls_session_cache_database =
smtpd_upstream_proxy_timeout = 20s
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
smtpd_error_sleep_time = 0
"""
# service type private unpriv chroot wakeup maxproc command
_MASTER = """
127.0.0.1:{open} inet n - n - - smtpd
127.0.0.1:{implicit} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
127.0.0.1:{proxied} inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy
127.0.0.1:{proxied_implicit} inet n - n - - smtpd
  -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_tls_wrappermode=yes
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True)
class Postfix:
    doors: Doors
    log: Speaker
    mailbox: Mailbox
    """Where its mail arrives."""


@contextmanager
def postfix(directory: Path, certificate: Path) -> Iterator[Postfix]:
    """SMTP with TLS of its own; it takes mail for example.test from everybody, and all mail from `GATEWAY`."""
    command = programs.need("postconf", debian="postfix")
    if os.geteuid():
        programs.need("postfix-as-root", debian="postfix (and run the tests as root: its master insists)")
    shown = subprocess.run([command, "-d", "-h", "daemon_directory"], capture_output=True, text=True, check=True)
    _furnish(directory)
    log_file = directory / "log" / "postfix.log"
    log_file.touch()
    with ExitStack() as stack:
        mailbox = stack.enter_context(Mailbox())
        for _ in range(ATTEMPTS):
            ports = free_ports(4)
            named = dict(zip(("open", "implicit", "proxied", "proxied_implicit"), ports, strict=True))
            (directory / "etc" / "main.cf").write_text(
                _MAIN.format(directory=directory, gateway=GATEWAY, lmtp=mailbox.address, certificate=certificate)
            )
            (directory / "etc" / "master.cf").write_text(_MASTER.format(**named))
            # It goes into the background when it is ready, and ends by itself after -e seconds.
            started = subprocess.run(
                [f"{shown.stdout.strip()}/master", "-c", str(directory / "etc"), "-e", str(LIFE), "-w"],
                env={"MAIL_CONFIG": str(directory / "etc"), "PATH": os.environ.get("PATH", os.defpath)},
                capture_output=True,
                text=True,
                timeout=DEADLINE,
            )
            if not started.returncode:
                break
            said = started.stderr + log_file.read_text()
            if "already in use" not in said:
                pytest.fail(f"Postfix does not start:\n{said}")
        else:
            pytest.fail("no free ports for Postfix")
        stack.callback(_stop, int((directory / "queue" / "pid" / "master.pid").read_text()))
        _, log = stack.enter_context(speaking(["tail", "-n", "+1", "-F", str(log_file)]))
        yield Postfix(_doors(*ports), log, mailbox)


# --- HAProxy ----------------------------------------------------------------------------------

_HAPROXY = """
defaults
  mode tcp
  timeout connect 20s
  timeout client 60s
  timeout server 60s
"""
_LISTEN = """
listen {name}
  bind fd@{descriptor}
  source {source}
  server gateway {address} {how}
"""


@dataclass(frozen=True)
class Balanced:
    """A way through the load balancer."""

    name: str
    address: tuple[str, int]
    """Where it leads."""
    how: str
    """HAProxy's options for that server: `send-proxy` or `send-proxy-v2`."""


@contextmanager
def haproxy(directory: Path, source: str, ways: Sequence[Balanced]) -> Iterator[Mapping[str, tuple[str, int]]]:
    """HAProxy, which comes from the address `source`; where it listens, by the way's name."""
    program = programs.need("haproxy", debian="haproxy")
    with ExitStack() as stack:
        # Its sockets are ours: they listen already, at ports that nobody else can have.
        sockets = {way.name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for way in ways}
        text = _HAPROXY
        for way in ways:
            host, port = way.address
            descriptor = sockets[way.name].fileno()
            text += _LISTEN.format(
                name=way.name, descriptor=descriptor, source=source, address=f"{host}:{port}", how=way.how
            )
        file = directory / "haproxy.cfg"
        file.write_text(text)
        process = subprocess.Popen(
            ["timeout", str(LIFE), program, "-db", "-f", str(file)],
            pass_fds=[sock.fileno() for sock in sockets.values()],
            stdin=subprocess.DEVNULL,
        )
        try:
            yield {name: sock.getsockname() for name, sock in sockets.items()}
        finally:
            running = process.poll() is None
            process.terminate()
            process.wait(DEADLINE)
            assert running, f"HAProxy ended by itself, with status {process.returncode}"


# --- clients ----------------------------------------------------------------------------------


class Caller(Client):
    """A client that comes from an address of its own, one of 127.0.0.0/8."""

    def __init__(self, source: str, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, DEADLINE, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.patience = DEADLINE
        self.ending: Ending | None = None
        self.unheard = b""
        self._tls: ssl.SSLObject | None = None
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()


_sources = itertools.count(1)


def source() -> str:
    """An address that no other client of these tests has: what a log says of it is about this one."""
    number = next(_sources)
    return f"127.7.{number >> 8}.{number & 255}"


_MAIL = b"Subject: through the gateway\r\n\r\n.. is what a dot looks like\r\n"


def visit(client: Client, protocol: str, recipient: str = "grete@example.test") -> None:
    """Be greeted, do what one does there (read mail as `grete`, or send one), and leave."""
    match protocol:
        case "smtp":
            client.hear(rb"^220 (legacy|gw)\.example\.test ESMTP[^\n]*\n")
            client.say(b"EHLO client.example.test\r\n")
            capabilities = client.hear(rb"^250 [^\n]*\n")
            assert b"XCLIENT" not in capabilities, capabilities
            for command in (b"MAIL FROM:<hans@example.org>", b"RCPT TO:<%s>" % recipient.encode("ascii")):
                client.say(command + b"\r\n")
                client.hear(rb"^250 [^\n]*\n")
            client.say(b"DATA\r\n")
            client.hear(rb"^354 [^\n]*\n")
            client.say(_MAIL + b".\r\n")
            client.hear(rb"^250 [^\n]*\n")
            client.say(b"QUIT\r\n")
        case "imap":
            client.hear(rb"^\* OK [^\n]*\n")
            client.say(b"a LOGIN grete %s\r\n" % CANARY.encode("ascii"))
            client.hear(rb"^a OK [^\n]*\n")
            client.say(b"b LOGOUT\r\n")
        case "pop3":
            assert b"XCLIENT" not in client.hear(rb"^\+OK[^\n]*\n")
            for command in (b"USER grete", b"PASS %s" % CANARY.encode("ascii"), b"QUIT"):
                client.say(command + b"\r\n")
                client.hear(rb"^\+OK[^\n]*\n")
    client.rest()
