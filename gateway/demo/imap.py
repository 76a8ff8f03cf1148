"""The legacy IMAP server: twisted.mail's server with LOGIN and folders in memory, without TLS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from email.parser import BytesHeaderParser
from email.utils import parsedate
from io import BytesIO
from operator import eq, ge, lt
from typing import IO, Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import connectionDone
from twisted.mail import imap4
from twisted.python.failure import Failure
from zope.interface import implementer

from .mailbox import Folder, Message

FLAGS = ["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"]
# BODYSTRUCTURE shows each message as one text part.
STRUCTURE = {"content-type": "text/plain; charset=us-ascii", "content-transfer-encoding": "7bit"}


@implementer(imap4.IMessage, imap4.IMessageFile)
class Letter:
    """A message for twisted.mail."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self.octets = message.octets

    def open(self) -> BytesIO:
        return BytesIO(self.octets)

    def head(self) -> bytes:
        """With the empty line at its end."""
        return b"".join(self.octets.partition(b"\r\n\r\n")[:2])

    def body(self) -> bytes:
        return self.octets.partition(b"\r\n\r\n")[2]

    def fields(self, negate: bool, names: Iterable[bytes]) -> bytes:
        """BODY[HEADER.FIELDS (...)]: the original lines."""
        wanted = {name.lower() for name in names}
        lines = re.findall(rb"[^\r\n]+\r\n(?:[ \t][^\r\n]*\r\n)*", self.head())
        return b"".join(one for one in lines if (one.partition(b":")[0].lower() in wanted) != negate) + b"\r\n"

    def getHeaders(self, negate: bool, *names: str) -> dict[str, str]:
        """For ENVELOPE, BODYSTRUCTURE and SEARCH.  twisted.mail needs one of each, unfolded, in ASCII."""
        found: dict[str, str] = {}
        for name, value in BytesHeaderParser().parsebytes(self.head()).items():
            if (name.lower() in names) != negate:
                unfolded = re.sub(r"\r?\n", "", str(value))
                found.setdefault(name.lower(), unfolded.encode("ascii", "replace").decode())
        return found | {name: STRUCTURE[name] for name in names if name in STRUCTURE}

    def getBodyFile(self) -> BytesIO:
        return BytesIO(self.body())

    def getSize(self) -> int:
        return len(self.octets)

    def isMultipart(self) -> bool:
        return False

    def getSubPart(self, part: int) -> Letter:
        raise IndexError(part)

    def getUID(self) -> int:
        return self._message.uid

    def getFlags(self) -> list[str]:
        return sorted(self._message.flags)

    def getInternalDate(self) -> str:
        return self._message.arrived


@implementer(imap4.IMailbox)
class View:
    """A folder in one session.  Messages that others expunge stay until the next SELECT (RFC 2180 4.1)."""

    def __init__(self, folder: Folder, writable: bool = True) -> None:
        self.folder = folder
        self._messages = list(folder.messages)
        self._writable = writable
        self._listener: Any = None

    def _chosen(self, numbers: imap4.MessageSet, uid: bool) -> Iterator[tuple[int, Message]]:
        numbers.last = self._messages[-1].uid if uid and self._messages else len(self._messages)
        for number, message in enumerate(self._messages, 1):
            if (message.uid if uid else number) in numbers:
                yield number, message

    def _arrived(self, message: Message) -> None:
        self._messages.append(message)
        self._listener.newMessages(len(self._messages), None)

    def addListener(self, listener: Any) -> None:
        self._listener = listener
        self.folder.watchers.append(self._arrived)

    def removeListener(self, listener: Any) -> None:
        self.folder.watchers.remove(self._arrived)

    def getFlags(self) -> list[str]:
        return FLAGS

    def getHierarchicalDelimiter(self) -> str:
        return "/"

    def getUIDValidity(self) -> int:
        return self.folder.validity

    def getUIDNext(self) -> int:
        return self.folder.next_uid

    def getUID(self, message: int) -> int:
        return self._messages[message - 1].uid

    def getMessageCount(self) -> int:
        return len(self._messages)

    def getRecentCount(self) -> int:
        return 0

    def getUnseenCount(self) -> int:
        return sum("\\Seen" not in message.flags for message in self._messages)

    def isWriteable(self) -> bool:
        return self._writable

    def destroy(self) -> None:
        """Nothing to do: everything is in memory."""

    def requestStatus(self, names: Iterable[str]) -> Any:
        return imap4.statusRequestHelper(self, names)

    def addMessage(
        self, message: IO[bytes], flags: Iterable[str] = (), date: bytes | str | None = None
    ) -> Deferred[int]:
        arrived = date.decode("ascii", "replace") if isinstance(date, bytes) else date
        with message:
            return succeed(self.folder.deliver(message.read(), flags, arrived).uid)

    def expunge(self) -> list[int]:
        gone = {number: one for number, one in enumerate(self._messages, 1) if "\\Deleted" in one.flags}
        self._messages = [message for message in self._messages if message not in gone.values()]
        self.folder.discard(gone.values())
        return sorted(gone, reverse=True)  # from the end, so that earlier numbers stay the same

    def fetch(self, messages: imap4.MessageSet, uid: bool) -> list[tuple[int, Letter]]:
        return [(number, Letter(message)) for number, message in self._chosen(messages, uid)]

    def store(self, messages: imap4.MessageSet, flags: Iterable[str], mode: int, uid: bool) -> dict[int, list[str]]:
        changed = {}
        for number, message in self._chosen(messages, uid):
            kept = message.flags if mode else set()
            message.flags = kept | set(flags) if mode >= 0 else kept - set(flags)
            changed[number] = sorted(message.flags)
        return changed


class Account(imap4.MemoryAccount):
    """INBOX and the folders that clients create."""

    def __init__(self, inbox: Folder) -> None:
        super().__init__("demo")
        self.addMailbox("INBOX", View(inbox))
        self.subscribe("INBOX")

    def _emptyMailbox(self, name: str, id: int) -> View:
        return View(Folder())

    def select(self, name: str, readwrite: bool = True) -> View | None:
        known = super().select(name, readwrite)
        return View(known.folder, bool(readwrite)) if known is not None else None


def _in_header(name: bytes) -> Callable[..., bool]:
    def search(self: IMAPServer, query: list[Any], number: int, message: Letter) -> bool:
        return self.search_HEADER([name, query.pop(0)], number, message)

    return search


def _on(fits: Callable[[Any, Any], bool], sent: bool = False) -> Callable[..., bool]:
    def search(self: IMAPServer, query: list[Any], number: int, message: Letter) -> bool:
        wanted = imap4.parseTime(query.pop(0).decode("ascii", "replace"))
        told = parsedate(message.getHeaders(False, "date").get("date") if sent else message.getInternalDate())
        return told is not None and fits(told[:3], wanted[:3])

    return search


class IMAPServer(imap4.IMAP4Server):
    IDENT = b"legacy.demo IMAP4rev1, plaintext only"

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self.mbox is not None:  # twisted.mail does not remove the listener
            self.mbox.removeListener(self)

    def spew_body(self, part: Any, id: int, msg: Letter, _w: Any = None, _f: Any = None) -> Any:
        """As in twisted.mail, but with the original octets, the empty line after headers, and partial fetches."""
        if part.header:
            octets = msg.fields(part.header.negate, part.header.fields) if part.header.fields else msg.head()
        elif part.text or part.part:
            octets = msg.body()
        elif part.empty:
            octets = msg.octets
        else:
            return super().spew_body(part, id, msg, _w, _f)
        label, _, _ = part.getBytes().partition(b"<")
        if part.partialBegin is not None:
            label += b"<%d>" % part.partialBegin
            octets = octets[part.partialBegin : part.partialBegin + part.partialLength]
        _w(label + b" ")
        _f()
        return imap4.FileProducer(BytesIO(octets)).beginProducing(self.transport)

    def spew_rfc822header(self, id: int, msg: Letter, _w: Any = None, _f: Any = None) -> None:
        _w(b"RFC822.HEADER {%d}\r\n%b" % (len(msg.head()), msg.head()))

    # twisted.mail mixes bytes and str in all of these, and raises.

    def search_HEADER(self, query: list[Any], number: int, message: Letter) -> bool:
        name, wanted = query.pop(0).decode("ascii", "replace").lower(), query.pop(0).lower()
        found = message.getHeaders(False, name)
        return name in found and wanted in found[name].lower().encode()

    search_BCC, search_CC, search_FROM = _in_header(b"bcc"), _in_header(b"cc"), _in_header(b"from")
    search_SUBJECT, search_TO = _in_header(b"subject"), _in_header(b"to")
    search_BEFORE, search_ON, search_SINCE = _on(lt), _on(eq), _on(ge)
    search_SENTBEFORE, search_SENTON, search_SENTSINCE = _on(lt, sent=True), _on(eq, sent=True), _on(ge, sent=True)
