"""Oddities of real servers and clients, each with what it teaches.

Nothing here is invented: old releases, firewalls in the path, appliances and scripts behave like this,
and somebody depends on it.  Names and addresses are examples.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.dialects.base import Dialect, Policy
from gateway.dialects.mail import imap, pop3, smtp
from gateway.protocol.vocabulary import Side
from tests.pure.contract.party import ANSWERS
from tests.pure.playbook import (
    ABORT_BACKEND,
    DELIVERED,
    DIAL,
    SPLICE,
    Playbook,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)


def lines(*texts: str | bytes, end: bytes = b"\r\n") -> bytes:
    return b"".join((text.encode("ascii") if isinstance(text, str) else text) + end for text in texts)


def slug(teaches: object) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", str(getattr(teaches, "teaches", teaches)))[:90].strip("-")


def greeted(dialect: Dialect, greeting: bytes, told: bytes | None = None, **agreed: Any) -> Playbook:
    """A session in which this greeting was relayed."""
    book = Playbook(dialect, terms(**agreed)).start(DIAL).dialled()
    return book.backend(greeting, to_client(greeting if told is None else told))


def upgraded(book: Playbook, dialect: Dialect) -> Playbook:
    said, told = ANSWERS[dialect.name].starttls
    return book.client(said, tls(told)).secured()


def inside(dialect: Dialect, greeting: bytes) -> Playbook:
    return upgraded(greeted(dialect, greeting), dialect)


def ask(book: Playbook, command: bytes, reply: bytes, told: bytes | None = None, *more: Any) -> Playbook:
    """A command that goes to the backend, and what becomes of the reply."""
    return book.passes(command).backend(reply, to_client(reply if told is None else told), *more)


# --- SMTP: greetings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teaches", "greeting"),
    [
        ("a firewall may leave nothing but asterisks", "220 ******************0****2*"),
        ("a greeting need not have any text", "220 "),
        ("nor a host name, nor the word ESMTP", "220 DP-2310"),
        ("blanks are text: two of them, and one at the end", "220 mail.example.test  SMTP ready "),
        ("padding of a firewall counts as text", "220 SMTP/cmap ready________________"),
        ("ESMTP may stand on the second line only", "220-mail.example.test ready\r\n220 ESMTP spoken here"),
        (
            "a legal notice is one greeting, though its last line is an asterisk",
            "220-mail.example.test ESMTP\r\n220-*\r\n220-* Access for authorised persons.\r\n220-*\r\n220 *",
        ),
    ],
    ids=slug,
)
def test_a_smtp_greeting_is_relayed_octet_for_octet(teaches: str, greeting: str) -> None:
    book = greeted(smtp.DIALECT, lines(greeting))
    book.asks(b"QUIT\r\n", b"221 bye\r\n", close("quit")).run()


@dataclass(frozen=True)
class Refusal:
    """A greeting that refuses: what the client is told, and how the session goes on."""

    teaches: str
    dialect: Dialect
    greeting: bytes
    reason: str
    relayed: bool = True
    told: bytes | None = None


REFUSALS = [
    Refusal("421 ends the session", smtp.DIALECT, b"421 busy\r\n", "backend-refused"),
    Refusal("2yz that is not 220 is no greeting", smtp.DIALECT, b"221 not ready\r\n", "backend-bad-greeting", False),
    Refusal("BYE is passed on", imap.DIALECT, b"* BYE Connection is closed. 14\r\n", "backend-refused"),
    Refusal(
        "Plan 9 ends its lines with LF alone; the client gets CRLF",
        imap.DIALECT,
        b"* BYE imap4 connections must use ssl\n",
        "backend-refused",
        told=b"* BYE imap4 connections must use ssl\r\n",
    ),
    Refusal("an asterisk without blank is no greeting", imap.DIALECT, b"*OK ready\r\n", "backend-bad-greeting", False),
    Refusal("POP3 on the IMAP port is no greeting", imap.DIALECT, b"+OK X1 ready\r\n", "backend-bad-greeting", False),
    Refusal(
        "PREAUTH with an address in brackets is PREAUTH: everybody would be logged in",
        imap.DIALECT,
        b"* PREAUTH [192.0.2.1] IMAP4rev1 server ready\r\n",
        "backend-preauth",
        False,
    ),
    Refusal("a refusal need not have text", pop3.DIALECT, b"-ERR\r\n", "backend-refused"),
    Refusal(
        "ERR without its minus is neither success nor refusal",
        pop3.DIALECT,
        b"ERR concurrent connection limit exceeded(pass:0, processes:x[1])\r\n",
        "backend-bad-greeting",
        False,
    ),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=slug)
def test_a_greeting_that_refuses_is_relayed_and_one_that_is_none_is_not(refusal: Refusal) -> None:
    told = (refusal.told or refusal.greeting) if refusal.relayed else ANSWERS[refusal.dialect.name].unavailable
    dropped = () if refusal.relayed else (ABORT_BACKEND,)
    book = Playbook(refusal.dialect, terms()).start(DIAL).dialled()
    book.backend(refusal.greeting, to_client(told), *dropped, note(refusal.reason), close(refusal.reason)).run()


@pytest.mark.parametrize("greeting", [b"554 SMTP synchronization error\r\n", b"503 Synchronization error\r\n"])
def test_a_server_that_refuses_with_5yz_still_hears_quit(greeting: bytes) -> None:
    book = greeted(smtp.DIALECT, greeting)
    book.client(b"RSET\r\n", to_client(b"503 5.5.1 Only QUIT is allowed now\r\n"))
    book.asks(b"QUIT\r\n", b"221 bye\r\n", close("quit")).run()


# --- SMTP: EHLO ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ehlo:
    """A reply to EHLO, and what is told of it before TLS (`required`) and inside."""

    teaches: str
    said: Sequence[str]
    before: Sequence[str]
    inside: Sequence[str]


EHLOS = [
    Ehlo(
        "the old form AUTH=LOGIN, alone and last, offers a login like the new one",
        ["250-mx", "250-HELP", "250 AUTH=LOGIN"],
        ["250-mx", "250-HELP", "250 STARTTLS"],
        ["250-mx", "250-HELP", "250 AUTH=LOGIN"],
    ),
    Ehlo(
        "both forms may stand there, the old one first",
        ["250-mx", "250-AUTH=LOGIN PLAIN", "250-AUTH LOGIN PLAIN", "250 HELP"],
        ["250-mx", "250-HELP", "250 STARTTLS"],
        ["250-mx", "250-AUTH=LOGIN PLAIN", "250-AUTH LOGIN PLAIN", "250 HELP"],
    ),
    Ehlo(
        "AUTH without a mechanism offers nothing and goes",
        ["250-mx", "250-AUTH", "250 CHUNKING"],
        ["250-mx", "250-CHUNKING", "250 STARTTLS"],
        ["250-mx", "250 CHUNKING"],
    ),
    Ehlo(
        "what speaks for others goes, and so does what proves our certificate; AUTH by another name is AUTH",
        ["250-mx", "250-X-EXPS GSSAPI NTLM", "250-X-EXCHANGEAUTH SHA256", "250-XEXCH50", "250-XRDST", "250 XSHADOW"],
        ["250-mx", "250 STARTTLS"],
        ["250-mx", "250 X-EXPS GSSAPI NTLM"],
    ),
    Ehlo(
        "a server that trusts localhost offers it XCLIENT: not to our clients",
        ["250-mx", "250-XVERP", "250-XCLIENT NAME ADDR PROTO HELO", "250-XFORWARD NAME ADDR", "250 8BITMIME"],
        ["250-mx", "250-XVERP", "250-8BITMIME", "250 STARTTLS"],
        ["250-mx", "250-XVERP", "250 8BITMIME"],
    ),
    Ehlo(
        "TURN and ATRN turn the session round and go; OK as a keyword stays, in its case",
        ["250-mx", "250-TURN", "250-ATRN", "250-8bitmime", "250 OK"],
        ["250-mx", "250-8bitmime", "250-OK", "250 STARTTLS"],
        ["250-mx", "250-8bitmime", "250 OK"],
    ),
    Ehlo(
        "where STARTTLS was all, the first line is the last: its hyphen becomes a blank",
        ["250-Requested mail action okay, completed.", "250 STARTTLS"],
        ["250-Requested mail action okay, completed.", "250 STARTTLS"],
        ["250 Requested mail action okay, completed."],
    ),
    Ehlo(
        "a blank behind the last mechanism stays, as nothing was taken away",
        ["250-mx", "250 AUTH LOGIN PLAIN "],
        ["250-mx", "250 STARTTLS"],
        ["250-mx", "250 AUTH LOGIN PLAIN "],
    ),
    Ehlo(
        "a STARTTLS that a firewall overwrote is just another keyword",
        ["250-mx", "250-XXXXXXXA", "250 XXXB"],
        ["250-mx", "250-XXXXXXXA", "250-XXXB", "250 STARTTLS"],
        ["250-mx", "250-XXXXXXXA", "250 XXXB"],
    ),
    Ehlo(
        "a firewall that makes NOOP of EHLO answers one line: STARTTLS can follow it",
        ["250 OK"],
        ["250-OK", "250 STARTTLS"],
        ["250 OK"],
    ),
    Ehlo(
        "the first line is prose and is never touched, though its count of extensions becomes wrong",
        ["250-example.test [fe80::1%13], this server offers 2 extensions", "250-STARTTLS", "250 EHLO"],
        ["250-example.test [fe80::1%13], this server offers 2 extensions", "250-EHLO", "250 STARTTLS"],
        ["250-example.test [fe80::1%13], this server offers 2 extensions", "250 EHLO"],
    ),
    Ehlo(
        "PLAIN-CLIENTTOKEN is no channel binding",
        ["250-mx", "250 AUTH PLAIN XOAUTH2 PLAIN-CLIENTTOKEN"],
        ["250-mx", "250 STARTTLS"],
        ["250-mx", "250 AUTH PLAIN XOAUTH2 PLAIN-CLIENTTOKEN"],
    ),
]


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "bare LF, as Citadel"])
@pytest.mark.parametrize("oddity", EHLOS, ids=slug)
def test_an_odd_ehlo_reply_is_edited_and_not_otherwise_touched(oddity: Ehlo, end: bytes) -> None:
    said = lines(*oddity.said, end=end)
    book = greeted(smtp.DIALECT, b"220 mx\r\n")
    book.passes(b"EHLO c\r\n").backend(said, to_client(lines(*oddity.before)))
    upgraded(book, smtp.DIALECT)
    book.passes(b"EHLO c\r\n").backend(said, to_client(lines(*oddity.inside))).run()


@pytest.mark.parametrize(
    "refusal",
    ["500 Unrecognized command", "502 not implemented", "504 EHLO not implemented.", "550 Invalid argument(s)"],
)
def test_a_server_without_ehlo_is_asked_helo_so_that_its_clients_learn_of_starttls(refusal: str) -> None:
    book = greeted(smtp.DIALECT, b"220 ***************2***0*00\r\n")
    book.passes(b"EHLO c\r\n").backend(lines(refusal), to_backend(b"HELO c\r\n"))
    book.backend(b"250 your name is not c\r\n", to_client(b"250-your name is not c\r\n250 STARTTLS\r\n"))
    upgraded(book, smtp.DIALECT)
    book.passes(b"EHLO c\r\n").backend(lines(refusal), to_backend(b"HELO c\r\n"))
    book.returns(b"250 your name is not c\r\n").run()


def test_a_server_that_refuses_helo_too_is_heard_with_its_first_refusal() -> None:
    book = greeted(smtp.DIALECT, b"220 mx\r\n")
    book.passes(b"EHLO c\r\n")
    book.backend(b"500 Unrecognized command\r\n", to_backend(b"HELO c\r\n"))
    book.backend(b"501 not you\r\n", to_client(b"500 Unrecognized command\r\n")).run()


@pytest.mark.parametrize(
    ("teaches", "command", "refusal"),
    [
        ("EHLO without a name leaves nothing to say HELO with", b"EHLO\r\n", b"501 EHLO requires an argument\r\n"),
        ("a refusal need not have text", b"EHLO\r\n", b"501 \r\n"),
        ("503 to EHLO is about the order of commands, not about EHLO", b"EHLO c\r\n", b"503 bad sequence\r\n"),
    ],
    ids=slug,
)
def test_other_refusals_of_ehlo_are_relayed(teaches: str, command: bytes, refusal: bytes) -> None:
    greeted(smtp.DIALECT, b"220 mx\r\n").asks(command, refusal).run()


def test_T02_a_server_that_refuses_the_second_ehlo_gets_a_fresh_connection() -> None:
    """Postfix of January 1999.  It would still take MAIL for what was said in the clear."""
    book = greeted(smtp.DIALECT, b"220 mx\r\n")
    book.passes(b"EHLO c\r\n").backend(b"250 mx\r\n", to_client(b"250-mx\r\n250 STARTTLS\r\n"))
    upgraded(book, smtp.DIALECT)
    book.passes(b"EHLO c\r\n")
    book.backend(b"503 Error: duplicate HELO/EHLO\r\n", to_backend(b"QUIT\r\n"), DIAL)
    book.dialled().backend(b"220 mx\r\n", to_backend(b"EHLO c\r\n")).returns(b"250 mx\r\n")
    book.asks(b"MAIL FROM:<a@b.test>\r\n", b"250 ok\r\n").run()


# --- SMTP: replies and commands --------------------------------------------------------------------


def within_smtp() -> Playbook:
    book = inside(smtp.DIALECT, b"220 mx\r\n")
    return book.asks(b"EHLO c\r\n", b"250 mx\r\n")


@pytest.mark.parametrize(
    ("teaches", "command", "reply"),
    [
        ("codes that no RFC knows are codes", b"MAIL FROM:<a@b.test>\r\n", b"412 4.3.2 Service not active\r\n"),
        ("a blank behind MAIL FROM: is sent by scripts", b"MAIL FROM: <a@b.test>\r\n", b"250 OK\r\n"),
        ("verbs may be in lower case", b"mail FROM:<a@b.test> body=7bit\r\n", b"250 OK\r\n"),
        ("a challenge need not be base64", b"AUTH PLAIN\r\n", b"334 Log on\r\n"),
        ("tabs and blanks are text", b"HELP\r\n", b"214-\tdata\tehlo\r\n214     NOOP QUIT RSET HELP \r\n"),
        ("POP3 in SMTP's clothes is a reply of one line", b"HELP\r\n", b"250 +OK entry follows, ends in .\r\n"),
        ("a positive reply may quarrel", b"HELO x\r\n", b"250 domain name should be qualified\r\n"),
        ("unknown verbs are the server's business", b"euq_full\r\n", b"503 Bad sequence of commands\r\n"),
        ("an empty line is one, too", b"\r\n", b"500 what?\r\n"),
    ],
    ids=slug,
)
def test_an_odd_smtp_exchange_is_relayed(teaches: str, command: bytes, reply: bytes) -> None:
    within_smtp().asks(command, reply).run()


def test_an_empty_line_behind_a_reply_ends_the_session() -> None:
    """hMailServer, behind HELP."""
    book = within_smtp().asks(b"HELP\r\n", b"211 DATA HELO EHLO\r\n")
    told = to_client(b"421 4.3.0 gw.example.org Internal error\r\n")
    book.backend(b"\r\n", told, ABORT_BACKEND, note("backend-protocol-error"), close("backend-protocol-error")).run()


def test_last_words_without_a_code_are_replaced_by_words_with_one() -> None:
    book = within_smtp().passes(b"BAD\r\n")
    told = to_client(b"421 4.3.0 gw.example.org Internal error\r\n")
    book.backend(b"Too many invalid commands. Bye!\r\n", told, ABORT_BACKEND, close("backend-protocol-error")).run()


def test_a_reply_that_breaks_off_is_relayed_and_nothing_is_put_behind_it() -> None:
    book = within_smtp().passes(b"HELP\r\n").backend(b"241-\r\n")
    book.ended(Side.BACKEND, True, to_client(b"241-\r\n"), ABORT_BACKEND, close("backend-lost")).run()


def test_a_list_that_breaks_off_is_not_told_at_all_as_it_cannot_be_edited() -> None:
    book = greeted(smtp.DIALECT, b"220 mx\r\n").passes(b"EHLO c\r\n")
    book.backend(b"250-mx\r\n250-AUTH LOGIN\r\n")
    told = to_client(b"421 4.4.2 gw.example.org Connection to mail server lost\r\n")
    book.ended(Side.BACKEND, True, told, ABORT_BACKEND, close("backend-lost")).run()


def test_a_script_that_ends_its_lines_with_lf_can_send_to_a_server_that_refuses_them() -> None:
    """curl sends what it is given; qmail answers a bare LF with 451 and hangs up."""
    book = inside_transaction(greeted(smtp.DIALECT, b"220 mx\r\n", policy=Policy.OPTIONAL, received=False))
    book.client(b"Subject: x\n\nhello", to_backend(b"Subject: x\r\n\r\nhello"))
    book.asks(b"\r\n.\r\n", b"250 ok\r\n", DELIVERED).run()


def test_the_end_of_a_message_may_come_in_a_segment_of_its_own_behind_an_empty_line() -> None:
    book = inside_transaction(greeted(smtp.DIALECT, b"220 mx\r\n", policy=Policy.OPTIONAL, received=False))
    book.passes(b"Subject: x\r\n\r\nhello\r\n")
    book.asks(b"\r\n.\r\n", b"250 ok\r\n", DELIVERED).run()


def inside_transaction(book: Playbook) -> Playbook:
    book.asks(b"HELO c\r\n", b"250 mx\r\n")
    book.asks(b"MAIL FROM:<a@b.test>\r\n", b"250 ok\r\n")
    book.asks(b"RCPT TO:<c@d.test>\r\n", b"250 ok\r\n")
    return book.asks(b"DATA\r\n", b"354  Go ahead\r\n")


def test_a_client_that_resets_after_every_refusal_is_answered_each_time() -> None:
    must = to_client(b"530 5.7.0 Must issue a STARTTLS command first\r\n")
    book = greeted(smtp.DIALECT, b"220 mx\r\n")
    book.client(b"MAIL FROM:<a@b.test>\r\n", must).client(b"RSET\r\n", must)
    book.asks(b"QUIT\r\n", b"221 bye\r\n", close("quit")).run()


@pytest.mark.parametrize(
    ("dialect", "greeting", "early", "reply"),
    [
        (smtp.DIALECT, b"220 mx\r\n", b"QUIT\r\n", b"221 bye\r\n"),
        (imap.DIALECT, b"* OK hello\r\n", b"a LOGOUT\r\n", b"* BYE\r\na OK completed\r\n"),
        (pop3.DIALECT, b"+OK hello\r\n", b"QUIT\r\n", b"+OK bye\r\n"),
    ],
    ids=["smtp", "imap", "pop3"],
)
def test_a_client_that_speaks_first_is_answered_in_its_turn(
    dialect: Dialect, greeting: bytes, early: bytes, reply: bytes
) -> None:
    book = Playbook(dialect, terms()).start(DIAL).client(early).dialled()
    book.returns(greeting, to_backend(early))
    book.returns(reply, close("quit")).run()


# --- IMAP --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teaches", "greeting", "told"),
    [
        ("text may be in GBK", b"* OK Exchange \xb7\xfe\xce\xf1\xc6\xf7 ready", None),
        ("runs of blanks and tabs are text", b"* OK mail\t9.0.4 \t  is ready", None),
        ("a greeting need not say IMAP4rev1, nor spell it", b"* OK IMAPrev1", None),
        (
            "no blank need stand behind the list",
            b"* OK [CAPABILITY IMAP4REV1 X-NETSCAPE STARTTLS AUTH=LOGIN]mail.example.test at Wed",
            b"* OK [CAPABILITY IMAP4REV1 X-NETSCAPE STARTTLS LOGINDISABLED]mail.example.test at Wed",
        ),
        (
            "the second bracket is an address",
            b"* OK [CAPABILITY IMAP4REV1 STARTTLS LOGINDISABLED X-Y] [192.0.2.1] IMAP4rev1 2001.315",
            b"* OK [CAPABILITY IMAP4REV1 X-Y STARTTLS LOGINDISABLED] [192.0.2.1] IMAP4rev1 2001.315",
        ),
    ],
    ids=slug,
)
def test_an_odd_imap_greeting(teaches: str, greeting: bytes, told: bytes | None) -> None:
    greeted(imap.DIALECT, lines(greeting), lines(told or greeting)).run()


def test_a_server_that_waits_for_its_helpers_greets_twice_and_both_lists_are_edited() -> None:
    book = greeted(imap.DIALECT, b"* OK Waiting for authentication process to respond..\r\n")
    book.backend(
        b"* OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] ready.\r\n",
        to_client(b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] ready.\r\n"),
    ).run()


@dataclass(frozen=True)
class Listing:
    """A line in the answer to CAPABILITY, and what is told of it before TLS (`required`) and inside."""

    teaches: str
    said: bytes
    before: bytes
    inside: bytes


LISTINGS = [
    Listing(
        "names are compared without regard to case, and kept as they are",
        b"* capability imap4rev1 starttls login special-use auth=plain",
        b"* capability imap4rev1 login special-use STARTTLS LOGINDISABLED",
        b"* capability imap4rev1 login special-use auth=plain",
    ),
    Listing(
        "IMAP4rev1 need not come first, nor AUTH= last",
        b"* CAPABILITY XLIST AUTH=PLAIN IMAP4REV1 X-MERCURY-1",
        b"* CAPABILITY XLIST IMAP4REV1 X-MERCURY-1 STARTTLS LOGINDISABLED",
        b"* CAPABILITY XLIST AUTH=PLAIN IMAP4REV1 X-MERCURY-1",
    ),
    Listing(
        "hMailServer lists STARTTLS inside TLS as well: it goes there",
        b"* CAPABILITY IMAP4 STARTTLS AUTH=PLAIN SASL-IR RIGHTS=texk",
        b"* CAPABILITY IMAP4 SASL-IR RIGHTS=texk STARTTLS LOGINDISABLED",
        b"* CAPABILITY IMAP4 AUTH=PLAIN SASL-IR RIGHTS=texk",
    ),
    Listing(
        "LOGINDISABLED inside TLS is the truth about that server and stays",
        b"* CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2 AUTH=PLAIN-CLIENTTOKEN",
        b"* CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED",
        b"* CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2 AUTH=PLAIN-CLIENTTOKEN",
    ),
]


@pytest.mark.parametrize("listing", LISTINGS, ids=slug)
def test_an_odd_imap_list_is_edited_and_not_otherwise_touched(listing: Listing) -> None:
    done = b"a OK Thats all she wrote!"
    book = greeted(imap.DIALECT, b"* OK hello\r\n")
    book.passes(b"a CAPABILITY\r\n").backend(lines(listing.said, done), to_client(lines(listing.before, done)))
    upgraded(book, imap.DIALECT)
    book.passes(b"a CAPABILITY\r\n").backend(lines(listing.said, done), to_client(lines(listing.inside, done))).run()


@pytest.mark.parametrize(
    ("teaches", "command", "reply", "more"),
    [
        (
            "CAPABILITY may carry what NAMESPACE should",
            b"a NAMESPACE",
            [b'* CAPABILITY (("" "/")) NIL NIL', b"a OK"],
            (),
        ),
        ("an untagged BAD may come before the tagged NO", b"a LOGIN u p", [b"* BAD [ALERT] exposed", b"a NO no"], ()),
        ("an untagged BYE may come behind the tagged NO", b"? LOGIN u p", [b"? NO none", b"* BYE closing"], ()),
        ("a tag may be a dot", b". LOGIN u p", [b". NO no"], ()),
        ("the text may stick to the command's name", b"a LOGIN u p", [b"a NO LOGINfailed"], ()),
        ("a text may be empty but for blanks", b"a FOO", [b"a BAD  Invalid command"], ()),
        ("LOGOUT may be answered without BYE", b"a LOGOUT", [b"a OK LOGOUT completed"], (close("quit"),)),
        ("or with BYE alone on its line", b"a LOGOUT", [b"* BYE", b"a OK completed"], (close("quit"),)),
        (
            "a login may be answered with a referral in two brackets",
            b"a LOGIN u p",
            [b"a OK [[REFERRAL x] y"],
            (SPLICE,),
        ),
        (
            "a new list may come before the tagged OK",
            b"a AUTHENTICATE PLAIN AHVzZXIAc2VjcmV0",
            [b"* CAPABILITY IMAP4rev1 IDLE", b"a OK user@example.test authenticated (Success)"],
            (SPLICE,),
        ),
    ],
    ids=slug,
)
def test_an_odd_imap_exchange_is_relayed(
    teaches: str, command: bytes, reply: list[bytes], more: tuple[Any, ...]
) -> None:
    book = inside(imap.DIALECT, b"* OK hello\r\n")
    book.asks(lines(command), lines(*reply), *more).run()


@pytest.mark.parametrize(
    ("line", "told"), [(b"\r\n", b"* BAD Invalid tag\r\n"), (b"?\r\n", b"? BAD Missing command\r\n")]
)
def test_an_empty_imap_command_is_answered_by_the_gateway(line: bytes, told: bytes) -> None:
    inside(imap.DIALECT, b"* OK hello\r\n").client(line, to_client(told)).run()


def test_a_client_that_sends_its_command_in_two_segments_is_understood() -> None:
    book = (
        greeted(imap.DIALECT, b"* OK hello\r\n")
        .client(b"01 CAPABILITY")
        .client(b"\r\n", to_backend(b"01 CAPABILITY\r\n"))
    )
    book.returns(b"01 OK\r\n").run()


def test_a_client_that_says_everything_in_literals_can_log_in() -> None:
    book = inside(imap.DIALECT, b"* OK hello\r\n")
    book.asks(b"2 LOGIN {4}\r\n", b"+ \r\n")
    book.asks(b"user {6}\r\n", b"+ \r\n")
    book.passes(b"secret\r\n").backend(
        b"2 OK [CAPABILITY IMAP4rev1 STARTTLS] in\r\n", to_client(b"2 OK [CAPABILITY IMAP4rev1] in\r\n"), SPLICE
    )
    book.passes(b"3 SELECT {5}\r\n").run()


# --- POP3 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teaches", "greeting"),
    [
        (
            "two blanks behind +OK, and a timestamp",
            b"+OK  mail.example.test server ready <1122334455.12@mail.example.test>",
        ),
        ("a timestamp may come first, with a comma behind it", b"+OK <278578.3989@localhost>, POP3 server ready."),
        ("what looks like a timestamp need not be one", b"+OK <Welcome.to.POP3@pop1>"),
        ("text may end with blanks", b"+OK ready  "),
        ("text may be in EUC-KR", b"+OK Exchange \xbc\xad\xb9\xf6 (mail.example.test)"),
        ("a host may be null", b"+OK server ready <1.1@(null)>"),
    ],
    ids=slug,
)
def test_a_pop3_greeting_is_relayed_octet_for_octet(teaches: str, greeting: bytes) -> None:
    greeted(pop3.DIALECT, lines(greeting)).run()


CAPAS = [
    Listing("STLS may be listed twice", b"STLS\r\nTOP\r\nSTLS", b"TOP\r\nSTLS", b"TOP"),
    Listing(
        "STLS may be listed inside TLS",
        b"UIDL\r\nUSER\r\nSTLS\r\nUTF8 USER",
        b"UIDL\r\nUTF8 USER\r\nSTLS",
        b"UIDL\r\nUSER\r\nUTF8 USER",
    ),
    Listing("SASL without mechanisms offers nothing and goes", b"TOP\r\nSASL", b"TOP\r\nSTLS", b"TOP"),
    Listing(
        "names that no RFC knows stay",
        b"RESP-CODE\r\nEXPIRE 31 USER\r\nAPOP\r\nX-GOOGLE-RICO",
        b"RESP-CODE\r\nEXPIRE 31 USER\r\nAPOP\r\nX-GOOGLE-RICO\r\nSTLS",
        b"RESP-CODE\r\nEXPIRE 31 USER\r\nAPOP\r\nX-GOOGLE-RICO",
    ),
]


@pytest.mark.parametrize("listing", CAPAS, ids=slug)
def test_an_odd_capa_list_is_edited_and_not_otherwise_touched(listing: Listing) -> None:
    said = lines(b"+OK", listing.said, b".")
    book = greeted(pop3.DIALECT, b"+OK hello\r\n")
    book.passes(b"CAPA\r\n").backend(said, to_client(lines(b"+OK", listing.before, b".")))
    upgraded(book, pop3.DIALECT)
    book.passes(b"CAPA\r\n").backend(said, to_client(lines(b"+OK", listing.inside, b"."))).run()


@pytest.mark.parametrize("refusal", [b"-ERR authorization first\r\n", b"-ERR\r\n"])
def test_a_server_without_capa_has_one_before_tls_and_is_heard_itself_inside(refusal: bytes) -> None:
    book = greeted(pop3.DIALECT, b"+OK <23128.1176377120@mail.example.test>\r\n")
    book.passes(b"CAPA\r\n").backend(refusal, to_client(b"+OK Capability list follows\r\nSTLS\r\n.\r\n"))
    upgraded(book, pop3.DIALECT)
    book.asks(b"CAPA\r\n", refusal)
    book.asks(b"USER user\r\n", b"+OK \r\n")
    book.asks(b"PASS secret\r\n", b"+OK \r\n", SPLICE)
    book.asks(b"CAPA\r\n", b"-ERR unimplemented\r\n").run()


def test_a_challenge_may_be_a_plus_and_nothing_else() -> None:
    book = inside(pop3.DIALECT, b"+OK hello\r\n")
    book.asks(b"AUTH PLAIN\r\n", b"+\r\n")
    book.asks(b"AHVzZXIAc2VjcmV0\r\n", b"+OK User successfully logged on.\r\n", SPLICE).run()


def test_a_refused_password_may_be_followed_by_a_goodbye_that_begins_like_success() -> None:
    """Qpopper; it hangs up then.  Nobody is logged in."""
    book = inside(pop3.DIALECT, b"+OK hello\r\n")
    book.asks(b"USER user\r\n", b"+OK \r\n")
    book.asks(b"PASS wrong\r\n", b"-ERR [AUTH] incorrect.\r\n+OK signing off.\r\n")
    book.ended(Side.BACKEND, True, ABORT_BACKEND, close("backend-closed")).run()


def test_an_error_that_begins_with_a_plus_is_no_success() -> None:
    """hMailServer, when its database fails: `+ERR`."""
    book = inside(pop3.DIALECT, b"+OK hello\r\n")
    book.asks(b"USER user\r\n", b"+OK Send your password\r\n")
    book.asks(b"PASS secret\r\n", b"+ERR Server error\r\n")
    book.asks(b"QUIT\r\n", b"+OK bye\r\n", close("quit")).run()


def test_the_list_behind_a_bare_auth_may_have_text_in_its_first_line() -> None:
    inside(pop3.DIALECT, b"+OK hello\r\n").asks(b"AUTH\r\n", b"+OK methods supported:\r\nLOGIN\r\nPLAIN\r\n.\r\n").run()


def test_a_client_that_never_asks_for_capabilities_can_have_tls_and_a_mailbox() -> None:
    book = inside(pop3.DIALECT, b"+OK hello\r\n")
    book.asks(b"USER user\r\n", b"+OK\r\n")
    book.asks(b"PASS secret\r\n", b"+OK\r\n", SPLICE)
    book.passes(b"STAT\r\n").run()
