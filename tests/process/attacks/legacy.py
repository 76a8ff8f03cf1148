"""Backends that trust everybody, and what they took for commands and messages.

A `strict` one reads its protocol as the RFC has it, but that SMTP's takes LF alone for the end of a command.  A
`lenient` one takes LF and CR for line ends, every combination of them around a dot for the end of a message, and does
not know literals that do not wait: what follows is commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tests.process.recording import Connection, Script
from tests.pure.smtp_talk import REPLY
from tests.pure.test_filters import BACKENDS
from tests.pure.test_smtp_properties import Legacy

WRONG = b"AGEAd3Jvbmc="
"""What a backend of SMTP refuses."""
TASTES = ("strict", "lenient")
EVERYTHING = (
    b"IMAP4rev1 STARTTLS SASL-IR LITERAL+ ID IDLE ENABLE COMPRESS=DEFLATE UNAUTHENTICATE AUTH=PLAIN AUTH=LOGIN"
    b" AUTH=EXTERNAL AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-1-PLUS"
)


class Hearing(Protocol):
    """A backend's mind."""

    commands: list[bytes]

    def hear(self, octets: bytes) -> bytes:
        """What it answers."""


@dataclass
class SMTP(Legacy):
    """Greets and goes like the other two."""

    esmtp: bool = True

    @classmethod
    def of(cls, taste: str) -> SMTP:
        return cls(end=BACKENDS["strict" if taste == "strict" else "any"], splits_at_cr=taste == "lenient")

    def _command(self, line: bytes) -> bytes:
        """An initial response is all that it wants; a wrong one is wrong."""
        words = line.split()
        if len(words) == 3 and words[0].upper() == b"AUTH":
            self.commands.append(line)
            return b"535 wrong\r\n" if words[2] == WRONG else b"235 in\r\n"
        return super()._command(line)


@dataclass
class Lines:
    """What IMAP and POP3 have in common here."""

    lenient: bool
    commands: list[bytes] = field(default_factory=list)
    unread: bytes = b""

    def hear(self, octets: bytes) -> bytes:
        self.unread += octets
        replies = b""
        while (reply := self.step()) is not None:
            replies += reply
        return replies

    def line(self) -> bytes | None:
        found = re.search(rb"\r\n|\r|\n" if self.lenient else rb"\r\n", self.unread)
        if found is None:
            return None
        line, self.unread = self.unread[: found.start()], self.unread[found.end() :]
        return line

    def step(self) -> bytes | None:
        raise NotImplementedError


@dataclass
class IMAP(Lines):
    """`_begun` is a command whose literal is awaited."""

    _begun: bytes = b""
    _literal: int = 0
    _response: bytes = b""

    def step(self) -> bytes | None:
        if self._literal:
            if len(self.unread) < self._literal:
                return None
            self._begun += self.unread[: self._literal]
            self.unread = self.unread[self._literal :]
            self._literal = 0
        line = self.line()
        if line is None:
            return None
        if self._response:
            tag, self._response = self._response, b""
            return tag + (b" BAD cancelled\r\n" if line == b"*" else b" OK in\r\n")
        literal = re.search(rb"\{(\d+)(\+?)\}\Z", line)
        if literal and not (self.lenient and literal[2]):
            self._begun += line
            self._literal = int(literal[1])
            return b"" if literal[2] else b"+ go\r\n"
        command, self._begun = self._begun + line, b""
        self.commands.append(command)
        tag, _, rest = command.partition(b" ")
        verb = rest.split(b" ")[0].upper()
        match verb:
            case b"CAPABILITY":
                return b"* CAPABILITY %s\r\n%s OK done\r\n" % (EVERYTHING, tag)
            case b"LOGOUT":
                return b"* BYE bye\r\n%s OK bye\r\n" % tag
            case b"LOGIN" if rest.endswith(b" wrong"):
                return b"%s NO wrong\r\n" % tag
            case b"AUTHENTICATE" if len(rest.split()) == 2:
                self._response = tag
                return b"+ \r\n"
            case b"IDLE":
                self._response = tag
                return b"+ idling\r\n"
            case b"LOGIN" | b"AUTHENTICATE" | b"NOOP" | b"ID" | b"SELECT" | b"ENABLE" | b"COMPRESS" | b"APPEND":
                return b"%s OK done\r\n" % tag
        return b"%s BAD what\r\n" % tag


@dataclass
class POP3(Lines):
    """Knows what tests say."""

    _response: bool = False

    def step(self) -> bytes | None:
        line = self.line()
        if line is None:
            return None
        if self._response:
            self._response = False
            return b"-ERR cancelled\r\n" if line == b"*" else b"+OK in\r\n"
        self.commands.append(line)
        verb, _, rest = line.partition(b" ")
        match verb.upper():
            case b"CAPA":
                return b"+OK\r\nTOP\r\nUSER\r\nSTLS\r\nXCLIENT\r\nSASL PLAIN EXTERNAL SCRAM-SHA-1-PLUS\r\n.\r\n"
            case b"AUTH" if not rest:
                return b"+OK\r\nPLAIN\r\nEXTERNAL\r\n.\r\n"
            case b"AUTH" if len(rest.split()) == 1:
                self._response = True
                return b"+ \r\n"
            case b"PASS" if rest == b"wrong":
                return b"-ERR wrong\r\n"
            case b"RETR":
                return b"+OK\r\nSubject: x\r\n\r\n+OK\r\nSTLS\r\n..\r\n.\r\n"
            case b"USER" | b"PASS" | b"AUTH" | b"APOP" | b"NOOP" | b"DELE" | b"STAT" | b"QUIT":
                return b"+OK %s\r\n" % verb.upper()
        return b"-ERR what\r\n"


MINDS: Mapping[str, Callable[[str], Hearing]] = {
    "smtp": SMTP.of,
    "imap": lambda taste: IMAP(taste == "lenient"),
    "pop3": lambda taste: POP3(taste == "lenient"),
}
GREETINGS: Mapping[str, bytes] = {
    "smtp": b"220 legacy.example.test ESMTP\r\n",
    "imap": b"* OK [CAPABILITY %s] legacy ready\r\n" % EVERYTHING,
    "pop3": b"+OK [XCLIENT] legacy ready <1896.697170952@legacy.example.test>\r\n",
}
EHLO_REPLY = REPLY
BYES = (b"221 bye\r\n", b"OK bye\r\n", b"+OK QUIT\r\n")


@dataclass
class Visit:
    """One connection of the gateway to a backend."""

    connection: Connection
    mind: Hearing

    @property
    def heard(self) -> bytes:
        return self.connection.heard

    @property
    def commands(self) -> list[bytes]:
        return self.mind.commands

    @property
    def messages(self) -> list[bytes]:
        assert isinstance(self.mind, SMTP)
        return self.mind.messages

    def ended(self) -> str:
        return self.connection.wait_until_ended()


def playing(protocol: str, taste: str, visits: list[Visit]) -> Script:
    """Notes each visit; ends it as the protocol has it."""

    def script(connection: Connection) -> None:
        visit = Visit(connection, MINDS[protocol](taste))
        visits.append(visit)
        connection.say(GREETINGS[protocol])
        while octets := connection.receive():
            reply = visit.mind.hear(octets)
            if reply:
                connection.say(reply)
            if reply.endswith(BYES):
                return

    return script
