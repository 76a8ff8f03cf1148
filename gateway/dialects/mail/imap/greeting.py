"""The way to an IMAP server and its greeting, and the end of a session."""

from __future__ import annotations

import re
from typing import Final

from ....protocol.vocabulary import (
    Await,
    Expired,
    Line,
    Lost,
    Patience,
    Script,
    Send,
    Side,
    StartTLS,
    Stopped,
    TLSFailed,
    Trouble,
    Unavailable,
    Violation,
)
from ... import access, sasl
from ...base import BackendTLS, Identity, Terms
from ...bounds import REPLIES
from ...conversation import BACKEND, CHANNEL_BINDING, CLIENT, ServerFirst, broken, within_bounds
from ...reach import Hearing, RefusedByBackend, first_line, refused, ungreeted, untrusted
from .capabilities import CODE, LIST, capabilities, edit_capabilities, edit_line, offers_login
from .syntax import LATER, is_bye, is_ok

GREETING: Final = re.compile(rb"\* (OK|BYE|PREAUTH)(?: |\Z)", re.IGNORECASE)
UNTAGGED_BAD: Final = re.compile(rb"\* BAD(?: |\Z)", re.IGNORECASE)
LOST: Final = b"Connection to mail server lost"
UNAVAILABLE: Final = b"Service temporarily unavailable"
LAST_WORDS: Final = {
    "client-line-too-long": b"* BYE Command too long\r\n",
    "http-client": b"* BYE Invalid protocol\r\n",
    "too-many-bad-commands": b"* BYE Too many invalid commands\r\n",
    "too-many-failed-logins": b"* BYE Too many failed logins\r\n",
    "tls-on-plaintext-port": b"",
}


class Greeting(ServerFirst):
    """Dials the backend, on a lazy listener when the first command needs it."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._tag = b""  # of the command that the backend owes a reply to
        self._begun = False  # ... and has begun to answer
        self._bye = False  # the backend said its goodbye itself

    @property
    def own_greeting(self) -> bytes:
        return b"* OK [CAPABILITY %s] %s ready\r\n" % (self._own_list(), self.terms.hostname)

    def pass_greeting(self, greeting: bytes) -> Script:
        yield from self._pass_on(greeting)
        if self._bye:
            yield from self.turned_away(greeting)

    def hear_greeting(self) -> Hearing[bytes]:
        """The greeting, behind TLS and ID where they are agreed on."""
        greeting = yield from first_line()
        match = GREETING.match(greeting)
        if match is None:
            raise ungreeted(greeting)
        if match[1].upper() == b"PREAUTH":
            # It trusts our address: every client would be logged in.
            raise Unavailable("backend-preauth", "the backend logs in whoever comes from the gateway")
        if match[1].upper() == b"BYE":
            return greeting
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            greeting = yield from self._secure_backend(greeting)
        if self.terms.identity is Identity.ID:
            yield from self._tell_client(greeting)
        return greeting

    def _secure_backend(self, greeting: bytes) -> Hearing[bytes]:
        """STARTTLS (RFC 9051 6.2.1); what was said before it is asked again."""
        known = capabilities(greeting)
        if known and b"STARTTLS" not in known:
            untrusted("the backend does not offer STARTTLS")
        verdict, _ = yield from self._ask_ourselves(b"sgw1", b"STARTTLS")
        if not is_ok(verdict):
            untrusted(f"the backend refuses STARTTLS: {verdict[:80]!r}")
        yield StartTLS(BACKEND)
        if not known:
            return greeting
        verdict, lines = yield from self._ask_ourselves(b"sgw2", b"CAPABILITY")
        told = b" ".join(token for line in lines if LIST.match(line) for token in line.split()[2:])
        if not is_ok(verdict) or not told:
            raise broken(verdict)
        return CODE.sub(lambda code: code[1] + b" " + told, greeting)

    def _tell_client(self, greeting: bytes) -> Script:
        """ID, as Dovecot takes it from those whom it trusts, and only as the first of a connection."""
        known = capabilities(greeting)
        if not known:
            _, lines = yield from self._ask_ourselves(b"sgw3", b"CAPABILITY")
            known = [token for line in lines for token in capabilities(line)]
        if b"ID" not in known:
            refused("the backend does not offer ID")
        verdict, lines = yield from self._ask_ourselves(b"sgw4", b"ID (%s)" % self._origin_fields())
        if not is_ok(verdict):
            if bye := next(filter(is_bye, lines), None):
                raise RefusedByBackend(bye)
            if verdict[:2].upper() == b"NO" and LATER.match(verdict, 2):
                raise RefusedByBackend(b"* BYE" + verdict[2:])
            refused(f"the backend answers ID: {verdict[:80]!r}")

    def _origin_fields(self) -> bytes:
        origin = self.terms.origin
        assert origin is not None, "reached() lets nobody else pass"
        told = {
            "x-originating-ip": origin.source[0],
            "x-originating-port": origin.source[1],
            "x-connected-ip": origin.destination[0],
            "x-connected-port": origin.destination[1],
            "x-session-id": self.terms.session,
            "x-proxy-ttl": 4,
        }
        if self.secured is not None:
            told["x-client-transport"] = "TLS"
        return " ".join(f'"{name}" "{value}"' for name, value in told.items()).encode("ascii")

    def _ask_ourselves(self, tag: bytes, command: bytes) -> Hearing[tuple[bytes, list[bytes]]]:
        """A command of ours: the verdict behind its tag, and the untagged lines before it, which are
        nobody's but ours.  Raises RefusedByBackend."""
        yield Send(BACKEND, tag + b" " + command + b"\r\n")
        untagged: list[bytes] = []
        octets = 0
        while True:
            within_bounds(len(untagged), octets)
            try:
                heard = yield Await((BACKEND,), Patience.REPLY, REPLIES)
            except Lost as lost:
                if lost.side is BACKEND and untagged and is_bye(untagged[-1]):
                    raise RefusedByBackend(untagged[-1]) from None
                raise
            text = heard.text if isinstance(heard, Line) else b""
            octets += len(text)
            if text.startswith(tag + b" "):
                return text[len(tag) + 1 :], untagged
            if not text.startswith(b"* "):
                raise broken(text)
            if UNTAGGED_BAD.match(text):
                return text[2:], untagged
            untagged.append(text)

    def _reach(self) -> Script:
        """Dial, if that was put off; the greeting is not the client's, it has had ours."""
        if not self.reached:
            greeting = yield from self.dial()
            if is_bye(greeting):
                yield Send(CLIENT, b"%s\r\n%s NO%s\r\n" % (greeting, self._tag, greeting[5:]))
                yield from self.turned_away(greeting)

    def _own_list(self) -> bytes:
        return b" ".join(edit_capabilities([b"IMAP4rev1"], self.stage))

    def goodbye(self, trouble: Trouble) -> bytes:
        if self._bye:
            return b""
        match trouble:
            case Lost(side=Side.BACKEND) if self._begun:
                return b""
            case Lost(side=Side.BACKEND) | Expired(side=Side.BACKEND):
                return self._sorry(LOST)
            case Unavailable() | Violation(side=Side.BACKEND) | TLSFailed(side=Side.BACKEND):
                return self._sorry(UNAVAILABLE)
            case Expired():
                return b"* BYE Autologout; idle for too long\r\n"
            case Stopped():
                return b"* BYE Server shutting down\r\n"
        return LAST_WORDS.get(trouble.key, b"* BYE Invalid command\r\n")

    def _sorry(self, text: bytes) -> bytes:
        tagged = b"%s NO [UNAVAILABLE] %s\r\n" % (self._tag, text) if self._tag else b""
        return tagged + b"* BYE [UNAVAILABLE] %s\r\n" % text

    def farewell(self) -> bytes:
        return b"sgw9 LOGOUT\r\n" if self.reached and not self._tag and not self.midway else b""

    def _pass_on(self, line: bytes) -> Script:
        """A line of the backend's for the client, edited."""
        offered = capabilities(line)
        if self.secured is not None and b"LOGINDISABLED" in offered:
            yield access.note(access.NO_LOGIN, "imap", self.terms, line, b"STARTTLS" in offered)
        if any(token.endswith(sasl.PLUS) and offers_login(token) for token in offered):
            yield CHANNEL_BINDING
        if is_bye(line):
            self._bye = True
        yield Send(CLIENT, edit_line(line, self.stage) + b"\r\n")

    unavailable_words = b"* BYE [UNAVAILABLE] %s\r\n" % UNAVAILABLE  # RFC 5530 3
    busy_words = b"* BYE [UNAVAILABLE] Too many connections\r\n"
