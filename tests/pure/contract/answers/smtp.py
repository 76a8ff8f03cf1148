"""SMTP: RFC 5321, RFC 3207, RFC 4954."""

from __future__ import annotations

from gateway.dialects.base import Identity, Policy
from tests.pure.contract.form import Answers, Exchange, Look, Telling

UNAVAILABLE = b"421 gw.example.org Service not available, closing transmission channel\r\n"
LATER = b"421 4.3.2 gw.example.org Service not available, closing transmission channel\r\n"
LOST = b"421 4.4.2 gw.example.org Connection to mail server lost\r\n"
INTERNAL = b"421 4.3.0 gw.example.org Internal error\r\n"
TOO_MANY = b"421 4.7.0 gw.example.org Too many errors\r\n"
MUST = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
LISTED = (
    b"250-legacy\r\n250-SIZE 10\r\n250-STARTTLS\r\n250-AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL\r\n"
    b"250 XCLIENT NAME ADDR\r\n"
)
HELLO = b"EHLO gw.example.org\r\n"
LOOK = Look(
    (
        Exchange(HELLO, LISTED),
        Exchange(b"MAIL FROM:<>\r\n", b"250 ok\r\n"),
        Exchange(b"RSET\r\n", b"250 ok\r\n"),
        Exchange(b"QUIT\r\n", b"221 bye\r\n"),
    ),
    [b"SIZE 10", b"STARTTLS", b"AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL", b"XCLIENT NAME ADDR"],
    [b"SIZE 10", b"AUTH PLAIN"],
    ("PLAIN",),
)

ANSWERS = Answers(
    greeting=b"220 legacy.example.org ESMTP\r\n",
    refusal=b"421 busy\r\n",
    no_greetings=(b"354 x\r\n", b"221 x\r\n", b"250 x\r\n", b"2200 x\r\n", b"220x\r\n", b"2200\r\n", b"22\r\n",
                  b"999 x\r\n", b"050 x\r\n", b"120 x\r\n", b"220-a\r\n120 x\r\n220 b\r\n",
                  b"220-a\r\n221 b\r\n", b"220-a\r\n-ERR\r\n", b"\r\n", b"* OK x\r\n", b"+OK x\r\n",
                  b"\x1b[2J220 x\r\n", b"\0\r\n", b"220\0x\r\n", b"2 2 0\r\n", b"SSH-2.0-x\r\n"),
    unavailable=UNAVAILABLE,
    busy=b"421 4.7.0 gw.example.org Too many connections\r\n",
    lazy_greeting=b"220 gw.example.org ESMTP\r\n",
    alpn=(b"smtp", b"esmtp"),
    options=frozenset({"received", "newlines"}),
    idle=330,
    words=b"EHLO HELO MAIL FROM:<a> RCPT TO:<b> DATA . RSET NOOP QUIT STARTTLS AUTH LOGIN PLAIN EXTERNAL XCLIENT BDAT 5"
    b" LAST 220 250 250- 235 334 354 421 550 x",
    before_tls=rb"(?i:EHLO|HELO|QUIT)[^\r\n]*\r\n",
    policies={25: Policy.AUTH_ONLY},
    starttls=Exchange(b"STARTTLS\r\n", b"220 2.0.0 Ready to start TLS\r\n"),
    starttls_again=b"503 5.5.1 TLS already active\r\n",
    closed=Exchange(b"VRFY joe\r\n", MUST),
    closed_login=MUST,
    introduction=(Exchange(b"EHLO me\r\n", b"250-legacy\r\n250 AUTH PLAIN LOGIN\r\n"),),
    command=Exchange(b"NOOP\r\n", b"250 ok\r\n"),
    listing=Exchange(b"EHLO me\r\n", LISTED),
    listing_closed=b"250-legacy\r\n250-SIZE 10\r\n250 STARTTLS\r\n",
    listing_open=b"250-legacy\r\n250-SIZE 10\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n",
    listing_inside=b"250-legacy\r\n250-SIZE 10\r\n250 AUTH PLAIN\r\n",
    user=b"a",
    login=b"AUTH PLAIN AGEAYg==\r\n",
    accepted=b"235 in\r\n",
    rejected=b"535 5.7.8 no\r\n",
    postponed=b"454 4.7.0 later\r\n",
    named=lambda name: b"AUTH %s\r\n" % name,
    logins=(b"AUTH PLAIN AGEAYg==\r\n", b"AUTH LOGIN\r\n", b"auth cram-md5\r\n", b"X-EXPS LOGIN\r\n"),
    splices=False,
    taken_back=(Exchange(b"AUTH PLAIN\r\n", b"334 \r\n"), Exchange(b"*\r\n", b"501 taken back\r\n")),
    leave=Exchange(b"Quit\r\n", b"221 bye\r\n"),
    farewell=b"QUIT\r\n",
    bad=Exchange(b"XCLIENT ADDR=1.2.3.4\r\n", b"502 5.5.1 Command not implemented\r\n"),
    unclean=(
        Exchange(b"NOOP\rXCLIENT ADDR=1.2.3.4 LOGIN=root\r\n", b"500 5.5.2 Syntax error\r\n"),
        Exchange(b"NOOP\0XCLIENT ADDR=1.2.3.4 LOGIN=root\r\n", b"500 5.5.2 Syntax error\r\n"),
    ),
    long=lambda octets: b"NOOP " + b"x" * octets + b"\r\n",
    long_answer=b"500 5.5.2 Line too long\r\n",
    endless=(b"NOOP " + b"x" * (80 * 1024), b"x" * (80 * 1024)),
    endless_words=b"421 4.7.0 gw.example.org Line too long\r\n",
    too_many_bad=TOO_MANY,
    last_answered=False,
    too_many_logins=b"421 4.7.0 gw.example.org Too many failed logins\r\n",
    limited=b"454 4.7.0 Temporary authentication failure\r\n",
    http_words=b"421 4.7.0 Protocol error\r\n",
    proxy_words=TOO_MANY,
    proxy2_words=b"500 5.5.2 Syntax error\r\n" * 3 + b"221 2.0.0 gw.example.org closing connection\r\n",
    proxy2_reason="quit",
    part=b"250-one\r\n250 tw",
    part_told=b"250-one\r\n",
    garbage=b"+OK\r\n",
    garbage_words=INTERNAL,
    unasked=b"250 ok\r\n",
    unasked_words=INTERNAL,
    lost_words=LOST,
    lost_idle_words=LOST,
    late_words=b"421 4.4.2 gw.example.org Timeout waiting for mail server\r\n",
    idle_words=b"421 4.4.2 gw.example.org Timeout exceeded\r\n",
    idle_early_words=UNAVAILABLE,
    stop_words=LATER,
    stop_early_words=UNAVAILABLE,
    down_words=LATER,
    offer=b"220 legacy.example.org ESMTP\r\n",
    asks=(
        Exchange(HELLO, b"250-legacy.example.org\r\n250-STARTTLS\r\n250-AUTH LOGIN\r\n250 XCLIENT ADDR PORT\r\n"),
    ),
    backend_starttls=Exchange(b"STARTTLS\r\n", b"220 2.0.0 go ahead\r\n"),
    welcome=b"220 legacy.example.org ESMTP\r\n",
    welcome_inside=b"220 legacy.example.org ESMTP\r\n",
    offer_inside=b"220 legacy.example.org ESMTP\r\n",
    no=(b"454 later\r\n", b"500 what\r\n", b"501 x\r\n", b"502 x\r\n", b"530 x\r\n", b"354 do something else\r\n",
        b"250 ok\r\n", b"221 bye\r\n", b"220-a\r\n220 b\r\n", b"221-a\r\n221 b\r\n"),
    tells={
        Identity.XCLIENT: Telling(
            b"220 hi\r\n",
            (
                Exchange(HELLO, b"250-legacy\r\n250 XCLIENT ADDR PORT\r\n"),
                Exchange(b"XCLIENT ADDR=192.0.2.10 PORT=40000\r\n", b"220 now I know you\r\n"),
            ),
            b"220 now I know you\r\n",
            b"550 5.7.0 not you\r\n",
        )
    },
    look=LOOK,
)  # fmt: skip
