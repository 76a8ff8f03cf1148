"""XMPP (RFC 6120, RFC 7590): clients on 5222 and 5223 (XEP-0368), other servers on 5269."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from ....protocol.inbox import Inbox
from ....protocol.vocabulary import Patience, Script, Side
from ...access import Access, Seen
from ...base import Dialect, Policy, Question, Terms
from ...conversation import converse, foreign_units
from ...probing import Attempt, Probing
from . import words
from .exchange import INSIDE, LOGIN, XMPP, Federation
from .words import Kind
from .xml import Element, Malformed, Stanza, Stream

FOREIGN: Final = foreign_units(tls=rb"\x16", proxy=rb"\r\n\r\n\0")
"""No stream begins so."""
_BEGIN = re.compile(rb"(?:<\?xml[^<>]*>\s*)?<(?:[^<>:\s/?]+:)?stream\s")


# --- looking at a server -----------------------------------------------------------------------------


def first_unit(answer: bytes) -> Stanza | None:
    """What follows the header, inside TLS if there was one; None where nothing does."""
    begins = [match.start() for match in _BEGIN.finditer(answer)]
    if not begins:
        return None
    inbox, stream = Inbox(Side.BACKEND), Stream(INSIDE)
    inbox.feed(answer[begins[-1] :])
    try:
        return stream.unit(inbox) and stream.unit(inbox)
    except Malformed:
        return None


def _features(answer: bytes) -> Element | None:
    unit = first_unit(answer)
    return unit.element if unit is not None and unit.name == words.FEATURES else None


def listed(answer: bytes) -> list[bytes] | None:
    """Each feature by its name, and each way to log in; None where the server lists none."""
    features = _features(answer)
    if features is None:
        return None
    own = [_feature(each) for each in features.children if each.name not in words.LISTS]
    return own + [b"mechanism " + name for name in words.names(features)]


def _feature(element: Element) -> bytes:
    """Its name; `starttls required` where the server insists on it."""
    required = element.name == words.STARTTLS and any(each.name == words.REQUIRED for each in element.children)
    return (element.name.split(" ")[-1] + " required" * required).encode("utf-8")


def readable(octets: bytes) -> bytes:
    """The server's answer to a header, in words."""
    unit = first_unit(octets)
    if unit is None or unit.element is None:
        return octets
    if unit.name == words.ERROR:
        return b"stream error " + words.told(unit.element)
    return b"Features: " + b", ".join(listed(octets) or [b"none"])


def access(kind: Kind, seen: Seen) -> Access:
    """Whether clients could log in, or servers prove who they are."""
    if seen.shown is None or seen.offered is None:
        return Access()
    names = [name.removeprefix(b"mechanism ") for name in seen.shown if name.startswith(b"mechanism ")]
    other, login = (b"dialback", b"DIALBACK") if kind is words.SERVERS else (b"auth", b"IQ-AUTH")
    names += [login] * (other in seen.shown)
    logins = tuple(name.decode("ascii", "replace") for name in names)
    return Access(
        logins, b"" if logins else words.NO_LOGIN, any(name.split()[0] == b"starttls" for name in seen.offered)
    )


def is_complete(command: bytes, heard: bytes) -> bool:
    """Whether the answer is there: to a header, its features or an error; to all else, one unit."""
    return bool(command) or first_unit(heard) is not None


def agrees(reply: bytes) -> bool:
    """Whether it has features, or is the go-ahead for TLS."""
    return _PROCEED.match(reply) is not None or _features(reply) is not None


_PROCEED = re.compile(rb"\s*<(?:[^<>:\s/]+:)?proceed[\s/>]")
_TAKEN = re.compile(rb"\s*<(?:[^<>:\s/]+:)?(?:challenge|success)[\s/>]")
_IN_SASL: Final = f" xmlns='{words.SASL}'".encode()
_PLAIN: Final = Attempt(
    b"<auth%s mechanism='PLAIN'/>" % _IN_SASL,
    lambda reply: _TAKEN.match(reply) is not None,
    b"<abort%s/>" % _IN_SASL,
    b"SASL PLAIN",
)


def _dialect(conversation: type[XMPP]) -> Dialect:
    kind = conversation.kind

    def script(terms: Terms) -> Script:
        return converse(conversation(terms))

    return Dialect(
        name=kind.name,
        script=script,
        unavailable=conversation.unavailable,
        busy=conversation.busy,
        patience={
            Patience.COMMAND: 30.0,
            LOGIN: 180.0,
            Patience.REPLY: 60.0 if kind is words.CLIENTS else 180.0,  # a key is verified by a third server
            Patience.DATA: 60.0,
            Patience.SPLICE: 86400.0,  # RFC 6120 has no limit; clients say nothing for hours
        },
        policies={},
        offers=frozenset({Policy.REQUIRED}),
        foreign=FOREIGN,
        identities=frozenset({"proxy-v1", "proxy-v2"}),
        question=Question(
            ask=lambda hostname: words.header(kind, to=hostname),
            leave=b"</stream:stream>",
            listed=listed,
            access=partial(access, kind),
            readable=readable,
        ),
        alpn=(b"xmpp-client" if kind is words.CLIENTS else b"xmpp-server",),
        first=Side.CLIENT,
        probing=Probing(
            port=5222 if kind is words.CLIENTS else 5269,
            implicit=frozenset({5223} if kind is words.CLIENTS else {5270}),
            starttls=words.ASKING,
            injected=b"",
            complete=is_complete,
            agrees=agrees,
            attempts=(_PLAIN,) if kind is words.CLIENTS else (),
            reissues=True,
            framing=lambda command: Stream(INSIDE),
            opens=True,
            addressed=True,
        ),
    )


DIALECT: Final = _dialect(XMPP)
SERVERS: Final = _dialect(Federation)
