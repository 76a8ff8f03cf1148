"""Can a client log in at a backend, and send mail there?  What the backend's words say, and what to change.

A backend that demands TLS judges by its own connection, and that is the one to the gateway.  Where this is in the
clear, the backend hides its logins or refuses them, although every client is inside TLS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType

from ..protocol.vocabulary import Note
from ..records import dataclass
from .base import BackendTLS, Dialect, Terms
from .mail import ehlo

NO_LOGIN = "backend-refuses-plaintext-auth"
"""The event: the backend offers no login, or refuses passwords, since its connection is in the clear."""
TLS_FIRST = "backend-requires-tls"
"""The event: the backend refuses all mail until its connection is under TLS."""

# --- what a refusal is about -----------------------------------------------------------------------

_TLS = rb"\b(?:start ?tls|stls|tls|ssl|encryption|encrypted|secure (?:connection|channel|session))\b"
_DEMAND = re.compile(
    rb"[\[(](?:privacyrequired|encrypt-needed)[\])]"
    rb"|\A538[ -]"  # RFC 4954 6, as RFC 2554 had it
    rb"|[ -]5\.7\.1[01]\b"  # RFC 5248: encryption needed
    rb"|\bunder a (?:\w+ )?layer"
    rb"|\b(?:plain|clear)[ -]?text\b.{0,40}\b(?:dis(?:allowed|abled)|forbidden|refused|not (?:allowed|permitted))"
    rb"|%(tls)s.{0,40}\b(?:required?|needed|necessary|mandatory|first)\b"
    rb"|\b(?:must|requires?|needs?|only)\b.{0,40}%(tls)s" % {b"tls": _TLS},
    re.IGNORECASE,
)


def demands_tls(refusal: bytes, said: bytes = b"") -> bool:
    """Whether a backend refuses for want of TLS on its own connection.

    `said`: the client's words, which the refusal may repeat.  Where these could be read so, it is not believed.
    """
    return _DEMAND.search(refusal) is not None and not _DEMAND.search(said)


# --- what to change ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Server:
    """A kind of server, and which of its settings lets clients in without TLS.  `{gateway}` is our address."""

    name: str
    sign: re.Pattern[bytes]
    """Stands in its greeting, or in its refusal."""
    login: Mapping[str, str]
    """By protocol: the setting behind NO_LOGIN."""
    mail: str = ""
    """The setting behind TLS_FIRST."""
    identity: str = ""
    """How to tell it that the client is inside TLS, by an option of the gateway."""
    every: str = ""
    """The setting behind NO_LOGIN of the protocols that `login` does not name."""


def _server(name: str, sign: bytes, *, mail: str = "", identity: str = "", every: str = "", **login: str) -> Server:
    return Server(name, re.compile(sign, re.IGNORECASE), MappingProxyType(login), mail, identity, every)


SERVERS = (
    _server(
        "Dovecot",
        rb"\bdovecot\b|\bon non-secure \(SSL/TLS\)|\bon non-secure connections",
        every="disable_plaintext_auth = no (since 2.4: auth_allow_cleartext = yes), "
        "or login_trusted_networks = {gateway}",
        identity="identity = proxy-v2, with haproxy = yes in Dovecot's listener and haproxy_trusted_networks = "
        "{gateway}: Dovecot then counts the client's TLS",
    ),
    _server(
        "Postfix",
        rb"\bpostfix\b",
        smtp="smtpd_sasl_auth_enable = yes and smtpd_tls_auth_only = no",
        mail="smtpd_tls_security_level = may",
    ),
    _server(
        "Exchange",
        rb"\bmicrosoft (?:esmtp|exchange)\b|\bexchange server\b",
        smtp="Set-ReceiveConnector -AuthMechanism Tls,BasicAuth (without BasicAuthRequireTLS, 'Offer Basic "
        "authentication only after starting TLS')",
        imap="Set-ImapSettings -LoginType PlainTextLogin",
        pop3="Set-PopSettings -LoginType PlainTextLogin",
        mail="Set-ReceiveConnector -RequireTLS $false",
    ),
    _server(
        "Cyrus",
        rb"\bcyrus\b|\bavailable under a layer",
        imap="allowplaintext: yes (imapd.conf)",
        pop3="allowplaintext: yes (imapd.conf)",
        managesieve="allowplaintext: yes (imapd.conf)",
    ),
    _server(
        "Courier",
        rb"\bcourier\b|\A\+OK Hello there|\bTLS required to log in",
        smtp='ESMTPAUTH="LOGIN PLAIN" (esmtpd)',
        imap="IMAP_TLS_REQUIRED=0 (imapd-ssl)",
        pop3="POP3_TLS_REQUIRED=0 (pop3d-ssl)",
        mail="ESMTP_TLS_REQUIRED=0 (esmtpd)",
    ),
    _server(
        "Exim",
        rb"\bexim\b",
        smtp="no condition on $tls_in_cipher in auth_advertise_hosts and server_advertise_condition (Debian: "
        "AUTH_SERVER_ALLOW_NOTLS_PASSWORDS = yes)",
        mail="no 'encrypted = *' in its ACLs",
    ),
    _server(
        "Prosody",
        rb"\bprosody\b",
        xmpp='modules_disabled = { "tls" }, c2s_require_encryption = false and allow_unencrypted_plain_auth = true',
    ),
    _server("ejabberd", rb"\bejabberd\b", xmpp="starttls_required: false and no starttls in the listener"),
    _server("Sendmail", rb"\bsendmail\b", smtp="confAUTH_OPTIONS without p"),
    _server(
        "hMailServer",
        rb"\bhmailserver\b|\bSSL/TLS-connection is required",
        every="connection security 'None' or 'STARTTLS (Optional)' for the port, and 'Require SSL/TLS for "
        "authentication' off for the IP range",
        mail="connection security 'None' or 'STARTTLS (Optional)' for the port",
    ),
    _server(
        "Zimbra",
        rb"\bzimbra\b|\bcleartext logins disabled|\bonly valid after entering TLS mode",
        smtp="zimbraMtaTlsAuthOnly FALSE",
        imap="zimbraImapCleartextLoginEnabled TRUE (behind its proxy: zimbraReverseProxyImapStartTlsMode on)",
        pop3="zimbraPop3CleartextLoginEnabled TRUE (behind its proxy: zimbraReverseProxyPop3StartTlsMode on)",
    ),
    _server(
        "OpenLDAP",
        rb"\bconfidentiality required",
        ldap="no simple_bind=, tls= or ssf= in olcSecurity (slapd.conf: security)",
    ),
    _server(
        "Active Directory",
        rb"\bLdapErr: DSID",
        ldap="the policy 'Domain controller: LDAP server signing requirements' is None",
    ),
    _server("INN", rb"\bINN \d|\bInterNetNews\b", nntp="no require_ssl in the auth groups of readers.conf"),
    _server(
        "vsftpd",
        rb"\bvsftpd\b|\bnon-anonymous sessions must use encryption",
        ftp="force_local_logins_ssl=NO and force_local_data_ssl=NO",
    ),
    _server("ProFTPD", rb"\bproftpd\b|\bSSL/TLS required on the control channel", ftp="TLSRequired off"),
    _server(
        "Pure-FTPd", rb"\bpure-ftpd\b|\bcleartext sessions and weak ciphers are not accepted", ftp="TLS 1 (option -Y 1)"
    ),
    _server("Qpopper", rb"\bqpopper\b", pop3="set clear-text-password = always"),
)
"""Recognised by their words.  The first one that fits."""

_EXAMPLES = MappingProxyType(
    {
        "smtp": ("Postfix", "Exchange"),
        "imap": ("Dovecot", "Cyrus"),
        "pop3": ("Dovecot", "Cyrus"),
        "lmtp": ("Dovecot", "Cyrus"),
        "managesieve": ("Dovecot", "Cyrus"),
        "ldap": ("OpenLDAP", "Active Directory"),
        "nntp": ("INN",),
        "ftp": ("vsftpd", "ProFTPD"),
        "xmpp": ("Prosody", "ejabberd"),
    }
)
"""Named where the server is not recognised."""


def cure(
    event: str,
    protocol: str,
    tls: BackendTLS,
    words: bytes,
    *,
    starttls: bool | None = None,
    gateway: str = "the gateway's address",
) -> str:
    """What to change, on the server and in the gateway's file.

    `words`: the server's greeting or refusal, by which it is recognised.  `starttls`: whether it offers STARTTLS, if
    that is known.  `gateway`: the address by which the server knows us.
    """
    if tls is not BackendTLS.NONE:
        return (
            "the gateway's connection is under TLS already, so the server has another reason: switch its logins on "
            "(Postfix: smtpd_sasl_auth_enable = yes; Dovecot: auth_mechanisms = plain login), or look into its log"
        )
    known = next((server for server in SERVERS if server.sign.search(words)), None)
    setting = known and _setting(known, event, protocol)
    if known and setting:
        theirs = f"on the server ({known.name}): {setting}"
    else:
        named = [server for server in SERVERS if server.name in _EXAMPLES.get(protocol, ())]
        examples = "; ".join(f"{server.name}: {_setting(server, event, protocol)}" for server in named)
        theirs = "let the server do without TLS for {gateway}" + (f" ({examples})" if examples else "")
    ours = "tls = starttls" if starttls is not False else "tls = starttls or implicit, when the server has TLS"
    if known and known.identity and event == NO_LOGIN:
        ours += f"; or {known.identity}"
    return f"{theirs}; or in the gateway's file, for this backend: {ours}".replace("{gateway}", gateway)


def _setting(server: Server, event: str, protocol: str) -> str:
    return server.mail if event == TLS_FIRST else server.login.get(protocol, server.every)


# --- in a session ------------------------------------------------------------------------------------


def note(event: str, protocol: str, terms: Terms, words: bytes, starttls: bool | None = None) -> Note:
    """The finding as an event, once per backend."""
    told = cure(event, protocol, terms.backend_tls, words, starttls=starttls)
    return Note(event, (("detail", words), ("cure", told)), once=True)


def is_submission(dialect: Dialect, name: str, ports: Iterable[int]) -> bool:
    """Whether clients of this service hand in mail after a login (RFC 6409, RFC 8314), so that a backend without AUTH
    serves nobody.  Known by the service's name, or by a port of its own or of its backend."""
    if not dialect.submission:
        return False
    return name.lower().startswith("submission") or not dialect.submission.isdisjoint(ports)


# --- in a look ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a backend has brought to light.  Lines have no CRLF."""

    greeting: bytes
    offered: Sequence[bytes] | None
    """The capabilities that the backend lists; None without a list."""
    shown: Sequence[bytes] | None
    """What of them a client inside TLS is shown."""
    answers: Sequence[bytes]
    """What the backend answered to `Question.tries`; fewer where it did not answer."""


@dataclass(frozen=True, slots=True)
class Access:
    """Whether clients can log in, and send mail."""

    logins: tuple[str, ...] | None = None
    """How a client can log in; None where the backend does not say."""
    refusal: bytes = b""
    """Why there is no login, or where there are some, why none of them takes a password as it is."""
    starttls: bool | None = None
    """Whether the backend offers STARTTLS; None where it does not say."""
    mail: Mail | None = None
    """None for a protocol that hands in no mail, and where the backend did not answer."""


@dataclass(frozen=True, slots=True)
class Mail:
    """How the backend answers MAIL FROM:<>."""

    taken: bool | None
    """None where nothing follows for a client that has logged in, or that comes later."""
    answer: bytes = field(default=b"")
    wants_login: bool = False
    """530, which is not about TLS (RFC 4954 6): first a login."""


def of_smtp(seen: Seen) -> Access:
    """The answer that counts is the one to MAIL FROM:<>."""
    answer = seen.answers[0] if seen.answers else b""
    mail = None
    if answer:
        locked = demands_tls(answer) and answer[:1] in (b"4", b"5")
        taken = True if answer[:1] == b"2" else False if locked else None
        mail = Mail(taken, answer, wants_login=taken is None and answer[:3] == b"530")
    if seen.shown is None:
        return Access(mail=mail)
    mechanisms = smtp_logins(seen.shown)
    starttls = None if seen.offered is None else any(ehlo.keyword(line) == b"STARTTLS" for line in seen.offered)
    refusal = b""
    if not mechanisms:
        refusal = no_auth(bool(starttls))
    elif starttls and PLAIN.isdisjoint(mechanisms):
        refusal = b"EHLO offers STARTTLS, but AUTH without PLAIN and LOGIN"
    return Access(tuple(map(_text, sorted(mechanisms))), refusal, starttls, mail)


def smtp_logins(shown: Sequence[bytes]) -> frozenset[bytes]:
    """Mechanisms in an EHLO list's lines."""
    return ehlo.mechanisms(list(shown)) - ANONYMOUS


def no_auth(starttls: bool) -> bytes:
    return b"EHLO offers STARTTLS, but no AUTH" if starttls else b"EHLO offers no AUTH"


def of_imap(seen: Seen) -> Access:
    """LOGIN is there unless LOGINDISABLED says otherwise (RFC 9051 7.2.2)."""
    if seen.shown is None:
        return Access()
    tokens = [token.upper() for token in seen.shown]
    names = [token[5:] for token in tokens if token.startswith(b"AUTH=") and token[5:] not in ANONYMOUS]
    logins = [f"AUTHENTICATE {_text(name)}" for name in names]
    refusal = b""
    if b"LOGINDISABLED" not in tokens:
        logins.insert(0, "LOGIN")
    elif PLAIN.isdisjoint(names):
        refusal = b"LOGINDISABLED, and AUTH= without PLAIN and LOGIN" if names else b"LOGINDISABLED, and no AUTH="
    starttls = any(token.upper() == b"STARTTLS" for token in seen.offered or ())
    return Access(tuple(logins), refusal, starttls)


def of_pop3(seen: Seen) -> Access:
    """The answer that counts is the one to USER; the name in it is nobody's."""
    answer = seen.answers[0] if seen.answers else b""
    logins = pop3_logins(seen.shown or (), seen.greeting)
    refusal = b""
    if answer[:1] == b"-" and demands_tls(answer):
        # Some list what they refuse (Courier lists USER).  What sends a password as USER and PASS do is refused, too.
        logins = [login for login in logins if login not in PASSWORDS]
        refusal = answer
    elif answer[:1] == b"+" and "USER" not in logins:
        logins.insert(0, "USER")
    if not logins and not refusal:
        if seen.shown is None:
            return Access()
        refusal = NEITHER
    starttls = None if seen.offered is None else any(line.upper() == b"STLS" for line in seen.offered)
    return Access(tuple(logins), refusal, starttls)


NEITHER = b"CAPA lists neither USER nor SASL"
PLAIN = frozenset({b"PLAIN", b"LOGIN"})
"""Mechanisms that every client has; they send the password as it is."""
PASSWORDS = frozenset({"USER", "AUTH PLAIN", "AUTH LOGIN"})
"""The same for POP3."""
ANONYMOUS = frozenset({b"ANONYMOUS"})
"""A login that is none."""
_STAMP = re.compile(rb"<[^<>\s@]+@[^<>\s]*>")
"""Of APOP, in the greeting (RFC 1939 7)."""


def _text(name: bytes) -> str:
    return name.decode("ascii", "replace")


def pop3_logins(shown: Iterable[bytes], greeting: bytes) -> list[str]:
    """The ways to log in by a CAPA list's lines and the greeting."""
    logins = []
    for line in shown:
        word, *names = line.upper().split() or [b""]
        if word == b"USER":
            logins.append("USER")
        elif word == b"SASL":
            logins += [f"AUTH {_text(name)}" for name in names if name not in ANONYMOUS]
    return [*logins, "APOP"] if _STAMP.search(greeting) else logins
