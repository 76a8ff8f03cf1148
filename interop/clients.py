"""The clients: each one is a value, whose function tells how it does a job with its certificate check at its strictest.

A new client is one more value in CLIENTS; a new protocol is one more word in `protocol`, with servers that speak it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from interop import files
from interop.jobs import CONTROLS, HOST, MODES, SENDER, WRONG_NAME, Command, Job, Mode, found_in
from interop.places import Environment, House, Modules, Place
from interop.servers import EXIM_HOUSE, EXIM_PACKAGES, EXIM_START, POSTFIX_HOUSE, POSTFIX_PACKAGES
from tests.process.servers import POSTFIX_SERVICES

DEBIAN = House("clients")
PYTHON = Environment("python")
NODE = Modules("node")


@dataclass(frozen=True)
class Client:
    """One more of these is one more row of the table."""

    name: str
    protocol: str
    place: Place
    packages: tuple[str, ...]
    """The version of the first one is told."""
    how: Callable[[Job], Command]
    lacks: Mapping[Mode, str] = field(default_factory=dict)
    """Ways to start TLS that it does not know, and how that is known.  They are tried all the same."""
    faults: Mapping[tuple[Mode, str], str] = field(default_factory=dict)
    """Way to start TLS, and server or control -> why it fails there, where that is the client's own fault."""
    needs: Mapping[str, str] = field(default_factory=dict)
    """Options of the gateway's service without which it does not work."""
    stalls: str = ""
    """Why it stops for ever now and then, where that is its own fault.  Such a run says nothing and is repeated."""


def _debian(
    name: str,
    protocol: str,
    packages: str,
    how: Callable[[Job], Command],
    *,
    lacks: Mapping[Mode, str] | None = None,
    faults: Mapping[tuple[Mode, str], str] | None = None,
    needs: Mapping[str, str] | None = None,
    stalls: str = "",
) -> Client:
    return Client(name, protocol, DEBIAN, tuple(packages.split()), how, lacks or {}, faults or {}, needs or {}, stalls)


def _ftp(
    name: str,
    package: str,
    how: files.How,
    lacks: Mapping[Mode, str] | None = None,
    needs: Mapping[str, str] | None = None,
    faults: Mapping[tuple[Mode, str], str] | None = None,
    active_faults: Mapping[tuple[Mode, str], str] | None = None,
) -> tuple[Client, Client]:
    """In passive and in active mode; `faults` of both."""
    active = {**(needs or {}), "active": "yes"}
    return (
        _debian(name, "ftp", package, lambda job: how(job, False), lacks=lacks, needs=needs, faults=faults),
        _debian(
            f"{name}, active",
            "ftp",
            package,
            lambda job: how(job, True),
            lacks=lacks,
            needs=active,
            faults={**(faults or {}), **(active_faults or {})},
        ),
    )


def _implicit(job: Job) -> bool:
    return job.mode == "implicit"


def _lines(*lines: str) -> str:
    """Those that are not empty."""
    return "".join(f"{line}\n" for line in lines if line)


# --- SMTP ---------------------------------------------------------------------------------------


def _msmtp(job: Job) -> Command:
    rc = job.write(
        "msmtprc",
        _lines(
            "account default",
            f"host {HOST}",
            f"port {job.port}",
            "tls on",
            f"tls_starttls {'off' if _implicit(job) else 'on'}",
            f"tls_trust_file {job.authority}",
            f"auth {'on' if job.user else 'off'}",
            job.user and f"user {job.user}",
            job.user and f"password {job.password}",
            f"from {SENDER}",
        ),
    )
    return Command(["msmtp", f"--file={rc}", job.recipient], job.sent)


def _curl_sends(job: Job) -> Command:
    scheme = "smtps" if _implicit(job) else "smtp"
    login = ("--user", f"{job.user}:{job.password}") if job.user else ()
    letter = job.write("letter", job.sent.replace(b"\n", b"\r\n"))
    return Command(
        [
            *("curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", job.authority, *login),
            *("--mail-from", SENDER, "--mail-rcpt", job.recipient, "--upload-file", letter),
            f"{scheme}://{HOST}:{job.port}/client.example.org",
        ]
    )


def _swaks(job: Job) -> Command:
    login = ("--auth", "PLAIN", "--auth-user", job.user, "--auth-password", job.password) if job.user else ()
    letter = job.write("letter", job.sent.removesuffix(b"\n"))  # it ends the last line itself
    return Command(
        [
            *("swaks", "--server", HOST, "--port", str(job.port), "--from", SENDER, "--to", job.recipient, *login),
            *("--tls-on-connect" if _implicit(job) else "--tls", "--tls-verify", "--tls-ca-path", job.authority),
            *("--data", f"@{letter}"),
        ]
    )


def _s_nail_sends(job: Job) -> Command:
    login = f"{job.user}:{quote(job.password, safe='')}@" if job.user else ""
    options = (
        "v15-compat",
        "ttycharset=utf-8",
        f"mta={'smtps' if _implicit(job) else 'smtp'}://{login}{HOST}:{job.port}",
        f"smtp-auth={'plain' if job.user else 'none'}",
        "" if _implicit(job) else "smtp-use-starttls",
        *_S_NAIL_TLS,
        f"tls-ca-file={job.authority}",
    )
    set_ = [argument for option in options if option for argument in ("-S", option)]
    arguments = ("-r", SENDER, "-s", job.letter.subject, job.recipient)
    return Command(["s-nail", "-:/", *set_, *arguments], job.letter.text.encode(), {"HOME": str(job.directory)})


_S_NAIL_TLS = ("tls-verify=strict", "tls-ca-no-defaults", "nosave")


def _mutt_rc(job: Job, *lines: str) -> list[str]:
    rc = job.write(
        "muttrc",
        _lines(
            "set ssl_force_tls=yes ssl_starttls=yes ssl_verify_dates=yes ssl_verify_host=yes ssl_usesystemcerts=no",
            f"set ssl_ca_certificates_file={job.authority}",
            f"set certificate_file={job.directory}/certificates",
            "set charset=utf-8 send_charset=utf-8 confirmappend=no confirmcreate=no mbox_type=Maildir",
            "set sleep_time=0 net_inc=0",
            *lines,
        ),
    )
    return ["mutt", "-n", "-F", str(rc)]


def _mutt_sends(job: Job) -> Command:
    scheme = "smtps" if _implicit(job) else "smtp"
    login = f"{job.user}@" if job.user else ""
    mutt = _mutt_rc(
        job,
        f"set smtp_url={scheme}://{login}{HOST}:{job.port}/",
        job.user and f"set smtp_pass={job.password} smtp_authenticators=plain",
        f"set from={SENDER} use_envelope_from=yes envelope_from_address={SENDER} record=''",
    )
    return Command(
        [*mutt, "-s", job.letter.subject, "--", job.recipient],
        job.letter.text.encode(),
        {"HOME": str(job.directory)},
    )


_AIOSMTPLIB = """
import asyncio, sys, aiosmtplib
mode, port, authority, sender, recipient, user, password = sys.argv[1:]
implicit = mode == "implicit"
asyncio.run(aiosmtplib.send(
    sys.stdin.buffer.read(), sender=sender, recipients=[recipient], hostname="localhost", port=int(port),
    use_tls=implicit, start_tls=not implicit, cert_bundle=authority,
    username=user or None, password=password or None, timeout=20,
))
"""


def _aiosmtplib(job: Job) -> Command:
    arguments = (job.mode, str(job.port), job.authority, SENDER, job.recipient, job.user, job.password)
    return Command(["python", "-c", _AIOSMTPLIB, *arguments], job.sent)


_RUBY_SMTP = """
require "net/smtp"
mode, port, authority, sender, recipient, user, password = ARGV
smtp = Net::SMTP.new("localhost", port.to_i, tls: mode == "implicit", starttls: mode == "starttls" ? :always : false,
                     tls_verify: true, ssl_context_params: {ca_file: authority})
login = user.empty? ? {} : {user: user, secret: password, authtype: :plain}
smtp.start(helo: "client.example.org", **login) { |session| session.send_message($stdin.read, sender, recipient) }
"""


def _ruby_sends(job: Job) -> Command:
    arguments = (job.mode, str(job.port), job.authority, SENDER, job.recipient, job.user, job.password)
    return Command(["ruby", "-e", _RUBY_SMTP, *arguments], job.sent)


_PERL_SMTP = """
use Net::SMTP;
my ($mode, $port, $authority, $sender, $recipient, $user, $password) = @ARGV;
my %check = (SSL_ca_file => $authority, SSL_verify_mode => 1);
my $implicit = $mode eq "implicit";
my $smtp = Net::SMTP->new("localhost", Port => $port, SSL => $implicit, Timeout => 20, %check) or die "$@ $!";
$implicit or $smtp->starttls(%check) or die "STARTTLS: " . $smtp->message . " $IO::Socket::SSL::SSL_ERROR";
$user eq "" or $smtp->auth($user, $password) or die "AUTH: " . $smtp->message;
$smtp->mail($sender) && $smtp->to($recipient) && $smtp->data(<STDIN>) or die $smtp->message;
$smtp->quit;
"""


def _perl_sends(job: Job) -> Command:
    arguments = (job.mode, str(job.port), job.authority, SENDER, job.recipient, job.user, job.password)
    return Command(["perl", "-e", _PERL_SMTP, *arguments], job.sent)


_PHPMAILER = """
require "/usr/share/php/libphp-phpmailer/autoload.php";
[, $mode, $port, $authority, $sender, $recipient, $user, $password, $subject] = $argv;
$mail = new PHPMailer\\PHPMailer\\PHPMailer(true);
$mail->isSMTP();
$mail->Host = "localhost";
$mail->Port = (int) $port;
$mail->SMTPSecure = $mode === "implicit" ? "ssl" : "tls";
$mail->SMTPOptions = ["ssl" => ["cafile" => $authority, "verify_peer" => true, "verify_peer_name" => true]];
$mail->SMTPAuth = $user !== "";
$mail->Username = $user;
$mail->Password = $password;
$mail->Timeout = 20;
$mail->CharSet = "utf-8";
$mail->setFrom($sender);
$mail->addAddress($recipient);
$mail->Subject = $subject;
$mail->Body = stream_get_contents(STDIN);
$mail->send();
"""


def _phpmailer(job: Job) -> Command:
    arguments = (job.mode, str(job.port), job.authority, SENDER, job.recipient, job.user, job.password)
    return Command(
        ["php", "-r", _PHPMAILER, "--", *arguments, job.letter.subject],
        job.letter.text.encode(),
    )


_NODEMAILER = """
const [mode, port, ca, from, to, user, pass, subject] = process.argv.slice(1);
const fs = require("fs");
const transport = require("nodemailer").createTransport({
  host: "localhost", port: Number(port), secure: mode === "implicit", requireTLS: mode !== "implicit",
  tls: { ca: fs.readFileSync(ca), rejectUnauthorized: true }, auth: user ? { user, pass } : undefined,
});
transport.sendMail({ from, to, subject, text: fs.readFileSync(0, "utf-8") })
  .catch((error) => { console.error(String(error)); process.exitCode = 1; });
"""


def _nodemailer(job: Job) -> Command:
    arguments = (job.mode, str(job.port), job.authority, SENDER, job.recipient, job.user, job.password)
    return Command(["node", "-e", _NODEMAILER, *arguments, job.letter.subject], job.letter.text.encode())


_POSTFIX = """
compatibility_level = 3.6
queue_directory = @DIR@/queue
data_directory = @DIR@/data
maillog_file = /dev/stdout
myhostname = client.example.org
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
smtp_host_lookup = native
relayhost = [{host}]:{port}
smtp_tls_security_level = secure
smtp_tls_secure_cert_match = hostname
smtp_tls_CAfile = {authority}
smtp_tls_wrappermode = {wrapped}
smtp_tls_loglevel = 1
smtp_sasl_auth_enable = {login}
smtp_sasl_password_maps = static:{user}:{password}
smtp_sasl_security_options = noanonymous
"""
# The first verdict on the mail ends it.
_POSTFIX_SENDS = """
cd "$0"
mkdir -p queue data
chown postfix data
postfix -c "$0" check 2>/dev/null
sendmail -i -C "$0" -f "$1" "$2" 2>&1
postfix -c "$0" start-fg > log 2>&1 &
for turn in $(seq 100); do grep -q 'status=' log && break; sleep 0.2; done
grep -E 'smtp\\[|status=' log
"""


def _postfix_sends(job: Job) -> Command:
    main = _POSTFIX.replace("@DIR@", str(job.directory)).format(
        host=HOST,
        port=job.port,
        authority=job.authority,
        wrapped="yes" if _implicit(job) else "no",
        login="yes" if job.user else "no",
        user=job.user,
        password=job.password,
    )
    job.directory.chmod(0o755)
    job.write("main.cf", main).chmod(0o644)
    job.write("master.cf", POSTFIX_SERVICES).chmod(0o644)
    return Command(["sh", "-c", _POSTFIX_SENDS, job.directory, SENDER, job.recipient], job.sent)


_EXIM = """
primary_hostname = client.example.org
spool_directory = {directory}/spool
log_file_path = {directory}/exim-%slog
tls_advertise_hosts =
begin routers
all:
  driver = manualroute
  route_list = * {host} byname
  self = send
  transport = gateway
begin transports
gateway:
  driver = smtp
  port = {port}
  protocol = {protocol}
  allow_localhost
  hosts_require_tls = *
  tls_verify_hosts = *
  tls_verify_cert_hostnames = *
  tls_verify_certificates = {authority}
  {login}
begin retry
* * F,1h,1m
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^{user}^{password}
"""
_EXIM_SENDS = EXIM_START.replace("@DIR@", '"$0"') + 'exim4 -C /run/exim.conf -odf -oi -f "$1" "$2"; cat exim-mainlog'


def _exim_sends(job: Job) -> Command:
    conf = _EXIM.format(
        directory=job.directory,
        host=HOST,
        port=job.port,
        protocol="smtps" if _implicit(job) else "smtp",
        authority=job.authority,
        login="hosts_require_auth = *" if job.user else "",
        user=job.user,
        password=job.password,
    )
    job.directory.chmod(0o755)
    job.write("exim.conf", conf)
    return Command(["sh", "-c", _EXIM_SENDS, job.directory, SENDER, job.recipient], job.sent)


# --- IMAP ---------------------------------------------------------------------------------------


def _isync(job: Job) -> Command:
    rc = job.write(
        "mbsyncrc",
        f"""
IMAPAccount gateway
Host {HOST}
Port {job.port}
User {job.user}
Pass {job.password}
SSLType {"IMAPS" if _implicit(job) else "STARTTLS"}
SystemCertificates no
CertificateFile {job.authority}

IMAPStore far
Account gateway

MaildirStore near
Path {job.folder("mail")}/
Inbox {job.directory}/mail/INBOX

Channel all
Far :far:
Near :near:
Patterns INBOX
Create Near
Sync Pull New
SyncState *
""",
    )
    return Command(["mbsync", "-c", rc, "-a"], fetched=found_in(job.directory / "mail"))


def _fetchmail(job: Job) -> Command:
    file = job.directory / "fetched"
    tls = "ssl" if _implicit(job) else 'sslproto "auto"'
    rc = job.write(
        "fetchmailrc",
        f"set no bouncemail\npoll {HOST} protocol {job.protocol} port {job.port}\n"
        f' user "{job.user}" password "{job.password}" {tls} sslcertck sslcertfile "{job.authority}"\n'
        f' keep fetchall no rewrite mda "cat >> {file}"\n',
    )
    own = ("--idfile", job.directory / "ids", "--pidfile", job.directory / "pid")
    return Command(
        ["fetchmail", "-f", rc, *own, "--nosyslog", "--nodetach"],
        environment={"HOME": str(job.directory), "FETCHMAILHOME": str(job.directory)},
        fetched=found_in(file),
    )


def _getmail(job: Job) -> Command:
    kind = f"Simple{job.protocol.upper()}{'SSL' if _implicit(job) else ''}Retriever"
    mail = job.maildir()
    job.directory.chmod(0o755)
    for folder in (mail, *mail.iterdir()):
        folder.chmod(0o777)
    rc = job.write(
        "getmailrc",
        _lines(
            "[retriever]",
            f"type = {kind}",
            f"server = {HOST}",
            f"port = {job.port}",
            f"username = {job.user}",
            f"password = {job.password}",
            f"ca_certs = {job.authority}" if _implicit(job) else "",
            "[destination]",
            "type = Maildir",
            "user = nobody",  # getmail delivers nothing as root
            f"path = {mail}/",
            "[options]",
            "read_all = true",
            "delete = false",
            "received = false",
            "delivered_to = false",
        ),
    )
    return Command(["getmail", f"--rcfile={rc}", f"--getmaildir={job.directory}"], fetched=found_in(mail))


def _offlineimap(job: Job) -> Command:
    implicit = _implicit(job)
    rc = job.write(
        "offlineimaprc",
        f"""
[general]
accounts = gateway
metadata = {job.folder("metadata")}
ui = basic
[Account gateway]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {job.folder("mail")}
[Repository far]
type = IMAP
remotehost = {HOST}
remoteport = {job.port}
remoteuser = {job.user}
remotepass = {job.password}
ssl = {"yes" if implicit else "no"}
starttls = {"no" if implicit else "yes"}
sslcacertfile = {job.authority}
auth_mechanisms = PLAIN, LOGIN
readonly = True
folderfilter = lambda name: name == "INBOX"
""",
    )
    return Command(
        ["offlineimap", "-o", "-c", rc],
        environment={"HOME": str(job.directory)},
        fetched=found_in(job.directory / "mail"),
    )


def _s_nail_reads(job: Job) -> Command:
    protocol = job.protocol + "s" * _implicit(job)
    file = job.directory / "fetched"
    options = (
        "v15-compat",
        "ttycharset=utf-8",
        "" if _implicit(job) else f"{job.protocol}-use-starttls",
        f"{job.protocol}-auth=login" if job.protocol == "imap" else "",
        *_S_NAIL_TLS,
        f"tls-ca-file={job.authority}",
    )
    set_ = [argument for option in options if option for argument in ("-S", option)]
    url = f"{protocol}://{job.user}:{quote(job.password, safe='')}@{HOST}:{job.port}"
    script = f"copy 1 {file}\nxit\n"
    return Command(
        ["s-nail", "-:/", "-R", *set_, "-f", url],
        script.encode(),
        {"HOME": str(job.directory)},
        found_in(file),
    )


def _mutt_reads(job: Job) -> Command:
    """It wants a terminal, which `script` makes; asked about a certificate, it hears what it takes for a refusal."""
    protocol = "pop" if job.protocol == "pop3" else "imap"
    url = f"{protocol}{'s' * _implicit(job)}://{job.user}@{HOST}:{job.port}/"
    copy = job.directory / "copy"
    mutt = _mutt_rc(
        job,
        f"set {protocol}_user={job.user} {protocol}_pass={job.password} {protocol}_authenticators=''".replace(
            "pop_authenticators=''", "pop_authenticators=user"
        ).replace("imap_authenticators=''", "imap_authenticators=login"),
        f"set spoolfile={url} folder={job.directory} quit=yes wait_key=no pop_checkinterval=1 pop_delete=no copy=no",
        f"push '<copy-message>{copy}<enter><quit>'",
    )
    line = " ".join(f"'{word}'" for word in mutt)
    return Command(
        ["timeout", "8", "script", "--quiet", "--return", "--command", line, "/dev/null"],
        b"r\n" * 3 + b"q",
        {"HOME": str(job.directory)},
        found_in(copy),
    )


def _curl_reads(job: Job) -> Command:
    scheme = job.protocol + "s" * _implicit(job)
    item = "INBOX;MAILINDEX=1" if job.protocol == "imap" else "1"
    return Command(
        [
            *("curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", job.authority),
            *("--user", f"{job.user}:{job.password}", f"{scheme}://{HOST}:{job.port}/{item}"),
        ]
    )


_RUBY_IMAP = """
require "net/imap"
mode, port, authority, user, password = ARGV
tls = {ca_file: authority, verify_mode: OpenSSL::SSL::VERIFY_PEER}
imap = Net::IMAP.new("localhost", port: port.to_i, ssl: mode == "implicit" ? tls : false)
imap.starttls(tls) if mode == "starttls"
imap.login(user, password)
imap.examine("INBOX")
$stdout.binmode.write imap.fetch(1, "BODY.PEEK[]")[0].attr["BODY[]"]
imap.logout
"""
_RUBY_POP3 = """
require "net/pop"
mode, port, authority, user, password = ARGV
pop = Net::POP3.new("localhost", port.to_i)
pop.enable_ssl(OpenSSL::SSL::VERIFY_PEER, authority) if mode == "implicit"
pop.start(user, password) { |session| $stdout.binmode.write session.mails[0].pop }
"""
_PERL_POP3 = """
use Net::POP3;
my ($mode, $port, $authority, $user, $password) = @ARGV;
my %check = (SSL_ca_file => $authority, SSL_verify_mode => 1);
my $implicit = $mode eq "implicit";
my $pop = Net::POP3->new("localhost", Port => $port, SSL => $implicit, Timeout => 20, %check) or die "$@ $!";
$implicit or $pop->starttls(%check) or die "STLS: " . $pop->message . " $IO::Socket::SSL::SSL_ERROR";
defined $pop->login($user, $password) or die "login: " . $pop->message;
my $lines = $pop->get(1) or die $pop->message;
print @$lines;
$pop->quit;
"""
_PERL_IMAP = """
use Mail::IMAPClient;
my ($mode, $port, $authority, $user, $password) = @ARGV;
my $check = [SSL_ca_file => $authority, SSL_verify_mode => 1, SSL_verifycn_scheme => "imap",
             SSL_verifycn_name => "localhost"];
my $imap = Mail::IMAPClient->new(
  Server => "localhost", Port => $port, User => $user, Password => $password, Timeout => 20,
  ($mode eq "implicit" ? "Ssl" : "Starttls") => $check) or die "$@ $!";
$imap->examine("INBOX") or die $imap->LastError;
print $imap->message_string(($imap->messages)[0]);
$imap->logout;
"""
_IMAPFLOW = """
const [mode, port, ca, user, pass] = process.argv.slice(1);
const { ImapFlow } = require("imapflow");
(async () => {
  const client = new ImapFlow({
    host: "localhost", port: Number(port), secure: mode === "implicit", doSTARTTLS: mode === "starttls",
    tls: { ca: require("fs").readFileSync(ca), rejectUnauthorized: true }, auth: { user, pass }, logger: false,
  });
  await client.connect();
  await client.mailboxOpen("INBOX", { readOnly: true });
  process.stdout.write((await client.fetchOne("1", { source: true })).source);
  await client.logout();
})().catch((error) => { console.error(String(error), error.responseText || ""); process.exit(1); });
"""
_NODE_POP3 = """
const [mode, port, ca, user, password] = process.argv.slice(1);
const Pop3Command = require("node-pop3");
(async () => {
  const pop3 = new Pop3Command({
    user, password, host: "localhost", port: Number(port), tls: mode === "implicit", timeout: 20000,
    tlsOptions: { ca: require("fs").readFileSync(ca), rejectUnauthorized: true },
  });
  process.stdout.write(await pop3.RETR(1));
  await pop3.QUIT();
})().catch((error) => { console.error(String(error)); process.exit(1); });
"""


def _script(*start: str) -> Callable[[Job], Command]:
    """A program of a few lines, which prints the mail."""

    def how(job: Job) -> Command:
        return Command([*start, job.mode, str(job.port), job.authority, job.user, job.password])

    return how


# --- POP3 ---------------------------------------------------------------------------------------


def _mpop(job: Job) -> Command:
    mail = job.maildir()
    rc = job.write(
        "mpoprc",
        f"""account default
host {HOST}
port {job.port}
tls on
tls_starttls {"off" if _implicit(job) else "on"}
tls_trust_file {job.authority}
user {job.user}
password {job.password}
auth on
keep on
uidls_file {job.directory}/uidls
received_header off
delivery maildir {mail}
""",
    )
    return Command(["mpop", f"--file={rc}"], environment={"HOME": str(job.directory)}, fetched=found_in(mail))


_GETMAIL_LACKS: Mapping[Mode, str] = {"starttls": "getmail6 6.18 has retrievers in the clear and for implicit TLS only"}
CLIENTS: tuple[Client, ...] = (
    # SMTP
    Client("aiosmtplib", "smtp", PYTHON, ("aiosmtplib",), _aiosmtplib),
    _debian("curl", "smtp", "curl", _curl_sends),
    Client("Exim", "smtp", EXIM_HOUSE, EXIM_PACKAGES, _exim_sends),
    _debian("msmtp", "smtp", "msmtp", _msmtp),
    _debian("mutt", "smtp", "mutt", _mutt_sends),
    Client("nodemailer", "smtp", NODE, ("nodemailer",), _nodemailer),
    _debian("Perl Net::SMTP", "smtp", "perl libauthen-sasl-perl libio-socket-ssl-perl", _perl_sends),
    _debian("PHPMailer", "smtp", "libphp-phpmailer php-cli", _phpmailer),
    Client("Postfix", "smtp", POSTFIX_HOUSE, POSTFIX_PACKAGES, _postfix_sends),
    _debian("Ruby net-smtp", "smtp", "ruby", _ruby_sends),
    _debian("s-nail", "smtp", "s-nail", _s_nail_sends),
    _debian(
        "swaks",
        "smtp",
        "swaks libnet-ssleay-perl libauthen-sasl-perl",
        _swaks,
        faults={
            (mode, WRONG_NAME): "swaks of 2020 checks who issued a certificate, and not for whom" for mode in MODES
        },
    ),
    # IMAP
    _debian(
        "curl",
        "imap",
        "curl",
        _curl_reads,
        faults={
            ("starttls", "Courier"): "curl 7.88 does not forget LOGINDISABLED after STARTTLS, and Courier lists "
            "no SASL mechanism that it could use instead"
        },
    ),
    _debian("fetchmail", "imap", "fetchmail", _fetchmail),
    _debian("getmail6", "imap", "getmail6", _getmail, lacks=_GETMAIL_LACKS),
    Client("imapflow", "imap", NODE, ("imapflow",), _script("node", "-e", _IMAPFLOW)),
    _debian("isync", "imap", "isync", _isync),
    _debian("mutt", "imap", "mutt bsdutils", _mutt_reads),
    _debian(
        "offlineimap3",
        "imap",
        "offlineimap3",
        _offlineimap,
        faults={
            ("starttls", control): "offlineimap 8.0.0 checks no certificate after STARTTLS; with implicit TLS it does"
            for control in CONTROLS
        },
        stalls="it may stop for ever after STARTTLS, in front of any server: it reads and writes one TLS 1.3 connection"
        " in two threads at once. Such a run was repeated",
    ),
    _debian("Perl Mail::IMAPClient", "imap", "libmail-imapclient-perl", _script("perl", "-e", _PERL_IMAP)),
    _debian("Ruby net-imap", "imap", "ruby", _script("ruby", "-e", _RUBY_IMAP)),
    _debian("s-nail", "imap", "s-nail", _s_nail_reads),
    # POP3
    _debian("curl", "pop3", "curl", _curl_reads),
    _debian("fetchmail", "pop3", "fetchmail", _fetchmail),
    _debian("getmail6", "pop3", "getmail6", _getmail, lacks=_GETMAIL_LACKS),
    _debian("mpop", "pop3", "mpop", _mpop),
    _debian("mutt", "pop3", "mutt bsdutils", _mutt_reads),
    Client(
        "node-pop3",
        "pop3",
        NODE,
        ("node-pop3",),
        _script("node", "-e", _NODE_POP3),
        {"starttls": "node-pop3 has no STLS"},
        faults={
            ("implicit", server): "node-pop3 0.11 leaves the dots in that POP3 doubles (RFC 1939, section 3)"
            for server in ("Courier", "Cyrus", "Dovecot")
        },
    ),
    _debian("Perl Net::POP3", "pop3", "perl", _script("perl", "-e", _PERL_POP3)),
    _debian(
        "Ruby net-pop", "pop3", "ruby", _script("ruby", "-e", _RUBY_POP3), lacks={"starttls": "net-pop has no STLS"}
    ),
    _debian("s-nail", "pop3", "s-nail", _s_nail_reads),
    # FTP
    *_ftp(
        "curl",
        "curl",
        files.curl,
        active_faults={
            (mode, server): "curl 7.88 in active mode waits for ever for TLS, in front of any server"
            for mode in MODES
            for server in ("ProFTPD", "Pure-FTPd", "vsftpd")
        },
    ),
    *_ftp(
        "ftp-ssl",
        "ftp-ssl",
        files.ftp_ssl,
        {"implicit": "ftp-ssl has no implicit TLS"},
        {"strict_close": "no"},
        {("starttls", WRONG_NAME): "ftp-ssl checks who issued a certificate, and not for whom"},
    ),
    *_ftp("lftp", "lftp", files.lftp),
    *_ftp("Python ftplib", "python3", files.ftplib),
)
