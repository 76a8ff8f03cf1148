"""The servers behind the gateway: each one is a value, and the way in which all of them are started is one.

They speak no TLS here, as the old servers for which the gateway is made.  They listen on 127.0.0.1, on ports that
nobody else has.  What SMTP servers take for example.test they hand on to one mailbox, which belongs to the matrix.
"""

from __future__ import annotations

import contextlib
import imaplib
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from interop.jobs import USER, Letter
from interop.places import House, Missing
from tests.ports import free_ports
from tests.process import ftpd
from tests.process.ftpd import filled
from tests.process.running import CANARY
from tests.process.servers import ATTEMPTS, POSTFIX_SERVICES, Mailbox

START = 30.0
"""Seconds until a server must listen."""


@dataclass(frozen=True)
class Server:
    """One more of these is one more column of the table."""

    name: str
    house: House
    packages: tuple[str, ...]
    """Debian's.  The version of the first one is told."""
    protocols: tuple[str, ...]
    script: str
    """Run by sh in the house: prepares what the server needs, and becomes the server.  In it and in `files`, @DIR@ is
    a folder of its own, @SMTP@ (@IMAP@, ...) a free port, @LMTP@ the mailbox's port, @USER@ and @PASSWORD@ a login."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Name in @DIR@ -> content."""
    login: bool = True
    """Whether clients log in; an SMTP server that offers no AUTH without TLS of its own cannot be logged in to."""


@dataclass(frozen=True)
class Running:
    server: Server
    ports: Mapping[str, int]
    log: Path
    """What it said."""

    @property
    def home(self) -> Path:
        """Where the files of an FTP server's user are."""
        return self.log.with_name("home")

    def place(self, letter: Letter) -> None:
        """Make this the only mail of USER.  That is done behind the gateway's back."""
        with imaplib.IMAP4("127.0.0.1", self.ports["imap"], timeout=START) as session:
            session.login(USER, CANARY)
            _, count = session.select()
            if count != [b"0"]:
                session.store("1:*", "+FLAGS", r"(\Deleted)")
                session.expunge()
            session.append("INBOX", "", "", letter.octets(f"{USER}@example.test", "\r\n"))


@contextmanager
def running(
    server: Server, directory: Path, mailbox: Mailbox, more: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """The server, until the end of the block; `more` words to fill in."""
    directory.mkdir()
    directory.chmod(0o755)  # servers give up their rights
    log = directory / "log"
    said = ""
    for _ in range(ATTEMPTS):
        ports = dict(zip(server.protocols, free_ports(len(server.protocols)), strict=True))
        values = {
            **{protocol.upper(): str(port) for protocol, port in ports.items()},
            "DIR": str(directory),
            "LMTP": mailbox.address.rpartition(":")[2],
            "USER": USER,
            "PASSWORD": CANARY,
            **(more or {}),
        }
        for name, text in server.files.items():
            (directory / name).write_text(filled(text, values))
        script = filled(server.script, values)
        with log.open("wb") as output:
            process = subprocess.Popen(
                server.house.command(["/bin/sh", "-ec", script], directory.parent),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            if _listening(process, list(ports.values())):
                yield Running(server, ports, log)
                return
        finally:
            process.kill()  # and with it all that it started
            process.wait()
        said = log.read_text(errors="replace")
        if "in use" not in said:
            break
    raise Missing(f"{server.name} does not start:\n{said[-3000:]}")


def _listening(process: subprocess.Popen[bytes], ports: Sequence[int]) -> bool:
    """Whether all ports are being listened to before the time is up."""
    until = time.monotonic() + START
    for port in ports:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > until:
                return False
            time.sleep(0.05)
    return True


# --- SMTP ---------------------------------------------------------------------------------------

_POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = @DIR@/queue
data_directory = @DIR@/data
maillog_file = /dev/stdout
myhostname = old.example.test
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
local_recipient_maps =
virtual_mailbox_domains = example.test
virtual_mailbox_maps = static:all
virtual_transport = lmtp:inet:127.0.0.1:@LMTP@
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = example.test
smtpd_tls_security_level = none
disable_dns_lookups = yes
smtpd_peername_lookup = no
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
"""
POSTFIX_START = """
mkdir -p queue data
chown postfix data
chmod go+r *
exec postfix -c @DIR@ start-fg
"""
"""Its folder is also its configuration."""
# The users of Cyrus SASL stand in a file.
_SASL = """
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: @DIR@/sasldb2
mech_list: PLAIN LOGIN CRAM-MD5
"""
_SASL_USER = """
cd @DIR@
printf %s @PASSWORD@ | saslpasswd2 -p -f @DIR@/sasldb2 -c -u example.test @USER@
"""

POSTFIX_HOUSE = House("postfix")
POSTFIX_PACKAGES = ("postfix", "sasl2-bin", "libsasl2-modules")
POSTFIX = Server(
    "Postfix",
    POSTFIX_HOUSE,
    POSTFIX_PACKAGES,
    ("smtp",),
    _SASL_USER + "chmod 644 sasldb2; mkdir -p sasl; cp smtpd.conf sasl" + POSTFIX_START,
    {
        "main.cf": _POSTFIX_MAIN,
        "master.cf": "127.0.0.1:@SMTP@ inet n - n - - smtpd\n" + POSTFIX_SERVICES,
        "smtpd.conf": _SASL,
    },
)

_EXIM = """
primary_hostname = old.example.test
spool_directory = @DIR@/spool
log_file_path = @DIR@/exim-%slog
tls_advertise_hosts =
smtp_accept_max = 0
smtp_accept_max_per_connection = 1000
acl_smtp_rcpt = recipient
acl_smtp_data = accept
acl_smtp_data_prdr = per_recipient
PRDR
domainlist ours = example.test

begin acl
recipient:
  accept authenticated = *
  accept domains = +ours
  deny message = relay not permitted
per_recipient:
  deny condition = ${if match{$local_part}{^unwanted}}
       message = content not for $local_part
  accept

begin routers
mailbox:
  driver = manualroute
  domains = +ours
  route_list = * 127.0.0.1 byname
  transport = mailbox
  self = send

begin transports
mailbox:
  driver = smtp
  protocol = lmtp
  port = @LMTP@
  hosts_avoid_tls = *
  allow_localhost
  max_rcpt = 1

begin retry
* * F,1h,1m

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_condition = ${if and{{eq{$auth2}{@USER@}}{eq{$auth3}{@PASSWORD@}}}}
  server_set_id = $auth2
  server_prompts = :
login:
  driver = plaintext
  public_name = LOGIN
  server_condition = ${if and{{eq{$auth1}{@USER@}}{eq{$auth2}{@PASSWORD@}}}}
  server_set_id = $auth1
  server_prompts = Username:: : Password::
cram_md5:
  driver = cram_md5
  public_name = CRAM-MD5
  server_secret = ${if eq{$auth1}{@USER@}{@PASSWORD@}fail}
  server_set_id = $auth1
"""
# It believes a file that belongs to root and stands where Debian says.
EXIM_START = """
cd @DIR@
mkdir -p spool
chown Debian-exim:Debian-exim . spool
cp exim.conf /run/exim.conf
chmod 644 /run/exim.conf
"""
EXIM_HOUSE = House("exim")
EXIM_PACKAGES = ("exim4-daemon-light",)
_EXIM_SCRIPT = EXIM_START + "exec exim4 -C /run/exim.conf -bdf -oX 127.0.0.1.@SMTP@ -q1m"
EXIM = Server("Exim", EXIM_HOUSE, EXIM_PACKAGES, ("smtp",), _EXIM_SCRIPT, {"exim.conf": _EXIM.replace("PRDR", "")})
EXIM_PRDR = Server(
    "Exim with PRDR",
    EXIM_HOUSE,
    EXIM_PACKAGES,
    ("smtp",),
    _EXIM_SCRIPT,
    {"exim.conf": _EXIM.replace("PRDR", "prdr_enable = true")},
)

# Whoever is on the list hears a refusal instead of the rest of the greeting.
_POSTSCREEN_MAIN = """
postscreen_upstream_proxy_protocol = haproxy
postscreen_access_list =
postscreen_greet_wait = 1s
postscreen_dnsbl_sites = dnsbl.example.test
postscreen_dnsbl_action = drop
postscreen_dnsbl_ttl = 1s
postscreen_dnsbl_min_ttl = 1s
postscreen_dnsbl_max_ttl = 1s
smtpd_upstream_proxy_protocol = haproxy
"""
_POSTSCREEN_MASTER = """127.0.0.1:@SMTP@ inet n - n - 1 postscreen
smtpd pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
"""
POSTSCREEN = Server(
    "Postfix postscreen",
    POSTFIX_HOUSE,
    POSTFIX_PACKAGES,
    ("smtp",),
    "cd @DIR@; mount --bind resolv.conf /etc/resolv.conf" + POSTFIX_START,
    {
        "main.cf": _POSTFIX_MAIN.replace("disable_dns_lookups = yes", "").replace(
            "sasl_auth_enable = yes", "sasl_auth_enable = no"
        )
        + _POSTSCREEN_MAIN,
        "master.cf": _POSTSCREEN_MASTER + POSTFIX_SERVICES,
        "resolv.conf": "nameserver @RESOLVER@\n",
    },
    login=False,
)
"""@RESOLVER@ is the address of the one who knows the list."""

_OPENSMTPD = """
listen on 127.0.0.1 port @SMTP@ hostname old.example.test
action "mailbox" relay host "lmtp://127.0.0.1:@LMTP@"
match from any for domain "example.test" action "mailbox"
"""
OPENSMTPD = Server(
    "OpenSMTPD",
    House("opensmtpd"),
    ("opensmtpd",),
    ("smtp",),
    "cd @DIR@; exec smtpd -d -f @DIR@/smtpd.conf",
    {"smtpd.conf": _OPENSMTPD},
    login=False,
)

# --- IMAP and POP3 ------------------------------------------------------------------------------

_DOVECOT = """
base_dir = @DIR@/run
state_dir = @DIR@/run
log_path = /dev/stderr
protocols = imap pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login cram-md5
auth_failure_delay = 0
mail_location = maildir:@DIR@/mail/%u
mail_max_userip_connections = 100
first_valid_uid = 1
passdb {
  driver = static
  args = password=@PASSWORD@
}
userdb {
  driver = static
  args = uid=mail gid=mail home=@DIR@/mail/%u
}
service imap-login {
  inet_listener imap {
    port = @IMAP@
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = @POP3@
  }
  inet_listener pop3s {
    port = 0
  }
}
"""
DOVECOT = Server(
    "Dovecot",
    House("dovecot"),
    ("dovecot-imapd", "dovecot-pop3d"),
    ("imap", "pop3"),
    "mkdir -p @DIR@/mail; chown mail @DIR@/mail; exec dovecot -F -c @DIR@/dovecot.conf",
    {"dovecot.conf": _DOVECOT},
)

_CYRUS = """
START {
  recover cmd="/usr/sbin/cyrus ctl_cyrusdb -r"
}
SERVICES {
  imap cmd="imapd -U 30" listen="127.0.0.1:@IMAP@" prefork=1
  pop3 cmd="pop3d -U 30" listen="127.0.0.1:@POP3@" prefork=1
}
EVENTS {
  checkpoint cmd="/usr/sbin/cyrus ctl_cyrusdb -c" period=30
}
"""
_CYRUS_IMAPD = """
configdirectory: @DIR@/cyrus
proc_path: @DIR@/cyrus/proc
mboxname_lockpath: @DIR@/cyrus/lock
defaultpartition: default
partition-default: @DIR@/mail
servername: old.example.test
allowplaintext: yes
autocreate_quota: 0
popminpoll: 0
sasl_pwcheck_method: auxprop
sasl_auxprop_plugin: sasldb
sasl_sasldb_path: @DIR@/sasldb2
sasl_mech_list: PLAIN LOGIN CRAM-MD5
defaultdomain: example.test
virtdomains: off
loginrealms: example.test
"""
CYRUS = Server(
    "Cyrus",
    House("cyrus"),
    ("cyrus-imapd", "cyrus-pop3d", "sasl2-bin", "libsasl2-modules"),
    ("imap", "pop3"),
    _SASL_USER
    + """
printf %s @PASSWORD@ | saslpasswd2 -p -f @DIR@/sasldb2 -c -u old.example.test @USER@
cp imapd.conf cyrus.conf /etc
mkdir -p cyrus mail /run/cyrus
chown -R cyrus:mail @DIR@ /run/cyrus
exec /usr/sbin/cyrmaster
""",
    {"cyrus.conf": _CYRUS, "imapd.conf": _CYRUS_IMAPD},
)

COURIER = Server(
    "Courier",
    House("courier"),
    ("courier-imap", "courier-pop", "courier-authdaemon"),
    ("imap", "pop3"),
    """
id @USER@ >/dev/null 2>&1 || useradd --create-home @USER@
echo @USER@:@PASSWORD@ | chpasswd
rm -rf /home/@USER@/Maildir
su @USER@ -c 'maildirmake.courier /home/@USER@/Maildir'
sed -i 's/^ADDRESS=.*/ADDRESS=127.0.0.1/; s/^PORT=.*/PORT=@IMAP@/; s/^MAXPERIP=.*/MAXPERIP=40/' /etc/courier/imapd
sed -i 's/^ADDRESS=.*/ADDRESS=127.0.0.1/; s/^PORT=.*/PORT=@POP3@/; s/^MAXPERIP=.*/MAXPERIP=40/' /etc/courier/pop3d
sed -i 's/^IMAPDSTARTTLS=.*/IMAPDSTARTTLS=NO/' /etc/courier/imapd-ssl
sed -i 's/^POP3_STARTTLS=.*/POP3_STARTTLS=NO/' /etc/courier/pop3d-ssl
mkdir -p /run/courier/authdaemon
chown -R courier:courier /run/courier
authdaemond start
/usr/lib/courier/imapd start
/usr/lib/courier/pop3d start
exec sleep infinity
""",
)

# --- FTP ----------------------------------------------------------------------------------------


def _ftp(kind: ftpd.Kind) -> Server:
    """As the tests have it, but installed."""
    here = {**ftpd.listening_at("127.0.0.1"), "MODULES": ""}
    files = {name: filled(text, here) for name, text in kind.files.items()}
    packages = (*kind.packages, "openssl")
    return Server(kind.name, House(kind.name.lower()), packages, ("ftp",), filled(kind.script, here), files)


PROFTPD, PURE_FTPD, VSFTPD = map(_ftp, (ftpd.PROFTPD, ftpd.PURE_FTPD, ftpd.VSFTPD))

SERVERS: tuple[Server, ...] = (COURIER, CYRUS, DOVECOT, EXIM, OPENSMTPD, POSTFIX, PROFTPD, PURE_FTPD, VSFTPD)
