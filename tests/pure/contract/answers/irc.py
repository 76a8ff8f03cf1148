"""IRC: RFC 2812, IRCv3, and what ngIRCd 26 and InspIRCd 3 say."""

from __future__ import annotations

from gateway.dialects.base import Identity
from tests.pure.contract.form import ClientFirst, Exchange, Look, Telling


def closing(why: bytes) -> bytes:
    return b"ERROR :Closing Link: gw.example.org (%s)\r\n" % why


PING = b"PING :gw.example.org\r\n"
PONG = b":irc.example.test 451 * :Connection not registered\r\n"
WELCOME = b":irc.example.test 001 joe :Welcome to the Internet Relay Network joe!~joe@192.0.2.10\r\n"
LISTED = b":irc.example.test CAP * LS :multi-prefix sasl=PLAIN,EXTERNAL tls\r\n"
LOGIN = b"PASS secret\r\n"

ANSWERS = ClientFirst(
    greeting=PONG,
    knock=PING,
    lockstep=False,
    refusal=b"ERROR :Closing link: banned\r\n",
    no_greetings=(b"220 x\r\n", b"* OK\r\n", b"+OK\r\n", b"\r\n", b"451 * :who says that\r\n", b"HELLO\r\n"),
    unavailable=closing(b"Service temporarily unavailable"),
    busy=closing(b"Too many connections"),
    alpn=(b"irc",),
    idle=660,
    first=60,
    words=b"NICK USER PASS CAP LS REQ END STARTTLS AUTHENTICATE PLAIN WEBIRC PING QUIT 001 451 904 ERROR :x",
    before_tls=rb"\Z",
    starttls=Exchange(b"STARTTLS\r\n", b":gw.example.org 670 * :STARTTLS successful, proceed with TLS handshake\r\n"),
    closed_login=closing(b"TLS required: use STARTTLS, or a port with TLS"),
    closed_reason="tls-required",
    login=LOGIN,
    credentials=b"NICK joe\r\nUSER joe 0 * :Joe\r\n",
    accepted=WELCOME,
    rejected=b":irc.example.test 464 joe :Password incorrect\r\nERROR :Closing link\r\n",
    rejected_reason="backend-closed",
    named=lambda name: b"AUTHENTICATE %s\r\n" % name,
    logins=(LOGIN, b"NICK joe\r\n", b"@a=b USER joe 0 * :Joe\r\n", b"authenticate PLAIN\r\n", b":joe PASS x\r\n"),
    farewell=b"",
    garbage=(),
    too_many_logins=closing(b"Too many failed logins"),
    limited=closing(b"Too many failed logins, try again later"),
    http_words=closing(b"This is IRC"),
    proxy_words=closing(b"This is IRC"),
    lost_words=closing(b"Connection to server lost"),
    late_words=closing(b"Connection timed out"),
    idle_words=closing(b"Connection timed out"),
    idle_early_words=closing(b"Connection timed out"),
    stop_words=closing(b"Server shutting down"),
    stop_early_words=closing(b"Server shutting down"),
    offer=b"",
    asks=(),
    backend_starttls=Exchange(b"STARTTLS\r\n", b":irc2.example.test 670 * :STARTTLS successful\r\n"),
    again=(Exchange(PING, PONG),),
    welcome=b"",
    welcome_inside=b"",
    offer_inside=PONG,
    no=(b":irc2.example.test 691 * :STARTTLS is not enabled\r\n", b":x 421 * STARTTLS :Unknown command\r\n"),
    tells={
        Identity.WEBIRC: Telling(
            b"",
            (Exchange(b"WEBIRC hook starttls-gateway 192.0.2.10 192.0.2.10 :secure\r\n" + PING, PONG),),
            b"",
            b":irc.example.test 464 * :Invalid password\r\n",
        )
    },
    look=Look(
        (
            Exchange(PING, PONG),
            Exchange(b"CAP LS 302\r\n", LISTED),
            Exchange(b"QUIT\r\n", b"ERROR :Closing connection\r\n"),
        ),
        [b"multi-prefix", b"sasl=PLAIN,EXTERNAL", b"tls"],
        [b"multi-prefix", b"sasl=PLAIN"],
        ("SASL PLAIN",),
    ),
)
