"""ManageSieve: RFC 5804."""

from __future__ import annotations

from gateway.dialects.base import Identity
from tests.pure.contract.form import Exchange, Look, Telling, alike

UNAVAILABLE = b'BYE (TRYLATER) "Service temporarily unavailable"\r\n'
LOST = b'BYE (TRYLATER) "Connection to server lost"\r\n'
IDLE = b'BYE "Disconnected for inactivity"\r\n'
STOPPING = b'BYE (TRYLATER) "Server shutting down"\r\n'
INVALID = b'BYE "Invalid command"\r\n'
UNKNOWN = b'NO "Unknown command"\r\n'
CHARACTERS = b'NO "Invalid characters"\r\n'
HEAD = b'"IMPLEMENTATION" "x"\r\n'
PLAIN = b'"SASL" "PLAIN"\r\n'
NONE = b'"SASL" ""\r\n'
TAIL = b'"SIEVE" "fileinto"\r\n"VERSION" "1.0"\r\n'
STARTTLS = b'"STARTTLS"\r\n'
DONE = b'OK "done"\r\n'
OFFERED = HEAD + b'"SASL" "PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL"\r\n' + STARTTLS + TAIL + b'"XCLIENT"\r\n' + DONE
INSIDE = HEAD + PLAIN + TAIL + DONE
LOGOUT = Exchange(b"LOGOUT\r\n", b'OK "bye"\r\n')

ANSWERS = alike(
    greeting=HEAD + NONE + TAIL + STARTTLS + DONE,
    greeting_inside=HEAD + NONE + TAIL + DONE,
    refusal=b'BYE "busy"\r\n',
    no_greetings=(b"OKAY\r\n", b"* OK\r\n", b"+OK x\r\n", b"220 x\r\n", b"\r\n", b" OK\r\n", b"SSH-2.0-x\r\n",
                  b'"SIEVE\r\n', b'"SIEVE" x\r\n', b'"a" "b" "c"\r\n', b"\x1b[2JOK\r\n", b"\0\r\n"),
    unavailable=UNAVAILABLE,
    lost=LOST,
    timed_out=IDLE,
    stopping=STOPPING,
    busy=b'BYE (TRYLATER) "Too many connections"\r\n',
    lazy_greeting=b'"IMPLEMENTATION" "STARTTLS gateway"\r\n"SIEVE" ""\r\n"SASL" ""\r\n"VERSION" "1.0"\r\n"STARTTLS"\r\n'
    b'OK "gw.example.org ready"\r\n',
    alpn=(b"managesieve",),
    idle=1860,
    words=b'AUTHENTICATE "PLAIN" "EXTERNAL" "AGEAYg==" STARTTLS CAPABILITY NOOP LOGOUT XCLIENT PUTSCRIPT FOO'
    b' "x" " "*" "" {3} {3+} {0+} {99999} OK NO BYE (TRYLATER) "SASL" "STARTTLS"',
    before_tls=rb"(?:CAPABILITY|LOGOUT)\r\n",
    starttls=Exchange(b"STARTTLS\r\n", b'OK "Begin TLS negotiation now."\r\n'),
    starttls_again=b'NO "TLS is already active"\r\n',
    reissue=Exchange(b"CAPABILITY\r\n", INSIDE),
    closed=Exchange(b"NOOP\r\n", b'OK "NOOP completed"\r\n'),
    closed_login=b'NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n',
    command=Exchange(b"NOOP\r\n", DONE),
    listing=Exchange(b"CAPABILITY\r\n", OFFERED),
    listing_closed=HEAD + NONE + TAIL + STARTTLS + DONE,
    listing_open=HEAD + PLAIN + TAIL + STARTTLS + DONE,
    listing_inside=INSIDE,
    user=b"a",
    login=b'AUTHENTICATE "PLAIN" "AGEAYg=="\r\n',
    accepted=b'OK "in"\r\n',
    rejected=b'NO "wrong"\r\n',
    postponed=b'NO (TRYLATER) "later"\r\n',
    named=lambda name: b"AUTHENTICATE {%d+}\r\n%s\r\n" % (len(name), name),
    logins=(
        b'AUTHENTICATE "PLAIN"\r\n', b'authenticate "plain" "AGEAYg=="\r\n',
        b'AUTHENTICATE "PLAIN" {8+}\r\nAGEAYg==\r\n', b'AUTHENTICATE {5+}\r\nPLAIN {8}\r\nAGEAYg==\r\n',
    ),
    taken_back=(Exchange(b'AUTHENTICATE "PLAIN"\r\n', b'""\r\n'), Exchange(b'"*"\r\n', b'NO "taken back"\r\n')),
    leave=LOGOUT,
    farewell=b"LOGOUT\r\n",
    bad=Exchange(b"XCLIENT ADDR=192.0.2.1\r\n", UNKNOWN),
    unclean=(
        Exchange(b"NOOP\0\r\n", CHARACTERS),
        Exchange(b"NOOP\rXCLIENT ADDR=192.0.2.1\r\n", CHARACTERS),
        Exchange(b'NOOP {23+}\r\nx\r\nXCLIENT ADDR=1.2.3.4\r\n', b'NO "Invalid arguments"\r\n'),
    ),
    long=lambda octets: b'NOOP "' + b"x" * octets + b'"\r\n',
    long_answer=b'NO "Command too long"\r\n',
    endless=(b"x" * (80 * 1024), b'AUTHENTICATE "' + b"x" * (80 * 1024)),
    endless_words=b'BYE "Command too long"\r\n',
    too_many_bad=b'BYE "Too many invalid commands"\r\n',
    too_many_logins=b'BYE "Too many failed logins"\r\n',
    limited=b'NO (TRYLATER) "Temporary authentication failure"\r\n',
    http_words=b'BYE "Invalid protocol"\r\n',
    proxy_words=INVALID,
    proxy2_words=UNKNOWN * 2 + CHARACTERS + UNKNOWN,
    proxy2_reason="",
    part=b'OK "d',
    garbage=b"250 ok\r\n",
    unasked=b'OK "Logged in."\r\n',
    offer=HEAD + NONE + STARTTLS + DONE,
    asks=(),
    backend_starttls=Exchange(b"STARTTLS\r\n", b'OK "go"\r\n'),
    again=(Exchange(b"", INSIDE),),
    welcome=HEAD + NONE + TAIL + STARTTLS + DONE,
    welcome_inside=INSIDE,
    offer_inside=INSIDE,
    no=(b"NO\r\n", b'NO "TLS support isn\'t enabled."\r\n', b"OKAY\r\n", b'BYE "x"\r\n', b'"OK"\r\n', b"+OK\r\n",
        b"\r\n", b" OK\r\n", b"OK\tx\r\n", b"OK\0\r\n", b"x" * 8193 + b"\r\n"),
    tells={
        Identity.XCLIENT: Telling(
            HEAD + PLAIN + b'"XCLIENT"\r\n' + DONE,
            (
                Exchange(
                    b"XCLIENT ADDR=192.0.2.10 PORT=40000 DESTADDR=198.51.100.1 DESTPORT=143 SESSION=gw1-0001 TTL=4\r\n",
                    b'OK "Updated"\r\n',
                ),
                Exchange(b"CAPABILITY\r\n", OFFERED),
            ),
            HEAD + NONE + TAIL + STARTTLS + DONE,
            b'NO "You are not from trusted IP"\r\n',
        )
    },
    look=Look(
        (Exchange(b"CAPABILITY\r\n", OFFERED), LOGOUT),
        [b"IMPLEMENTATION x", b"SASL PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL", b"STARTTLS", b"SIEVE fileinto",
         b"VERSION 1.0", b"XCLIENT"],
        [b"IMPLEMENTATION x", b"SASL PLAIN", b"SIEVE fileinto", b"VERSION 1.0"],
        ("AUTHENTICATE PLAIN",),
    ),
)  # fmt: skip
