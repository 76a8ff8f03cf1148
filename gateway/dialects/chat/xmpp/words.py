"""What the gateway says in XMPP, and what it takes out of a server's features."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ....records import dataclass
from ... import sasl
from .xml import Element, Stanza

STREAMS: Final = "http://etherx.jabber.org/streams"
TLS: Final = "urn:ietf:params:xml:ns:xmpp-tls"
SASL: Final = "urn:ietf:params:xml:ns:xmpp-sasl"
SASL2: Final = "urn:xmpp:sasl:2"
DIALBACK: Final = "jabber:server:dialback"
IQ_AUTH: Final = "jabber:iq:auth"
COMPRESS: Final = "http://jabber.org/protocol/compress"

HEADER: Final = f"{STREAMS} stream"
FEATURES: Final = f"{STREAMS} features"
ERROR: Final = f"{STREAMS} error"
STARTTLS: Final = f"{TLS} starttls"
REQUIRED: Final = f"{TLS} required"
PROCEED: Final = f"{TLS} proceed"

PROCEEDING: Final = b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
ASKING: Final = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
FAILING: Final = b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
NO_COMPRESSION: Final = b"<failure xmlns='http://jabber.org/protocol/compress'><setup-failed/></failure>"
OFFER: Final = (
    b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
)
NO_LOGIN: Final = b"the stream features offer no login"
TAG: Final = b"stream:stream"
"""How the gateway itself calls the stream's element."""

_DOMAIN = re.compile(r"[^\s<>&'\"/@\x00-\x1f\x7f]{1,255}")
"""A domain, with non-ASCII letters perhaps (RFC 7622 3.2), that needs no quoting."""
_TAG = re.compile(rb"<([^?!/\s>][^/\s>]*)")
_OFFERS: Final = frozenset({
    f"{TLS} starttls", f"{COMPRESS} compression", "http://jabber.org/features/compress compression",
    "urn:xmpp:sasl-cb:0 sasl-channel-binding",
})  # fmt: skip
"""Features that a client must not have: TLS inside TLS, compression, whose end the gateway could not see, and channel
binding."""
_OLD_LOGIN: Final = "http://jabber.org/features/iq-auth auth"
LISTS: Final = frozenset({f"{SASL} mechanisms", f"{SASL2} authentication", "urn:xmpp:fast:0 fast"})
"""Elements whose children name mechanisms."""


@dataclass(frozen=True, slots=True)
class Kind:
    """Who talks to a server."""

    name: str
    namespace: bytes
    more: bytes
    """What else its headers declare."""


CLIENTS: Final = Kind("xmpp", b"jabber:client", b"")
SERVERS: Final = Kind("xmpp-server", b"jabber:server", b" xmlns:db='jabber:server:dialback'")


def header(kind: Kind, *, to: bytes = b"", sender: bytes = b"", identity: bytes | None = None) -> bytes:
    """The beginning of a stream.  `identity`: its id, where it answers another one."""
    sent = b" from='%s'" % sender if sender else b""
    meant = b" to='%s'" % to if to else b""
    own = b"" if identity is None else b" id='%s'" % identity
    return b"<?xml version='1.0'?><stream:stream%s%s%s version='1.0' xml:lang='en' xmlns='%s'%s xmlns:stream='%s'>" % (
        sent, meant, own, kind.namespace, kind.more, STREAMS.encode()
    )  # fmt: skip


def error(tag: bytes, condition: bytes) -> bytes:
    """The end of a stream whose element has this tag (RFC 6120 4.9)."""
    name = tag.removesuffix(b"stream") + b"error"
    return b"<%s><%s xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></%s></%s>" % (name, condition, name, tag)


def refusal(kind: Kind, sender: bytes, condition: bytes) -> bytes:
    """A stream that is nothing but an error."""
    return header(kind, sender=sender, identity=b"") + error(TAG, condition)


def failure(namespace: str, condition: bytes) -> bytes:
    """The answer to a login of SASL (RFC 6120 6.5) or SASL2 (XEP-0388)."""
    own = b"" if namespace == SASL else b" xmlns='%s'" % SASL.encode()
    return b"<failure xmlns='%s'><%s%s/></failure>" % (namespace.encode(), condition, own)


def tag_of(octets: bytes) -> bytes:
    """How a header calls the stream's element."""
    found = _TAG.search(octets)
    assert found is not None
    return found[1]


def domain(name: str | None) -> bytes | None:
    """A domain as it may stand in an attribute; None for what is none."""
    return name.encode("utf-8") if name is not None and _DOMAIN.fullmatch(name) else None


def in_ascii(name: bytes) -> bytes:
    """A domain as certificates have it (RFC 5890 2.3.2.1); unchanged where it cannot be had so."""
    try:
        return name.decode("utf-8").encode("idna")
    except UnicodeError:
        return name


def told(element: Element) -> bytes:
    """What a stream error says, in words."""
    condition, text = "undefined-condition", ""
    for child in element.children:
        match child.name.split(" ")[-1]:
            case "text":
                text = child.text
            case local:
                condition = local
    return f"{condition}: {text}".rstrip(": ").encode("utf-8")


# --- features ----------------------------------------------------------------------------------------


def name_of(mechanism: Element) -> bytes:
    return mechanism.text.strip().upper().encode("utf-8")


def mechanisms(features: Element) -> Iterator[tuple[Element, list[Element]]]:
    """The lists of mechanisms, and what is in each."""
    for each in features.all():
        if each.name in LISTS:
            namespace = each.name.split(" ")[0]
            yield each, [child for child in each.children if child.name == f"{namespace} mechanism"]


def names(features: Element) -> list[bytes]:
    """Of all mechanisms that are offered, each once."""
    return list(dict.fromkeys(name_of(each) for _, offered in mechanisms(features) for each in offered))


def logins(features: Element) -> list[bytes]:
    """How a client can log in."""
    return sasl.usable(names(features)) + [b"IQ-AUTH"] * any(each.name == _OLD_LOGIN for each in features.children)


def shown(features: Stanza) -> bytes:
    """The features that a client may see; all that stays, stays as it is."""
    assert features.element is not None
    hidden = [each for each in features.element.children if each.name in _OFFERS]
    for parent, offered in mechanisms(features.element):
        unusable = sasl.unusable(name_of(each) for each in offered)
        gone = [each for each in offered if name_of(each) in unusable]
        hidden += [parent] if gone and len(gone) == len(offered) else gone
    octets, kept = b"", 0
    for each in sorted(hidden, key=lambda element: element.begin):
        if each.begin >= kept:  # what is in another one is gone with it
            octets += features.octets[kept : each.begin]
            kept = each.end
    return octets + features.octets[kept:]


def offers_tls(features: Stanza) -> bool:
    assert features.element is not None
    return any(each.name == STARTTLS for each in features.element.children)


def binds(features: Element) -> bool:
    """Whether channel binding is offered."""
    return any(sasl.binds(name) for name in names(features))
