"""PostgreSQL: the documentation's chapters "Message Flow" and "Message Formats", and what PostgreSQL 15 says."""

from __future__ import annotations

from tests.pure.contract.form import ClientFirst, Exchange, Look


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


def startup(user: bytes = b"joe", database: bytes = b"shop") -> bytes:
    return message(b"", b"\0\3\0\0user\0%s\0database\0%s\0\0" % (user, database))


def fatal(code: bytes, text: bytes) -> bytes:
    return message(b"E", b"SFATAL\0VFATAL\0C%s\0M%s\0\0" % (code, text))


def asks(code: int, more: bytes = b"") -> bytes:
    """An Authentication message."""
    return message(b"R", code.to_bytes(4, "big") + more)


SSL = bytes.fromhex("00000008 04d2162f")
GSS = bytes.fromhex("00000008 04d21630")
CANCEL = bytes.fromhex("00000010 04d2162e 00000fce dcb46fc8")
LOGIN = startup()
PASSWORD = asks(3)
SASL = asks(10, b"SCRAM-SHA-256\0\0")

ANSWERS = ClientFirst(
    greeting=PASSWORD,
    refusal=fatal(b"57P03", b"the database system is starting up"),
    no_greetings=(b"220 x\r\n", b"* OK\r\n", b"X\0\0\0\4", b"R\0\0\0\3", b"R\0\0\0\4", b"R\xff\xff\xff\xff",
                  b"R\x7f\xff\xff\xff", b"\0\0\0\x08"),
    unavailable=fatal(b"57P03", b"the database server cannot be reached"),
    busy=fatal(b"53300", b"too many connections"),
    alpn=(b"postgresql",),
    idle=86400,
    first=10,
    words=b"S N G E R \0\0\0\x08\x04\xd2\x16\x2f \0\3\0\0 user p X",
    # SSLRequest, and cancel requests: no login.
    before_tls=rb"\0\0\0\x08\x04\xd2\x16\x2f|\0\0[\0\x01].\x04\xd2\x16\x2e.{8,260}",
    starttls=Exchange(SSL, b"S"),
    closed_login=fatal(b"28000", b"TLS required"),
    closed_reason="tls-required",
    user=b"joe",
    login=LOGIN,
    credentials=message(b"p", b"secret\0"),
    accepted=asks(0),
    rejected=fatal(b"28P01", b'password authentication failed for user "joe"'),
    rejected_reason="backend-closed",
    named=None,
    logins=(LOGIN, startup(b"ann")),
    farewell=b"",
    garbage=(b"\0\0\0\7", b"\0\0\x27\x11", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"SSH-", b"USER"),
    too_many_logins=b"",
    limited=fatal(b"53400", b"too many failed logins, try again later"),
    http_words=b"",
    proxy_words=b"",
    lost_words=fatal(b"08006", b"the connection to the database server was lost"),
    late_words=fatal(b"08006", b"the connection to the database server was lost"),
    idle_words=b"",
    idle_early_words=b"",
    stop_words=fatal(b"57P01", b"terminating connection due to administrator command"),
    stop_early_words=fatal(b"57P01", b"terminating connection due to administrator command"),
    offer=b"",
    asks=(),
    backend_starttls=Exchange(SSL, b"S"),
    again=(Exchange(LOGIN, PASSWORD),),
    welcome=PASSWORD,
    welcome_inside=PASSWORD,
    offer_inside=PASSWORD,
    no=(b"N", b"E"),
    look=Look(
        (
            Exchange(startup(b"starttls-gateway-check", b"postgres"), SASL),
            Exchange(b"X\0\0\0\4", b""),
        ),
        [b"SCRAM-SHA-256"],
        [b"SCRAM-SHA-256"],
        ("SCRAM-SHA-256",),
    ),
)  # fmt: skip
