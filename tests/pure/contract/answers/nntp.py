"""NNTP: RFC 3977, RFC 4642, RFC 4643, RFC 8143."""

from __future__ import annotations

from gateway.dialects.base import Policy
from tests.pure.contract.form import Exchange, Look, alike

UNAVAILABLE = b"400 Service temporarily unavailable\r\n"
LOST = b"400 Connection to news server lost\r\n"
INVALID = b"400 Invalid protocol\r\n"
MUST = b"483 Encryption required, use STARTTLS\r\n"
LISTED = (
    b"101 Capability list:\r\nVERSION 2\r\nIMPLEMENTATION INN\r\nAUTHINFO USER SASL\r\nCOMPRESS DEFLATE\r\nREADER\r\n"
    b"SASL PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL\r\nSTARTTLS\r\nXPAT\r\n.\r\n"
)

ANSWERS = alike(
    greeting=b"200 news.example.org ready\r\n",
    refusal=b"400 busy\r\n",
    no_greetings=(b"+OK hi\r\n", b"* OK\r\n", b"220 x\r\n", b"\r\n", b"205 x\r\n", b"2000 x\r\n", b"200x\r\n",
                  b"382 x\r\n", b"480 x\r\n", b"20\r\n", b" 200 x\r\n", b"\x1b[2J200 x\r\n", b"SSH-2.0-x\r\n"),
    unavailable=UNAVAILABLE,
    lost=LOST,
    timed_out=b"",
    stopping=UNAVAILABLE,
    busy=b"400 Too many connections\r\n",
    lazy_greeting=b"200 gw.example.org ready\r\n",
    alpn=(b"nntp",),
    idle=660,
    words=b"CAPABILITIES MODE READER AUTHINFO USER PASS SASL PLAIN EXTERNAL STARTTLS COMPRESS TAKETHIS IHAVE POST . "
    b"QUIT 101 200 281 335 340 381 382 383 400 483 x",
    before_tls=rb"(?i:CAPABILITIES|MODE READER|DATE|HELP|QUIT)[^\r\n]*\r\n",
    policies={119: Policy.AUTH_ONLY},
    starttls=Exchange(b"STARTTLS\r\n", b"382 Continue with TLS negotiation\r\n"),
    starttls_again=b"502 Already using a security layer\r\n",
    closed=Exchange(b"SLAVE\r\n", MUST),
    closed_login=MUST,
    command=Exchange(b"DATE\r\n", b"111 20261127120000\r\n"),
    listing=Exchange(b"CAPABILITIES\r\n", LISTED),
    listing_closed=b"101 Capability list:\r\nVERSION 2\r\nIMPLEMENTATION INN\r\n"
    b"AUTHINFO\r\nREADER\r\nXPAT\r\nSTARTTLS\r\n.\r\n",
    listing_open=b"101 Capability list:\r\nVERSION 2\r\nIMPLEMENTATION INN\r\nAUTHINFO USER SASL\r\n"
    b"READER\r\nSASL PLAIN\r\nXPAT\r\nSTARTTLS\r\n.\r\n",
    listing_inside=b"101 Capability list:\r\nVERSION 2\r\nIMPLEMENTATION INN\r\nAUTHINFO USER SASL\r\n"
    b"COMPRESS DEFLATE\r\nREADER\r\nSASL PLAIN\r\nXPAT\r\n.\r\n",
    login=b"AUTHINFO PASS secret\r\n",
    accepted=b"281 in\r\n",
    rejected=b"481 no\r\n",
    postponed=b"403 later\r\n",
    named=lambda name: b"AUTHINFO SASL %s\r\n" % name,
    logins=(b"AUTHINFO USER joe\r\n", b"authinfo pass secret\r\n", b"AUTHINFO SASL PLAIN AGEAYg==\r\n",
            b"AUTHINFO SASL CRAM-MD5\r\n"),
    taken_back=(Exchange(b"AUTHINFO SASL PLAIN\r\n", b"383 =\r\n"), Exchange(b"*\r\n", b"481 taken back\r\n")),
    leave=Exchange(b"QUIT\r\n", b"205 bye\r\n"),
    farewell=b"QUIT\r\n",
    bad=Exchange(b"STARTTLS now\r\n", b"501 Syntax error\r\n"),
    unclean=(
        Exchange(b"DATE\0\r\n", b"501 Invalid characters\r\n"),
        Exchange(b"DATE\rAUTHINFO USER joe\r\n", b"501 Invalid characters\r\n"),
    ),
    long=lambda octets: b"DATE " + b"x" * octets + b"\r\n",
    long_answer=b"501 Line too long\r\n",
    endless=(b"DATE " + b"x" * (80 * 1024), b"x" * (80 * 1024)),
    endless_words=b"400 Line too long\r\n",
    too_many_bad=b"400 Too many invalid commands\r\n",
    too_many_logins=b"400 Too many failed logins\r\n",
    limited=b"403 Temporary authentication failure\r\n",
    http_words=INVALID,
    proxy_words=INVALID,
    proxy2_words=b"501 Invalid characters\r\n205 Connection closing\r\n",
    proxy2_reason="quit",
    part=b"111 2026",
    garbage=b"+OK\r\n",
    unasked=b"200 hi\r\n",
    offer=b"200 hi\r\n",
    asks=(),
    backend_starttls=Exchange(b"STARTTLS\r\n", b"382 go\r\n"),
    welcome=b"200 hi\r\n",
    welcome_inside=b"200 hi\r\n",
    offer_inside=b"200 hi\r\n",
    no=(b"580 no\r\n", b"500 what\r\n", b"502 x\r\n", b"483 x\r\n", b"381 x\r\n", b"382go\r\n", b"3820\r\n", b"\r\n",
        b"+OK\r\n", b"382\0\r\n", b"x" * 8193 + b"\r\n"),
    look=Look(
        (Exchange(b"CAPABILITIES\r\n", LISTED), Exchange(b"QUIT\r\n", b"205 bye\r\n")),
        [b"VERSION 2", b"IMPLEMENTATION INN", b"AUTHINFO USER SASL", b"COMPRESS DEFLATE", b"READER",
         b"SASL PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL", b"STARTTLS", b"XPAT"],
        [b"VERSION 2", b"IMPLEMENTATION INN", b"AUTHINFO USER SASL", b"COMPRESS DEFLATE", b"READER", b"SASL PLAIN",
         b"XPAT"],
        ("AUTHINFO USER", "AUTHINFO SASL PLAIN"),
    ),
)  # fmt: skip
