"""The commands that the demo prints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

TEXT = """\

Ten servers without TLS run in this process, and the gateway in front of them.
One account: demo, password demo. The certificate: {ca}
SMTP {smtp} and {submission} (STARTTLS), {submissions} (TLS); IMAP {imap} (STARTTLS), {imaps} (TLS); \
POP3 {pop3} (STLS), {pop3s} (TLS).
LMTP {lmtp}, ManageSieve {sieve}, NNTP {nntp}, IRC {irc} (STARTTLS), FTP {ftp} (AUTH TLS), PostgreSQL {postgresql}, \
HTTP {http} (Upgrade); NNTP {nntps}, IRC {ircs}, FTP {ftps}, HTTP {https} (TLS). Ctrl-C stops everything.

In another terminal, connect with STARTTLS:
  openssl s_client -starttls smtp -connect localhost:{smtp} -CAfile {ca} -verify_return_error -brief </dev/null
Send a mail over STARTTLS:
  printf '%s\\r\\n' 'From: me@example.org' 'Subject: Hello' '' 'Over STARTTLS.' | curl -sS --ssl-reqd --cacert {ca} \
--mail-from me@example.org --mail-rcpt demo@legacy.demo -T - smtp://localhost:{smtp}
Read the mail by IMAP, then by POP3.  Its second Received: line has the TLS version and cipher:
  curl -sS --cacert {ca} -u demo:demo 'imaps://localhost:{imaps}/INBOX;MAILINDEX=*'
  curl -sS --cacert {ca} -u demo:demo pop3s://localhost:{pop3s}/2
  curl -sS --ssl-reqd --cacert {ca} -u demo:demo pop3://localhost:{pop3}/2
Read an article over TLS, see a list of Sieve scripts, and a web page:
  printf '%s\\r\\n' 'GROUP demo.gateway' 'ARTICLE 1' QUIT | openssl s_client -connect localhost:{nntps} -CAfile {ca} \
-verify_return_error -quiet
  printf '%s\\r\\n' 'AUTHENTICATE "PLAIN" "AGRlbW8AZGVtbw=="' LISTSCRIPTS LOGOUT | openssl s_client -starttls sieve \
-connect localhost:{sieve} -CAfile {ca} -verify_return_error -quiet
  curl -sS --cacert {ca} https://localhost:{https}/
Ask a database:
  psql -At -c 'select 1' 'host=localhost port={postgresql} user=demo password=demo sslmode=verify-full \
sslrootcert='{ca}
Fetch a file, and its folder's list; control and data are inside TLS:
  curl -sS --ssl-reqd --cacert {ca} -u demo:demo ftp://127.0.0.1:{ftp}/welcome.txt
  curl -sS --cacert {ca} -u demo:demo ftps://127.0.0.1:{ftps}/
"""


def instructions(certificate: Path, ports: Mapping[str, int]) -> str:
    """The indented lines are shell commands."""
    return TEXT.format(ca=shlex.quote(str(certificate)), **ports)
