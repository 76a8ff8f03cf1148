"""What the guides tell administrators to write works: a server with Debian's own settings and those of its guide, a
gateway with the guide's file, a client that logs in, and a firewall that lets nobody pass by the gateway.

The addresses are those of the guides, in networks that the test makes."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import trustme

from gateway.config import DEFAULT_FILE
from tests.process.programs import need
from tests.process.running import CANARY, DEADLINE, ROOT, Speaker, speaking
from tests.process.villages import CLIENT, GATEWAY, OUTSIDE, SERVER, Machine, Village, village

PATIENCE = 60.0
"""Seconds that a look at a server may take on a busy machine."""
PLAIN = base64.b64encode(f"\0joe\0{CANARY}".encode()).decode()


# Debian's settings name a certificate, which Debian makes only if ssl-cert is there.
_DOVECOT_SERVES_JOE = f"""
useradd --create-home joe
echo joe:{CANARY} | chpasswd
install -d -o joe /home/joe/mail
cd /etc/dovecot/private
openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=old -keyout dovecot.key -out dovecot.pem 2>&1
"""
_DOVECOT = """
echo 'log_path = /dev/stderr' >>/etc/dovecot/local.conf
exec dovecot -F 2>&1
"""
_READS_MAIL = """
user=joe:@PASSWORD@
curl -sS --cacert @CA@ -u $user imaps://mail.example.org/
curl -sS --cacert @CA@ -u $user --ssl-reqd imap://mail.example.org/ -X 'STATUS INBOX (MESSAGES)'
curl -sS --cacert @CA@ -u $user pop3s://mail.example.org/
echo in
"""
_EDITS_SIEVE = """
echo 'keep;' >/tmp/mine.sieve
for action in '--upload --localsieve /tmp/mine.sieve' --list; do
    echo @PASSWORD@ | sieve-connect --nosrv --server mail.example.org --user joe --passwordfd 0 --tlscafile @CA@ \\
        --authmech PLAIN $action
done
"""
# Its logins are checked by Dovecot, as Debian's documentation has it.
_POSTFIX = """
cat >>/etc/dovecot/local.conf <<END
log_path = /dev/stderr
service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = postfix
  }
}
END
dovecot
postconf smtpd_sasl_type=dovecot smtpd_sasl_path=private/auth maillog_file=/dev/stdout mydestination=example.org
postconf -M submission/inet='submission inet n - y - - smtpd'
newaliases
exec postfix start-fg
"""
SENDS = """
swaks --server mail.example.org --port 587 --tls --tls-verify --tls-ca-path @CA@ --auth PLAIN --auth-user joe \\
    --auth-password @PASSWORD@ --from joe@example.org --to joe@example.org
"""
_NEWS_USER = f"""
printf 'joe:%s\\n' "$(openssl passwd -1 {CANARY})" >/etc/news/passwords
chown news /etc/news/passwords
install -d -o news -g news /run/news
# It turns readers away from a busy machine.
sed -i '/^nnrpdloadlimit:/d' /etc/news/inn.conf
echo 'nnrpdloadlimit: 0' >>/etc/news/inn.conf
"""
_READS_NEWS = """
cat >/tmp/reader.py <<END
import nntplib, ssl
trusted = ssl.create_default_context(cafile="@CA@")
plain = nntplib.NNTP("news.example.org")
plain.starttls(trusted)
for reader in plain, nntplib.NNTP_SSL("news.example.org", ssl_context=trusted):
    reader.login("joe", "@PASSWORD@")
    print(reader.list()[0])
END
python3 -W ignore /tmp/reader.py
"""
_SLAPD = """
. /etc/default/slapd
install -d -o openldap /run/slapd
exec slapd -h "$SLAPD_SERVICES" -F /etc/ldap/slapd.d -u openldap -g openldap -d 256 2>&1
"""
_DIRECTORY = """
of() { ldapsearch -Q -Y EXTERNAL -H ldapi:/// -b cn=config -LLL '(olcDatabase=mdb)' $1 | sed -n "s/^$1: //p"; }
ldapmodify -Q -Y EXTERNAL -H ldapi:/// <<END
dn: $(of dn)
changetype: modify
replace: olcSuffix
olcSuffix: dc=example,dc=org
-
replace: olcRootDN
olcRootDN: uid=joe,dc=example,dc=org
-
replace: olcRootPW
olcRootPW: @PASSWORD@
END
"""
_BINDS = """
export LDAPTLS_CACERT=@CA@
ldapwhoami -x -ZZ -H ldap://ldap.example.org -D uid=joe,dc=example,dc=org -w @PASSWORD@
ldapwhoami -x -H ldaps://ldap.example.org -D uid=joe,dc=example,dc=org -w @PASSWORD@
"""
_PROSODY = """
install -d -o prosody /run/prosody
exec setpriv --reuid=prosody --regid=prosody --clear-groups prosody -F
"""
# The end of the stream comes too early, and ends the connection.
_CHATS = f"""
openssl s_client -quiet -starttls xmpp -xmpphost example.org -verify_return_error -CAfile @CA@ \\
    -connect example.org:5222 <<END
<stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>
<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{PLAIN}</auth></stream:stream>
END
"""
_SHOP = """
cd /
setpriv --reuid=postgres --regid=postgres --clear-groups psql -c "create user joe password '@PASSWORD@'" \\
    -c 'create database shop'
"""
_ASKS = """
export PGPASSWORD=@PASSWORD@
psql "host=db.example.org user=joe dbname=shop sslmode=verify-full sslrootcert=@CA@" -c 'select 6 * 7'
"""
_MARIADB_USERS = """
mariadb -e "create user 'shop'@'192.0.2.%' identified by '@PASSWORD@'"
mariadb -e "create user 'starttls-gateway-check'@'10.0.0.2' account lock"
"""
_ASKS_MARIADB = """
mariadb --host=db.example.org --user=shop --password=@PASSWORD@ --ssl-ca=@CA@ --ssl-verify-server-cert \\
    -e 'select user()'
"""


@dataclass(frozen=True)
class Trial:
    guide: str
    program: str
    """What must be installed, ..."""
    package: str
    """... and with which package."""
    start: str
    """Becomes the server.  Everything here is for sh."""
    client: str
    """Logs in at the gateway; @CA@ is the file with the certificate's issuer, @PASSWORD@ that of joe."""
    hears: str
    """What the client then says."""
    prepare: str = _DOVECOT_SERVES_JOE
    """What the administrator of the server had done long ago."""
    fill: str = ""
    """What he does once the server runs."""
    sees: str = ""
    """What the server's own words have of the client's address, if it can be told."""
    page: str = ""
    """Where the guide is, if not among the guides."""
    apart: tuple[str, ...] = ()
    """Packages of a Debian of its own, for servers that exclude each other: tests/packages/test_guides.py."""

    @property
    def text(self) -> str:
        return (ROOT / "docs" / (self.page or f"guides/{self.guide}.md")).read_text("utf-8")


TRIALS = [
    Trial(
        *("dovecot", "dovecot", "dovecot-imapd dovecot-pop3d", _DOVECOT, _READS_MAIL),
        hears=r"INBOX(?s:.*)STATUS(?s:.*)in$",
        sees=rf"imap-login: Info: Login: user=<joe>.* rip={CLIENT}",
    ),
    Trial(
        *("pigeonhole", "sieve-connect", "dovecot-managesieved sieve-connect", _DOVECOT, _EDITS_SIEVE),
        hears=r'"mine\.sieve"',
        sees=rf"managesieve-login: Info: Login: user=<joe>.* rip={CLIENT}",
    ),
    Trial(
        *("postfix", "postfix", "postfix swaks", _POSTFIX, SENDS),
        hears="250 2.0.0 Ok: queued",
        sees=rf"client=\S+\[{CLIENT}\], sasl_method=PLAIN",
    ),
    Trial(
        *("inn", "/usr/lib/news/bin/innd", "inn2"),
        "exec setpriv --reuid=news --regid=news --clear-groups /usr/lib/news/bin/innd -f",
        _READS_NEWS,
        hears=r"(215 .*\s*){2}",
        prepare=_NEWS_USER,
    ),
    Trial(
        *("slapd", "slapd", "slapd ldap-utils", _SLAPD, _BINDS),
        hears=r"(dn:uid=joe,dc=example,dc=org\s*){2}",
        prepare="",
        fill=_DIRECTORY,
        sees=rf"IP={CLIENT}:",
    ),
    Trial(
        *("prosody", "prosody", "prosody", _PROSODY, _CHATS),
        hears="<success",
        prepare="",
        fill="printf '%s\\n' @PASSWORD@ @PASSWORD@ | prosodyctl adduser joe@example.org",
    ),
    Trial(
        *("postgresql", "pg_ctlcluster", "postgresql", "exec pg_ctlcluster 15 main start --foreground", _ASKS),
        hears=r"\b42\b",
        prepare="install -d -o postgres /run/postgresql",
        fill=_SHOP,
    ),
    Trial(
        *("mariadb", "mariadbd", "mariadb-server mariadb-client"),
        "install -d -o mysql /run/mysqld; exec mariadbd --user=mysql 2>&1",
        _ASKS_MARIADB,
        hears=rf"shop@{CLIENT}",
        prepare="",
        fill=_MARIADB_USERS,
    ),
    Trial(
        *("cups", "cupsd", "cups-daemon cups-client", "install -d /run/cups; exec cupsd -f"),
        "lpstat -E -h print.example.org:631 -r",
        hears="scheduler is running",
        prepare="",
    ),
]


def settings(text: str) -> list[tuple[str, str]]:
    """The files of the server that the guide names, each with what is to be added to it."""
    found = re.findall(r"(?ms)^In (`/etc/[^\n]*:)(?:[^\n]*\n)(?:[^\n`]+\n)*\n```text\n(.*?)^```$", text)
    return [(name, added) for names, added in found for name in re.findall("`(/etc/[^`]+)`", names)]


def ini(text: str) -> str:
    """The gateway's file."""
    (file,) = re.findall(r"(?ms)^## (?:On the gateway|A complete example)\n.*?^```ini\n(.*?)^```$", text)
    return str(file)


def firewall(text: str) -> str:
    """The rules of the start page for the ports of the guide, or those that the page has for the server."""
    said = re.search(r"reach (?:the )?ports? ([\d, and]+) of the server", text)
    if said is None:
        (*_, rules) = re.findall(r"(?ms)^```text\n(table inet .*?)^```$", text)
        return str(rules).replace("10.0.0.4", GATEWAY)
    rules = (ROOT / "docs" / "start.md").read_text("utf-8")
    (rules,) = re.findall(r"(?ms)^```text\n(table inet .*?)^```$", rules)
    return re.sub(r"dport \{[^}]*\}", f"dport {{ {', '.join(re.findall('[0-9]+', said[1]))} }}", rules)


def await_port(machine: Machine, address: str, server: Speaker) -> None:
    """Until the server listens."""
    port = address.rpartition(":")[2]
    until = time.monotonic() + DEADLINE
    while machine.attempt(f"ss -Hltn 'sport = :{port}' | grep -q .").returncode:
        assert time.monotonic() < until, f"nobody listens at {address}:\n{server.text}"


@dataclass(frozen=True)
class Work:
    """A guide that was followed."""

    trial: Trial
    place: Village
    server: Speaker
    backends: list[str]
    live: subprocess.CompletedProcess[str]
    """What `check --live` said before the gateway ran."""

    def login(self) -> None:
        words = self.trial.client.replace("@CA@", "/authority.pem").replace("@PASSWORD@", CANARY)
        said = self.place.client.run(words)
        assert re.search(self.trial.hears, said), f"{said}\n{self.server.text}"

    @property
    def reached(self) -> list[str]:
        """Addresses of the server that the client reaches without the gateway."""
        tries = [f"! timeout 1 bash -c '</dev/tcp/{one.replace(':', '/')}' || echo {one}" for one in self.backends]
        return self.place.client.run("\n".join(tries)).split()


@contextmanager
def at_work(directory: Path, trial: Trial, more: str = "", old: Path = Path("/")) -> Iterator[Work]:
    """The server and the gateway of a guide; `more` is for the gateway's file, `old` the Debian of the server."""
    if not trial.apart:
        need(trial.program, debian=trial.package)
    text = re.sub(r"10\.0\.0\.[58]\b", SERVER, trial.text)
    names = sorted({*re.findall(r"\b(?:[a-z]+\.)?example\.org\b", text)})
    file = ini(text)
    (certificate,) = re.findall(r"(?m)^certificate = (.*)$", file)
    authority = trustme.CA()
    ending = datetime.now(timezone.utc) + timedelta(days=60)
    issued = authority.issue_cert(*names, not_after=ending)
    with village(directory, dict.fromkeys(names, OUTSIDE), old) as place, ExitStack() as stack:
        place.client.path("/authority.pem").write_bytes(authority.cert_pem.bytes())
        there = place.gateway.path(certificate)
        there.parent.mkdir(parents=True)
        issued.private_key_and_cert_chain_pem.write_to_path(str(there))
        place.server.run(trial.prepare)
        for name, settled in settings(text):
            # A page may have the settings of several servers.
            if place.server.path(name).exists() or not trial.page:
                with place.server.path(name).open("a") as server_file:
                    server_file.write(f"\n{settled}")
        place.gateway.path(DEFAULT_FILE).write_text(file + more)
        _, server = stack.enter_context(speaking(place.server.command("sh", "-ec", trial.start)))
        stack.callback(place.server.end)
        backends = re.findall(rf"(?m)^(?:backend|address)\s*= ({re.escape(SERVER)}:\d+)$", file)
        for address in backends:
            await_port(place.server, address, server)
        place.server.run(trial.fill.replace("@PASSWORD@", CANARY))

        program = place.gateway.command(sys.executable, "-m", "gateway.cli")
        words = [*program, "check", "--live"]
        live = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
        _, gateway = stack.enter_context(speaking([*program, "run"]))
        gateway.hear("event=listening .*experimental")
        yield Work(trial, place, server, backends, live)


def follow(directory: Path, trial: Trial, old: Path = Path("/")) -> None:
    with at_work(directory, trial, old=old) as work:
        assert work.live.returncode == 0, work.live.stdout + work.live.stderr
        assert "all good" in work.live.stdout
        work.login()
        if trial.sees:
            work.server.hear(trial.sees)
        assert work.reached == work.backends, "the test cannot see a firewall"
        work.place.server.path("/rules").write_text(firewall(trial.text))
        work.place.server.run("nft -f /rules")
        assert work.reached == [], "the firewall lets clients pass by the gateway"
        work.login()


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.guide)
def test_a_guide_works(tmp_path: Path, trial: Trial) -> None:
    follow(tmp_path, trial)
