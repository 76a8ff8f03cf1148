"""Guides for servers that exclude each other in Debian: each in a Debian of its own below build/interop, as interop has
them, and followed as tests/process/test_guides.py does it."""

from __future__ import annotations

from pathlib import Path

import pytest

from interop.places import House
from tests.packages.roots import ready_to_build
from tests.process.running import CANARY
from tests.process.test_guides import SENDS, Trial, follow
from tests.process.villages import CLIENT, SERVER

TOOLS = ("iproute2", "nftables", "openssl")
"""What the test does there."""
JOE = f"""
useradd --create-home joe
echo joe:{CANARY} | chpasswd
"""
# Serves the network and has logins, as Debian's own comments tell it.
_EXIM_HAS_LOGINS = f"""{JOE}
cd /etc/exim4
printf '%s\\n' "dc_eximconfig_configtype='internet'" "dc_local_interfaces=''" "dc_other_hostnames='example.org'" \\
    >>update-exim4.conf.conf
sed -i '/^# plain_server:/,/endif/ s/^# //' exim4.conf.template
printf 'joe:%s\\n' "$(openssl passwd -6 {CANARY})" >passwd
chgrp Debian-exim passwd
echo 10.0.0.5 mail.example.org >>/etc/hosts
"""
_EXIM = """
update-exim4.conf
install -d -o Debian-exim /run/exim4
exim4 -bd -q30m
exec tail -n +1 -F /var/log/exim4/mainlog 2>&1
"""
_COURIER = """
su joe -c 'maildirmake.courier /home/joe/Maildir'
install -d -o courier -g courier /run/courier /run/courier/authdaemon
authdaemond start
/usr/lib/courier/imapd start
/usr/lib/courier/pop3d start
exec sleep infinity
"""
# curl 7.88 cannot use STARTTLS with Courier; the guide says so.
_READS_COURIER = """
curl -sS --cacert @CA@ -u joe:@PASSWORD@ imaps://mail.example.org/
curl -sS --cacert @CA@ -u joe:@PASSWORD@ --ssl-reqd pop3://mail.example.org/
curl -sS --cacert @CA@ -u joe:@PASSWORD@ pop3s://mail.example.org/
echo in
"""
_CYRUS_USER = f"""
sed -i 's/^sasl_pwcheck_method:.*/sasl_pwcheck_method: auxprop/; /^allowplaintext:/d' /etc/imapd.conf
printf %s {CANARY} | saslpasswd2 -p -c -u mail.example.org joe
chown cyrus /etc/sasldb2
printf 'admins: joe\\nservername: mail.example.org\\nsasl_auxprop_plugin: sasldb\\n' >>/etc/imapd.conf
sed -i 's/localhost:sieve/sieve/; /^\\s*nntp\\s/d; /^\\s*http\\s/d' /etc/cyrus.conf
install -d -o cyrus -g mail /run/cyrus /run/cyrus/socket /run/cyrus/lock /run/cyrus/proc
"""
_READS_CYRUS = """
curl -sS --cacert @CA@ -u joe:@PASSWORD@ imaps://mail.example.org/ -X NAMESPACE
curl -sS --cacert @CA@ -u joe:@PASSWORD@ --ssl-reqd imap://mail.example.org/ -X NAMESPACE
echo in
"""
_DELIVERS = """
swaks --server mail.example.org --tls --tls-verify --tls-ca-path @CA@ --from jane@example.net --to joe@example.org
"""
_TRANSFERS = """
echo hello >/letter
for address in ftp://ftp.example.org/ ftps://ftp.example.org/; do
    curl -sS --ssl-reqd --cacert @CA@ -u joe:@PASSWORD@ -T /letter $address
    curl -sS --ssl-reqd --cacert @CA@ -u joe:@PASSWORD@ $address
done
"""

TRIALS = [
    Trial(
        *("exim", "exim4", "exim4-daemon-heavy", _EXIM, SENDS),
        hears="250 OK id=",
        prepare=_EXIM_HAS_LOGINS,
        sees=rf"<= joe@example\.org H=\S+.* \[{CLIENT}\]",
        apart=("exim4-daemon-heavy", "exim4-config"),
    ),
    Trial(
        *("courier", "authdaemond", "courier-imap", _COURIER, _READS_COURIER),
        hears="INBOX(?s:.*)in$",
        prepare=JOE,
        apart=("courier-imap", "courier-pop", "courier-authdaemon"),
    ),
    Trial(
        *("cyrus", "cyrmaster", "cyrus-imapd", "exec /usr/sbin/cyrmaster -D 2>&1", _READS_CYRUS),
        hears=r"NAMESPACE(?s:.*)in$",
        prepare=_CYRUS_USER,
        apart=("cyrus-imapd", "cyrus-pop3d", "sasl2-bin", "libsasl2-modules", "netbase"),
    ),
    Trial(
        *("opensmtpd", "smtpd", "opensmtpd", "exec smtpd -d 2>&1", _DELIVERS),
        hears=r"250 2\.0\.0",
        prepare=f"{JOE}sed -i '/^listen/d; s/^match for local/match from any for domain example.org/' /etc/smtpd.conf",
        apart=("opensmtpd",),
    ),
    Trial(
        *("vsftpd", "vsftpd", "vsftpd"),
        "install -d /var/run/vsftpd/empty; exec vsftpd -obackground=NO",
        _TRANSFERS,
        hears=r"(letter(?s:.*)){2}",
        prepare=f"{JOE}sed -i 's/^#write_enable=.*/write_enable=YES/' /etc/vsftpd.conf",
        page="ftp.md",
        apart=("vsftpd",),
    ),
    Trial(
        *("proftpd", "proftpd", "proftpd-core", "exec proftpd --nodaemon 2>&1", _TRANSFERS),
        hears=r"(letter(?s:.*)){2}",
        prepare=f'{JOE}echo "{SERVER} $(hostname)" >>/etc/hosts',
        page="ftp.md",
        apart=("proftpd-core",),
    ),
]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.guide)
def test_a_guide_works_for_a_server_in_a_debian_of_its_own(tmp_path: Path, trial: Trial) -> None:
    ready_to_build()
    house = House(f"guide-{trial.guide}")
    house.install((*trial.apart, *TOOLS))
    follow(tmp_path, trial, house.path)
