"""HTTP: RFC 9112, RFC 2817, and what libcups and cupsd say."""

from __future__ import annotations

from tests.pure.contract.form import ClientFirst, Exchange, Look


def head(*lines: bytes) -> bytes:
    return b"\r\n".join([*lines, b"", b""])


def closing(status: bytes) -> bytes:
    return head(b"HTTP/1.1 " + status, b"Connection: close", b"Content-Length: 0")


REQUEST = head(b"OPTIONS * HTTP/1.1", b"Host: localhost:631", b"User-Agent: CUPS/2.4.2 IPP/2.0")
WISH = head(
    b"OPTIONS * HTTP/1.1",
    b"Connection: Upgrade",
    b"Host: localhost:631",
    b"Upgrade: TLS/1.2,TLS/1.1,TLS/1.0",
    b"User-Agent: CUPS/2.4.2 IPP/2.0",
)
GO_AHEAD = head(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: TLS/1.0, HTTP/1.1", b"Connection: Upgrade")
REQUIRED = head(
    b"HTTP/1.1 426 Upgrade Required",
    b"Upgrade: TLS/1.0, HTTP/1.1",
    b"Connection: Upgrade, close",
    b"Content-Length: 0",
)
OK = head(b"HTTP/1.1 200 OK", b"Connection: Keep-Alive", b"Content-Length: 0", b"Server: CUPS/2.4 IPP/2.1")
CUPSD_GOES_AHEAD = head(
    b"HTTP/1.1 101 Switching Protocols",
    b"Connection: Keep-Alive",
    b"Content-Length: 0",
    b"Upgrade: TLS/1.2,TLS/1.1,TLS/1.0",
)
OUR_WISH = head(b"OPTIONS * HTTP/1.1", b"Host: localhost:631", b"Connection: Upgrade", b"Upgrade: TLS/1.0")
POST = head(b"POST / HTTP/1.1", b"Host: a", b"Content-Length: 3") + b"abc"

ANSWERS = ClientFirst(
    greeting=OK,
    judges=False,
    lockstep=False,
    web=True,
    refusal=closing(b"503 Service Unavailable"),
    no_greetings=(
        b"220 x\r\n", b"* OK\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 20\r\n", b"HTTP/1.1 OK\r\n", b"HTTP/1.1 2000\r\n",
        b"\r\n",
    ),
    unavailable=closing(b"503 Service Unavailable"),
    busy=head(b"HTTP/1.1 503 Service Unavailable", b"Retry-After: 30", b"Connection: close", b"Content-Length: 0"),
    alpn=(b"http/1.1",),
    idle=960,
    first=30,
    words=b"GET POST / HTTP/1.1 Host: Upgrade: TLS/1.0 Connection: Content-Length: Transfer-Encoding: chunked 0",
    before_tls=rb"\Z",
    starttls=Exchange(WISH, GO_AHEAD),
    closed_login=REQUIRED,
    closed_reason="tls-required",
    login=REQUEST,
    credentials=b"",
    accepted=b"",
    rejected=b"",
    rejected_reason="",
    named=None,
    logins=(
        REQUEST, POST, head(b"GET / HTTP/1.1", b"Host: a"), head(b"GET / HTTP/1.0"),
        head(b"GET / HTTP/1.1", b"Host: a", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"),
        POST.replace(b"Host", b"Upgrade: TLS/1.0\r\nConnection: upgrade\r\nHost"),
    ),
    farewell=b"",
    garbage=(),
    too_many_logins=b"",
    limited=b"",
    http_words=b"",
    proxy_words=closing(b"400 Bad Request"),
    lost_words=b"",
    late_words=b"",
    idle_words=b"",
    idle_early_words=b"",
    stop_words=closing(b"503 Service Unavailable"),
    stop_early_words=closing(b"503 Service Unavailable"),
    offer=b"",
    asks=(),
    backend_starttls=Exchange(OUR_WISH, CUPSD_GOES_AHEAD),
    again=(Exchange(b"", OK), Exchange(REQUEST, OK)),
    welcome=OK,
    welcome_inside=OK,
    offer_inside=OK,
    no=(OK, closing(b"400 Bad Request"), head(b"HTTP/1.1 101 Switching Protocols", b"Upgrade: h2c")),
    look=Look(
        (Exchange(head(b"OPTIONS * HTTP/1.1", b"Host: gw.example.org", b"Connection: close"), OK),),
        [b"HTTP/1.1 200 OK", b"CUPS/2.4 IPP/2.1"],
        [b"HTTP/1.1 200 OK", b"CUPS/2.4 IPP/2.1"],
        (),
    ),
)  # fmt: skip
