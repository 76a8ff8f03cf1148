"""The legacy servers of ManageSieve, NNTP and IRC: small ones, without TLS."""

from __future__ import annotations

import re
import time
from base64 import b64decode
from binascii import Error
from collections.abc import Callable
from typing import Final

from twisted.protocols.basic import LineReceiver

PASSWORDS: Final = {b"demo": b"demo"}
HOST: Final = b"legacy.demo"


class Lines(LineReceiver):
    """Does what a method named after the verb says."""

    MAX_LENGTH = 65536
    delimiter = b"\r\n"
    noisy = False

    def say(self, *lines: bytes) -> None:
        for line in lines:
            self.sendLine(line)

    def leave(self, *words: bytes) -> None:
        self.say(*words)
        assert self.transport is not None
        self.transport.loseConnection()

    def find(self, verb: bytes) -> Callable[[bytes], None] | None:
        return getattr(self, "do_" + verb.decode("latin-1").upper(), None)


def plain(response: bytes) -> bool:
    """Whether this is a right answer to SASL PLAIN."""
    try:
        _, name, password = b64decode(response, validate=True).split(b"\0")
    except (Error, ValueError):
        return False
    return PASSWORDS.get(name) == password


# --- ManageSieve -----------------------------------------------------------------------------------


def arguments(text: bytes) -> list[bytes]:
    """Strings, quoted or as literals (RFC 5804 4).  Raises ValueError."""
    found = []
    while text:
        if quoted := re.match(rb'"((?:[^"\\]|\\.)*)" ?', text):
            found.append(re.sub(rb"\\(.)", rb"\1", quoted[1]))
            text = text[quoted.end() :]
        elif literal := re.match(rb"\{([0-9]+)\+?\}\r\n", text):
            end = literal.end() + int(literal[1])
            found.append(text[literal.end() : end])
            text = text[end:].removeprefix(b" ")
        else:
            raise ValueError(text)
    return found


class Scripts:
    """Of all users, who are one."""

    def __init__(self) -> None:
        self.texts = {b"welcome": b'require "fileinto";\r\n'}
        self.active = b""


class SieveServer(Lines):
    """RFC 5804, as far as a client needs it to bring its scripts."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._command = b""
        self._octets = 0  # of a literal that are still to come
        self._known = False

    def connectionMade(self) -> None:
        self.do_CAPABILITY(b"")

    def lineReceived(self, line: bytes) -> None:
        self._command += line
        if literal := re.search(rb"\{([0-9]{1,7})\+?\}\Z", line):
            self._command += b"\r\n"
            self._octets = int(literal[1])
            if self._octets:
                self.setRawMode()
            return
        command, self._command = self._command, b""
        verb, _, rest = command.partition(b" ")
        act = self.find(verb)
        if act is None or not (self._known or verb.upper() in (b"CAPABILITY", b"NOOP", b"AUTHENTICATE", b"LOGOUT")):
            self.say(b'NO "Unknown command"')
            return
        try:
            act(rest)
        except ValueError:
            self.say(b'NO "Invalid arguments"')

    def rawDataReceived(self, data: bytes) -> None:
        taken, rest = data[: self._octets], data[self._octets :]
        self._command += taken
        self._octets -= len(taken)
        if not self._octets:
            self.setLineMode(rest)

    def do_CAPABILITY(self, rest: bytes) -> None:
        self.say(b'"IMPLEMENTATION" "legacy.demo"', b'"SIEVE" "fileinto"', b'"SASL" "PLAIN"', b'"VERSION" "1.0"')
        self.say(b'OK "legacy.demo, plaintext only"')

    def do_NOOP(self, rest: bytes) -> None:
        self.say(b'OK "Done"')

    def do_LOGOUT(self, rest: bytes) -> None:
        self.leave(b'OK "Bye"')

    def do_AUTHENTICATE(self, rest: bytes) -> None:
        mechanism, response = arguments(rest)
        self._known = mechanism.upper() == b"PLAIN" and plain(response)
        self.say(b'OK "Logged in"' if self._known else b'NO "Wrong name or password"')

    def do_LISTSCRIPTS(self, rest: bytes) -> None:
        self.say(*(b'"%s"%s' % (name, b" ACTIVE" * (name == self._scripts.active)) for name in self._scripts.texts))
        self.say(b"OK")

    def do_PUTSCRIPT(self, rest: bytes) -> None:
        name, text = arguments(rest)
        self._scripts.texts[name] = text
        self.say(b"OK")

    def do_GETSCRIPT(self, rest: bytes) -> None:
        (name,) = arguments(rest)
        text = self._scripts.texts.get(name)
        self.say(*([b'NO (NONEXISTENT) "No such script"'] if text is None else [b"{%d}" % len(text), text, b"OK"]))

    def do_SETACTIVE(self, rest: bytes) -> None:
        (self._scripts.active,) = arguments(rest)
        self.say(b"OK")

    def do_DELETESCRIPT(self, rest: bytes) -> None:
        (name,) = arguments(rest)
        self._scripts.texts.pop(name, None)
        self.say(b"OK")


# --- NNTP ------------------------------------------------------------------------------------------

GROUP: Final = b"demo.gateway"


class NewsServer(Lines):
    """RFC 3977 with one group, in which everybody reads, and demo posts."""

    def __init__(self, articles: list[bytes]) -> None:
        self._articles = articles
        """Without their last line's end."""
        self._posted: list[bytes] | None = None
        self._name = b""
        self._known = False

    def connectionMade(self) -> None:
        self.say(b"200 %s, plaintext only" % HOST)

    def lineReceived(self, line: bytes) -> None:
        if self._posted is not None:
            self._take(line)
        elif line.strip():
            verb, _, rest = line.partition(b" ")
            (self.find(verb) or (lambda rest: self.say(b"500 What?")))(rest.strip())

    def _take(self, line: bytes) -> None:
        assert self._posted is not None
        if line != b".":
            self._posted.append(line)
            return
        self._articles.append(b"\r\n".join([b"Newsgroups: " + GROUP, *self._posted]))
        self._posted = None
        self.say(b"240 Thank you")

    def do_CAPABILITIES(self, rest: bytes) -> None:
        login = [] if self._known else [b"AUTHINFO USER"]
        self.say(b"101 Capability list:", b"VERSION 2", b"READER", b"POST", b"LIST ACTIVE", *login, b".")

    def do_MODE(self, rest: bytes) -> None:
        self.say(b"200 Posting allowed" if rest.upper() == b"READER" else b"501 Unknown mode")

    def do_DATE(self, rest: bytes) -> None:
        self.say(b"111 " + time.strftime("%Y%m%d%H%M%S", time.gmtime()).encode())

    def do_LIST(self, rest: bytes) -> None:
        self.say(b"215 Groups", b"%s %d 1 y" % (GROUP, len(self._articles)), b".")

    def do_GROUP(self, rest: bytes) -> None:
        number = len(self._articles)
        self.say(b"211 %d 1 %d %s" % (number, number, GROUP) if rest == GROUP else b"411 No such group")

    def do_ARTICLE(self, rest: bytes) -> None:
        number = int(rest) if re.fullmatch(rb"[0-9]{1,6}", rest) else 0
        if not 0 < number <= len(self._articles):
            self.say(b"423 No such article")
            return
        self.say(b"220 %d <%d@%s>" % (number, number, HOST), self._articles[number - 1], b".")

    def do_AUTHINFO(self, rest: bytes) -> None:
        kind, _, word = rest.partition(b" ")
        if kind.upper() == b"USER":
            self._name = word
            self.say(b"381 Password?")
        else:
            self._known = PASSWORDS.get(self._name) == word
            self.say(b"281 Welcome" if self._known else b"481 Wrong name or password")

    def do_POST(self, rest: bytes) -> None:
        if self._known:
            self._posted = []
        self.say(b"340 Go ahead" if self._known else b"480 Log in first")

    def do_QUIT(self, rest: bytes) -> None:
        self.leave(b"205 Bye")


# --- IRC -------------------------------------------------------------------------------------------


class ChatServer(Lines):
    """RFC 2812 for a conversation in channels, among all who are there."""

    delimiter = b"\n"

    def __init__(self, everybody: set[ChatServer]) -> None:
        self._everybody = everybody
        self._nick = self._user = b""
        self._welcomed = False

    def lineReceived(self, line: bytes) -> None:
        verb, _, rest = line.rstrip(b"\r").partition(b" ")
        if (act := self.find(verb)) is not None:
            act(rest)
        elif verb:
            self._tell(b"421 %s %s :Unknown command" % (self._nick or b"*", verb))

    def connectionLost(self, reason: object = None) -> None:
        self._everybody.discard(self)

    def _tell(self, words: bytes) -> None:
        self.say(b":%s %s\r" % (HOST, words))

    def _register(self) -> None:
        if self._nick and self._user and not self._welcomed:
            self._welcomed = True
            self._everybody.add(self)
            self._tell(b"001 %s :Welcome; this server has never heard of TLS" % self._nick)
            self._tell(b"422 %s :No message of the day" % self._nick)

    def _spread(self, words: bytes, *, back: bool) -> None:
        for each in list(self._everybody):
            if back or each is not self:
                each.say(b":%s!%s@%s %s\r" % (self._nick, self._user, HOST, words))

    def do_CAP(self, rest: bytes) -> None:
        if rest.upper().startswith(b"LS"):
            self._tell(b"CAP * LS :")

    def do_NICK(self, rest: bytes) -> None:
        self._nick = rest.lstrip(b":")
        self._register()

    def do_USER(self, rest: bytes) -> None:
        self._user = rest.split(b" ")[0]
        self._register()

    def do_PING(self, rest: bytes) -> None:
        self._tell(b"PONG %s :%s" % (HOST, rest.lstrip(b":")))

    def do_JOIN(self, rest: bytes) -> None:
        if self._welcomed:
            self._spread(b"JOIN " + rest, back=True)

    def do_PRIVMSG(self, rest: bytes) -> None:
        if self._welcomed:
            self._spread(b"PRIVMSG " + rest, back=False)

    def do_QUIT(self, rest: bytes) -> None:
        self.leave(b"ERROR :Bye\r")
