"""The messages of LDAP that the gateway reads or writes (RFC 4511), and the root DSE (RFC 4512 5.1)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from .. import sasl
from ..access import Access, Seen
from . import ber

STARTTLS: Final = b"1.3.6.1.4.1.1466.20037"
DISCONNECTION: Final = b"1.3.6.1.4.1.1466.20036"
PASSWORD_MODIFY: Final = b"1.3.6.1.4.1.4203.1.11.1"
HARMLESS: Final = frozenset({b"1.3.6.1.4.1.4203.1.11.3", b"1.3.6.1.1.8"})
"""Names of extended operations (RFC 4511 4.14.1, 4.4.1, RFC 3062): Who am I (RFC 4532) and Cancel (RFC 3909) hold no
credentials; of what nobody knows here that cannot be said."""

BIND: Final = 0x60
UNBIND: Final = 0x42
SEARCH: Final = 0x63
MODIFY: Final = 0x66
ADD: Final = 0x68
COMPARE: Final = 0x6E
ABANDON: Final = 0x50
EXTENDED: Final = 0x77
EXTENDED_RESPONSE: Final = 0x78
NAME: Final = 0x8A
"""The name of an extended response."""
RESPONSES: Final = {
    BIND: 0x61, SEARCH: 0x65, MODIFY: 0x67, ADD: 0x69, 0x4A: 0x6B, 0x6C: 0x6D, COMPARE: 0x6F,
    EXTENDED: EXTENDED_RESPONSE,
}  # fmt: skip
"""The tag of each request, and of its last response: bind, search, modify, add, delete, rename, compare, extended."""
ENTRY: Final = 0x64
MORE: Final = frozenset({ENTRY, 0x73, 0x79})
"""Responses that another one follows: entry, reference, intermediate."""

SUCCESS: Final = 0
OPERATIONS_ERROR: Final = 1
PROTOCOL_ERROR: Final = 2
METHOD_NOT_SUPPORTED: Final = 7
STRONGER_AUTH_REQUIRED: Final = 8
CONFIDENTIALITY_REQUIRED: Final = 13
SASL_IN_PROGRESS: Final = 14
INVALID_CREDENTIALS: Final = 49
BUSY: Final = 51
UNAVAILABLE: Final = 52
"""Result codes (RFC 4511 A)."""

# --- messages ----------------------------------------------------------------------------------------


def result(ident: int, tag: int, code: int, text: bytes, name: bytes = b"") -> bytes:
    """A response with this result."""
    parts = [ber.number(code, ber.ENUMERATED), ber.write(ber.OCTETS), ber.write(ber.OCTETS, text)]
    if name:
        parts.append(ber.write(NAME, name))
    return ber.write(ber.SEQUENCE, ber.number(ident), ber.write(tag, *parts))


def notice(code: int, text: bytes) -> bytes:
    """Notice of Disconnection (RFC 4511 4.4.1)."""
    return result(0, EXTENDED_RESPONSE, code, text, DISCONNECTION)


def starttls_request(ident: int) -> bytes:
    return ber.write(ber.SEQUENCE, ber.number(ident), ber.write(EXTENDED, ber.write(0x80, STARTTLS)))


def result_of(message: bytes, operation: ber.Element) -> tuple[int, bytes]:
    """Code and text of a response.  Raises ValueError."""
    parts = list(ber.elements(message, operation.begin, operation.end))
    if [each.tag for each in parts[:3]] != [ber.ENUMERATED, ber.OCTETS, ber.OCTETS]:
        raise ValueError("a response without a result")
    code = ber.content(message, parts[0])
    if not 1 <= len(code) <= 4:
        raise ValueError("a result code that is none")  # Python writes no number of more than 4300 digits
    return int.from_bytes(code, "big"), ber.content(message, parts[2])


UNBIND_REQUEST: Final = ber.write(ber.SEQUENCE, ber.number(1), ber.write(UNBIND))


class Bind(NamedTuple):
    """Who wants to be somebody, and how (RFC 4511 4.2)."""

    mechanism: bytes
    """In capital letters; SIMPLE for a password."""
    login: bool
    """Not anonymous: a password, or SASL."""
    secret: bool
    """The password itself is in it."""
    name: bytes
    """A distinguished name; mostly empty with SASL."""
    credentials: bytes
    """The password, or what SASL has."""


def read_bind(message: bytes, operation: ber.Element) -> Bind:
    """Raises ValueError for a bind that two servers could understand in two ways."""
    version, name, choice = ber.elements(message, operation.begin, operation.end)
    if (version.tag, name.tag) != (ber.INTEGER, ber.OCTETS):
        raise ValueError("no bind")
    who = ber.content(message, name)
    if choice.tag == 0x80:
        password = ber.content(message, choice)
        return Bind(b"SIMPLE", bool(password), bool(password), who, password)
    if choice.tag != 0xA3:
        raise ValueError("a way to log in that is neither simple nor SASL")
    mechanism, *credentials = ber.elements(message, choice.begin, choice.end)
    if {mechanism.tag, *(each.tag for each in credentials)} != {ber.OCTETS} or len(credentials) > 1:
        raise ValueError("no SASL credentials")
    named = ber.content(message, mechanism).upper()
    told = b"".join(ber.content(message, each) for each in credentials)
    return Bind(named, named != b"ANONYMOUS", bool(told) and named == b"PLAIN", who, told)


def is_starttls(begin: bytes, operation: ber.Element) -> bool | None:
    """Whether an extended request asks for TLS; None where more octets are needed."""
    cut = begin[: operation.end]
    try:
        name = ber.element(cut, operation.begin)
    except ValueError:
        return False  # the backend refuses it
    if name is None:
        return None if len(cut) < operation.end else False
    if name.tag != 0x80 or name.end - name.begin != len(STARTTLS):
        return False
    if len(cut) < name.end:
        return None if len(cut) < operation.end else False
    return ber.content(cut, name) == STARTTLS


def request_name(message: bytes, operation: ber.Element) -> bytes:
    """Of an extended request that is there as a whole; empty for one that is malformed."""
    try:
        name = ber.element(message[: operation.end], operation.begin)
    except ValueError:
        return b""
    return b"" if name is None or name.tag != 0x80 else ber.content(message, name)


def may_hold_password(message: bytes, operation: ber.Element) -> bool:
    """Whether a request other than a bind may have a password in it: whoever sends it before TLS shows that."""
    if operation.tag == EXTENDED:
        return request_name(message, operation) not in HARMLESS
    return operation.tag in (MODIFY, ADD, COMPARE)


def shows_password(message: bytes, operation: ber.Element) -> bool:
    """Whether it has one, as far as that is known here."""
    if operation.tag == EXTENDED:
        return request_name(message, operation) == PASSWORD_MODIFY
    return may_hold_password(message, operation) and _PASSWORD.search(message) is not None


_PASSWORD: Final = re.compile(rb"(?i)\x04\x0cuserPassword|\x04\x0aunicodePwd")
"""Names of attributes (RFC 4519 2.41; Active Directory), as LDAP writes them."""

# --- looking at a server -----------------------------------------------------------------------------

MECHANISMS: Final = b"supportedSASLMechanisms"
EXTENSIONS: Final = b"supportedExtension"


def root(hostname: bytes, ident: int = 1) -> bytes:
    """A search for what the server can do, in its root DSE (RFC 4512 5.1).  Anybody may ask."""
    wanted = [ber.write(ber.OCTETS, name) for name in (MECHANISMS, EXTENSIONS, b"supportedLDAPVersion")]
    search = (
        ber.write(ber.OCTETS), ber.number(0, ber.ENUMERATED), ber.number(0, ber.ENUMERATED), ber.number(0),
        ber.number(0), ber.write(0x01, b"\0"), ber.write(0x87, b"objectClass"), ber.write(ber.SEQUENCE, *wanted),
    )  # fmt: skip
    return ber.write(ber.SEQUENCE, ber.number(ident), ber.write(SEARCH, *search))


def attributes(message: bytes) -> dict[bytes, list[bytes]] | None:
    """Of an entry; None for any other message."""
    try:
        head = ber.head(message)
        if head is None or head.operation.tag != ENTRY:
            return None
        _, listed = ber.elements(message, head.operation.begin, head.operation.end)
        found = {}
        for each in ber.elements(message, listed.begin, listed.end):
            name, values = ber.elements(message, each.begin, each.end)
            found[ber.content(message, name)] = [
                ber.content(message, value) for value in ber.elements(message, values.begin, values.end)
            ]
    except ValueError:
        return None
    return found


def listed(answer: bytes) -> list[bytes] | None:
    """The mechanisms and extensions; None where the server does not tell."""
    found = attributes(answer)
    if found is None:
        return None
    return [*found.get(MECHANISMS, []), *found.get(EXTENSIONS, [])]


def readable(octets: bytes) -> bytes:
    """The server's answer, in words."""
    found = attributes(octets)
    if found is not None:
        return b"\n".join(name + b": " + b" ".join(values) for name, values in found.items())
    try:
        head = ber.head(octets)
        code, text = result_of(octets, head.operation) if head else (0, b"")
    except ValueError:
        return octets
    return b"result %d: %s" % (code, text)


def logins(seen: Seen) -> Access:
    """Whether clients could log in: a password is taken by every server that does not say otherwise."""
    if seen.shown is None:
        return Access()
    mechanisms = [name.decode("ascii", "replace") for name in seen.shown if not name[:1].isdigit()]
    usable = [name for name in mechanisms if name != "ANONYMOUS" and not sasl.refused(name.encode())]
    return Access(("SIMPLE", *usable), starttls=None if seen.offered is None else STARTTLS in seen.offered)


def nobodys_bind() -> bytes:
    """A user who does not exist and a word that is nobody's password: LDAP has no login without a password in it."""
    parts = ber.number(3), ber.write(ber.OCTETS, b"cn=starttls-gateway-probe"), ber.write(0x80, b"none")
    return ber.write(ber.SEQUENCE, ber.number(2), ber.write(BIND, *parts))


def _judgement(reply: bytes) -> tuple[int, int] | None:
    """The tag and the result code; None for what is no response."""
    try:
        head = ber.head(reply)
        return None if head is None else (head.operation.tag, result_of(reply, head.operation)[0])
    except ValueError:
        return None


def is_judged(reply: bytes) -> bool:
    """Whether the server looked at the password of a bind, and did not refuse to."""
    return _judgement(reply) in ((RESPONSES[BIND], SUCCESS), (RESPONSES[BIND], INVALID_CREDENTIALS))


def agrees(reply: bytes) -> bool:
    """Whether the answer to StartTLS is a success."""
    return _judgement(reply) == (EXTENDED_RESPONSE, SUCCESS)


def is_complete(command: bytes, heard: bytes) -> bool:
    """Whether the last of these messages is a last response, or none at all."""
    at = 0
    while (length := ber.measure(heard[at : at + ber.LENGTHY])) is not None and at + length < len(heard):
        at += length
    try:
        head = ber.head(heard[at : at + 4 * ber.LENGTHY])
    except ValueError:
        return True
    return head is None or head.operation.tag not in MORE
