"""Plaintext servers as clients hope for them: small, strict and patient; they know no TLS at all.

Each hears octets and answers with octets.  A scenario says in which of its ways a server is unwilling.
"""

from __future__ import annotations

import re
from collections.abc import Callable


class Server:
    """What the three have in common: a buffer, lines, and what was heard."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        self.commands: list[bytes] = []
        self.authenticated = False
        self.quit = False
        self._buffer = b""
        self._next: Callable[[], bytes | None] = self._line

    def greeting(self) -> bytes:
        raise NotImplementedError

    def obey(self, verb: str, line: bytes) -> bytes:
        raise NotImplementedError

    def hear(self, octets: bytes) -> bytes:
        self._buffer += octets
        answers = b""
        while (answer := self._next()) is not None:
            answers += answer
        return answers

    @property
    def refuses_logins(self) -> bool:
        return self.scenario == "authfail"

    def _take(self) -> bytes | None:
        line, end, rest = self._buffer.partition(b"\r\n")
        assert b"\n" not in line, f"a bare newline reached the backend: {line!r}"
        if not end:
            return None
        self._buffer = rest
        return line

    def _line(self) -> bytes | None:
        line = self._take()
        if line is None:
            return None
        self.commands.append(line)
        return self.obey(line.decode("latin-1").partition(" ")[0].upper(), line)


class SMTPServer(Server):
    def __init__(self, scenario: str) -> None:
        super().__init__(scenario)
        self.messages: list[bytes] = []
        self._challenges = 0

    def greeting(self) -> bytes:
        return {
            "busy": b"421 mail.example.test too busy\r\n",
            "greet554": b"554 mail.example.test no service for you\r\n",
            "multigreet": b"220-mail.example.test ESMTP\r\n220-no unsolicited mail\r\n220 welcome\r\n",
        }.get(self.scenario, b"220 mail.example.test ESMTP\r\n")

    @property
    def in_message(self) -> bool:
        return self._next == self._message

    def obey(self, verb: str, line: bytes) -> bytes:
        match verb:
            case "EHLO" if self.scenario == "ehlo502":
                return b"502 command not implemented\r\n"
            case "EHLO":
                logins = b"" if self.scenario == "noauth" else b"250-AUTH PLAIN LOGIN\r\n"
                return b"250-mail.example.test\r\n250-SIZE 10240000\r\n" + logins + b"250 8BITMIME\r\n"
            case "QUIT":
                self.quit = True
                return b"221 mail.example.test closing\r\n"
            case "AUTH" if self.refuses_logins:
                return b"535 authentication failed\r\n"
            case "AUTH":
                words = line.split()
                self._challenges = (2 if words[1].upper() == b"LOGIN" else 1) - (len(words) - 2)
                return self._challenge()
            case "DATA":
                self._next = self._message
                return b"354 go ahead\r\n"
        return b"250 ok\r\n"

    def _challenge(self) -> bytes:
        if self._challenges:
            self._next = self._response
            return b"334 \r\n"
        self._next = self._line
        self.authenticated = True
        return b"235 authenticated\r\n"

    def _response(self) -> bytes | None:
        if self._take() is None:
            return None
        self._challenges -= 1
        return self._challenge()

    def _message(self) -> bytes | None:
        message, end, rest = self._buffer.partition(b"\r\n.\r\n")
        if not end:
            return None
        self.messages.append(message + b"\r\n")
        self._buffer = rest
        self._next = self._line
        return b"250 queued\r\n"


class IMAPServer(Server):
    BARE = b"IMAP4rev1"
    LONG = b"IMAP4rev1 SASL-IR LITERAL+ ID ENABLE IDLE NAMESPACE UTF8=ACCEPT AUTH=PLAIN"

    def __init__(self, scenario: str) -> None:
        super().__init__(scenario)
        self._tag = b""
        self._expected = 0
        self._verb = ""

    @property
    def _list(self) -> bytes:
        return self.BARE + b" AUTH=PLAIN" if self.scenario == "bare" else self.LONG

    def greeting(self) -> bytes:
        match self.scenario:
            case "busy":
                return b"* BYE too busy\r\n"
            case "preauth":
                return b"* PREAUTH IMAP4rev1 logged in as user\r\n"
            case "nocapgreet" | "bare":
                return b"* OK ready\r\n"
        return b"* OK [CAPABILITY %s] ready\r\n" % self._list

    def obey(self, verb: str, line: bytes) -> bytes:
        words = line.split(b" ")
        self._tag, self._verb = words[0], words[1].decode().upper()
        return self._go_on(line)

    def _go_on(self, line: bytes) -> bytes:
        """Complete the command, or ask for its next literal."""
        if match := re.search(rb"\{([0-9]+)\}\Z", line):
            self._expected = int(match[1])
            self._next = self._literal
            return b"+ go ahead\r\n"
        self._next = self._line
        return self._complete(line)

    def _literal(self) -> bytes | None:
        if len(self._buffer) < self._expected:
            return None
        self._buffer = self._buffer[self._expected :]
        self._next = self._rest
        return b""

    def _rest(self) -> bytes | None:
        line = self._take()
        return None if line is None else self._go_on(line)

    def _complete(self, line: bytes) -> bytes:
        ok = self._tag + b" OK done\r\n"
        match self._verb:
            case "LOGIN" if self.scenario == "alert":
                self.authenticated = True
                return b"* NO [ALERT] quota\r\n" + ok + b"* NO [ALERT] password expires tomorrow\r\n"
            case "LOGIN" | "AUTHENTICATE" if self.refuses_logins:
                return self._tag + b" NO wrong\r\n"
            case "AUTHENTICATE" if len(line.split(b" ")) < 4:
                self._next = self._response
                return b"+ \r\n"
            case "LOGIN" | "AUTHENTICATE":
                self.authenticated = True
                return ok
            case "CAPABILITY":
                return b"* CAPABILITY " + self._list + b"\r\n" + ok
            case "LOGOUT":
                self.quit = True
                return b"* BYE see you\r\n" + ok
        return ok

    def _response(self) -> bytes | None:
        if self._take() is None:
            return None
        self._next = self._line
        self.authenticated = True
        return self._tag + b" OK done\r\n"


class POP3Server(Server):
    def greeting(self) -> bytes:
        return b"-ERR too busy\r\n" if self.scenario == "busy" else b"+OK ready <1.2@mail.example.test>\r\n"

    def obey(self, verb: str, line: bytes) -> bytes:
        answer = self._answer(verb, line)
        if self.scenario == "mixedcase":
            return re.sub(rb"\A(\+O|-E)(\w+)", lambda found: found[1] + found[2].lower(), answer)
        return answer

    def _answer(self, verb: str, line: bytes) -> bytes:
        bare = len(line.split()) == 1
        match verb:
            case "CAPA" if self.scenario == "nocapa":
                return b"-ERR unknown command\r\n"
            case "CAPA":
                return b"+OK list follows\r\nTOP\r\nUIDL\r\nUSER\r\nSASL PLAIN\r\n.\r\n"
            case "AUTH" if bare:
                return b"+OK list follows\r\nPLAIN\r\n.\r\n"
            case "PASS" | "AUTH" | "APOP" if self.refuses_logins:
                return b"-ERR wrong\r\n"
            case "PASS" if self.scenario == "mixedcase" and line.endswith(b" wrong"):
                return b"-ERR wrong\r\n"
            case "AUTH" if len(line.split()) == 2:
                self._next = self._response
                return b"+ \r\n"
            case "PASS" | "AUTH" | "APOP":
                self.authenticated = True
                return b"+OK logged in\r\n"
            case "QUIT":
                self.quit = True
                return b"+OK bye\r\n"
            case "LIST" | "UIDL" if not bare:
                return b"+OK 1 42\r\n"
            case "LIST" | "UIDL" | "RETR" | "TOP":
                return b"+OK follows\r\n1 42\r\n.\r\n"
        return b"+OK 1 42\r\n"

    def _response(self) -> bytes | None:
        if self._take() is None:
            return None
        self._next = self._line
        self.authenticated = True
        return b"+OK logged in\r\n"


SERVERS: dict[str, Callable[[str], SMTPServer | IMAPServer | POP3Server]] = {
    "smtp": SMTPServer,
    "imap": IMAPServer,
    "pop3": POP3Server,
}
