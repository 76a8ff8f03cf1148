"""Commands that the pages show are run on a machine of an administrator: a gateway in front of the demo's servers, a
client with an open session, the files that pages speak of.  tests/console.py names those that are not run, and why."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trustme

from gateway.config import DEFAULT_FILE
from tests.console import ROOT, Block, blocks, commands, elsewhere, named
from tests.process.programs import SYSTEM, missing
from tests.process.running import speaking
from tests.process.villages import OUTSIDE, Village, village

PATIENCE = 40.0
"""Seconds that a command may take on a busy machine."""
NAMES = [f"{host}.example.org" for host in ("mail", "store", "news", "irc", "ftp", "db", "gateway")]
KEPT = "/etc/starttls-gateway/tls/mail.example.org.pem"
SERVERS = """
from pathlib import Path
from tempfile import mkdtemp
from twisted.internet import reactor
from gateway.demo.legacy import listen
print(*(f"{name}={port.getHost().port}" for name, port in listen(reactor, Path(mkdtemp())).items()), flush=True)
reactor.run()
"""
# service, ports, and the server it has
SERVICES = (
    ("smtp", "starttls = 25", "smtp"),
    ("submission", "protocol = smtp\nstarttls = 587\nimplicit = 465", "smtp"),
    ("imap", "starttls = 143\nimplicit = 993", "imap"),
    ("pop3", "starttls = 110\nimplicit = 995", "pop3"),
    ("lmtp", "starttls = 24", "lmtp"),
    ("managesieve", "starttls = 4190", "managesieve"),
    ("nntp", "starttls = 119", "nntp"),
    ("ftp", "starttls = 21", "ftp"),
    ("postgresql", "starttls = 5432", "postgresql"),
)
# What the package, other programs and the pages before have put on the machine.
PREPARED = """
install -d /desk /opt/starttls-gateway/bin /opt/starttls-gateway/share/bash-completion/completions /etc/stunnel \\
    /opt/starttls-gateway/share/zsh/site-functions /etc/letsencrypt/live/mail.example.org /etc/pure-ftpd/conf \\
    /etc/fail2ban/filter.d /etc/fail2ban/jail.d /etc/crowdsec/parsers/s01-parse /etc/crowdsec/scenarios \\
    /usr/local/share/zsh/site-functions /usr/share/bash-completion/completions /etc/starttls-gateway/tls \\
    /etc/letsencrypt/renewal-hooks/deploy /var/lib/starttls-gateway /var/backups
getent passwd starttls-gateway || useradd --system --user-group starttls-gateway
for name in starttls-gateway:gateway.cli.__main__:main twistd:twisted.scripts.twistd:run; do
    IFS=: read name module function <<END
$name
END
    printf '#!@PYTHON@\\nimport sys; sys.path[:0] = ["@SOURCE@"]\\nfrom %s import %s as begin\\nsys.exit(begin())\\n' \\
        $module $function >/opt/starttls-gateway/bin/$name
done
chmod +x /opt/starttls-gateway/bin/*
ln -s /opt/starttls-gateway/bin/* /usr/bin/
cd /opt/starttls-gateway/share
ln -s @SOURCE@/config starttls-gateway
cp starttls-gateway/completion/starttls-gateway bash-completion/completions/starttls-gateway
cp starttls-gateway/completion/_starttls-gateway zsh/site-functions/
cd /desk
cp /identity.pem @KEPT@
chgrp -R starttls-gateway /etc/starttls-gateway/tls
for kind in x509:fullchain pkey:privkey; do
    openssl ${kind%:*} -in /identity.pem -out /etc/letsencrypt/live/mail.example.org/${kind#*:}.pem
done
echo 0123456789abcdef >/etc/starttls-gateway/admin-token
printf 'mail { server { listen 993 ssl; protocol imap; ssl_certificate @KEPT@; ssl_certificate_key @KEPT@; } }\\n' \\
    >nginx.conf
"""
ENVIRONMENT = """
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
export SSL_CERT_FILE=/authority.pem CURL_CA_BUNDLE=/authority.pem TOKEN=0123456789abcdef
cd /desk
set -x
"""
# A gateway in the foreground, or a daemon: it is to answer, and then to end.
LASTING = re.compile(r"(?:starttls-gateway run|twistd) .*")
ENDED = """
if starttls-gateway status --json >/desk/status; then
    for pid in $(jq '.result.processes[].pid' /desk/status); do
        kill $pid
        # Nobody here buries it.
        while grep --quiet '^State:.*[^Z] (' /proc/$pid/status; do :; done
    done
fi
"""
LASTED = "{} </dev/null &\nuntil starttls-gateway status 2>/dev/null; do :; done" + ENDED
REPLACED = {
    r"capture (\S+) --for 10m": r"capture \1 --for 1s",
    r"capture (\S+) --to (\S+)": r"capture \1 --to \2 --for 1s",
    r"^openssl s_client (.*)": r"openssl s_client \1 </dev/null",
    r" FILE\b": " gateway.ini",
    # The account of the demo's servers, and a password that nobody types.
    r"--user grete ": "--user demo:demo ",
    r"-u grete ": "-u demo,demo ",
    # It does not ask OpenSSL's environment.
    "set ftp:ssl-force yes;": "set ssl:ca-file /authority.pem; set ftp:ssl-force yes;",
    r"--auth-user joe ": "--auth-user demo --auth-password demo ",
    r"^useradd ": "userdel starttls-gateway; useradd ",
}
"""What a person does, and what stands for something: expression -> what is run."""
NOT_GOOD = {
    r"starttls-gateway kick a1b2c3d4": "no session has this id",
    r"starttls-gateway drain 10\.0\.0\.5:143": "no backend is there",
    r"starttls-gateway probe .*": "no certificate of the demo is published in the DNS",
}
"""Commands that end with status 1 here -> why."""


def script(block: Block) -> str:
    lines = [line for line in commands(block[2]) if not elsewhere(block, line)]
    said = ENVIRONMENT
    for line in lines:
        for expression, replacement in REPLACED.items():
            line = re.sub(expression, replacement, line)
        bare = line.partition("  #")[0].rstrip()
        if LASTING.fullmatch(bare + " "):
            said += f"{ENDED}{LASTED.format(bare)}"
        elif any(re.fullmatch(one, bare) for one in NOT_GOOD):
            said += f"{bare} || [ $? = 1 ]\n"
        else:
            said += f"{bare}\n"
    return said if lines else ""


def runs() -> dict[Path, list[Block]]:
    """The blocks of each page that nobody else runs; what many pages show is run once."""
    seen, found = {""}, dict[Path, list[Block]]()
    for block in blocks("console"):
        if (words := script(block)) not in seen:
            found.setdefault(block[0], []).append(block)
        seen.add(words)
    return found


RUN = runs()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Village, Mapping[str, str]]]:
    """The machines, and the ports of the servers behind the gateway."""
    if not SYSTEM.exists():
        missing("this test needs the system's own Python with the gateway's packages: make .venv-count/installed")
    identity = trustme.CA()
    issued = identity.issue_cert(*NAMES).private_key_and_cert_chain_pem
    with village(tmp_path_factory.mktemp("village"), dict.fromkeys(NAMES, OUTSIDE)) as made:
        for machine in made.client, made.gateway:
            identity.cert_pem.write_to_path(str(machine.path("/authority.pem")))
        with made.gateway.path("/etc/hosts").open("a") as hosts:
            hosts.writelines(f"{OUTSIDE} {name}\n" for name in NAMES)
        issued.write_to_path(str(made.gateway.path("/identity.pem")))
        words = (
            PREPARED.replace("@PYTHON@", str(SYSTEM / "bin" / "python"))
            .replace("@SOURCE@", str(ROOT))
            .replace("@KEPT@", KEPT)
        )
        made.gateway.run(words)
        with speaking(made.gateway.command(sys.executable, "-c", SERVERS)) as (_, servers):
            ports = dict(word.split("=") for word in servers.hear("smtp=.*")[0].split())
            with serving(made, ports):
                pass
            yield made, ports


@contextmanager
def serving(place: Village, ports: Mapping[str, str]) -> Iterator[None]:
    """A gateway in front of its servers, with a session of the client."""
    machine = place.gateway
    with ExitStack() as stack:
        file = f"[gateway]\nhostname = mail.example.org\ndrain = 1s\n[tls]\ncertificate = {KEPT}\n"
        file += f"[admin]\nlisten = {OUTSIDE}:9180\n"
        file += "names = gateway.example.org\ntls = yes\ntoken_file = /etc/starttls-gateway/admin-token\n"
        for name, ports_of, server in SERVICES:
            file += f"[service:{name}]\n{ports_of}\nbackend = {name}-server\n"
            file += f"[backend:{name}-server]\naddress = 127.0.0.1:{ports[server]}\n"
            file += "allow_relay = yes\n" * (server == "smtp")
        for name in DEFAULT_FILE, "/desk/gateway.ini":
            machine.path(name).write_text(file)
        stunnel = f"[imap]\naccept = 993\nconnect = 127.0.0.1:{ports['imap']}\ncert = {KEPT}\n"
        machine.path("/etc/stunnel/stunnel.conf").write_text(stunnel)
        # A page before may have run it as another user.
        machine.run("rm -rf /var/lib/starttls-gateway/bans.json /run/starttls-gateway")
        words = ["openssl", "s_client", "-quiet", "-CAfile", "/authority.pem", "-connect", "mail.example.org:993"]
        _, gateway = stack.enter_context(speaking(machine.command("/usr/bin/starttls-gateway", "run")))
        # Also the one that an upgrade has started.
        stack.callback(machine.attempt, ENVIRONMENT + ENDED)
        gateway.hear("event=listening .*:4190")
        _, client = stack.enter_context(speaking(place.client.command(*words), stdin=subprocess.PIPE))
        client.hear("OK")
        yield


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_do_what_they_should(place: tuple[Village, Mapping[str, str]], page: Path) -> None:
    machines, ports = place
    with serving(machines, ports):
        for block in RUN[page]:
            done = machines.gateway.attempt(script(block), PATIENCE)
            assert done.returncode == 0, f"{named(block)}: exit status {done.returncode}\n{done.stdout[-4000:]}"
