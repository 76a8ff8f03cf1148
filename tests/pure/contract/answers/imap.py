"""IMAP: RFC 9051, RFC 3501, RFC 2971, RFC 5530."""

from __future__ import annotations

from gateway.dialects.base import Identity
from tests.pure.contract.form import Answers, Exchange, Look, Telling

UNAVAILABLE = b"* BYE [UNAVAILABLE] Service temporarily unavailable\r\n"
LOST = b"* BYE [UNAVAILABLE] Connection to mail server lost\r\n"
AUTOLOGOUT = b"* BYE Autologout; idle for too long\r\n"
STOPPING = b"* BYE Server shutting down\r\n"
MUST = b"a NO [PRIVACYREQUIRED] Must issue a STARTTLS command first\r\n"
OFFERED = b"IMAP4rev1 STARTTLS AUTH=PLAIN AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-1-PLUS AUTH=EXTERNAL MOVE"
LISTED = b"* CAPABILITY %s\r\n%s OK done\r\n"

ANSWERS = Answers(
    greeting=b"* OK ready\r\n",
    refusal=b"* BYE busy\r\n",
    no_greetings=(b"* NO\r\n", b"* BAD\r\n", b"1Gdo00V4 x\r\n", b"a OK x\r\n", b"*OK\r\n", b"* OKAY\r\n", b"+ OK\r\n",
                  b"\r\n", b"* \r\n", b"220 x\r\n", b"+OK x\r\n", b"\x1b[2J* OK\r\n", b" * OK\r\n", b"SSH-2.0-x\r\n",
                  b"* CAPABILITY IMAP4rev1\r\n", b"\0\r\n"),
    unavailable=UNAVAILABLE,
    busy=b"* BYE [UNAVAILABLE] Too many connections\r\n",
    lazy_greeting=b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] gw.example.org ready\r\n",
    alpn=(b"imap",),
    idle=1860,
    words=b'a b LOGIN AUTHENTICATE PLAIN EXTERNAL STARTTLS CAPABILITY NOOP LOGOUT ID FOO "x" " {3} {3+} {0+} NIL ( ) *'
    b" + OK NO BAD BYE [CAPABILITY x] x-y",
    # With NOOP we make sure that no reply to a command in the clear comes inside TLS.
    before_tls=rb"\S+ (?i:CAPABILITY|LOGOUT|NOOP)\s*\r\n",
    starttls=Exchange(b"s STARTTLS\r\n", b"s OK Begin TLS negotiation now\r\n"),
    starttls_again=b"s BAD TLS is already active\r\n",
    closed=Exchange(b"a NAMESPACE\r\n", MUST),
    closed_login=MUST,
    command=Exchange(b"a NOOP\r\n", b"a OK done\r\n"),
    listing=Exchange(b"a CAPABILITY\r\n", LISTED % (OFFERED, b"a")),
    listing_closed=LISTED % (b"IMAP4rev1 MOVE STARTTLS LOGINDISABLED", b"a"),
    listing_open=LISTED % (b"IMAP4rev1 AUTH=PLAIN MOVE STARTTLS", b"a"),
    listing_inside=LISTED % (b"IMAP4rev1 AUTH=PLAIN MOVE", b"a"),
    user=b"joe",
    login=b"a LOGIN joe secret\r\n",
    accepted=b"a OK in\r\n",
    rejected=b"a NO [AUTHENTICATIONFAILED] no\r\n",
    postponed=b"a NO [UNAVAILABLE] later\r\n",
    named=lambda name: b"a AUTHENTICATE %s\r\n" % name,
    logins=(
        b"a LOGIN joe secret\r\n", b"a login {3}\r\n", b"a LOGIN {3+}\r\njoe {6+}\r\nsecret\r\n",
        b"a AUTHENTICATE PLAIN\r\n", b"a AUTHENTICATE PLAIN AGEAYg==\r\n",
    ),
    taken_back=(Exchange(b"a AUTHENTICATE PLAIN\r\n", b"+ \r\n"), Exchange(b"*\r\n", b"a BAD taken back\r\n")),
    leave=Exchange(b"z LOGOUT\r\n", b"* BYE bye\r\nz OK done\r\n"),
    farewell=b"sgw9 LOGOUT\r\n",
    bad=Exchange(b"a FOO(\r\n", b"a BAD Invalid command\r\n"),
    unclean=(
        Exchange(b"a NOOP\rb ID (x)\r\n", b"* BAD Invalid characters\r\n"),
        Exchange(b"a NOOP\0\r\n", b"* BAD Invalid characters\r\n"),
    ),
    long=lambda octets: b"a1 NOOP " + b"x" * octets + b"\r\n",
    long_answer=b"a1 BAD Command too long\r\n",
    endless=(b"x" * (80 * 1024), b"a ID " + b"x" * (132 * 1024)),
    endless_words=b"* BYE Command too long\r\n",
    too_many_bad=b"* BYE Too many invalid commands\r\n",
    too_many_logins=b"* BYE Too many failed logins\r\n",
    limited=b"a NO [UNAVAILABLE] Temporary authentication failure\r\n",
    http_words=b"* BYE Invalid protocol\r\n",
    proxy_words=b"* BYE Invalid command\r\n",
    proxy2_words=b"* BAD Invalid tag\r\n" * 2
    + b"* BAD Invalid characters\r\n* BYE Too many invalid commands\r\n",
    proxy2_reason="too-many-bad-commands",
    part=b"a O",
    garbage=b"b OK x\r\n",
    garbage_words=b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n" + UNAVAILABLE,
    unasked=b"a OK LOGIN completed\r\n",
    unasked_words=UNAVAILABLE,
    lost_words=b"a NO [UNAVAILABLE] Connection to mail server lost\r\n" + LOST,
    lost_idle_words=LOST,
    late_words=b"a NO [UNAVAILABLE] Connection to mail server lost\r\n" + LOST,
    idle_words=AUTOLOGOUT,
    idle_early_words=AUTOLOGOUT,
    stop_words=STOPPING,
    stop_early_words=STOPPING,
    down_words=b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n" + UNAVAILABLE,
    offer=b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED ID CLEAR] hi\r\n",
    asks=(),
    backend_starttls=Exchange(b"sgw1 STARTTLS\r\n", b"sgw1 OK go\r\n"),
    again=(Exchange(b"sgw2 CAPABILITY\r\n", LISTED % (b"IMAP4rev1 AUTH=PLAIN INSIDE", b"sgw2")),),
    welcome=b"* OK [CAPABILITY IMAP4rev1 INSIDE STARTTLS LOGINDISABLED] hi\r\n",
    welcome_inside=b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN INSIDE] hi\r\n",
    offer_inside=b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN INSIDE] hi\r\n",
    no=(b"sgw1 NO x\r\n", b"sgw1 BAD x\r\n", b"sgw1 OKAY\r\n", b"sgw1 OK\tx\r\n", b"sgw1  OK\r\n", b"sgw1 PREAUTH\r\n",
        b"sgw1 \r\n", b"* CAPABILITY STARTTLS\r\nsgw1 NO x\r\n",
        b"sgw1 NO [REFERRAL imap://;AUTH=*@attacker:243/] x\r\n"),
    tells={
        Identity.ID: Telling(
            b"* OK [CAPABILITY IMAP4rev1 ID] hi\r\n",
            (
                Exchange(
                    b'sgw4 ID ("x-originating-ip" "192.0.2.10" "x-originating-port" "40000"'
                    b' "x-connected-ip" "198.51.100.1" "x-connected-port" "143" "x-session-id" "gw1-0001"'
                    b' "x-proxy-ttl" "4")\r\n',
                    b"* ID NIL\r\nsgw4 OK done\r\n",
                ),
            ),
            b"* OK [CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED] hi\r\n",
            b"sgw4 NO not you\r\n",
        )
    },
    look=Look(
        (
            Exchange(b"sgw7 CAPABILITY\r\n", LISTED % (OFFERED, b"sgw7")),
            Exchange(b"sgw8 LOGOUT\r\n", b"* BYE\r\nsgw8 OK bye\r\n"),
        ),
        OFFERED.split(),
        [b"IMAP4rev1", b"AUTH=PLAIN", b"MOVE"],
        ("LOGIN", "AUTHENTICATE PLAIN"),
    ),
)  # fmt: skip
