"""MySQL and MariaDB, client/server protocol version 10 (MySQL documentation, chapter "Client/Server Protocol").

The server greets, and the first words of the client are its login.  A client that wants TLS says SSLRequest before it.
That has a number of its own in the sequence, so where only one leg has it, all packets up to the end of the login are
counted anew for the server.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final, NamedTuple

from ...protocol.framing import Units
from ...protocol.vocabulary import (
    Await,
    Close,
    Note,
    Patience,
    Request,
    Script,
    Send,
    StartTLS,
    Stopped,
    TLSFailed,
    TooLarge,
    Trouble,
    Unavailable,
    Unserved,
    Violation,
)
from ..access import Access, Seen
from ..base import BackendTLS, Dialect, Policy, Question, Terms
from ..conversation import BACKEND, BOTH, CLIENT, Conversation, broken, converse, foreign_units
from ..probing import Probing
from ..reach import Hearing, reached, ungreeted, untrusted
from ..users import shortened

LONGEST: Final = 65_536
"""Octets of a packet before the login is over."""
HEADER: Final = 4
FIXED: Final = 32
"""Octets before the user's name in the client's first words; SSLRequest has only these."""

WITH_DATABASE: Final = 0x0000_0008
PROTOCOL_41: Final = 0x0000_0200
SSL: Final = 0x0000_0800
SECURE_CONNECTION: Final = 0x0000_8000
PLUGIN_AUTH: Final = 0x0008_0000
LONG_AUTH: Final = 0x0020_0000
"""Capability flags."""

OK: Final = 0x00
MORE_DATA: Final = 0x01
SWITCH: Final = 0xFE
ERROR: Final = 0xFF
"""First octets of the server's packets.  Others are a plugin's data (GSSAPI, the questions of dialog): the server
writes MORE_DATA before data that begin like one of these."""
FACTOR: Final = re.compile(rb"\x02[A-Za-z0-9_-]{1,64}\0")
"""AuthNextFactor (MySQL 8.0.27): another password, by this plugin.  Data of dialog may begin with 0x02, too."""
WHOLE_PASSWORD: Final = b"\x04"
"""What caching_sha2_password says in MORE_DATA if it wants the password itself."""
CLEAR: Final = frozenset({
    b"mysql_clear_password", b"sha256_password", b"dialog", b"authentication_openid_connect_client",
})  # fmt: skip
"""Plugins with which a client inside TLS sends the password or token itself; dialog is PAM's."""
CACHING: Final = b"caching_sha2_password"
"""The same, but only if the server does not remember the user."""

DENIED: Final = frozenset({1045, 1698})
"""ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR."""
AUTHENTICATION: Final = Patience("authentication")
"""The dialogue behind the client's first words."""


# --- packets -----------------------------------------------------------------------------------------


def packet_length(head: bytes) -> int | None:
    if len(head) < HEADER:
        return None
    return HEADER + int.from_bytes(head[:3], "little")


PACKETS: Final = Units(packet_length, LONGEST)


def packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number % 256]) + payload


def error(number: int, code: int, state: bytes, text: bytes) -> bytes:
    """ERR_Packet; the first packet of all has no SQLSTATE.  Codes from 2000 are the client's own."""
    return packet(number, b"\xff" + code.to_bytes(2, "little") + (b"#" + state if number else b"") + text)


def error_of(payload: bytes) -> tuple[int, bytes]:
    """Its code and text."""
    text = payload[3:]
    return int.from_bytes(payload[1:3], "little"), text[6:] if text.startswith(b"#") else text


class Greeting(NamedTuple):
    """Handshake version 10."""

    version: bytes
    flags: int
    """Where its lower capability flags are, in the packet."""
    plugin: bytes


def read_greeting(whole: bytes) -> Greeting | None:
    """None for what is none."""
    version, found, rest = whole[HEADER + 1 :].partition(b"\0")
    # Thread, scramble, filler, flags, charset, status, more flags, length, reserved.
    if whole[3] != 0 or whole[HEADER : HEADER + 1] != b"\x0a" or not found or len(rest) < 31:
        return None
    return Greeting(version, HEADER + 1 + len(version) + 1 + 13, rest[31:].partition(b"\0")[2].partition(b"\0")[0])


def with_ssl(whole: bytes, at: int, on: bool) -> bytes:
    """The packet with the flag set or not; its lower flags are at `at`."""
    flags = int.from_bytes(whole[at : at + 2], "little")
    flags = flags | SSL if on else flags & ~SSL
    return whole[:at] + flags.to_bytes(2, "little") + whole[at + 2 :]


class Login(NamedTuple):
    """HandshakeResponse41."""

    user: bytes
    plugin: bytes


def read_login(payload: bytes) -> Login:
    """Raises ValueError."""
    flags = int.from_bytes(payload[:4], "little")
    user, found, rest = payload[FIXED:].partition(b"\0")
    if not found or not flags & PROTOCOL_41:
        raise ValueError("no HandshakeResponse41")
    if flags & LONG_AUTH:
        rest = _behind_length(rest)
    elif flags & SECURE_CONNECTION:
        rest = rest[1 + rest[0] :] if rest else b""
    else:
        rest = rest.partition(b"\0")[2]
    if flags & WITH_DATABASE:
        rest = rest.partition(b"\0")[2]
    return Login(user, rest.partition(b"\0")[0] if flags & PLUGIN_AUTH else b"mysql_native_password")


def _behind_length(octets: bytes) -> bytes:
    """What follows a length-encoded string."""
    first = octets[0] if octets else 0
    if first < 0xFB:
        return octets[1 + first :]
    if first > 0xFD:
        raise ValueError("a string that is too long")
    size = first - 0xFA
    return octets[1 + size + int.from_bytes(octets[1 : 1 + size], "little") :]


QUIT: Final = packet(0, b"\x01")
"""COM_QUIT; its number is none that an answer to the server could have."""
CLEAR_PASSWORD: Final = Note(
    "backend-clear-password",
    (("cure", "let the user log in with mysql_native_password or ed25519, or reach the server by a UNIX socket"),),
    once=True,
)


# --- a session ---------------------------------------------------------------------------------------


class MySQL(Conversation):
    """One session."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._next = 0
        """The number of the next packet to the client; it is not known while the client has the word."""
        self._asked = False
        """The client waits for an answer."""
        self._shift = 0
        """What the client's numbers are above the server's: each may be asked for TLS, or not."""

    def open(self) -> Script:
        whole: bytes = yield from reached(self.terms, self.secured, self._hear_greeting)
        self.reached = self.welcomed = True
        greeting = read_greeting(whole)
        if greeting is None:
            yield Note("backend-refused", (("text", error_of(whole[HEADER:])[1]),))
            yield Send(CLIENT, whole)
            yield Close("backend-refused")
        assert greeting is not None, "the session is over"
        self._plugin = greeting.plugin
        yield Send(CLIENT, with_ssl(whole, greeting.flags, not self.terms.implicit))

    def _hear_greeting(self) -> Hearing[bytes]:
        heard = yield Await((BACKEND,), Patience.GREETING, PACKETS)
        if isinstance(heard, TooLarge):
            raise ungreeted(heard.begin)
        whole: bytes = heard.octets
        greeting = read_greeting(whole)
        if greeting is None and not (whole[3] == 0 and whole[HEADER : HEADER + 1] == b"\xff"):
            raise ungreeted(whole)
        if greeting is not None and self._asks_for_tls and not offers_tls(whole):
            untrusted("the server does not offer TLS")
        return whole

    @property
    def _asks_for_tls(self) -> bool:
        return self.terms.backend_tls is BackendTLS.STARTTLS

    def talk(self) -> Script:
        whole = yield from self._client(Patience.COMMAND, 1)
        clear = self.secured is None
        if clear and len(whole) == HEADER + FIXED and self._flags(whole) & SSL:
            self.secured = yield StartTLS(CLIENT)
            whole = yield from self._client(Patience.COMMAND, 2)
        elif clear and self.terms.policy is not Policy.OPTIONAL:
            yield Send(CLIENT, error(2, 3159, b"HY000", (yield from self.first(b"TLS required"))))
            yield Close("tls-required")
        try:
            login = read_login(whole[HEADER:])
        except (ValueError, IndexError) as wrong:
            raise Violation(CLIENT, "client-protocol-error", f"{wrong}") from None
        self._asked, self._next = True, whole[3] + 1
        self._plugin = login.plugin
        yield from self._refuse_clear(login.plugin in CLEAR)
        if not (yield from self.may_log_in()):
            yield Send(CLIENT, error(self._next, 1226, b"42000", b"too many failed logins, try again later"))
            yield Close("refused", "auth-failures-per-minute")
        if self._asks_for_tls:
            yield from self._secure_backend(whole)
        self._shift = whole[3] - (2 if self._asks_for_tls else 1)
        yield Send(BACKEND, self._renumbered(with_ssl(whole, HEADER, self._asks_for_tls), -self._shift))
        yield from self._log_in(login)

    def _secure_backend(self, login: bytes) -> Script:
        """SSLRequest, and TLS.  It comes so late because the server takes the client's abilities from SSLRequest and
        not from the login.  No other address can be tried: the login answers this server's greeting."""
        yield Send(BACKEND, packet(1, with_ssl(login, HEADER, True)[HEADER : HEADER + FIXED]))
        try:
            yield StartTLS(BACKEND)
        except TLSFailed as failed:
            if failed.side is BACKEND:
                yield Unserved(failed.key)
            raise

    def _flags(self, whole: bytes) -> int:
        return int.from_bytes(whole[HEADER : HEADER + 4], "little")

    def _client(self, patience: Patience, number: int) -> Generator[Request, Any, bytes]:
        """The client's next packet, which has this number."""
        heard = yield Await((CLIENT,), patience, PACKETS)
        if isinstance(heard, TooLarge):
            raise Violation(CLIENT, "client-protocol-error", f"a packet of {heard.octets} octets")
        whole: bytes = heard.octets
        if len(whole) < HEADER + FIXED or whole[3] != number:
            # A password may be behind the flags.
            raise Violation(CLIENT, "client-protocol-error", repr(whole[: HEADER + 4]))
        return whole

    def _renumbered(self, whole: bytes, by: int) -> bytes:
        return whole[:3] + bytes([(whole[3] + by) % 256]) + whole[4:]

    def _refuse_clear(self, clear: bool) -> Script:
        """The client would send its password inside TLS, and from here on it would be in the clear."""
        alone = self.terms.backend_tls is BackendTLS.NONE and not self.terms.backend_local
        if clear and alone and self.secured is not None:
            yield CLEAR_PASSWORD
            text = b"the password of this user would cross the network in the clear behind the gateway"
            yield Send(CLIENT, error(self._next, 1251, b"08004", text))
            yield Close("backend-refused")

    def _log_in(self, login: Login) -> Script:
        """All packets up to the server's verdict."""
        while True:
            heard = yield Await(BOTH, Patience.REPLY if self._asked else AUTHENTICATION, PACKETS)
            if isinstance(heard, TooLarge):
                raise Violation(heard.side, f"{heard.side.value}-protocol-error", f"a packet of {heard.octets} octets")
            whole: bytes = heard.octets
            if heard.side is CLIENT and whole == QUIT:
                yield Close("quit")
            if heard.side is CLIENT:
                self._asked, self._next = True, whole[3] + 1
                yield Send(BACKEND, self._renumbered(whole, -self._shift))
                continue
            payload = whole[HEADER:]
            told = self._renumbered(whole, self._shift)
            kind = payload[0] if payload else None
            if kind == OK:
                yield from self.accepted(self._mechanism(), shortened(login.user), told)
                return
            if kind == ERROR:
                yield from self._refused(login, payload, told)
            if kind is None:
                raise broken(whole)
            if (kind == SWITCH and len(payload) > 1) or FACTOR.match(payload):
                self._plugin = payload[1:].partition(b"\0")[0]
            whole_password = self._plugin == CACHING and kind == MORE_DATA and payload[1:] == WHOLE_PASSWORD
            yield from self._refuse_clear(whole_password or self._plugin in CLEAR)
            self._asked, self._next = False, told[3] + 1
            yield Send(CLIENT, told)

    def _refused(self, login: Login, payload: bytes, told: bytes) -> Script:
        """The server closes behind it."""
        code, _ = error_of(payload)
        answer: Script = self._tell(told)
        yield from self.not_accepted(self._mechanism(), shortened(login.user), answer, guessed=code in DENIED)
        yield Close("backend-closed")

    def _tell(self, told: bytes) -> Script:
        self._asked = False
        yield Send(CLIENT, told)

    def _mechanism(self) -> bytes:
        return re.sub(rb"[^A-Z0-9_]", b"?", self._plugin[:40].upper())

    # --- the end ---

    def goodbye(self, trouble: Trouble) -> bytes:
        if not self.welcomed:
            match trouble:
                case Stopped():
                    return error(0, 1053, b"", b"the server is stopping")
                case Unavailable():
                    return self.unavailable(self.terms.hostname)
            return b""
        # A packet that is not awaited would be taken for the answer to the next one.
        lost = getattr(trouble, "side", CLIENT) is BACKEND or isinstance(trouble, Stopped)
        return (
            error(self._next, 1158, b"08S01", b"the connection to the server was lost") if self._asked and lost else b""
        )

    unavailable_words = error(0, 1105, b"", b"the database server cannot be reached")
    busy_words = error(0, 1040, b"", b"too many connections")


FOREIGN: Final = foreign_units(tls=rb"\x16\x03[\x01-\x04]")
"""Four octets at most: read as a length they are above LONGEST."""


# --- looking at a server -----------------------------------------------------------------------------


def _fixed(flags: int) -> bytes:
    """The beginning of a client's first words; with SSL, all of SSLRequest."""
    flags |= PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH
    return flags.to_bytes(4, "little") + LONGEST.to_bytes(4, "little") + b"\x21" + bytes(23)


def stranger(hostname: bytes) -> bytes:
    """The login of a user who does not exist, by a plugin that does not either: the server names one that does."""
    return packet(1, _fixed(0) + b"starttls-gateway-check\0" + b"\0" + b"starttls_gateway\0")


def offers_tls(greeting: bytes) -> bool:
    """Whether the server knows SSLRequest."""
    found = read_greeting(greeting) if len(greeting) > HEADER else None
    return found is not None and with_ssl(greeting, found.flags, True) == greeting


def plugin_of(greeting: bytes) -> bytes:
    """How the server wants clients to log in, if it does not know better; empty where it does not greet."""
    found = read_greeting(greeting) if len(greeting) > HEADER else None
    return b"" if found is None else found.plugin


def readable(octets: bytes) -> bytes:
    """A greeting or an error, in words."""
    found = read_greeting(octets) if len(octets) > HEADER else None
    if found is not None:
        return found.version
    return error_of(octets[HEADER:])[1] if octets[HEADER : HEADER + 1] == b"\xff" else octets


def access(seen: Seen) -> Access:
    """Whether clients could log in."""
    plugin = plugin_of(seen.greeting)
    return Access((plugin.decode("ascii", "replace"),) if plugin else None, starttls=offers_tls(seen.greeting))


DIALECT = Dialect(
    name="mysql",
    script=lambda terms: converse(MySQL(terms)),
    unavailable=MySQL.unavailable,
    busy=MySQL.busy,
    patience={
        Patience.COMMAND: 10.0,  # connect_timeout
        AUTHENTICATION: 60.0,
        Patience.REPLY: 60.0,
        Patience.DATA: 60.0,
        Patience.SPLICE: 86400.0,  # the server has wait_timeout
    },
    policies={},
    foreign=FOREIGN,
    identities=frozenset({"proxy-v1", "proxy-v2"}),
    experimental="it was tried with MariaDB 10.11, and not with MySQL 8",
    question=Question(
        ask=stranger,
        leave=QUIT,
        listed=lambda answer: None,
        lists=False,
        access=access,
        answered=lambda said, heard: bool(heard),
        readable=readable,
    ),
    probing=Probing(
        port=3306,
        implicit=frozenset(),
        starttls=packet(1, _fixed(SSL)),
        injected=packet(2, _fixed(SSL) + b"starttls-gateway-probe\0" + b"\0" + b"starttls_gateway\0"),
        complete=lambda command, heard: True,
        agrees=lambda greeting: read_greeting(greeting) is not None,
        attempts=(),
        framing=lambda command: PACKETS,
        leaves=False,  # a server knows no goodbye before the login
        offers=offers_tls,
    ),
)
