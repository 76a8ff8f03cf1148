"""ACAP: RFC 2244, and RFC 2595 5 for STARTTLS."""

from __future__ import annotations

from tests.pure.contract.form import Exchange, Look, alike

UNAVAILABLE = b'* BYE (TRYLATER) "Service temporarily unavailable"\r\n'
LOST = b'* BYE (TRYLATER) "Connection to server lost"\r\n'
IDLE = b'* BYE "Disconnected for inactivity"\r\n'
STOPPING = b'* BYE (TRYLATER) "Server shutting down"\r\n'
CLEAR = b'* ACAP (IMPLEMENTATION "x") (STARTTLS)\r\n'
INSIDE = b'* ACAP (IMPLEMENTATION "x")\r\n'
OFFER = b'* Acap (Implementation "x") (Sasl "PLAIN" "EXTERNAL") (Starttls)\r\n'
OFFER_INSIDE = b'* ACAP (IMPLEMENTATION "x") (SASL "PLAIN")\r\n'
NOOP = Exchange(b"n NOOP\r\n", b'n OK "Done"\r\n')
LOGOUT = Exchange(b"q LOGOUT\r\n", b'* BYE "bye"\r\nq OK "Done"\r\n')
FIRST = b'NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n'
UNKNOWN = b'* BAD "Unknown command"\r\n'
CHARACTERS = b'* BAD "Invalid characters"\r\n'

ANSWERS = alike(
    greeting=CLEAR,
    greeting_inside=INSIDE,
    refusal=b'* BYE "busy"\r\n',
    no_greetings=(b"* OK\r\n", b"+OK x\r\n", b"220 x\r\n", b"\r\n", b"SSH-2.0-x\r\n", b"ACAP\r\n", b"* ACAPELLA\r\n",
                  b"* ACAP (A\r\n", b'* ACAP (A "x)\r\n', b"* ACAP x\r\n", b"\0\r\n"),
    unavailable=UNAVAILABLE,
    lost=LOST,
    timed_out=IDLE,
    stopping=STOPPING,
    busy=b'* BYE (TRYLATER) "Too many connections"\r\n',
    lazy_greeting=b'* ACAP (IMPLEMENTATION "STARTTLS gateway") (STARTTLS)\r\n',
    alpn=(),
    idle=1860,
    words=b'a b AUTHENTICATE "PLAIN" "EXTERNAL" "x" STARTTLS NOOP LANG LOGOUT SEARCH * + OK NO BAD BYE {3} {3+} {0+}',
    before_tls=rb"[A-Za-z0-9.:_-]{1,32} (?:NOOP|LOGOUT)\r\n",
    starttls=Exchange(b"s STARTTLS\r\n", b's OK "Begin TLS negotiation now"\r\n'),
    starttls_again=b's BAD "TLS is already active"\r\n',
    reissue=Exchange(b"", INSIDE),
    closed=Exchange(b'l LANG "en"\r\n', b"l " + FIRST),
    closed_login=b"a " + FIRST,
    command=Exchange(b'l LANG "en"\r\n', b'l OK "Done"\r\n'),
    listing=NOOP,
    listing_closed=NOOP.answered,
    listing_open=NOOP.answered,
    listing_inside=NOOP.answered,
    login=b'a AUTHENTICATE "PLAIN" "x"\r\n',
    accepted=b'a OK "in"\r\n',
    rejected=b'a NO "wrong"\r\n',
    postponed=b'a NO (TRYLATER) "later"\r\n',
    named=lambda name: b"a AUTHENTICATE {%d+}\r\n%s\r\n" % (len(name), name),
    logins=(b'a AUTHENTICATE "PLAIN"\r\n', b'a authenticate "plain" "x"\r\n', b'a AUTHENTICATE {5+}\r\nPLAIN "x"\r\n'),
    taken_back=(Exchange(b'a AUTHENTICATE "PLAIN"\r\n', b'+ ""\r\n'), Exchange(b"*\r\n", b'a NO "taken back"\r\n')),
    leave=LOGOUT,
    farewell=b"sgw0 LOGOUT\r\n",
    bad=Exchange(b'b SEARCH "/"\r\n', b'b BAD "Unknown command"\r\n'),
    unclean=(
        Exchange(b"n NOOP\0\r\n", CHARACTERS),
        Exchange(b"n NOOP\rx LOGOUT\r\n", CHARACTERS),
        Exchange(b'l LANG {13+}\r\nx\r\nx LOGOUT\r\n\r\n', b'l BAD "Invalid arguments"\r\n'),
    ),
    long=lambda octets: b'l LANG "' + b"x" * octets + b'"\r\n',
    long_answer=b'* BAD "Command too long"\r\n',
    endless=(b"x" * (80 * 1024),),
    endless_words=b'* BYE "Command too long"\r\n',
    too_many_bad=b'* BYE "Too many invalid commands"\r\n',
    too_many_logins=b'* BYE "Too many failed logins"\r\n',
    limited=b'a NO (TRYLATER) "Temporary authentication failure"\r\n',
    http_words=b'* BYE "Invalid protocol"\r\n',
    proxy_words=b'* BYE "Invalid command"\r\n',
    proxy2_words=UNKNOWN * 2 + CHARACTERS + UNKNOWN,
    proxy2_reason="",
    part=b'l OK "d',
    garbage=b"250 ok\r\n",
    unasked=b'a OK "in"\r\n',
    offer=OFFER,
    asks=(),
    backend_starttls=Exchange(b"sgw1 STARTTLS\r\n", b'sgw1 OK "go"\r\n'),
    again=(Exchange(b"", OFFER_INSIDE),),
    welcome=CLEAR,
    welcome_inside=OFFER_INSIDE,
    offer_inside=OFFER_INSIDE,
    no=(b'sgw1 NO "x"\r\n', b'sgw1 BAD "x"\r\n', b'* OK "x"\r\n', b"OK\r\n", b"\r\n", b"x" * 8193 + b"\r\n"),
    look=Look(
        (Exchange(b"c1 NOOP\r\n", b'c1 OK "Done"\r\n'), Exchange(b"c2 LOGOUT\r\n", b'* BYE "x"\r\nc2 OK "x"\r\n')),
        [b"IMPLEMENTATION x", b"STARTTLS"],
        [b"IMPLEMENTATION x"],
        (),
    ),
)  # fmt: skip
