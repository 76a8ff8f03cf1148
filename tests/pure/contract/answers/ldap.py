"""LDAP: RFC 4511 and RFC 4513, and what slapd 2.5 says.  The login is a SASL bind with a challenge, in two steps."""

from __future__ import annotations

from tests.pure.contract.form import ClientFirst, Exchange, Look

STARTTLS_NAME = b"1.3.6.1.4.1.1466.20037"


def tlv(tag: int, *parts: bytes) -> bytes:
    inside = b"".join(parts)
    size = bytes([len(inside)]) if len(inside) < 128 else b"\x82" + len(inside).to_bytes(2, "big")
    return bytes([tag]) + size + inside


def message(ident: int, tag: int, *parts: bytes, controls: bytes = b"") -> bytes:
    octets = ident.to_bytes(ident.bit_length() // 8 + 1, "big")
    return tlv(0x30, tlv(2, octets), tlv(tag, *parts), controls)


def result(ident: int, tag: int, code: int, text: bytes = b"", more: bytes = b"") -> bytes:
    return message(ident, tag, tlv(0x0A, bytes([code])), tlv(4), tlv(4, text), more)


def simple(ident: int, name: bytes, password: bytes) -> bytes:
    return message(ident, 0x60, tlv(2, b"\3"), tlv(4, name), tlv(0x80, password))


def sasl(ident: int, mechanism: bytes, *credentials: bytes) -> bytes:
    choice = tlv(0xA3, tlv(4, mechanism), *(tlv(4, each) for each in credentials))
    return message(ident, 0x60, tlv(2, b"\3"), tlv(4), choice)


def search(ident: int, base: bytes = b"", *wanted: bytes) -> bytes:
    """Of the base object: (objectClass=*)."""
    scope, deref, filter_ = tlv(0x0A, b"\0") * 2, tlv(2, b"\0") * 2 + tlv(1, b"\0"), tlv(0x87, b"objectClass")
    return message(ident, 0x63, tlv(4, base), scope, deref, filter_, tlv(0x30, *(tlv(4, each) for each in wanted)))


def entry(ident: int, name: bytes, **attributes: list[bytes]) -> bytes:
    listed = [tlv(0x30, tlv(4, each.encode()), tlv(0x31, *(tlv(4, value) for value in values)))
              for each, values in attributes.items()]  # fmt: skip
    return message(ident, 0x64, tlv(4, name), tlv(0x30, *listed))


def notice(code: int, text: bytes) -> bytes:
    return result(0, 0x78, code, text, tlv(0x8A, b"1.3.6.1.4.1.1466.20036"))


STARTTLS = bytes.fromhex("301d 020101 7718 8016") + STARTTLS_NAME
GO = bytes.fromhex("3024 020101 781f 0a0100 0400 0400 8a16") + STARTTLS_NAME
UNBIND = bytes.fromhex("3005 020101 4200")
DOWN = notice(52, b"backend unavailable")
LOGIN = sasl(2, b"CRAM-MD5")
CHALLENGE = result(2, 0x61, 14, b"", tlv(0x87, b"<1896.697170952@ldap.example.org>"))
OWED = result(2, 0x61, 52, b"backend unavailable")
OWED_THEN = result(3, 0x61, 52, b"backend unavailable")
MECHANISMS = [b"CRAM-MD5", b"EXTERNAL"]
ROOT = search(1, b"", b"supportedSASLMechanisms", b"supportedExtension", b"supportedLDAPVersion")

ANSWERS = ClientFirst(
    greeting=CHALLENGE,
    refusal=result(2, 0x61, 53, b"no"),
    no_greetings=(b"220 x\r\n", b"* OK\r\n", b"\x31\5\2\1\1\x61\0", b"\x30\x80\2\1\1", b"\x30\x85\0\0\0\0\5",
                  b"\x30\x84\x7f\xff\xff\xff", b"\x30\0", b"\x30\3\2\1\1", b"\x30\5\2\1\x80\x61\0",
                  b"\x30\7\4\1\1\x61\0\4\0", b"\x30\5\2\1\1\x61\1"),
    unavailable=DOWN,
    owed=OWED,
    busy=notice(52, b"too many connections"),
    alpn=(),
    idle=3600,
    first=3600,
    words=b"",
    before_tls=rb"(?!)",
    starttls=Exchange(STARTTLS, GO),
    closed_login=result(2, 0x61, 13, b"TLS required"),
    closed_reason="",
    rejected_reason="",
    login=LOGIN,
    credentials=sasl(3, b"CRAM-MD5", b"joe b913a602c7eda7a495b4e6e7334d3890"),
    accepted=result(3, 0x61, 0),
    rejected=result(3, 0x61, 49),
    named=lambda name: sasl(3, name),
    logins=(LOGIN, sasl(2, b"PLAIN", b"\0joe\0secret"), simple(2, b"cn=joe", b"secret")),
    farewell=b"",
    garbage=(),
    too_many_logins=notice(52, b"too many failures"),
    limited=result(2, 0x61, 51, b"too many failed logins, try again later"),
    http_words=b"",
    proxy_words=b"",
    lost_words=OWED_THEN + DOWN,
    late_words=OWED_THEN + DOWN,
    idle_words=b"",
    idle_early_words=b"",
    stop_words=notice(52, b"the server is stopping"),
    stop_early_words=result(2, 0x61, 52, b"the server is stopping") + notice(52, b"the server is stopping"),
    offer=b"",
    asks=(),
    backend_starttls=Exchange(STARTTLS, GO),
    again=(Exchange(LOGIN, CHALLENGE),),
    welcome=CHALLENGE,
    welcome_inside=CHALLENGE,
    offer_inside=CHALLENGE,
    no=(result(1, 0x78, 2, b"unsupported extended operation"), result(1, 0x78, 52)),
    look=Look(
        (
            Exchange(ROOT, entry(1, b"", supportedSASLMechanisms=MECHANISMS, supportedExtension=[STARTTLS_NAME])),
            Exchange(UNBIND, b""),
        ),
        [*MECHANISMS, STARTTLS_NAME],
        [*MECHANISMS, STARTTLS_NAME],
        ("SIMPLE", "CRAM-MD5"),
    ),
)  # fmt: skip
