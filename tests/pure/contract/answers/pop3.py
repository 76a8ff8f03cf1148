"""POP3: RFC 1939, RFC 2449, RFC 2595, RFC 3206, RFC 5034."""

from __future__ import annotations

from gateway.dialects.base import Identity
from tests.pure.contract.form import Answers, Exchange, Look, Telling

UNAVAILABLE = b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n"
LOST = b"-ERR [SYS/TEMP] Connection to mail server lost\r\n"
INVALID = b"-ERR Invalid protocol\r\n"
LISTED = b"+OK\r\nTOP\r\nSTLS\r\nUSER\r\nSASL PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL\r\nXCLIENT\r\n.\r\n"

ANSWERS = Answers(
    greeting=b"+OK ready\r\n",
    refusal=b"-ERR [SYS/TEMP] busy\r\n",
    no_greetings=(b"OK\r\n", b"* OK\r\n", b"220 x\r\n", b"\r\n", b"+\r\n", b"+ OK\r\n", b"+ERR\r\n", b" +OK\r\n",
                  b"\x1b[2J+OK\r\n", b"SSH-2.0-x\r\n", b"ERR too many\r\n"),
    unavailable=UNAVAILABLE,
    busy=b"-ERR [SYS/TEMP] Too many connections\r\n",
    lazy_greeting=b"+OK gw.example.org ready\r\n",
    alpn=(b"pop3",),
    idle=660,
    words=b"USER PASS APOP AUTH PLAIN EXTERNAL STLS CAPA NOOP QUIT LANG UTF8 XCLIENT FOO +OK -ERR + . joe",
    before_tls=rb"(?i:CAPA|QUIT)\s*\r\n",
    starttls=Exchange(b"STLS\r\n", b"+OK Begin TLS negotiation now\r\n"),
    starttls_again=b"-ERR Command not permitted when TLS active\r\n",
    closed=Exchange(b"STAT\r\n", b"-ERR [SYS/PERM] Must issue a STLS command first\r\n"),
    closed_login=b"-ERR [SYS/PERM] Must issue a STLS command first\r\n",
    command=Exchange(b"NOOP\r\n", b"+OK\r\n"),
    listing=Exchange(b"CAPA\r\n", LISTED),
    listing_closed=b"+OK\r\nTOP\r\nSTLS\r\n.\r\n",
    listing_open=b"+OK\r\nTOP\r\nUSER\r\nSASL PLAIN\r\nSTLS\r\n.\r\n",
    listing_inside=b"+OK\r\nTOP\r\nUSER\r\nSASL PLAIN\r\n.\r\n",
    login=b"PASS secret\r\n",
    accepted=b"+OK in\r\n",
    rejected=b"-ERR [AUTH] no\r\n",
    postponed=b"-ERR [SYS/TEMP] later\r\n",
    named=lambda name: b"AUTH %s\r\n" % name,
    logins=(b"USER joe\r\n", b"PASS secret\r\n", b"apop joe 0123\r\n", b"AUTH PLAIN\r\n", b"AUTH PLAIN AGEAYg==\r\n"),
    taken_back=(Exchange(b"AUTH PLAIN\r\n", b"+ \r\n"), Exchange(b"*\r\n", b"-ERR taken back\r\n")),
    leave=Exchange(b"QUIT\r\n", b"+OK bye\r\n"),
    farewell=b"QUIT\r\n",
    bad=Exchange(b"XCLIENT\r\n", b"-ERR Unknown command\r\n"),
    unclean=(
        Exchange(b"NOOP\0\r\n", b"-ERR Invalid characters\r\n"),
        Exchange(b"NOOP\rXCLIENT ADDR=1.2.3.4 LOGIN=root\r\n", b"-ERR Invalid characters\r\n"),
    ),
    long=lambda octets: b"NOOP " + b"x" * octets + b"\r\n",
    long_answer=b"-ERR Command too long\r\n",
    endless=(b"NOOP " + b"x" * (80 * 1024), b"x" * (80 * 1024)),
    endless_words=b"-ERR Command too long\r\n",
    too_many_bad=b"-ERR Too many invalid commands\r\n",
    too_many_logins=b"-ERR [AUTH] Too many failed logins\r\n",
    limited=b"-ERR [SYS/TEMP] Temporary authentication failure\r\n",
    http_words=INVALID,
    proxy_words=INVALID,
    proxy2_words=b"-ERR Unknown command\r\n" * 2 + b"-ERR Invalid characters\r\n+OK\r\n",
    proxy2_reason="quit",
    part=b"+OK 5",
    garbage=b"250 ok\r\n",
    garbage_words=UNAVAILABLE,
    unasked=b"+OK hi\r\n",
    unasked_words=b"",
    lost_words=LOST,
    lost_idle_words=b"",
    late_words=LOST,
    idle_words=b"",
    idle_early_words=b"",
    stop_words=b"",
    stop_early_words=UNAVAILABLE,
    down_words=UNAVAILABLE,
    offer=b"+OK hi\r\n",
    asks=(),
    backend_starttls=Exchange(b"STLS\r\n", b"+OK go\r\n"),
    welcome=b"+OK hi\r\n",
    welcome_inside=b"+OK hi\r\n",
    offer_inside=b"+OK hi\r\n",
    no=(b"-ERR\r\n", b"-ERR x\r\n", b"+OKgo\r\n", b"+ OK\r\n", b"+ok go\r\n", b"+\r\n", b"\r\n", b"OK\r\n",
        b"* OK\r\n", b"+OK\0\r\n", b"x" * 8193 + b"\r\n"),
    tells={
        Identity.XCLIENT: Telling(
            b"+OK [XCLIENT] hi\r\n",
            (
                Exchange(
                    b"XCLIENT ADDR=192.0.2.10 PORT=40000 DESTADDR=198.51.100.1 DESTPORT=143 SESSION=gw1-0001 TTL=4\r\n",
                    b"+OK Updated\r\n",
                ),
            ),
            b"+OK hi\r\n",
            b"-ERR not you\r\n",
        )
    },
    look=Look(
        (
            Exchange(b"CAPA\r\n", LISTED),
            Exchange(b"USER starttls-gateway-check\r\n", b"+OK\r\n"),
            Exchange(b"QUIT\r\n", b"+OK bye\r\n"),
        ),
        [b"TOP", b"STLS", b"USER", b"SASL PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL", b"XCLIENT"],
        [b"TOP", b"USER", b"SASL PLAIN"],
        ("USER", "AUTH PLAIN"),
    ),
)  # fmt: skip
