"""One direction of an XML stream (RFC 6120 4): its octets -> header, first-level elements, end tag.

Here the ends of tags are found; expat reads the tags.  What XMPP does not allow (RFC 6120 11.1) is refused before expat
sees it: DTDs, entities, comments, processing instructions.  Each element knows where it begins and ends in the octets,
so that a part can be left out and all others stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import field
from typing import Final
from xml.parsers import expat

from ....protocol.inbox import Inbox
from ....protocol.vocabulary import Side, Unit, Violation, value
from ....records import dataclass

DEPTH: Final = 32
"""Levels of elements, the stream's own included."""
ELEMENTS: Final = 1000
"""Elements in one unit."""
NAMESPACE: Final = 256
"""Characters in the name of a namespace.  Each element and attribute of it has them in its own name, too."""
EXPANDED: Final = 1024 * 1024
"""Octets that the names in one tag may have together, if each is as long as the whole tag."""
STRANGER: Final = 4
"""Octets by which a client is known that speaks another protocol (`Dialect.foreign`)."""

BLANKS: Final = b" \t\r\n"
"""White space (RFC 6120 11.7)."""
_BLANKS = re.compile(rb"[ \t\r\n]*")
_DELIMITER = re.compile(rb"[<>\"']")
_REFERENCE = re.compile(rb"&(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});)")
_ENTITY = re.compile(rb"&[^&;<>\s]{1,64};")
_DECLARATION: Final = b"<?xml"
_CDATA: Final = b"<![CDATA["

RESTRICTED: Final = b"restricted-xml"
NOT_WELL_FORMED: Final = b"not-well-formed"
BAD_FORMAT: Final = b"bad-format"
POLICY: Final = b"policy-violation"
ENCODING: Final = b"unsupported-encoding"
"""Conditions of stream errors (RFC 6120 4.9.3)."""


class Malformed(Violation):
    """What a side sends cannot be part of a stream."""

    def __init__(self, side: Side, condition: bytes, said: bytes) -> None:
        detail = f"{condition.decode()}: {said[:80]!r}" if said else condition.decode()
        super().__init__(side, f"{side.value}-protocol-error", detail)
        self.condition = condition
        """Of the stream error."""


class _Fault(Exception):
    """The same, where the side is not known."""

    def __init__(self, condition: bytes) -> None:
        super().__init__(condition)
        self.condition = condition


@dataclass(slots=True)
class Element:
    """A name is `NAMESPACE LOCAL`, or `LOCAL` without a namespace."""

    name: str
    attributes: dict[str, str]
    begin: int
    """Where it begins in the unit's octets."""
    end: int
    """Behind its last octet; for the stream's header, behind its tag."""
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def all(self) -> Iterator[Element]:
        """It, and all elements in it, in their order."""
        yield self
        for each in self.children:
            yield from each.all()


@value
class Stanza(Unit):
    """A unit of a stream.  Blanks before it belong to it."""

    element: Element | None
    """The header, or a first-level element; None for the stream's end tag."""

    @property
    def name(self) -> str:
        """Of the element; empty for the end tag."""
        return "" if self.element is None else self.element.name


class _Reading:
    """What expat has told of the unit so far."""

    __slots__ = ("begin", "count", "end", "fault", "last", "namespace", "opened", "path", "whole")

    def __init__(self) -> None:
        self.namespace = ""
        self.path: list[Element] = []
        self.opened = False
        """The header has been handed out."""
        self.begin = self.end = 0
        """Of the tag that is being read."""
        self.fault = b""
        self.restart()

    def restart(self) -> None:
        self.whole = False
        self.last: Element | None = None
        self.count = 0

    def parser(self) -> expat.XMLParserType:
        """It refers to this object, and not the other way round: both go when their stream goes."""
        parser = expat.ParserCreate("UTF-8", " ")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._finish
        parser.CharacterDataHandler = self._text
        parser.XmlDeclHandler = self._declaration
        parser.StartNamespaceDeclHandler = self._namespace
        return parser

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        element = Element(name, attributes, self.begin, self.end)
        self.count += 1
        if self.count > ELEMENTS or len(self.path) == DEPTH:
            self.fault = POLICY
        if len(self.path) > 1:
            self.path[-1].children.append(element)
        elif not self.path:
            self.whole = True
            self.last = element
        self.path.append(element)

    def _finish(self, name: str) -> None:
        element = self.path.pop()
        element.end = self.end
        if len(self.path) < 2:
            self.whole = True
            self.last = element if self.path else None
        if not self.path and not self.opened:
            self.fault = BAD_FORMAT  # a stream that ends with its header

    def _text(self, text: str) -> None:
        if len(self.path) > 1:
            self.path[-1].text += text

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if version != "1.0":
            self.fault = NOT_WELL_FORMED
        elif encoding is not None and encoding.upper() != "UTF-8":
            self.fault = ENCODING

    def _namespace(self, prefix: str | None, uri: str | None) -> None:
        if len(uri or "") > NAMESPACE:
            self.fault = POLICY
        if prefix is None and not self.path:
            self.namespace = uri or ""


class Stream:
    """A framing for one side.  Make a new one for each stream."""

    def __init__(self, limit: int, *, altogether: bool = False) -> None:
        """`limit`: octets of a unit; with `altogether`, of all units together."""
        self._limit = limit
        self._altogether = altogether
        self._reading = _Reading()
        self._parser = self._reading.parser()
        self._restart()

    @property
    def namespace(self) -> str:
        """The header's default namespace."""
        return self._reading.namespace

    def _restart(self) -> None:
        self._at = 0  # everything before it has been looked at
        self._fed = 0  # expat has read everything before it
        self._tag = -1  # where the tag begins that has no end yet
        self._closing = b""  # what ends it: a quote comes first, or it is a declaration or CDATA
        self._reading.restart()

    def unit(self, inbox: Inbox) -> Stanza | None:
        octets = inbox.octets
        bound = min(len(octets), self._limit)
        try:
            while end := self._behind_tag(octets, bound):
                self._read(bytes(octets[self._fed : end]), end)
                if self._reading.whole:
                    return self._taken(inbox, end)
        except _Fault as fault:
            said = self._shown(inbox, max(self._fed, self._at - 40), self._at + 40)
            raise Malformed(inbox.side, fault.condition, said) from None
        if len(octets) > self._limit:
            raise Malformed(inbox.side, POLICY, self._shown(inbox, 0, 80))
        return None

    def _shown(self, inbox: Inbox, begin: int, end: int) -> bytes:
        """For the log.  Behind its header a client may say a password, with a bare `&` in it perhaps."""
        secret = inbox.side is Side.CLIENT and self._reading.opened
        return b"" if secret else bytes(inbox.octets[begin:end])

    def _taken(self, inbox: Inbox, end: int) -> Stanza:
        element = self._reading.last
        self._reading.opened = True
        octets = inbox.take(end)
        assert octets is not None
        if self._altogether:
            self._limit -= end
        self._restart()
        return Stanza(inbox.side, octets, element)

    # --- where tags end ----------------------------------------------------------------------

    def _behind_tag(self, octets: bytearray, bound: int) -> int | None:
        """The index behind the next tag, declaration or CDATA section; None where it has not come."""
        if self._tag < 0 and not self._found_tag(octets, bound):
            return None
        if self._closing not in (b"", b'"', b"'"):
            return self._found_closing(octets, bound)
        while True:
            if self._closing:
                at = octets.find(self._closing, self._at, bound)
            else:
                match = _DELIMITER.search(octets, self._at, bound)
                at = -1 if match is None else match.start()
            if at < 0:
                self._at = bound
                return None
            self._at = at + 1
            delimiter = b"" if self._closing else bytes(octets[at : at + 1])
            if delimiter == b">":
                return at + 1
            if delimiter == b"<":
                raise _Fault(NOT_WELL_FORMED)
            self._closing = delimiter

    def _found_tag(self, octets: bytearray, bound: int) -> bool:
        """Pass over the text before the next tag, and see what kind of tag it is."""
        if len(self._reading.path) > 1:
            at = octets.find(b"<", self._at, bound)
            at = bound if at < 0 else at
        else:
            blanks = _BLANKS.match(octets, self._at, bound)
            assert blanks is not None
            at = blanks.end()
            if at < bound and octets[at : at + 1] != b"<":
                if at == 0 and bound < STRANGER:
                    return False
                raise _Fault(BAD_FORMAT if self._reading.path else NOT_WELL_FORMED)
        self._at = at
        begin = bytes(octets[at : min(bound, at + len(_CDATA))])
        if begin[:2] == b"<!":
            return self._opened(at, begin, _CDATA, b"]]>", allowed=len(self._reading.path) > 1)
        if begin[:2] == b"<?":
            blank = begin[5:6] if begin[5:6] in (b"\t", b"\r", b"\n") else b" "
            known = _DECLARATION + blank
            return self._opened(at, begin[:6], known, b"?>", allowed=at == 0 and not self._reading.path)
        if len(begin) < 2:
            return False
        self._tag, self._at, self._closing = at, at + 1, b""
        return True

    def _opened(self, at: int, begin: bytes, known: bytes, closing: bytes, *, allowed: bool) -> bool:
        """Whether this has begun: a declaration or CDATA, which `closing` ends.  Anything else is refused."""
        if not allowed or not known.startswith(begin[: len(known)]):
            raise _Fault(RESTRICTED)
        if len(begin) < len(known):
            return False
        self._tag, self._at, self._closing = at, at + len(known), closing
        return True

    def _found_closing(self, octets: bytearray, bound: int) -> int | None:
        at = octets.find(self._closing, self._at, bound)
        if at < 0:
            self._at = max(self._at, bound - len(self._closing) + 1)
            return None
        self._at = at + len(self._closing)
        return self._at

    # --- what they say -----------------------------------------------------------------------

    def _read(self, octets: bytes, end: int) -> None:
        """Text, and the tag behind it."""
        text = octets[: self._tag - self._fed] if self._closing == b"]]>" else octets
        if found := _REFERENCE.search(text):
            raise _Fault(RESTRICTED if _ENTITY.match(text, found.start()) else NOT_WELL_FORMED)
        if (end - self._tag) * octets.count(b"=", self._tag - self._fed) > EXPANDED and self._closing != b"]]>":
            raise _Fault(POLICY)
        self._reading.begin, self._reading.end = self._tag, end
        try:
            self._parser.Parse(octets, False)
        except expat.ExpatError:
            raise _Fault(NOT_WELL_FORMED) from None
        if self._reading.fault:
            raise _Fault(self._reading.fault)
        self._fed = self._at = end
        self._tag, self._closing = -1, b""


@dataclass(frozen=True, slots=True)
class Both:
    """The framing of a wait for both sides."""

    client: Stream
    backend: Stream

    def unit(self, inbox: Inbox) -> Stanza | None:
        return (self.client if inbox.side is Side.CLIENT else self.backend).unit(inbox)
