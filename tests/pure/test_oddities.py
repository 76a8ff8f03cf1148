"""Oddities of real servers and clients, each with what it teaches.

Nothing here is invented: old releases, firewalls in the path, appliances and scripts behave like this,
and somebody depends on it.  Names and addresses are examples.
"""

from __future__ import annotations

import re

import pytest

from tests.pure.contract.party import IMAP, POP3, SMTP, Party
from tests.pure.playbook import DIAL, SPLICE, Expected, Playbook, close, terms, to_backend, to_client


def lines(*texts: str | bytes, end: bytes = b"\r\n") -> bytes:
    return b"".join((text.encode("ascii") if isinstance(text, str) else text) + end for text in texts)


def slug(value: object) -> str:
    """The name of a test: what it teaches, or the protocol."""
    return re.sub(r"[^A-Za-z0-9]+", "-", str(value))[:90].strip("-") if isinstance(value, str | Party) else ""


def inside(party: Party) -> Playbook:
    """As far as a client must be to log in."""
    play = party.inside()
    return play.asks(b"EHLO c\r\n", b"250 mx\r\n") if party is SMTP else play


# --- greetings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("teaches", "party", "greeting"), [
    ("a firewall may leave nothing but asterisks", SMTP, b"220 ******************0****2*"),
    ("a greeting need not have any text", SMTP, b"220 "),
    ("nor a host name, nor the word ESMTP", SMTP, b"220 DP-2310"),
    ("blanks are text: two of them, and one at the end", SMTP, b"220 mail.example.test  SMTP ready "),
    ("padding of a firewall counts as text", SMTP, b"220 SMTP/cmap ready________________"),
    ("ESMTP may stand on the second line only", SMTP, b"220-mail.example.test ready\r\n220 ESMTP spoken here"),
    ("a legal notice is one greeting, though its last line is an asterisk", SMTP,
     b"220-mail.example.test ESMTP\r\n220-*\r\n220-* Access for authorised persons.\r\n220-*\r\n220 *"),
    ("text may be in GBK", IMAP, b"* OK Exchange \xb7\xfe\xce\xf1\xc6\xf7 ready"),
    ("runs of blanks and tabs are text", IMAP, b"* OK mail\t9.0.4 \t  is ready"),
    ("a greeting need not say IMAP4rev1, nor spell it", IMAP, b"* OK IMAPrev1"),
    ("two blanks behind +OK, and a timestamp", POP3,
     b"+OK  mail.example.test server ready <1122334455.12@mail.example.test>"),
    ("a timestamp may come first, with a comma behind it", POP3, b"+OK <278578.3989@localhost>, POP3 server ready."),
    ("what looks like a timestamp need not be one", POP3, b"+OK <Welcome.to.POP3@pop1>"),
    ("text may end with blanks", POP3, b"+OK ready  "),
    ("text may be in EUC-KR", POP3, b"+OK Exchange \xbc\xad\xb9\xf6 (mail.example.test)"),
    ("a host may be null", POP3, b"+OK server ready <1.1@(null)>"),
], ids=slug)  # fmt: skip
def test_an_odd_greeting_is_relayed_octet_for_octet(teaches: str, party: Party, greeting: bytes) -> None:
    party.dialled().returns(lines(greeting)).run()


@pytest.mark.parametrize(("teaches", "greeting", "told"), [
    ("no blank need stand behind the list",
     b"* OK [CAPABILITY IMAP4REV1 X-NETSCAPE STARTTLS AUTH=LOGIN]mail.example.test at Wed",
     b"* OK [CAPABILITY IMAP4REV1 X-NETSCAPE STARTTLS LOGINDISABLED]mail.example.test at Wed"),
    ("the second bracket is an address",
     b"* OK [CAPABILITY IMAP4REV1 STARTTLS LOGINDISABLED X-Y] [192.0.2.1] IMAP4rev1 2001.315",
     b"* OK [CAPABILITY IMAP4REV1 X-Y STARTTLS LOGINDISABLED] [192.0.2.1] IMAP4rev1 2001.315"),
], ids=slug)  # fmt: skip
def test_an_odd_list_in_a_greeting_is_edited(teaches: str, greeting: bytes, told: bytes) -> None:
    IMAP.dialled().backend(lines(greeting), to_client(lines(told))).run()


def test_plan_9_ends_its_lines_with_lf_alone_and_the_client_gets_crlf() -> None:
    refusal = b"* BYE imap4 connections must use ssl"
    IMAP.dialled().backend(refusal + b"\n", to_client(refusal + b"\r\n"), close("backend-refused")).run()


@pytest.mark.parametrize(
    ("party", "early", "reply"),
    [
        (SMTP, b"QUIT\r\n", b"221 bye\r\n"),
        (IMAP, b"a LOGOUT\r\n", b"* BYE\r\na OK completed\r\n"),
        (POP3, b"QUIT\r\n", b"+OK bye\r\n"),
    ],
    ids=slug,
)
def test_a_client_that_speaks_first_is_answered_in_its_turn(party: Party, early: bytes, reply: bytes) -> None:
    play = Playbook(party.dialect, terms()).start(DIAL).client(early).dialled()
    play.returns(party.answers.greeting, to_backend(early)).returns(reply, close("quit")).run()


# --- lists of capabilities ---------------------------------------------------------------------------


def listing(party: Party, listed: str, end: bytes = b"\r\n") -> bytes:
    """A whole answer to the question for capabilities; in SMTP and POP3 they are divided by bars."""
    words = listed.split(" | ")
    if party is SMTP:
        return lines(*(f"250-{word}" for word in words[:-1]), f"250 {words[-1]}", end=end)
    return lines(listed, "a OK Thats all she wrote!", end=end) if party is IMAP else lines("+OK", *words, ".", end=end)


def before_tls(party: Party, inside: str) -> str:
    """What a client inside TLS is told, without logins, and STARTTLS comes last."""
    if party is IMAP:
        kept = [word for word in inside.split(" ") if not word.lower().startswith(("auth=", "logindisabled"))]
        return " ".join([*kept, "STARTTLS", "LOGINDISABLED"])
    first, *others = inside.split(" | ")
    kept = [word for word in others if re.split("[ =]", word)[0] not in ("AUTH", "X-EXPS", "USER", "SASL")]
    return " | ".join([first, *kept, "STARTTLS" if party is SMTP else "STLS"])


@pytest.mark.parametrize("end", [b"\r\n", b"\n"], ids=["CRLF", "bare LF, as Citadel"])
@pytest.mark.parametrize(("teaches", "party", "said", "shown"), [
    ("the old form AUTH=LOGIN, alone and last, offers a login like the new one", SMTP,
     "mx | HELP | AUTH=LOGIN", "mx | HELP | AUTH=LOGIN"),
    ("both forms may stand there, the old one first", SMTP,
     "mx | AUTH=LOGIN PLAIN | AUTH LOGIN PLAIN | HELP", "mx | AUTH=LOGIN PLAIN | AUTH LOGIN PLAIN | HELP"),
    ("AUTH without a mechanism offers nothing and goes", SMTP, "mx | AUTH | CHUNKING", "mx | CHUNKING"),
    ("what speaks for others goes, and so does what proves our certificate; AUTH by another name is AUTH", SMTP,
     "mx | X-EXPS GSSAPI NTLM | X-EXCHANGEAUTH SHA256 | XEXCH50 | XRDST | XSHADOW", "mx | X-EXPS GSSAPI NTLM"),
    ("a server that trusts localhost offers it XCLIENT: not to our clients", SMTP,
     "mx | XVERP | XCLIENT NAME ADDR PROTO HELO | XFORWARD NAME ADDR | 8BITMIME", "mx | XVERP | 8BITMIME"),
    ("TURN and ATRN turn the session round and go; OK as a keyword stays, in its case", SMTP,
     "mx | TURN | ATRN | 8bitmime | OK", "mx | 8bitmime | OK"),
    ("where STARTTLS was all, the first line is the last: its hyphen becomes a blank", SMTP,
     "Requested mail action okay, completed. | STARTTLS", "Requested mail action okay, completed."),
    ("a blank behind the last mechanism stays, as nothing was taken away", SMTP,
     "mx | AUTH LOGIN PLAIN ", "mx | AUTH LOGIN PLAIN "),
    ("a STARTTLS that a firewall overwrote is just another keyword", SMTP, "mx | XXXXXXXA | XXXB",
     "mx | XXXXXXXA | XXXB"),
    ("a firewall that makes NOOP of EHLO answers one line: STARTTLS can follow it", SMTP, "OK", "OK"),
    ("the first line is prose and is never touched, though its count of extensions becomes wrong", SMTP,
     "example.test [fe80::1%13], this server offers 2 extensions | STARTTLS | EHLO",
     "example.test [fe80::1%13], this server offers 2 extensions | EHLO"),
    ("PLAIN-CLIENTTOKEN is no channel binding", SMTP,
     "mx | AUTH PLAIN XOAUTH2 PLAIN-CLIENTTOKEN", "mx | AUTH PLAIN XOAUTH2 PLAIN-CLIENTTOKEN"),
    ("names are compared without regard to case, and kept as they are", IMAP,
     "* capability imap4rev1 starttls login special-use auth=plain",
     "* capability imap4rev1 login special-use auth=plain"),
    ("IMAP4rev1 need not come first, nor AUTH= last", IMAP,
     "* CAPABILITY XLIST AUTH=PLAIN IMAP4REV1 X-MERCURY-1", "* CAPABILITY XLIST AUTH=PLAIN IMAP4REV1 X-MERCURY-1"),
    ("hMailServer lists STARTTLS inside TLS as well: it goes there", IMAP,
     "* CAPABILITY IMAP4 STARTTLS AUTH=PLAIN SASL-IR RIGHTS=texk",
     "* CAPABILITY IMAP4 AUTH=PLAIN SASL-IR RIGHTS=texk"),
    ("LOGINDISABLED inside TLS is the truth about that server and stays", IMAP,
     "* CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2 AUTH=PLAIN-CLIENTTOKEN",
     "* CAPABILITY IMAP4rev1 LOGINDISABLED AUTH=XOAUTH2 AUTH=PLAIN-CLIENTTOKEN"),
    ("STLS may be listed twice", POP3, "STLS | TOP | STLS", "TOP"),
    ("STLS may be listed inside TLS", POP3, "UIDL | USER | STLS | UTF8 USER", "UIDL | USER | UTF8 USER"),
    ("SASL without mechanisms offers nothing and goes", POP3, "TOP | SASL", "TOP"),
    ("names that no RFC knows stay", POP3, "RESP-CODE | EXPIRE 31 USER | APOP | X-GOOGLE-RICO",
     "RESP-CODE | EXPIRE 31 USER | APOP | X-GOOGLE-RICO"),
], ids=slug)  # fmt: skip
def test_an_odd_list_is_edited_and_not_otherwise_touched(
    teaches: str, party: Party, said: str, shown: str, end: bytes
) -> None:
    question = {SMTP: b"EHLO c\r\n", IMAP: b"a CAPABILITY\r\n", POP3: b"CAPA\r\n"}[party]
    answer = listing(party, said, end)
    for play, told in ((party.greeted(), before_tls(party, shown)), (party.inside(), shown)):
        play.passes(question).backend(answer, to_client(listing(party, told))).run()


# --- commands and replies ------------------------------------------------------------------------------


@pytest.mark.parametrize(("teaches", "command", "refusal"), [
    ("EHLO without a name leaves nothing to say HELO with", b"EHLO\r\n", b"501 EHLO requires an argument\r\n"),
    ("a refusal need not have text", b"EHLO\r\n", b"501 \r\n"),
    ("503 to EHLO is about the order of commands, not about EHLO", b"EHLO c\r\n", b"503 bad sequence\r\n"),
], ids=slug)  # fmt: skip
def test_other_refusals_of_ehlo_are_relayed(teaches: str, command: bytes, refusal: bytes) -> None:
    SMTP.greeted().asks(command, refusal).run()


@pytest.mark.parametrize(("teaches", "party", "command", "reply", "more"), [
    ("codes that no RFC knows are codes", SMTP, b"MAIL FROM:<a@b.test>", b"412 4.3.2 Service not active", ()),
    ("a blank behind MAIL FROM: is sent by scripts", SMTP, b"MAIL FROM: <a@b.test>", b"250 OK", ()),
    ("verbs may be in lower case", SMTP, b"mail FROM:<a@b.test> body=7bit", b"250 OK", ()),
    ("a challenge need not be base64", SMTP, b"AUTH PLAIN", b"334 Log on", ()),
    ("tabs and blanks are text", SMTP, b"HELP", b"214-\tdata\tehlo\r\n214     NOOP QUIT RSET HELP ", ()),
    ("POP3 in SMTP's clothes is a reply of one line", SMTP, b"HELP", b"250 +OK entry follows, ends in .", ()),
    ("a positive reply may quarrel", SMTP, b"HELO x", b"250 domain name should be qualified", ()),
    ("unknown verbs are the server's business", SMTP, b"euq_full", b"503 Bad sequence of commands", ()),
    ("an empty line is one, too", SMTP, b"", b"500 what?", ()),
    ("CAPABILITY may carry what NAMESPACE should", IMAP, b"a NAMESPACE",
     b'* CAPABILITY (("" "/")) NIL NIL\r\na OK', ()),
    ("an untagged BAD may come before the tagged NO", IMAP, b"a LOGIN u p", b"* BAD [ALERT] exposed\r\na NO no", ()),
    ("an untagged BYE may come behind the tagged NO", IMAP, b"? LOGIN u p", b"? NO none\r\n* BYE closing", ()),
    ("a tag may be a dot", IMAP, b". LOGIN u p", b". NO no", ()),
    ("the text may stick to the command's name", IMAP, b"a LOGIN u p", b"a NO LOGINfailed", ()),
    ("a text may be empty but for blanks", IMAP, b"a FOO", b"a BAD  Invalid command", ()),
    ("LOGOUT may be answered without BYE", IMAP, b"a LOGOUT", b"a OK LOGOUT completed", (close("quit"),)),
    ("or with BYE alone on its line", IMAP, b"a LOGOUT", b"* BYE\r\na OK completed", (close("quit"),)),
    ("a login may be answered with a referral in two brackets", IMAP, b"a LOGIN u p", b"a OK [[REFERRAL x] y",
     (SPLICE,)),
    ("a new list may come before the tagged OK", IMAP, b"a AUTHENTICATE PLAIN AHVzZXIAc2VjcmV0",
     b"* CAPABILITY IMAP4rev1 IDLE\r\na OK user@example.test authenticated (Success)", (SPLICE,)),
    ("the list behind a bare AUTH may have text in its first line", POP3, b"AUTH",
     b"+OK methods supported:\r\nLOGIN\r\nPLAIN\r\n.", ()),
], ids=slug)  # fmt: skip
def test_an_odd_exchange_is_relayed(
    teaches: str, party: Party, command: bytes, reply: bytes, more: tuple[Expected, ...]
) -> None:
    inside(party).asks(lines(command), lines(reply), *more).run()
