"""T17: a backend at which nobody can log in or send says so in its own words, which are understood."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from gateway.dialects import DIALECTS, access
from gateway.dialects.access import NO_LOGIN, TLS_FIRST, Access, Mail, Seen, cure, demands_tls, is_submission
from gateway.dialects.base import BackendTLS, Policy
from gateway.protocol.vocabulary import Note
from tests.pure.contract.party import short
from tests.pure.playbook import DIAL, PROVEN, Playbook, note, terms, tls, to_client

SMTP, IMAP, POP3 = (DIALECTS[name] for name in ("smtp", "imap", "pop3"))
NONE = BackendTLS.NONE

# --- what a refusal is about -------------------------------------------------------------------------

WANT_TLS = [
    b"530 5.7.0 Must issue a STARTTLS command first",  # Postfix
    b"530 Must issue STARTTLS first.",  # hMailServer
    b"530 Must issue a STARTTLS command first (#5.7.0)",  # qmail
    b"451 5.7.3 Must issue a STARTTLS command first",  # Exchange
    b"450 4.7.1 Session encryption is required",  # Postfix: reject_plaintext_session
    b"538 5.7.11 Encryption required for requested authentication mechanism",  # aiosmtpd
    b"538 no",
    b"534 5.7.11 no",
    b"550 5.7.10 no",
    b"530 A SSL/TLS-connection is required for authentication.",  # hMailServer
    b"a BAD A SSL/TLS-connection is required for authentication.",
    b"a BAD STARTTLS is required.",
    b"a NO [PRIVACYREQUIRED] no",
    b"a NO [PRIVACYREQUIRED] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.",  # Dovecot 2.3
    b"a NO [PRIVACYREQUIRED] Cleartext authentication disallowed on non-secure (SSL/TLS) connections.",  # 2.4
    b"a002 NO Plaintext authentication disallowed on non-secure connections.",  # 1.x
    b"a NO Login only available under a layer",  # Cyrus
    b"a NO cleartext logins disabled",  # Zimbra
    b"-ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections.",
    b"-ERR [AUTH] Plaintext authentication disabled.",
    b"-ERR [AUTH] USER command only available under a layer",
    b"-ERR STLS is required.",
    b"-ERR only valid after entering TLS mode",
    b"-ERR TLS required to log in.",  # Courier
    b"-ERR must use a secure connection",
    b"-ERR You must use TLS/SSL or stronger authentication such as AUTH or APOP to connect to this server",
    b"-ERR Clear text passwords have been disabled for this protocol",
    b"-ERR encryption required",
    b'NO (ENCRYPT-NEEDED) "first TLS"',
]
ABOUT_SOMETHING_ELSE = [
    b"530 5.7.0 Authentication required",
    b"530 5.7.1 Client was not authenticated",
    b"535 5.7.8 Error: authentication failed: Invalid authentication mechanism",
    b"503 5.5.1 Error: authentication not enabled",
    b"454 4.7.0 TLS not available due to local problem",
    b"554 5.7.1 Relay access denied",
    b"550 5.7.1 REQUIRETLS support",
    b"550 5.1.1 no such user",
    b"250 2.1.0 Ok",
    b"a NO [AUTHENTICATIONFAILED] Authentication failed.",
    b"a BAD Unknown command",
    b"-ERR [AUTH] Authentication failed.",
    b"-ERR unknown user",
    b"-ERR Command is not valid in this state.",
    b"",
]


@pytest.mark.parametrize("refusal", WANT_TLS)
def test_T17_a_refusal_for_want_of_TLS_is_known_by_its_words(refusal: bytes) -> None:
    assert demands_tls(refusal)
    assert demands_tls(refusal.upper())


@pytest.mark.parametrize("refusal", ABOUT_SOMETHING_ELSE)
def test_T17_other_refusals_are_about_something_else(refusal: bytes) -> None:
    assert not demands_tls(refusal)


# --- what to change ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "protocol", "words", "setting"), [
    (NO_LOGIN, "imap", b"* OK Dovecot (Debian) ready.", "Dovecot): disable_plaintext_auth = no"),
    (NO_LOGIN, "pop3", b"+OK Dovecot ready.", "login_trusted_networks = 192.0.2.7"),
    (NO_LOGIN, "smtp", b"220 mail Dovecot ready.", "Dovecot): disable_plaintext_auth = no"),
    (NO_LOGIN, "imap", b"a NO Plaintext authentication disallowed on non-secure connections.", "Dovecot):"),
    (NO_LOGIN, "smtp", b"220 mail ESMTP Postfix", "smtpd_tls_auth_only = no"),
    (TLS_FIRST, "smtp", b"220 mail ESMTP Postfix", "Postfix): smtpd_tls_security_level = may"),
    (TLS_FIRST, "smtp", b"220 mail Microsoft ESMTP MAIL Service ready", "Set-ReceiveConnector -RequireTLS $false"),
    (NO_LOGIN, "smtp", b"220 mail Microsoft ESMTP MAIL Service ready", "without BasicAuthRequireTLS"),
    (NO_LOGIN, "imap", b"* OK Microsoft Exchange IMAP4 is ready.", "Set-ImapSettings -LoginType PlainTextLogin"),
    (NO_LOGIN, "pop3", b"+OK Microsoft Exchange POP3 service is ready.", "Set-PopSettings -LoginType PlainTextLogin"),
    (NO_LOGIN, "imap", b"* OK mail Cyrus IMAP 3.6.1 server ready", "Cyrus): allowplaintext: yes"),
    (NO_LOGIN, "pop3", b"-ERR [AUTH] USER command only available under a layer", "Cyrus): allowplaintext: yes"),
    (NO_LOGIN, "imap", b"* OK Courier-IMAP ready.", "Courier): IMAP_TLS_REQUIRED=0"),
    (NO_LOGIN, "pop3", b"+OK Hello there.", "Courier): POP3_TLS_REQUIRED=0"),
    (TLS_FIRST, "smtp", b"220 mail ESMTP Courier", "ESMTP_TLS_REQUIRED=0"),
    (NO_LOGIN, "smtp", b"220 mail ESMTP Exim 4.96", "auth_advertise_hosts"),
    (NO_LOGIN, "smtp", b"220 mail ESMTP Sendmail 8.17", "confAUTH_OPTIONS"),
    (NO_LOGIN, "pop3", b"-ERR A SSL/TLS-connection is required for authentication.", "hMailServer):"),
    (NO_LOGIN, "imap", b"* OK mail Zimbra IMAP4rev1 server ready", "zimbraImapCleartextLoginEnabled TRUE"),
    (NO_LOGIN, "pop3", b"+OK Qpopper (version 4.0.5) at mail starting.", "clear-text-password"),
    (NO_LOGIN, "ftp", b"530 Non-anonymous sessions must use encryption.", "force_local_logins_ssl=NO"),
    (NO_LOGIN, "ftp", b"550 SSL/TLS required on the control channel", "TLSRequired off"),
    (NO_LOGIN, "ftp", b"421 Sorry, cleartext sessions and weak ciphers are not accepted on this server.", "-Y 1"),
])  # fmt: skip
def test_T17_a_known_server_gets_its_own_setting(event: str, protocol: str, words: bytes, setting: str) -> None:
    told = cure(event, protocol, NONE, words, gateway="192.0.2.7")
    assert setting in told
    assert told.startswith("on the server (")
    assert "for this backend: tls = starttls" in told
    assert "{" not in told


@pytest.mark.parametrize(("event", "protocol", "words"), [
    (NO_LOGIN, "smtp", b"220 mail ESMTP"),
    (TLS_FIRST, "smtp", b"530 5.7.0 Must issue a STARTTLS command first"),
    (TLS_FIRST, "smtp", b"220 mail ESMTP Sendmail 8.17"),
    (NO_LOGIN, "imap", b"* OK ready"),
    (NO_LOGIN, "pop3", b"+OK ready"),
])  # fmt: skip
def test_T17_for_an_unknown_server_examples_are_named(event: str, protocol: str, words: bytes) -> None:
    told = cure(event, protocol, NONE, words)
    assert told.startswith("let the server do without TLS for the gateway's address (")
    assert re.search(r"\((Postfix|Dovecot): \S", told)
    assert "tls = starttls" in told


def test_T17_an_example_is_not_needed() -> None:
    assert "()" not in cure(NO_LOGIN, "another", NONE, b"hello")


def test_T17_what_the_server_cannot_do_is_not_proposed() -> None:
    assert cure(NO_LOGIN, "imap", NONE, b"", starttls=True).endswith(": tls = starttls")
    assert cure(NO_LOGIN, "imap", NONE, b"", starttls=False).endswith("implicit, when the server has TLS")


def test_T17_under_TLS_the_reason_is_another_one() -> None:
    for security in (BackendTLS.STARTTLS, BackendTLS.IMPLICIT):
        told = cure(NO_LOGIN, "smtp", security, b"220 mail ESMTP Postfix")
        assert "is under TLS already" in told
        assert "tls = starttls" not in told


def test_T17_a_cure_fits_into_a_line_of_the_log() -> None:
    for server in access.SERVERS:
        for event in (NO_LOGIN, TLS_FIRST):
            for protocol in DIALECTS:
                assert len(cure(event, protocol, NONE, server.name.encode())) < 700


# --- which services need a login ---------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "name", "ports", "submission"), [
    ("smtp", "mx", [25], False), ("smtp", "mx", [25, 2525], False), ("smtp", "mail", [587], True),
    ("smtp", "mail", [465, 10025], True), ("smtp", "Submissions", [], True), ("smtp", "submission", [25], True),
    ("imap", "submission", [587], False),
])  # fmt: skip
def test_T17_a_submission_service_is_known_by_its_name_or_port(
    protocol: str, name: str, ports: list[int], submission: bool
) -> None:
    assert is_submission(DIALECTS[protocol], name, ports) is submission


# --- in a look -----------------------------------------------------------------------------------------

MAIL_OK = b"250 2.1.0 Ok"
MUST = b"530 5.7.0 Must issue a STARTTLS command first"


def smtp_seen(offered: list[bytes] | None, *answers: bytes) -> Access:
    return access.of_smtp(Seen(b"220 legacy\r\n", offered, offered, answers))


def test_T17_smtp_a_login_is_a_mechanism() -> None:
    seen = smtp_seen([b"SIZE", b"AUTH PLAIN CRAM-MD5", b"AUTH=PLAIN"], MAIL_OK, b"250 ok")
    assert seen == Access(("CRAM-MD5", "PLAIN"), b"", False, Mail(True, MAIL_OK))


@pytest.mark.parametrize(("offered", "logins", "refusal"), [
    ([b"SIZE"], (), b"EHLO offers no AUTH"),
    ([b"SIZE", b"STARTTLS"], (), b"EHLO offers STARTTLS, but no AUTH"),
    ([b"AUTH ANONYMOUS"], (), b"EHLO offers no AUTH"),
    ([b"AUTH NTLM", b"STARTTLS"], ("NTLM",), b"EHLO offers STARTTLS, but AUTH without PLAIN and LOGIN"),
    ([b"AUTH NTLM"], ("NTLM",), b""),
    ([b"AUTH LOGIN", b"STARTTLS"], ("LOGIN",), b""),
])  # fmt: skip
def test_T17_smtp_what_is_missing_is_told(offered: list[bytes], logins: tuple[str, ...], refusal: bytes) -> None:
    seen = smtp_seen(offered, MAIL_OK)
    assert (seen.logins, seen.refusal) == (logins, refusal)


@pytest.mark.parametrize(("answer", "taken", "wants_login"), [
    (MAIL_OK, True, False), (MUST, False, False), (b"451 5.7.3 Must issue a STARTTLS command first", False, False),
    (b"530 5.7.0 Authentication required", None, True), (b"550 null sender refused", None, False),
    (b"451 4.3.0 later", None, False), (b"250 2.1.0 TLS is required, I think", True, False),
    (b"354 TLS required", None, False),
])  # fmt: skip
def test_T17_smtp_the_answer_to_MAIL_counts(answer: bytes, taken: bool | None, wants_login: bool) -> None:
    assert smtp_seen([], answer).mail == Mail(taken, answer, wants_login)


def test_T17_smtp_a_server_that_says_nothing_is_not_judged() -> None:
    assert smtp_seen(None) == Access()
    assert smtp_seen(None, MAIL_OK) == Access(mail=Mail(True, MAIL_OK))
    assert access.of_smtp(Seen(b"", None, [], [])).starttls is None


def imap_seen(*tokens: bytes) -> Access:
    return access.of_imap(Seen(b"* OK hi\r\n", tokens, tokens, ()))


def test_T17_imap_LOGIN_is_there_unless_it_is_disabled() -> None:
    assert imap_seen(b"IMAP4rev1").logins == ("LOGIN",)
    assert imap_seen(b"IMAP4rev1", b"AUTH=PLAIN").logins == ("LOGIN", "AUTHENTICATE PLAIN")
    assert imap_seen(b"LOGINDISABLED", b"AUTH=PLAIN") == Access(("AUTHENTICATE PLAIN",), b"", False)
    assert imap_seen(b"LoginDisabled", b"STARTTLS", b"AUTH=ANONYMOUS") == Access(
        (), b"LOGINDISABLED, and no AUTH=", True
    )
    some = imap_seen(b"LOGINDISABLED", b"auth=CRAM-MD5")
    assert (some.logins, some.refusal) == (
        ("AUTHENTICATE CRAM-MD5",),
        b"LOGINDISABLED, and AUTH= without PLAIN and LOGIN",
    )
    assert access.of_imap(Seen(b"* OK hi\r\n", None, None, ())) == Access()


DISALLOWED = b"-ERR [AUTH] Plaintext authentication disallowed on non-secure (SSL/TLS) connections."


@pytest.mark.parametrize(("listed", "answer", "logins", "refusal"), [
    ([b"USER"], b"+OK", ("USER",), b""),
    ([b"TOP", b""], b"+OK", ("USER",), b""),
    ([b"USER", b"SASL PLAIN CRAM-MD5"], b"+OK", ("USER", "AUTH PLAIN", "AUTH CRAM-MD5"), b""),
    ([b"USER"], b"-ERR no such user", ("USER",), b""),
    ([b"USER"], DISALLOWED, (), DISALLOWED),
    ([b"TOP", b"STLS"], b"-ERR STLS is required.", (), b"-ERR STLS is required."),
    ([b"USER", b"SASL PLAIN LOGIN"], DISALLOWED, (), DISALLOWED),
    ([b"SASL CRAM-MD5"], DISALLOWED, ("AUTH CRAM-MD5",), DISALLOWED),
    ([b"TOP"], b"-ERR what", (), b"CAPA lists neither USER nor SASL"),
    ([b"SASL ANONYMOUS"], b"", (), b"CAPA lists neither USER nor SASL"),
    ([b"USER"], b"", ("USER",), b""),
    (None, b"+OK", ("USER",), b""),
    (None, b"-ERR what", None, b""),
    (None, DISALLOWED, (), DISALLOWED),
])  # fmt: skip
def test_T17_pop3_the_answer_to_USER_counts(
    listed: list[bytes] | None, answer: bytes, logins: tuple[str, ...] | None, refusal: bytes
) -> None:
    seen = access.of_pop3(Seen(b"+OK hi\r\n", listed, listed, [answer] if answer else []))
    assert (seen.logins, seen.refusal) == (logins, refusal)


def test_T17_pop3_a_stamp_is_a_login() -> None:
    seen = access.of_pop3(Seen(b"+OK <1896.697@legacy> ready\r\n", [b"STLS"], [b"STLS"], [DISALLOWED]))
    assert seen == Access(("APOP",), DISALLOWED, True)


# --- in a session ------------------------------------------------------------------------------------


def events(book: Playbook) -> list[str]:
    book.run()
    found = [told for told in book.notes if told.event in (NO_LOGIN, TLS_FIRST)]
    assert all(told.once and dict(told.fields)["cure"] for told in found)
    return [told.event for told in found]


GREETINGS = {"smtp": b"220 legacy\r\n", "imap": b"* OK hi\r\n", "pop3": b"+OK hi\r\n"}


def inside(protocol: str, greeting: bytes = b"", **changes: Any) -> Playbook:
    play = Playbook(DIALECTS[protocol], terms(implicit=True, **changes)).start(tls(b"")).secured(DIAL).dialled()
    return play.returns(greeting or GREETINGS[protocol])


def smtp_greeted(offered: bytes, shown: bytes, **changes: Any) -> Playbook:
    return inside("smtp", **changes).passes(b"EHLO c\r\n").backend(offered, to_client(shown))


@pytest.mark.parametrize(("protocol", "command", "answers"), [
    ("smtp", b"AUTH PLAIN AGEAYg==\r\n", [
        b"538 5.7.11 Encryption required for requested authentication mechanism\r\n",
        b"530 5.7.0 Must issue a STARTTLS command first\r\n",
    ]),
    *(("imap", command, [
        b"a NO [PRIVACYREQUIRED] Plaintext authentication disabled.\r\n",
        b"a NO Login only available under a layer\r\n",
        b"a BAD A SSL/TLS-connection is required for authentication.\r\n",
    ]) for command in (b"a LOGIN u p\r\n", b"a AUTHENTICATE PLAIN AGEAYg==\r\n")),
    *(("pop3", command, [DISALLOWED + b"\r\n", b"-ERR STLS is required.\r\n"])
      for command in (b"USER u\r\n", b"AUTH PLAIN AGEAYg==\r\n", b"APOP u x\r\n", b"PASS p\r\n")),
], ids=short)  # fmt: skip
def test_T17_a_session_in_which_a_login_wants_TLS_is_an_event(
    protocol: str, command: bytes, answers: list[bytes]
) -> None:
    for answer in answers:
        assert events(inside(protocol).asks(command, answer)) == [NO_LOGIN]


@pytest.mark.parametrize(("protocol", "command", "answer"), [
    ("smtp", b"AUTH PLAIN AGEAYg==\r\n", b"535 5.7.8 Error: authentication failed\r\n"),
    ("imap", b"a LOGIN u p\r\n", b"a NO [AUTHENTICATIONFAILED] Authentication failed.\r\n"),
    ("pop3", b"USER u\r\n", b"-ERR no u\r\n"),
], ids=short)  # fmt: skip
def test_T17_a_wrong_password_is_none(protocol: str, command: bytes, answer: bytes) -> None:
    assert events(inside(protocol).asks(command, answer)) == []


def test_T17_smtp_a_session_in_which_MAIL_wants_TLS_is_an_event() -> None:
    book = smtp_greeted(b"250 legacy\r\n", b"250 legacy\r\n")
    book.asks(b"MAIL FROM:<a@b>\r\n", MUST + b"\r\n", note(TLS_FIRST, detail=MUST))
    assert events(book) == [TLS_FIRST]


@pytest.mark.parametrize(("submission", "offered", "shown", "found"), [
    (True, b"250-legacy\r\n250 STARTTLS\r\n", b"250 legacy\r\n", [NO_LOGIN]),
    (True, b"250-legacy\r\n250 SIZE\r\n", b"250-legacy\r\n250 SIZE\r\n", [NO_LOGIN]),
    (True, b"250-legacy\r\n250 AUTH EXTERNAL\r\n", b"250 legacy\r\n", [NO_LOGIN]),
    (True, b"250-legacy\r\n250 AUTH NTLM\r\n", b"250-legacy\r\n250 AUTH NTLM\r\n", []),
    (False, b"250-legacy\r\n250 STARTTLS\r\n", b"250 legacy\r\n", []),
])  # fmt: skip
def test_T17_smtp_where_mail_is_handed_in_a_session_without_AUTH_is_an_event(
    submission: bool, offered: bytes, shown: bytes, found: list[str]
) -> None:
    assert events(smtp_greeted(offered, shown, submission=submission)) == found


def test_T17_smtp_before_TLS_nothing_is_missing() -> None:
    book = Playbook(SMTP, terms(submission=True)).start(DIAL).dialled()
    book.returns(b"220 legacy\r\n").passes(b"EHLO c\r\n")
    book.backend(b"250 legacy\r\n", to_client(b"250-legacy\r\n250 STARTTLS\r\n"))
    assert events(book) == []


def test_T17_smtp_who_is_logged_in_misses_nothing() -> None:
    """Some servers offer no AUTH to them."""
    greeted = b"250-legacy\r\n250 AUTH PLAIN\r\n"
    book = smtp_greeted(greeted, greeted, submission=True)
    book.asks(b"AUTH PLAIN AGEAYg==\r\n", b"235 in\r\n", PROVEN)
    book.asks(b"EHLO c\r\n", b"250 legacy\r\n")
    assert events(book) == []


def test_T17_imap_what_the_list_says_is_in_the_event() -> None:
    greeting = b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] Dovecot ready."
    book = Playbook(IMAP, terms(implicit=True)).start(tls(b"")).secured(DIAL).dialled()
    shown = to_client(b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] Dovecot ready.\r\n")
    book.backend(greeting + b"\r\n", note(NO_LOGIN, detail=greeting), shown)
    assert events(book) == [NO_LOGIN]
    assert "disable_plaintext_auth = no" in str(dict(book.notes[0].fields)["cure"])


@pytest.mark.parametrize(("greeting", "listed", "shown", "found"), [
    (b"+OK hi\r\n", b"TOP\r\nSTLS\r\nSASL\r\n", b"TOP\r\n", [NO_LOGIN]),
    (b"+OK hi\r\n", b"TOP\r\n", b"TOP\r\n", [NO_LOGIN]),
    (b"+OK hi\r\n", b"USER\r\n", b"USER\r\n", []),
    (b"+OK hi\r\n", b"SASL CRAM-MD5\r\n", b"SASL CRAM-MD5\r\n", []),
    (b"+OK hi <1.2@legacy>\r\n", b"TOP\r\n", b"TOP\r\n", []),
])  # fmt: skip
def test_T17_pop3_a_list_without_a_login_is_an_event(
    greeting: bytes, listed: bytes, shown: bytes, found: list[str]
) -> None:
    book = inside("pop3", greeting).passes(b"CAPA\r\n")
    book.backend(b"+OK\r\n%s.\r\n" % listed, to_client(b"+OK\r\n%s.\r\n" % shown))
    assert events(book) == found


def test_T17_pop3_before_TLS_the_list_says_nothing() -> None:
    book = Playbook(POP3, terms(policy=Policy.OPTIONAL)).start(DIAL).dialled()
    book.returns(b"+OK hi\r\n").passes(b"CAPA\r\n")
    book.backend(b"+OK\r\nTOP\r\n.\r\n", to_client(b"+OK\r\nTOP\r\nSTLS\r\n.\r\n"))
    assert events(book) == []


def test_T17_the_event_is_the_same_for_all_protocols() -> None:
    for protocol in DIALECTS:
        told = access.note(NO_LOGIN, protocol, terms(), b"no")
        assert isinstance(told, Note)
        assert [name for name, _ in told.fields] == ["detail", "cure"]


@pytest.mark.parametrize("name", [b"tls required", b"must use starttls", b"plaintext disabled"])
def test_T17_a_clients_words_in_a_refusal_are_not_believed(name: bytes) -> None:
    line, answer = b"USER %s\r\n" % name, b"-ERR no mailbox for %s\r\n" % name
    assert events(inside("pop3").asks(line, answer)) == []
    line, answer = b'a LOGIN "%s" x\r\n' % name, b"a NO no mailbox for %s\r\n" % name
    assert events(inside("imap").asks(line, answer)) == []
    line, answer = b'MAIL FROM:<"%s"@b>\r\n' % name, b'550 5.1.8 "%s"@b is unknown\r\n' % name
    book = smtp_greeted(b"250 legacy\r\n", b"250 legacy\r\n")
    assert events(book.asks(line, answer)) == []


def test_a_greeting_is_searched_once_for_the_stamp_of_apop() -> None:
    before = time.process_time()
    assert access.pop3_logins([], b"+OK <" + b"@" * 40_000) == []
    assert access.pop3_logins([], b"+OK <1.2@a>") == ["APOP"]
    assert time.process_time() - before < 1
