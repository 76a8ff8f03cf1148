"""Data connections: which of them a client may open, and what goes to the backend during a transfer.

The address in the backend's reply to PASV is never used, and neither is one of the client's that is not its own: the
gateway connects to nobody but the two ends of the session.
"""

from __future__ import annotations

from typing import Final

from ....protocol.vocabulary import Cut, Heard, IsBroken, Label, Line, Open, Patience, Place, Script, Send, Side
from ...base import Terms
from ...bounds import REPLIES
from ...conversation import BACKEND, BOTH, CLIENT, broken
from ...replies import Replying
from .exchange import Exchange
from .words import (
    LEAVES,
    LINES,
    MEANWHILE,
    NAMED,
    NO_SUCH_WAY,
    PRELIMINARY,
    PROBE,
    TRANSFERS,
    UNMISTAKABLE,
    UNPRIVILEGED,
    active_place,
    is_ipv6,
    passive_port,
    port_command,
    six_numbers,
    split,
    without_telnet,
)

TRANSFER: Final = Patience("transfer")
"""The end of a transfer.  The data has a deadline of its own; this is for what comes before and after."""
MOST_OWED: Final = 16
"""Replies that a backend may owe during a transfer, before its client is read again."""

NO_PORT: Final = b"425 Can't open data connection"
UNPROTECTED: Final = b"521 Data connection cannot be opened with this PROT setting"


class Data(Exchange):
    """What a session says about its data connections."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        # The level begins with C (RFC 4217 9), but where TLS comes first it always was P.
        self._private = terms.implicit
        self._extended_only = False  # EPSV ALL
        self._channel = False  # one is open, and its transfer is not over
        self._owed: list[bytes] = []  # the verbs that the backend owes replies to, since a transfer began
        self._begun = False  # the transfer's data flows
        self._held: Heard | None = None  # what the client said next, and has to wait for the end of the transfer

    @property
    def _protected(self) -> bool:
        """TLS on the next data connection."""
        return self.secured is not None and self._private

    def _unprotected(self) -> bool:
        """Whether the level does not suffice."""
        return self.secured is not None and not self._private and self.terms.options.get("protection") != "optional"

    # --- the level of protection (RFC 4217 9, 12.3): between the client and us ---

    def _pbsz(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        if self.secured is None:
            yield from self._refuse(b"503 Must issue AUTH TLS first")
        elif not argument.isdigit():
            yield from self._refuse(b"501 Syntax: PBSZ number")
        else:
            self.bad = 0
            yield Send(CLIENT, b"200 PBSZ=0\r\n")

    def _prot(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        level = argument.upper()
        if self.secured is None:
            yield from self._refuse(b"503 Must issue AUTH TLS first")
        elif level in (b"S", b"E"):
            yield from self._refuse(b"536 Requested PROT level not supported")
        elif level not in (b"C", b"P"):
            yield from self._refuse(b"504 Protection level not understood")
        elif level == b"C" and self.terms.options.get("protection") != "optional":
            yield from self._refuse(b"534 Data connection must be protected")
        else:
            if self._private != (level == b"P"):
                yield from self._drop()
            self._private = level == b"P"
            self.bad = 0
            yield Send(CLIENT, b"200 Protection set to %s\r\n" % level)

    def _ccc(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        yield from self._refuse(
            b"533 Control connection is not protected" if self.secured is None else b"534 CCC denied"
        )

    # --- opening ---

    def _passive(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        word = argument.upper()
        ipv6 = is_ipv6(self.terms.client)
        if verb == b"EPSV" and word == b"ALL":
            self._extended_only = True
            self.bad = 0
            yield Send(CLIENT, b"200 EPSV ALL ok\r\n")
        elif verb == b"EPSV" and word not in (b"", b"2" if ipv6 else b"1"):
            yield from self._refuse(b"522 Network protocol not supported, use (%d)" % (2 if ipv6 else 1))
        elif verb == b"PASV" and (self._extended_only or ipv6):
            yield from self._refuse(b"522 Use EPSV")
        elif self._unprotected():
            yield from self._refuse(UNPROTECTED)
        else:
            yield from self._listen(verb)

    def _listen(self, verb: bytes) -> Script:
        yield from self._drop()
        reply = yield from self._backend_listens(verb)
        port = passive_port(reply.octets)
        if port is None:
            yield from self._pass_on(reply)
            return
        place: Place | None = yield Open(CLIENT, port, self._protected)
        if place is None:
            yield Send(CLIENT, NO_PORT + b"\r\n")
            return
        self._channel = True
        host = self.terms.options.get("passive_address") or place.host
        if verb == b"EPSV":
            self.bad = 0
            yield Send(CLIENT, b"229 Entering Extended Passive Mode (|||%d|)\r\n" % place.port)
        elif is_ipv6(host):
            # A client of IPv4 that a load balancer brings by IPv6.
            yield from self._drop()
            yield from self._refuse(b"522 Use EPSV")
        else:
            self.bad = 0
            yield Send(CLIENT, b"227 Entering Passive Mode (%s)\r\n" % six_numbers(host, place.port))

    def _backend_listens(self, verb: bytes) -> Replying:
        """Its reply.  It may know the other command only, or its address be of the other family."""
        yield from self._reach()
        yield from self._secure_data()
        reply = yield from self._ask(verb)
        if reply.code in NO_SUCH_WAY:
            other = b"PASV" if verb == b"EPSV" else b"EPSV"
            second = yield from self._ask(other)
            reply = second if second.positive else reply
        if reply.positive and passive_port(reply.octets) is None:
            raise broken(reply.octets)
        return reply

    def _active(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        place = active_place(verb, argument)
        if self.terms.options.get("active") != "yes":
            yield from self._refuse(b"500 Use PASV or EPSV")
        elif self._extended_only:
            yield from self._refuse(b"522 Use EPSV")
        elif place is None:
            yield from self._refuse(b"501 Syntax error in parameters")
        elif place.host != self.terms.client or place.port < UNPRIVILEGED:
            yield from self._refuse(b"500 Illegal PORT command")
        elif self._unprotected():
            yield from self._refuse(UNPROTECTED)
        else:
            yield from self._drop()
            yield from self._reach()
            yield from self._secure_data()
            ours: Place | None = yield Open(BACKEND, place.port, self._protected)
            if ours is None:
                yield Send(CLIENT, NO_PORT + b"\r\n")
                return
            self._channel = True
            reply = yield from self._ask(port_command(ours))
            if not reply.positive:
                yield from self._drop()
            yield from self._pass_on(reply)

    def _drop(self) -> Script:
        """The data connection, if there is one whose transfer is not over."""
        if self._channel:
            self._channel = False
            yield Cut()

    # --- transfers ---

    def _transfer(self, verb: bytes, line: bytes, argument: bytes) -> Script:
        if self._unprotected():
            yield from self._refuse(UNPROTECTED)
        elif not self._channel:
            # A backend that was told no port would connect to the gateway's.
            yield from self._refuse(b"425 Use PASV or EPSV first")
        else:
            named = verb in NAMED and self.terms.options.get("log_files") == "yes"
            yield Label((("command", verb.decode("ascii")), *((("file", argument),) if named else ())))
            yield from self._begin(verb, line)

    def _begin(self, verb: bytes, line: bytes) -> Script:
        """The reply is not waited for: the client may want to end a transfer that does not begin."""
        self._outstanding = True
        self._owed.append(verb)
        yield Send(BACKEND, line + b"\r\n")

    def _meanwhile(self) -> Script:
        """The next line of either side, while a transfer is under way."""
        # Some servers say one reply to a transfer and its ABOR.  Then the client may wait for another, or go on.
        aborted = set(self._owed) == {b"ABOR"}
        if aborted and self._held is not None:
            yield from self._begin(PROBE, b"NOOP")
        reads = self._held is None and len(self._owed) < MOST_OWED and b"QUIT" not in self._owed
        patience = Patience.COMMAND if aborted and reads else TRANSFER
        heard = yield from self.hear(BOTH if reads else (BACKEND,), patience, LINES if reads else REPLIES)
        match heard:
            case Line(side=Side.BACKEND, text=text):
                yield from self._replied(text)
            case Line(text=text) if (verb := split(without_telnet(text))[0]) in MEANWHILE:
                if verb == b"ABOR":
                    # Servers read it only when the data connection is gone.
                    yield from self._drop()
                yield from self._begin(verb, without_telnet(text))
            case _:
                self._held = heard

    def _replied(self, text: bytes) -> Script:
        if PRELIMINARY.match(text) and self._begun and (yield IsBroken()):
            # pure-ftpd ends a transfer that was cut with another 150; no client takes that for an end.
            text = b"426" + text[3:]
        if PROBE in self._owed and (text[:3] == b"200" or (self._owed[0] is PROBE and text[:3] != LEAVES)):
            # Nothing more comes to what was said before it.
            yield from self._collected(Patience.REPLY, text)
            self._owed.clear()
            self._outstanding = False
            return
        code = (yield from self._relayed(text))[:3]
        if code[:1] == b"1":
            self._begun = True
            return
        if code == LEAVES:
            yield from self._settle(code)
        asked = UNMISTAKABLE.get(code, b"")
        if code == b"221" and TRANSFERS.isdisjoint(self._owed):
            asked = b"QUIT"
        verb = self._owed.pop(self._owed.index(asked) if asked in self._owed else 0)
        self._outstanding = bool(self._owed)
        if verb in TRANSFERS:
            if self._begun or code[:1] == b"2":
                self._channel = False  # what is under way may arrive
            yield from self._drop()
            self._begun = False
        yield from self._ended(verb, code)

    def _ended(self, verb: bytes, code: bytes) -> Script:
        """The last reply to a command."""
        yield from self._settle(code)
