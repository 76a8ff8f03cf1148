"""PostgreSQL, frontend/backend protocol 3 (PostgreSQL documentation, chapter "Frontend/Backend Protocol").

The client speaks first.  Its first packets have a length and a code, all later messages a type and a length.  The
gateway reads on until the server says AuthenticationOk, so that failed logins are counted; then it only copies.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

from ...protocol.driver import TLS_HANDSHAKE
from ...protocol.filters import Counted
from ...protocol.framing import Units
from ...protocol.inbox import Inbox
from ...protocol.vocabulary import (
    Await,
    Close,
    Framing,
    Lost,
    Note,
    Pass,
    Patience,
    Proven,
    Script,
    Send,
    Side,
    StartTLS,
    Stopped,
    TooLarge,
    Trouble,
    Unavailable,
    Unit,
    Violation,
)
from ..access import Access, Seen
from ..base import BackendTLS, Dialect, Policy, Question
from ..bounds import REPLY_OCTETS
from ..conversation import BACKEND, BOTH, CLIENT, Conversation, broken, converse, foreign_units, login_note
from ..probing import Probing
from ..reach import Hearing, reached, ungreeted, untrusted
from ..users import shortened

SSL: Final = 80877103
GSS: Final = 80877104
CANCEL: Final = 80877102
"""Codes of packets that are no startup: 1234 in the upper half."""
INSIDE: Final = frozenset({SSL, GSS})
"""What a client may ask for that does not know that it is inside TLS already (stunnel)."""
SSL_REQUEST: Final = b"\0\0\0\x08\x04\xd2\x16\x2f"
LONGEST_PACKET: Final = 10_000
"""Octets of a first packet (MAX_STARTUP_PACKET_LENGTH)."""
LONGEST_CANCEL: Final = 12 + 256
"""Octets of a CancelRequest: its key has 4 octets, since protocol 3.2 up to 256."""
LONGEST_MESSAGE: Final = 1 + 4 + 65_535
"""Octets of a message before the login is over (PG_MAX_AUTH_TOKEN_LENGTH)."""

OK: Final = 0
FINAL: Final = 12
"""Codes of Authentication messages that the client does not answer."""
METHODS: Final = {0: b"TRUST", 2: b"KERBEROS", 3: b"PASSWORD", 5: b"MD5", 7: b"GSSAPI", 9: b"SSPI"}
"""What the others ask for.  10 has a list of SASL mechanisms."""
CONTINUE: Final = 8
"""Of GSSAPI: a token.  Whether it was the last one, and so whether the client answers it, is told nowhere."""
SASL: Final = 10

AUTHENTICATION: Final = Patience("authentication")
"""The client's answer to the server's question for its password."""


# --- packets and messages ----------------------------------------------------------------------------


def packet_length(head: bytes) -> int | None:
    """Of one of the client's first packets.  A ClientHello counts as too long, so that it stays for the handshake."""
    if head.startswith(TLS_HANDSHAKE):
        return LONGEST_PACKET + 1
    if len(head) < 4:
        return None
    length = int.from_bytes(head[:4], "big")
    if not 8 <= length <= LONGEST_PACKET:
        raise ValueError("no length of a first packet")
    return length


def message_length(types: bytes, head: bytes) -> int | None:
    """Of a message with one of these types."""
    if head[:1] not in types:
        raise ValueError("a message of the wrong type")
    if len(head) < 5:
        return None
    length = int.from_bytes(head[1:5], "big")
    if length < 4:
        raise ValueError("no length of a message")
    return 1 + length


PACKETS: Final = Units(packet_length, LONGEST_PACKET)
ANSWERS: Final = Units(partial(message_length, b"pX"), LONGEST_MESSAGE)
"""What a client may say before its login is over: a password or a token, and Terminate."""
MESSAGES: Final = Units(partial(message_length, b"RENv"), LONGEST_MESSAGE)
"""What a server may say then: Authentication, ErrorResponse, NoticeResponse, NegotiateProtocolVersion."""


class _Dialogue:
    """Both sides may have the word."""

    def unit(self, inbox: Inbox) -> Unit | TooLarge | None:
        return (ANSWERS if inbox.side is CLIENT else MESSAGES).unit(inbox)


DIALOGUE: Final = _Dialogue()
OCTET: Final = Units(lambda head: 1, 1)
"""The answer to SSLRequest."""


def error(code: bytes, text: bytes) -> bytes:
    """ErrorResponse with this SQLSTATE: the session is over."""
    fields = b"SFATAL\0VFATAL\0C%s\0M%s\0\0" % (code, text)
    return b"E" + (4 + len(fields)).to_bytes(4, "big") + fields


def field(message: bytes, name: bytes) -> bytes:
    """A field of an ErrorResponse; empty where it has none."""
    return next((each[1:] for each in message[5:].split(b"\0") if each[:1] == name), b"")


def methods(message: bytes) -> list[bytes]:
    """How the server wants the client to log in, by an Authentication message."""
    code = int.from_bytes(message[5:9], "big")
    if code == SASL:
        return [name for name in message[9:].split(b"\0") if name]
    return [METHODS.get(code, b"%d" % code)]


def user_of(startup: bytes) -> bytes:
    """The parameter `user` of a StartupMessage; empty where it has none."""
    words = startup[8:].split(b"\0")
    return shortened(dict(zip(words[::2], words[1::2], strict=False)).get(b"user", b""))


TLS_REQUIRED: Final = error(b"28000", b"TLS required")
LIMITED: Final = error(b"53400", b"too many failed logins, try again later")
LOST: Final = error(b"08006", b"the connection to the database server was lost")
STOPPED: Final = error(b"57P01", b"terminating connection due to administrator command")
TERMINATE: Final = b"X\0\0\0\4"


def unsupported(code: int) -> bytes:
    """The answer to a startup in another protocol, in the words of the real server."""
    return error(b"0A000", b"unsupported frontend protocol %d.%d: only 3.x is supported" % divmod(code, 65536))


def _told(heard: Unit | TooLarge) -> bytes:
    """A message of the server's.  Raises Violation."""
    if isinstance(heard, TooLarge) or (heard.octets[:1] == b"R" and len(heard.octets) < 9):
        raise broken(heard.begin if isinstance(heard, TooLarge) else heard.octets)
    return heard.octets


# --- a session ---------------------------------------------------------------------------------------


class PostgreSQL(Conversation):
    """One session."""

    _refusable = frozenset({GSS})
    """Requests for encryption that are answered with N, once each: the client goes on as it is."""

    def open(self) -> Script:
        if self.secured is not None:
            self._refusable = INSIDE
        yield from ()

    def talk(self) -> Script:
        """The first packets, up to a startup."""
        while True:
            heard = yield Await((CLIENT,), Patience.COMMAND, PACKETS)
            if isinstance(heard, TooLarge):
                yield from self._direct_tls()
                continue
            packet = heard.octets
            code = int.from_bytes(packet[4:8], "big")
            clear = self.secured is None
            if code == SSL and clear and len(packet) == 8:
                self.secured = yield StartTLS(CLIENT, b"S")
                self._refusable = frozenset()
            elif code in self._refusable and len(packet) == 8:
                self._refusable -= {code}
                yield Send(CLIENT, b"N")
            elif code == CANCEL and 16 <= len(packet) <= LONGEST_CANCEL:
                yield from self._cancel(packet)
            elif clear and self.terms.policy is not Policy.OPTIONAL:
                yield Send(CLIENT, (yield from self.first(TLS_REQUIRED)))
                yield Close("tls-required")
            elif code >> 16 != 3:
                yield Send(CLIENT, unsupported(code))
                raise Violation(CLIENT, "client-protocol-error", f"a packet with the code {code}")
            else:
                yield from self._log_in(packet)
                return

    def _direct_tls(self) -> Script:
        """A ClientHello comes first (PostgreSQL 17).  ALPN must tell that the client means PostgreSQL, as the server
        demands it too: otherwise a browser could be sent here."""
        if self.secured is not None or GSS not in self._refusable:
            raise Violation(CLIENT, "client-protocol-error", "a ClientHello in place of a startup")
        self.secured = yield StartTLS(CLIENT)
        yield from self.open()
        if self.secured.alpn != ALPN.decode():
            raise Violation(CLIENT, "tls-on-plaintext-port", "direct TLS without the ALPN name postgresql")

    def _cancel(self, packet: bytes) -> Script:
        """Its answer is that the server closes.  Clients that use TLS send it in the clear, too: it holds no secret of
        theirs but a key that is good for nothing else."""
        yield from reached(self.terms, self.secured, self._secure_backend)
        yield Send(BACKEND, packet)
        try:
            yield Pass(BACKEND, Counted(REPLY_OCTETS), forward=False, patience=Patience.REPLY)
        except Lost as lost:
            if lost.side is CLIENT:
                raise
        yield Close("quit")

    # --- the login ---

    def _log_in(self, startup: bytes) -> Script:
        if not (yield from self.may_log_in()):
            yield Send(CLIENT, LIMITED)
            yield Close("refused", "auth-failures-per-minute")
        message = yield from reached(self.terms, self.secured, partial(self._greeted, startup))
        self.reached = True
        mechanism = b""
        offered: list[bytes] = []
        code = OK
        while message[:1] != b"E":
            yield Send(CLIENT, message)
            if message[:1] == b"R":
                code = int.from_bytes(message[5:9], "big")
                if code == OK:
                    if not mechanism:
                        yield TRUST
                    yield login_note(mechanism or METHODS[OK], "ok", user_of(startup))
                    yield Proven()
                    return
                offered = offered or methods(message)
                if code not in (FINAL, CONTINUE):
                    answer = yield from self._answer()
                    # The first answer to SASL names the mechanism.
                    named = answer[5:].split(b"\0")[0] if code == SASL else offered[0]
                    mechanism = mechanism or re.sub(rb"[^A-Z0-9-]", b"?", named[:20])
                    yield Send(BACKEND, answer)
            message = yield from (self._tokens() if code == CONTINUE else self._message(Patience.REPLY))
        yield from self._refused(message, mechanism, offered, user_of(startup))

    def _greeted(self, startup: bytes) -> Hearing[bytes]:
        yield from self._secure_backend()
        yield Send(BACKEND, startup)
        return (yield from self._message(Patience.GREETING))

    def _secure_backend(self) -> Hearing[None]:
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            yield Send(BACKEND, SSL_REQUEST)
            heard = yield Await((BACKEND,), Patience.GREETING, OCTET)
            if heard.octets not in (b"S", b"N", b"E"):
                raise ungreeted(heard.octets)
            if heard.octets != b"S":
                untrusted(f"the backend answers {heard.octets.decode()} to SSLRequest")
            yield StartTLS(BACKEND)

    def _message(self, patience: Patience) -> Hearing[bytes]:
        return _told((yield Await((BACKEND,), patience, MESSAGES)))

    def _tokens(self) -> Hearing[bytes]:
        """The server's next message; the client may have answers before it."""
        patience = AUTHENTICATION
        while True:
            heard = yield from self._hear(BOTH, DIALOGUE, patience)
            if heard.side is BACKEND:
                return _told(heard)
            patience = Patience.REPLY
            yield Send(BACKEND, heard.octets)

    def _answer(self) -> Hearing[bytes]:
        octets: bytes = (yield from self._hear((CLIENT,), ANSWERS)).octets
        return octets

    def _hear(self, sides: tuple[Side, ...], framing: Framing, patience: Patience = AUTHENTICATION) -> Hearing[Any]:
        """A client that has no password yet leaves, asks for it, and comes again (psql)."""
        try:
            heard = yield Await(sides, patience, framing)
        except Lost as lost:
            if lost.side is CLIENT and lost.orderly:
                yield Close("client-closed")
            raise
        if heard.side is CLIENT and isinstance(heard, TooLarge):
            raise Violation(CLIENT, "client-protocol-error", f"a message of {heard.octets} octets")
        if heard.side is CLIENT and heard.octets[:1] == b"X":
            yield Close("quit")
        return heard

    def _refused(self, message: bytes, mechanism: bytes, offered: list[bytes], user: bytes) -> Script:
        """An ErrorResponse: the server closes behind it."""
        code = field(message, b"C")
        told: Script = self.tell(message)
        binds = any(name.endswith(b"-PLUS") for name in offered)
        if mechanism:
            yield login_note(mechanism, "failed", user)
        else:
            yield Note("backend-refused", (("text", field(message, b"M")),))
        if mechanism and binds and code == b"28000":
            yield CHANNEL_BINDING  # the password may have been right
        elif code == b"28P01" or (mechanism and code == b"28000"):
            told = self.rejected(told)
        yield from told
        yield Close("backend-closed" if mechanism else "backend-refused")

    # --- the end ---

    def goodbye(self, trouble: Trouble) -> bytes:
        match trouble:
            case Stopped():
                return STOPPED
            case Unavailable():
                return self.unavailable(self.terms.hostname)
        # As the real server: who does not speak the protocol, or is late, hears nothing.
        return LOST if getattr(trouble, "side", CLIENT) is BACKEND else b""

    unavailable_words = error(b"57P03", b"the database server cannot be reached")
    busy_words = error(b"53300", b"too many connections")


CHANNEL_BINDING: Final = Note(
    "backend-channel-binding",
    (
        (
            "cure",
            "use the server's certificate for the gateway, or tls = none here, or channel_binding=disable in clients",
        ),
    ),
    once=True,
)
"""A SCRAM login failed because client and server see different certificates: each sees the gateway's TLS."""
TRUST: Final = Note("backend-trusts", once=True)
"""The server lets somebody in and has asked for nothing."""

ALPN: Final = b"postgresql"
"""RFC 7301; IANA, since PostgreSQL 17."""

FOREIGN: Final = foreign_units(tls=b"")
"""Four octets are enough: read as a length they are 1 GB and more."""


# --- looking at a server -----------------------------------------------------------------------------


def hello(hostname: bytes, user: bytes = b"starttls-gateway-check") -> bytes:
    """The startup of a user who does not exist: a server that asks for passwords does not tell."""
    body = b"\0\3\0\0user\0%s\0database\0postgres\0\0" % user
    return (4 + len(body)).to_bytes(4, "big") + body


def listed(answer: bytes) -> list[bytes] | None:
    """The ways to log in; None where the server refuses."""
    return methods(answer) if answer.startswith(b"R") else None


def readable(octets: bytes) -> bytes:
    """The server's answer to a startup or to SSLRequest, in words."""
    if len(octets) < 2:
        return octets
    if octets.startswith(b"R"):
        return b"Authentication: " + b" ".join(methods(octets))
    return field(octets, b"M")


def access(seen: Seen) -> Access:
    """Whether clients could log in."""
    return Access(None if seen.shown is None else tuple(name.decode("ascii", "replace") for name in seen.shown))


def is_complete(command: bytes, heard: bytes) -> bool:
    """Whether the last message is a question for credentials, or the refusal; one octet answers SSLRequest."""
    last, at = b"", 0
    while at < len(heard):
        last = heard[at : at + 1]
        at += 1 + int.from_bytes(heard[at + 1 : at + 5], "big")
    return command == SSL_REQUEST or last in (b"R", b"E")


PROBING: Final = Probing(
    port=5432,
    implicit=frozenset(),
    starttls=SSL_REQUEST,
    injected=hello(b"", b"starttls-gateway-probe"),
    complete=is_complete,
    agrees=lambda reply: reply == b"S",
    attempts=(),
    framing=lambda command: OCTET if command == SSL_REQUEST else MESSAGES,
    greets=False,
    leaves=False,  # a server that asks for a password calls Terminate an error
)

DIALECT = Dialect(
    name="postgresql",
    script=lambda terms: converse(PostgreSQL(terms)),
    unavailable=PostgreSQL.unavailable,
    busy=PostgreSQL.busy,
    patience={
        Patience.COMMAND: 10.0,
        AUTHENTICATION: 60.0,
        Patience.REPLY: 60.0,
        Patience.DATA: 60.0,
        Patience.SPLICE: 86400.0,  # pools keep connections for long, and the server has no limit of its own
    },
    policies={},
    foreign=FOREIGN,
    identities=frozenset({"proxy-v1", "proxy-v2"}),
    question=Question(ask=hello, leave=TERMINATE, listed=listed, access=access, readable=readable),
    alpn=(ALPN,),
    backend_alpn=(ALPN,),
    first=Side.CLIENT,
    probing=PROBING,
)
