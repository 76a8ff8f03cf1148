"""Real mail servers from the distribution on loopback, each in a directory of its own.

Without a certificate they know no TLS, as the servers for which the gateway is made.  With one they have TLS, and let
the gateway tell them who its client is.
"""

from __future__ import annotations

import grp
import os
import pwd
import queue
import re
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.process import programs
from tests.process.running import CANARY, DEADLINE, LIFE, Speaker, speaking
from tests.process.wire import Client

ATTEMPTS = 5
"""A port that was free a moment ago may be taken: that often somebody may be faster than we are."""
SECURITY = ("none", "starttls", "implicit")
GATEWAY = "127.0.0.1"
"""Where the gateway comes from; servers with a certificate believe it in who its client is."""


@dataclass(frozen=True)
class Doors:
    """Ports of one protocol: two for clients, and two that expect a PROXY header."""

    host: str
    open: int
    """STARTTLS is offered here, if there is a certificate."""
    implicit: int
    proxied: int
    proxied_implicit: int

    def address(self, identity: str = "none", security: str = "none") -> str:
        ports = (self.proxied, self.proxied_implicit) if identity.startswith("proxy") else (self.open, self.implicit)
        return f"{self.host}:{ports[security == 'implicit']}"

    def fill(self, template: str, **words: str) -> str:
        return template.format(**words, **vars(self))


# --- Dovecot ----------------------------------------------------------------------------------

_DOVECOT = """
base_dir = {directory}/run
state_dir = {directory}/run
log_path = /dev/stderr
protocols = imap pop3 sieve lmtp
listen = {host}
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5
auth_failure_delay = 0
auth_cache_size = 0
mail_location = maildir:{directory}/mail/%u
mail_save_crlf = yes
mailbox_idle_check_interval = 1 secs
mail_uid = {mail_user}
mail_gid = {mail_group}
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
  # Wrong passwords are not punished with seconds of silence.
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  {chroot}
}}
service auth {{
  unix_listener {directory}/sasl {{
    mode = 0666
  }}
}}
service lmtp {{
  unix_listener {directory}/lmtp {{
    mode = 0666
  }}
}}
"""
_LOGIN = """
service {service} {{
  {chroot}
  inet_listener {listener} {{
    port = {open}
  }}
  inet_listener {listener}s {{
    port = {implicit}
    ssl = {tls}
  }}
  inet_listener {protocol}_proxied {{
    port = {proxied}
    haproxy = yes
  }}
  inet_listener {protocol}s_proxied {{
    port = {proxied_implicit}
    haproxy = yes
    ssl = {tls}
  }}
}}
"""
LISTENERS = {"imap": "imap", "pop3": "pop3", "managesieve": "sieve", "lmtp": "lmtp"}
"""What Dovecot calls the listener of a protocol; one with another name would be there besides its own."""
_DOVECOT_TLS = """
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{certificate}
login_trusted_networks = {gateway}
haproxy_trusted_networks = {gateway}
haproxy_timeout = 20 secs
"""


@dataclass(frozen=True)
class Dovecot:
    directory: Path
    doors: Mapping[str, Doors]
    """By protocol."""
    log: Speaker
    owner: tuple[int, int]

    @property
    def imap(self) -> str:
        return self.doors["imap"].address()

    @property
    def pop3(self) -> str:
        return self.doors["pop3"].address()

    @property
    def managesieve(self) -> str:
        return self.doors["managesieve"].address()

    @property
    def lmtp(self) -> Path:
        """The socket of LMTP."""
        return self.directory / "lmtp"

    def mail(self, user: str) -> list[bytes]:
        """The new messages of somebody, in no order."""
        return [path.read_bytes() for path in (self.directory / "mail" / user / "new").glob("*")]

    @property
    def sasl(self) -> Path:
        """Where others may ask whether a password is right."""
        return self.directory / "sasl"

    def store(self, user: str, message: bytes) -> None:
        """Put a message into somebody's new mail, as a delivery agent does it."""
        maildir = self.directory / "mail" / user
        for name in ("tmp", "new", "cur"):
            (maildir / name).mkdir(parents=True, exist_ok=True)
        fresh = maildir / "tmp" / f"{len(list((maildir / 'new').iterdir())) + 1}.M1P1.localhost"
        fresh.write_bytes(message)
        for path in (maildir, *maildir.iterdir(), fresh):
            os.chown(path, *self.owner)
        fresh.rename(maildir / "new" / fresh.name)


@contextmanager
def dovecot(
    directory: Path, *settings: str, host: str = "127.0.0.1", certificate: Path | None = None
) -> Iterator[Dovecot]:
    """`settings` override those above.  A client of 127.0.0.2 comes from 127.0.0.1: for Dovecot it is somebody else's
    machine, and nothing secures the connection."""
    program = programs.need("dovecot", debian="dovecot-imapd dovecot-pop3d dovecot-managesieved dovecot-lmtpd")
    packages = {"pop3-login": "dovecot-pop3d", "managesieve-login": "dovecot-managesieved", "lmtp": "dovecot-lmtpd"}
    for login, package in packages.items():
        if not Path("/usr/lib/dovecot", login).exists():
            programs.need(login, debian=package)
    me = pwd.getpwuid(os.geteuid())
    mail = me if me.pw_uid else pwd.getpwnam("nobody")
    group = grp.getgrgid(mail.pw_gid).gr_name
    # Only root may lock processes in, or have them run as somebody else.
    chroot = "chroot =" if me.pw_uid else ""
    text = _DOVECOT.format(
        directory=directory,
        host=host,
        password=CANARY,
        mail_user=mail.pw_name,
        mail_group=group,
        internal=me.pw_name if me.pw_uid else "dovecot",
        internal_group=group if me.pw_uid else "dovecot",
        login=me.pw_name if me.pw_uid else "dovenull",
        chroot=chroot,
    )
    if certificate:
        text += _DOVECOT_TLS.format(certificate=certificate, gateway=GATEWAY)
    text += "\n".join(settings)
    (directory / "mail").mkdir()
    os.chown(directory / "mail", mail.pw_uid, mail.pw_gid)
    file = directory / "dovecot.conf"
    for _ in range(ATTEMPTS):
        ports = free_ports(4 * len(LISTENERS))
        doors = {name: Doors(host, *ports[at :: len(LISTENERS)]) for at, name in enumerate(LISTENERS)}
        tls = "yes" if certificate else "no"
        logins = [
            each.fill(
                _LOGIN,
                service=name if name == "lmtp" else f"{name}-login",
                protocol=name,
                listener=LISTENERS[name],
                chroot=chroot,
                tls=tls,
            )
            for name, each in doors.items()
        ]
        file.write_text("\n".join([text, *logins]))
        with speaking([program, "-F", "-c", str(file)], "stderr") as (_, log):
            if is_up(log, "starting up", "Dovecot"):
                yield Dovecot(directory, doors, log, (mail.pw_uid, mail.pw_gid))
                return
    pytest.fail("no free ports for Dovecot")


# --- Postfix ----------------------------------------------------------------------------------

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
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = all
alias_maps =
local_recipient_maps =
local_header_rewrite_clients =
virtual_mailbox_domains = example.test
virtual_mailbox_maps = static:all
virtual_transport = lmtp:inet:{lmtp}
lmtp_line_length_limit = 0
message_size_limit = 100000000
mailbox_size_limit = 0
virtual_mailbox_limit = 0
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
smtpd_recipient_restrictions =
smtpd_tls_security_level = none
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
in_flow_delay = 0
smtpd_error_sleep_time = 0
service_throttle_time = 1s
"""
_SASL = """
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
broken_sasl_auth_clients = yes
"""
# Whoever comes from the gateway's address may relay, as on many a machine that both share.
_POSTFIX_TLS = """
mynetworks = {gateway}
default_transport = discard:
smtpd_authorized_xclient_hosts = {gateway}
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_received_header = yes
smtpd_tls_session_cache_database =
smtpd_upstream_proxy_timeout = 20s
"""
# service type private unpriv chroot wakeup maxproc command
_LISTENERS = """
127.0.0.1:{open} inet n - n - - smtpd
127.0.0.1:{submission} inet n - n - - smtpd -o smtpd_client_restrictions=permit_sasl_authenticated,reject
127.0.0.1:{implicit} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes
127.0.0.1:{proxied} inet n - n - - smtpd -o smtpd_upstream_proxy_protocol=haproxy
127.0.0.1:{proxied_implicit} inet n - n - - smtpd
  -o smtpd_upstream_proxy_protocol=haproxy -o smtpd_tls_wrappermode=yes
"""
POSTFIX_SERVICES = """
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
tlsmgr unix - - n 1000? 1 tlsmgr
relay unix - - n - - smtp
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
pickup unix n - n 60 1 pickup
showq unix n - n - - showq
postlog unix-dgram n - n - 1 postlogd
"""
_PRIVATE = (
    "active",
    "bounce",
    "corrupt",
    "defer",
    "deferred",
    "flush",
    "hold",
    "incoming",
    "private",
    "saved",
    "trace",
)


@dataclass(frozen=True)
class Postfix:
    """It takes mail for example.test from everybody, and mail for everywhere after AUTH."""

    doors: Doors
    submission: str
    """A port that serves nobody without AUTH."""
    log: Speaker
    mailbox: Mailbox
    """Where its mail arrives."""

    @property
    def smtp(self) -> str:
        return self.doors.address()


@contextmanager
def postfix(
    directory: Path, *settings: str, sasl: Path | None = None, certificate: Path | None = None
) -> Iterator[Postfix]:
    """`settings` override those above.  `sasl` is a Dovecot's; with a certificate mail for everywhere is taken from
    GATEWAY, too."""
    command = programs.need("postconf", debian="postfix")
    if os.geteuid():
        programs.need("postfix-as-root", debian="postfix (and run the tests as root: its master insists)")
    shown = subprocess.run([command, "-d", "-h", "daemon_directory"], capture_output=True, text=True, check=True)
    _furnish(directory)
    log_file = directory / "log" / "postfix.log"
    log_file.touch()
    with ExitStack() as stack:
        mailbox = stack.enter_context(Mailbox())
        text = _MAIN.format(directory=directory, lmtp=mailbox.address)
        if sasl:
            text += _SASL.format(sasl=sasl)
            stack.enter_context(_answering(sasl))
        if certificate:
            text += _POSTFIX_TLS.format(gateway=GATEWAY, certificate=certificate)
        (directory / "etc" / "main.cf").write_text(_each_once("\n".join([text, *settings])))
        for _ in range(ATTEMPTS):
            submission, *ports = free_ports(5)
            doors = Doors("127.0.0.1", *ports)
            listeners = doors.fill(_LISTENERS, submission=str(submission))
            (directory / "etc" / "master.cf").write_text(listeners + POSTFIX_SERVICES)
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
        for port in (doors.open, submission):
            assert _greets(port), f"Postfix does not greet at port {port}:\n{log.text}"
        yield Postfix(doors, f"127.0.0.1:{submission}", log, mailbox)


def _each_once(settings: str) -> str:
    """Later ones override.  Postfix would warn of each that stands twice, in each process.  postlogd sends its own
    warning to itself, and waits forever if its socket is full."""
    last = {line.partition("=")[0].strip(): line for line in settings.splitlines() if line}
    return "\n".join([*last.values(), ""])


@contextmanager
def _answering(sasl: Path) -> Iterator[None]:
    """Dovecot's auth process, started and kept.

    It starts when somebody connects, and ends when nobody is connected for a minute.  If it does not answer an smtpd
    within 10 seconds, as on a busy machine, that smtpd ends without a greeting, and Postfix starts no other one for
    `service_throttle_time`.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(sasl))
        client.sendall(b"VERSION\t1\t1\nCPID\t%d\n" % os.getpid())
        said = b""
        while not said.endswith(b"DONE\n"):
            said += client.recv(4096) or pytest.fail(f"Dovecot's auth process does not answer: {said!r}")
        yield


def _greets(port: int) -> bool:
    for _ in range(ATTEMPTS):
        with Client(("127.0.0.1", port)) as client, suppress(AssertionError):
            client.hear(rb"^220 [^\n]*\n")
            return True
    return False


def _furnish(directory: Path) -> None:
    owner = pwd.getpwnam("postfix").pw_uid
    group = grp.getgrnam("postdrop").gr_gid
    for name in ("etc", "data", "log", "queue"):
        (directory / name).mkdir()
    os.chown(directory / "data", owner, -1)
    for name in (*_PRIVATE, "maildrop", "pid", "public"):
        path = directory / "queue" / name
        path.mkdir(mode=0o700)
        if name != "pid":
            os.chown(path, owner, group if name in ("maildrop", "public") else -1)
        path.chmod({"maildrop": 0o1730, "public": 0o2710, "pid": 0o755}.get(name, 0o700))


def _stop(pid: int) -> None:
    """It is not our child: its end shows on a descriptor."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(watch, signal.SIGTERM)
        ended, _, _ = select.select([watch], [], [], DEADLINE)
        if not ended:
            signal.pidfd_send_signal(watch, signal.SIGKILL)
    finally:
        os.close(watch)


class Mailbox:
    """The end of the road: an LMTP server (RFC 2033) that hands over what arrives, octet by octet as it came."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._arrived: dict[str, queue.SimpleQueue[bytes]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    @property
    def address(self) -> str:
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def take(self, recipient: str, deadline: float = DEADLINE) -> bytes:
        """The next message for this address, dots unstuffed."""
        try:
            return self._of(recipient).get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"nothing arrived for {recipient}") from None

    def _of(self, recipient: str) -> queue.SimpleQueue[bytes]:
        with self._lock:
            return self._arrived.setdefault(recipient, queue.SimpleQueue())

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        replies: Mapping[bytes, bytes] = {
            b"LHLO": b"250-mailbox.example.test\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n",
            b"QUIT": b"221 2.0.0 Bye\r\n",
        }
        recipients: list[str] = []
        # A Postfix that is stopped resets connections.
        with suppress(ConnectionError), sock, sock.makefile("rb") as stream:
            sock.sendall(b"220 mailbox.example.test LMTP\r\n")
            for line in stream:
                verb = line[:4].upper()
                if verb == b"RCPT":
                    found = re.search(rb"<([^>]*)>", line)
                    recipients.append(found[1].decode() if found else "")
                if verb == b"DATA":
                    sock.sendall(b"354 Go ahead\r\n")
                    message = self._message(stream)
                    for recipient in recipients:
                        self._of(recipient).put(message)
                    sock.sendall(b"250 2.0.0 Ok\r\n" * len(recipients))
                    recipients = []
                else:
                    sock.sendall(replies.get(verb, b"250 2.0.0 Ok\r\n"))

    @staticmethod
    def _message(stream: Iterator[bytes]) -> bytes:
        lines: list[bytes] = []
        for line in stream:
            if line == b".\r\n":
                break
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)


# --- PostgreSQL -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PostgreSQL:
    """A server with the user `shop`, whose password is the canary."""

    port: int
    log: Speaker

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def postgresql(directory: Path, *settings: str, certificate: Path | None = None) -> Iterator[PostgreSQL]:
    """`settings` are lines of postgresql.conf.  It refuses to run as root, who becomes `postgres`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not found:
        programs.need("postgres", debian="postgresql")
    bin_ = found[-1]
    owner = None if os.geteuid() else pwd.getpwnam("postgres")
    root = directory / "postgresql"
    root.mkdir()
    (root / "password").write_text(CANARY)
    if certificate:
        (root / "server.pem").write_bytes(certificate.read_bytes())
        (root / "server.pem").chmod(0o600)
        settings = (
            "ssl = on",
            f"ssl_cert_file = '{root}/server.pem'",
            f"ssl_key_file = '{root}/server.pem'",
            *settings,
        )
    become: list[str] = []
    if owner:
        become = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        for path in (root, *root.iterdir()):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    data = root / "data"
    subprocess.run(
        [
            *(*become, str(bin_ / "initdb"), "-D", str(data), "-U", "shop", f"--pwfile={root}/password", "--no-sync"),
            *("-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"),
        ],
        check=True,
        capture_output=True,
        cwd=root,
    )
    with (data / "postgresql.conf").open("a") as file:
        own = ("listen_addresses = '127.0.0.1'", "unix_socket_directories = ''", "fsync = off", "log_connections = on")
        file.write("\n".join(["", *own, *settings, ""]))
    for _ in range(ATTEMPTS):
        (port,) = free_ports(1)
        with speaking([*become, str(bin_ / "postgres"), "-D", str(data), "-p", str(port)], "stderr") as (_, log):
            if is_up(log, "ready to accept connections", "PostgreSQL"):
                yield PostgreSQL(port, log)
                return
    pytest.fail("no free port for PostgreSQL")


# --- INN --------------------------------------------------------------------------------------

_INN = """
mta: "/bin/true %s"
mailcmd: /bin/true
organization: Test
pathhost: news.example.test
domain: example.test
pathnews: /usr/lib/news
pathetc: {root}
pathdb: {root}
pathrun: {root}
pathlog: {root}
pathspool: {root}
pathtmp: {root}
nnrpdloadlimit: 0
ovmethod: tradindexed
hismethod: hisv6
runasuser: {user}
runasgroup: {group}
"""
_INN_TLS = """
tlscafile: {certificate}
tlscertfile: {certificate}
tlskeyfile: {certificate}
"""
_READERS = """
auth all {{
  hosts: "127.0.0.0/8"
  auth: "ckpasswd -f {root}/passwords"
  default: "<anonymous>"
}}
access anonymous {{
  users: "<anonymous>"
  newsgroups: local.public
  access: R
}}
access full {{
  users: grete
  newsgroups: *
  access: RPA
}}
"""


ARTICLE = (
    b"Path: news.example.test!not-for-mail\r\nFrom: hans@example.org\r\nNewsgroups: local.public\r\nSubject: hello\r\n"
    b"Date: Fri, 27 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.org>\r\nLines: 1\r\n"
    b"Xref: news.example.test local.public:1\r\n\r\n.. is what a dot looks like\r\n.\r\n"
)
"""As it stands in the spool and on the wire, number 1 of `local.public`."""


@dataclass(frozen=True)
class INN:
    """Its reader, nnrpd: everybody may read `local.public`, and `grete` everything with the canary as the password."""

    open: int
    """STARTTLS works here, if there is a certificate; without one it is offered, too."""
    implicit: int

    def address(self, security: str = "none") -> str:
        return f"127.0.0.1:{self.implicit if security == 'implicit' else self.open}"


@contextmanager
def inn(directory: Path, certificate: Path | None = None) -> Iterator[INN]:
    """nnrpd needs no innd to be read from.  It refuses to run as root, who becomes `news`."""
    program = Path("/usr/lib/news/bin/nnrpd")
    if not program.exists():
        programs.need("nnrpd", debian="inn2")
    owner = pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("news")
    root = directory / "news"
    root.mkdir()
    text = _INN.format(root=root, user=owner.pw_name, group=grp.getgrgid(owner.pw_gid).gr_name)
    if certificate:
        key = root / "server.pem"
        key.write_bytes(certificate.read_bytes())
        key.chmod(0o600)
        text += _INN_TLS.format(certificate=key)
    groups = "control 0 1 n\njunk 0 1 n\nlocal.public 0 1 y\nlocal.secret 0 1 y\n"
    files = {"inn.conf": text, "readers.conf": _READERS.format(root=root), "active": groups, "active.times": ""}
    files["storage.conf"] = "method tradspool {\n newsgroups: *\n class: 0\n}\n"
    files |= {"newsgroups": "local.public\tFor everybody\n", "passwords": f"grete:{_crypted(CANARY)}\n"}
    for name, content in files.items():
        (root / name).write_text(content)
    (root / "articles" / "local" / "public").mkdir(parents=True)
    (root / "articles" / "local" / "public" / "1").write_bytes(ARTICLE)
    (root / "overview").mkdir()
    command = ["env", f"INNCONF={root}/inn.conf"]
    if not os.geteuid():
        command = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", *command]
        for path in (root, *root.rglob("*")):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    overview = [*command, str(program.with_name("makehistory")), "-O", "-x"]
    subprocess.run(overview, check=True, capture_output=True, timeout=DEADLINE)
    with ExitStack() as stack:
        ports = [
            stack.enter_context(_reading([*command, str(program)], root, more))
            for more in ([], ["-S"] if certificate else [])
        ]
        yield INN(*ports)


@contextmanager
def _reading(command: list[str], root: Path, more: list[str]) -> Iterator[int]:
    """One nnrpd; its port.  What it has to say is in syslog, so that its port is asked whether it has started."""
    for _ in range(ATTEMPTS):
        (port,) = free_ports(1)
        words = ["-D", "-f", "-p", str(port), "-b", "127.0.0.1", "-c", str(root / "readers.conf")]
        with speaking([*command, *words, *more], "stderr") as (process, log):
            if listens(process, port):
                yield port
                return
            if process.poll() is None:
                pytest.fail(f"nnrpd does not listen (its own words are in syslog): {log.text}")
    pytest.fail("nnrpd does not start, or there is no free port for it; its own words are in syslog")


def is_up(log: Speaker, words: str, name: str) -> bool:
    """Whether a server has said these words.  False where its port was taken by another program meanwhile."""
    try:
        log.hear(words)
    except AssertionError:
        if "Address already in use" in log.text:
            return False
        pytest.fail(f"{name} does not start:\n{log.text}")
    return True


def listens(process: subprocess.Popen[str], port: int, host: str = "127.0.0.1") -> bool:
    """Whether this server takes connections before the time is up."""
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until and process.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection((host, port)):
            return True
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    return False


def _crypted(password: str) -> str:
    openssl = programs.need("openssl", debian="openssl")
    return subprocess.run(
        [openssl, "passwd", "-6", password], capture_output=True, text=True, check=True
    ).stdout.strip()
