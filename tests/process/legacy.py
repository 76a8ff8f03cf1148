"""Old servers that trust everybody, one model of each: what it took for commands and messages, and what it answers.

Tests say by verb what is answered otherwise (`answers`); a script in place of octets takes the connection over.

An attack meets each in two tastes.  A `strict` one reads its protocol as the RFC has it, but that SMTP's takes LF alone
for the end of a command.  A `lenient` one takes LF and CR for line ends, every combination of them around a dot for the
end of a message, and does not know literals that do not wait: what follows is commands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from tests.process.recording import Connection, Script
from tests.pure.smtp_talk import REPLY
from tests.pure.test_filters import BACKENDS
from tests.pure.test_smtp_properties import Legacy

Answers = Mapping[bytes, bytes | Script]

EHLO = (
    b"250-legacy.example.test\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN EXTERNAL\r\n"
    b"250-XCLIENT NAME ADDR\r\n250-8BITMIME\r\n250 CHUNKING\r\n"
)
CAPABILITY = b"IMAP4rev1 SASL-IR LITERAL+ ID IDLE STARTTLS AUTH=PLAIN AUTH=EXTERNAL"
CAPA = b"+OK\r\nTOP\r\nUIDL\r\nSTLS\r\nUSER\r\nSASL PLAIN EXTERNAL\r\n.\r\n"

WRONG = b"AGEAd3Jvbmc="
"""What a backend of SMTP refuses."""
TASTES = ("strict", "lenient")
EVERYTHING = (
    b"IMAP4rev1 STARTTLS SASL-IR LITERAL+ ID IDLE ENABLE COMPRESS=DEFLATE UNAUTHENTICATE AUTH=PLAIN AUTH=LOGIN"
    b" AUTH=EXTERNAL AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-1-PLUS"
)


@dataclass
class SMTP(Legacy):
    """Without `answers` it says 250 to everything that it does not know."""

    greeting: bytes = b"220 legacy.example.test ESMTP\r\n"
    answers: Answers = field(default_factory=dict)
    taken: Script | None = None
    gone: bool = False

    @classmethod
    def of(cls, taste: str) -> SMTP:
        return cls(end=BACKENDS["strict" if taste == "strict" else "any"], splits_at_cr=taste == "lenient")

    def _step(self) -> bytes | None:
        return super()._step() if self.taken is None else None

    def _command(self, line: bytes) -> bytes:
        words = line.split() or [b""]
        verb = words[0].upper()
        match self.answers.get(verb):
            case bytes(octets):
                self.commands.append(line)
                return octets
            case None if self.answers and verb not in (b"DATA", b"QUIT"):
                return b"502 5.5.2 Command not recognized\r\n"
            case None:
                pass
            case script:
                self.taken = script
                return b""
        self.gone = verb == b"QUIT"
        # An initial response is all that it wants; a wrong one is wrong.
        if len(words) == 3 and verb == b"AUTH":
            self.commands.append(line)
            return b"535 wrong\r\n" if words[2] == WRONG else b"235 2.7.0 Ok\r\n"
        return super()._command(line)


@dataclass
class Lines:
    """What IMAP and POP3 have in common here."""

    greeting: bytes
    answers: Answers = field(default_factory=dict)
    lenient: bool = False
    commands: list[bytes] = field(default_factory=list)
    unread: bytes = b""
    taken: Script | None = None
    """The script that has taken over."""
    gone: bool = False
    """It has said goodbye."""
    dialogues: bool = False
    """It asks for what a login or IDLE needs."""

    def hear(self, octets: bytes) -> bytes:
        self.unread += octets
        replies = b""
        while self.taken is None and (reply := self.step()) is not None:
            replies += reply
        return replies

    def line(self) -> bytes | None:
        found = re.search(rb"\r\n|\r|\n" if self.lenient else rb"\r?\n", self.unread)
        if found is None:
            return None
        line, self.unread = self.unread[: found.start()], self.unread[found.end() :]
        return line

    def answer(self, verb: bytes, tag: bytes = b"") -> bytes | None:
        """The test's answer to this verb, if it has one."""
        match self.answers.get(verb):
            case bytes(octets):
                return octets.replace(b"TAG", tag)
            case None:
                return None
            case script:
                self.taken = script
                return b""

    def step(self) -> bytes | None:
        raise NotImplementedError


@dataclass
class IMAP(Lines):
    """`_begun` is a command whose literal is awaited."""

    listed: bytes = CAPABILITY
    knows: frozenset[bytes] = frozenset({b"LOGIN", b"NOOP", b"SELECT", b"STARTTLS", b"AUTHENTICATE"})
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
        command = self._begun + line
        tag, _, rest = command.partition(b" ")
        verb = rest.split(b" ")[0].upper()
        answer = self.answer(verb, tag)
        literal = re.search(rb"\{(\d+)(\+?)\}\Z", line)
        if answer is None and literal and not (self.lenient and literal[2]):
            self._begun = command
            self._literal = int(literal[1])
            return b"" if literal[2] else b"+ go\r\n"
        self._begun = b""
        self.commands.append(command)
        if answer is not None:
            return answer
        match verb:
            case b"CAPABILITY":
                return b"* CAPABILITY %s\r\n%s OK done\r\n" % (self.listed, tag)
            case b"LOGOUT":
                self.gone = True
                return b"* BYE legacy\r\n%s OK bye\r\n" % tag
            case b"LOGIN" if rest.endswith(b" wrong"):
                return b"%s NO wrong\r\n" % tag
            case b"AUTHENTICATE" | b"IDLE" if len(rest.split()) == 1 + (verb == b"AUTHENTICATE") and self.dialogues:
                self._response = tag
                return b"+ \r\n"
        if verb in self.knows:
            return b"%s OK %s by the backend\r\n" % (tag, verb)
        return b"%s BAD unknown\r\n" % tag


@dataclass
class POP3(Lines):
    """Knows what tests say."""

    knows: frozenset[bytes] = frozenset({b"USER", b"PASS", b"NOOP", b"DELE", b"STAT", b"STLS", b"AUTH"})
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
        verb = verb.upper()
        answer = self.answer(verb)
        if answer is not None:
            return answer
        match verb:
            case b"AUTH" if not rest and self.dialogues:
                return b"+OK\r\nPLAIN\r\nEXTERNAL\r\n.\r\n"
            case b"AUTH" if len(rest.split()) == 1 and self.dialogues:
                self._response = True
                return b"+ \r\n"
            case b"PASS" if rest == b"wrong":
                return b"-ERR wrong\r\n"
            case b"QUIT":
                self.gone = True
                return b"+OK bye\r\n"
        return b"+OK %s by the backend\r\n" % verb if verb in self.knows else b"-ERR unknown\r\n"


@dataclass
class Table(Lines):
    """Of a protocol in which a verb is all that an answer depends on."""

    unknown: bytes = b""
    leaves: bytes = b"QUIT"
    tagged: bool = False

    def step(self) -> bytes | None:
        line = self.line()
        if line is None:
            return None
        self.commands.append(line)
        tag, _, command = line.partition(b" ") if self.tagged else (b"", b"", line)
        verb = command.split(b" ")[0].upper()
        self.gone = verb == self.leaves
        answer = self.answer(verb, tag)
        return self.unknown if answer is None else answer


Mind: TypeAlias = SMTP | IMAP | POP3 | Table


def playing(mind: Callable[[], Mind], visits: list[Visit] | None = None) -> Script:
    """Notes each visit; ends it as the protocol has it."""

    def script(connection: Connection) -> None:
        visit = Visit(connection, mind())
        if visits is not None:
            visits.append(visit)
        if visit.mind.greeting:
            connection.say(visit.mind.greeting)
        octets, connection.unread = connection.unread, b""
        while octets or (octets := connection.receive()):
            reply, octets = visit.mind.hear(octets), b""
            if reply:
                connection.say(reply)
            if visit.mind.taken:
                connection.unread = visit.mind.unread
                visit.mind.taken(connection)
                return
            if visit.mind.gone:
                return

    return script


# --- servers as most tests want them ----------------------------------------------------------


def smtp(answers: Answers | None = None) -> Script:
    known: dict[bytes, bytes | Script] = {
        b"EHLO": EHLO,
        b"HELO": b"250 legacy.example.test\r\n",
        b"MAIL": b"250 2.1.0 Ok\r\n",
        b"RCPT": b"250 2.1.5 Ok\r\n",
        b"RSET": b"250 2.0.0 Ok\r\n",
        b"NOOP": b"250 2.0.0 Ok, backend's\r\n",
        b"AUTH": b"235 2.7.0 Ok\r\n",
        **(answers or {}),
    }
    return playing(lambda: SMTP(answers=known))


def imap(answers: Answers | None = None) -> Script:
    greeting = b"* OK [CAPABILITY %s] legacy ready\r\n" % CAPABILITY
    return playing(lambda: IMAP(greeting, answers or {}))


def pop3(answers: Answers | None = None) -> Script:
    known: dict[bytes, bytes | Script] = {b"CAPA": CAPA, **(answers or {})}
    return playing(lambda: POP3(b"+OK legacy ready <1896.697170952@legacy.example.test>\r\n", known))


def lmtp(answers: Answers | None = None) -> Script:
    return smtp({b"LHLO": EHLO, b"EHLO": b"500 5.5.1 Unknown command\r\n", **(answers or {})})


SIEVE = (
    b'"IMPLEMENTATION" "legacy"\r\n"SASL" "PLAIN EXTERNAL"\r\n"SIEVE" "fileinto"\r\n"STARTTLS"\r\n"VERSION" "1.0"\r\n'
)


def managesieve(answers: Answers | None = None) -> Script:
    known: dict[bytes, bytes | Script] = {
        b"CAPABILITY": SIEVE + b'OK "listed"\r\n',
        b"NOOP": b'OK "NOOP by the backend"\r\n',
        b"AUTHENTICATE": b'OK "AUTHENTICATE by the backend"\r\n',
        b"LOGOUT": b'OK "bye"\r\n',
        **(answers or {}),
    }
    return playing(lambda: Table(SIEVE + b'OK "legacy ready"\r\n', known, unknown=b'NO "What?"\r\n', leaves=b"LOGOUT"))


def nntp(answers: Answers | None = None) -> Script:
    known: dict[bytes, bytes | Script] = {
        b"CAPABILITIES": b"101 list\r\nVERSION 2\r\nSTARTTLS\r\nAUTHINFO USER SASL\r\nSASL PLAIN EXTERNAL\r\n.\r\n",
        b"DATE": b"111 20261127120000\r\n",
        b"AUTHINFO": b"281 AUTHINFO by the backend\r\n",
        b"QUIT": b"205 bye\r\n",
        **(answers or {}),
    }
    return playing(lambda: Table(b"200 legacy ready\r\n", known, unknown=b"500 What?\r\n"))


def acap(answers: Answers | None = None) -> Script:
    known: dict[bytes, bytes | Script] = {
        b"NOOP": b'TAG OK "NOOP by the backend"\r\n',
        b"AUTHENTICATE": b'TAG OK "AUTHENTICATE by the backend"\r\n',
        b"LOGOUT": b'* BYE "bye"\r\nTAG OK "Done"\r\n',
        **(answers or {}),
    }
    greeting = b'* ACAP (IMPLEMENTATION "legacy") (SASL "PLAIN" "EXTERNAL") (STARTTLS)\r\n'
    return playing(lambda: Table(greeting, known, leaves=b"LOGOUT", tagged=True))


def irc(answers: Answers | None = None) -> Script:
    known: dict[bytes, bytes | Script] = {
        b"PING": b":legacy PONG legacy :gw.example.test\r\n",
        b"CAP": b":legacy CAP * LS :sasl tls\r\n",
        b"NICK": b"",
        b"USER": b":legacy 001 grete :Welcome\r\n",
        b"QUIT": b"ERROR :Closing link\r\n",
        **(answers or {}),
    }
    return playing(lambda: Table(b"", known))


SERVERS: Mapping[str, Callable[[Answers | None], Script]] = {
    "smtp": smtp, "imap": imap, "pop3": pop3, "lmtp": lmtp, "managesieve": managesieve, "nntp": nntp, "irc": irc,
    "acap": acap,
}  # fmt: skip


# --- ... and as attacks want them -------------------------------------------------------------

_EVERY_LIST = {
    b"CAPA": b"+OK\r\nTOP\r\nUSER\r\nSTLS\r\nXCLIENT\r\nSASL PLAIN EXTERNAL SCRAM-SHA-1-PLUS\r\n.\r\n",
    b"RETR": b"+OK\r\nSubject: x\r\n\r\n+OK\r\nSTLS\r\n..\r\n.\r\n",
}
MINDS: Mapping[str, Callable[[str], Mind]] = {
    "smtp": SMTP.of,
    "imap": lambda taste: IMAP(
        b"* OK [CAPABILITY %s] legacy ready\r\n" % EVERYTHING,
        lenient=taste == "lenient",
        dialogues=True,
        listed=EVERYTHING,
        knows=frozenset(b"LOGIN AUTHENTICATE NOOP ID SELECT ENABLE COMPRESS APPEND".split()),
    ),
    "pop3": lambda taste: POP3(
        b"+OK [XCLIENT] legacy ready <1896.697170952@legacy.example.test>\r\n",
        _EVERY_LIST,
        lenient=taste == "lenient",
        dialogues=True,
        knows=frozenset(b"USER PASS AUTH APOP NOOP DELE STAT".split()),
    ),
}
EHLO_REPLY = REPLY


@dataclass
class Visit:
    """One connection of the gateway to a backend."""

    connection: Connection
    mind: Mind

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
