"""LDAP version 3 (RFC 4511), with StartTLS (RFC 4511 4.14, RFC 4513 3).

The client speaks first, and both sides may say many things at once: each message has an id.  The gateway looks at the
head of each.  It answers StartTLS and, before TLS, what has to wait for it.  It waits for the answer to each bind, so
that failed logins are counted.  After a successful one it only copies, unless the backend could take the gateway's own
TLS or user for the client's: then it goes on looking at heads.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, Final

from ...protocol.filters import Counted
from ...protocol.framing import BEGIN, Units
from ...protocol.vocabulary import (
    Await,
    Close,
    Forward,
    Note,
    Pass,
    Patience,
    Proven,
    Request,
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
from .. import access, sasl
from ..base import BackendTLS, Dialect, Policy, Question, Terms
from ..conversation import BACKEND, CLIENT, Conversation, broken, converse, foreign_units, login_note
from ..probing import Attempt, Probing
from ..reach import Hearing, reached, ungreeted, untrusted
from ..users import Claim, shortened
from . import ber
from .messages import (
    ABANDON,
    ADD,
    BIND,
    BUSY,
    COMPARE,
    CONFIDENTIALITY_REQUIRED,
    ENTRY,
    EXTENDED,
    EXTENDED_RESPONSE,
    INVALID_CREDENTIALS,
    METHOD_NOT_SUPPORTED,
    MODIFY,
    MORE,
    OPERATIONS_ERROR,
    PROTOCOL_ERROR,
    RESPONSES,
    SASL_IN_PROGRESS,
    SEARCH,
    STARTTLS,
    STRONGER_AUTH_REQUIRED,
    SUCCESS,
    UNAVAILABLE,
    UNBIND,
    UNBIND_REQUEST,
    Bind,
    agrees,
    is_complete,
    is_judged,
    is_starttls,
    listed,
    logins,
    may_hold_password,
    nobodys_bind,
    notice,
    read_bind,
    readable,
    result,
    result_of,
    root,
    shows_password,
    starttls_request,
)

BACKEND_DOWN: Final = b"backend unavailable"
SHORT: Final = 4096
"""Octets of a message before TLS, where nothing is forwarded."""
LONGEST_BIND: Final = 65536
"""Octets of a bind: Kerberos tickets are large."""
OUTSTANDING: Final = 1000
"""Requests without their last response; slapd allows as many (conn_max_pending_auth)."""
LAYER: Final = b"\0"
"""The first octet of a SASL security layer's message: its length is below 16 MiB (RFC 4422 3.7)."""


def measure(limit: int, layered: bool, head: bytes) -> int | None:
    """As `ber.measure`; of a message above the limit its head must be there, so that it can be told what it is.

    `layered`: a message of a security layer counts as too long, so that it stays.
    """
    if layered and head.startswith(LAYER):
        return limit + 1
    length = ber.measure(head)
    return None if length is not None and length > limit and ber.head(head) is None else length


SHORT_MESSAGES: Final = Units(partial(measure, SHORT, False), SHORT)
MESSAGES: Final = Units(partial(measure, LONGEST_BIND, False), LONGEST_BIND)
LAYERED: Final = Units(partial(measure, LONGEST_BIND, True), LONGEST_BIND)
"""After a SASL bind."""


def head_of(side: Side, begin: bytes) -> ber.Head | None:
    """The head of a message; None where more octets are needed.  Raises Violation."""
    try:
        return ber.head(begin)
    except ValueError as error:
        shown = begin[:BEGIN] if side is CLIENT else begin[:80]  # behind that a password may be
        raise Violation(side, f"{side.value}-protocol-error", f"{error}: {shown!r}") from None


def read(heard: Unit | TooLarge) -> tuple[ber.Head, bytes]:
    """Its head, and what is known of its octets.  Raises Violation."""
    octets = heard.octets if isinstance(heard, Unit) else heard.begin
    head = head_of(heard.side, octets)
    assert head is not None, "a head is shorter than what is shown of a unit"
    return head, octets


# --- a session ---------------------------------------------------------------------------------------

Answered = Generator[Request, Any, bool]
"""Whether the session is spliced now."""
MALFORMED: Final = (PROTOCOL_ERROR, b"malformed bind request")
EMPTY_VALUE: Final = b"\x81\0"
"""RFC 4511 4.14.1: the request has no value.  Some clients send an empty one, and servers take it."""


def skim(side: Side, octets: bytes | bytearray, begin: int) -> int:
    """Entries, of which there may be a million."""
    return ber.skim(octets, begin, ENTRY) if side is BACKEND else begin


class LDAP(Conversation):
    """One session."""

    def __init__(self, terms: Terms) -> None:
        super().__init__(terms)
        self._pending: dict[int, int] = {}
        """Requests that the backend has not answered: id and tag."""
        self._claim: Claim | None = None
        """A SASL dialogue that is not over."""
        self._layered = False
        """A SASL bind succeeded, so that the client's next octets may begin a security layer."""

    @property
    def _guarded(self) -> bool:
        """Nothing that may hold a password is forwarded before TLS."""
        return self.secured is None and self.terms.policy is Policy.AUTH_ONLY

    def talk(self) -> Script:
        while True:
            if self.reached:
                heard = yield Forward(LAYERED if self._layered else MESSAGES, self._wanted, skim=skim)
            else:
                heard = yield Await((CLIENT,), Patience.COMMAND, SHORT_MESSAGES if self.closed else MESSAGES)
            if (yield from self._asked(heard)):
                return

    def _wanted(self, side: Side, begin: bytes) -> bool | None:
        """Whether a message is for the gateway: binds, StartTLS, the end, what begins a security layer, and what may
        have to wait for TLS."""
        if self._layered and begin.startswith(LAYER):
            return True
        head = head_of(side, begin)
        if head is None:
            return None
        if side is BACKEND:
            self._settle(head)
            return False
        self._layered = False
        tag = head.operation.tag
        if tag == BIND or tag not in RESPONSES or (self._guarded and tag in (MODIFY, ADD, COMPARE, EXTENDED)):
            return True
        if tag == EXTENDED:
            wanted = is_starttls(begin, head.operation)
            if wanted is not False:
                return wanted
        self._expect(head)
        return False

    def _expect(self, head: ber.Head) -> None:
        self._pending[head.ident] = head.operation.tag
        if len(self._pending) > OUTSTANDING:
            raise Violation(CLIENT, "client-protocol-error", f"more than {OUTSTANDING} requests at once")

    def _settle(self, head: ber.Head) -> None:
        if head.operation.tag not in MORE:
            self._pending.pop(head.ident, None)

    # --- the client's messages ---

    def _asked(self, heard: Unit | TooLarge) -> Answered:
        if isinstance(heard, TooLarge) and heard.begin.startswith(LAYER):
            return True  # whoever has a security layer of its own can no longer be looked at
        head, octets = read(heard)
        tag = head.operation.tag
        starts = tag == EXTENDED and is_starttls(octets, head.operation)
        waits = self.closed or (self._guarded and may_hold_password(octets, head.operation))
        # What is wanted of a backend that is reached would be handed out again and again.
        if isinstance(heard, TooLarge) and (self.reached or waits or starts or tag in (BIND, UNBIND, ABANDON)):
            raise Violation(CLIENT, "client-protocol-error", f"a message of {heard.octets} octets")
        if tag == UNBIND:
            if self.reached:
                yield Send(BACKEND, octets)
            yield Close("quit")
        elif tag == ABANDON:
            yield from self._abandon(head, octets)
        elif tag not in RESPONSES:
            raise Violation(CLIENT, "client-protocol-error", f"a request with the tag 0x{tag:02x}")
        elif starts:
            yield from self._start_tls(head, octets)
        elif tag == BIND:
            return (yield from self._bind(head, octets))
        elif waits:
            yield from self._wait_for_tls(head, shows_password(octets, head.operation))
        elif isinstance(heard, TooLarge):
            yield from self._reach(self._secure_backend)  # it waits where it is, and then goes through
        else:
            told = yield from self._send(head, octets)
            if isinstance(told, Unit):
                yield from self._tell(told)
        return False

    def _refuse(self, head: ber.Head, code: int, text: bytes) -> Script:
        """Answer a request here."""
        yield Send(CLIENT, result(head.ident, RESPONSES[head.operation.tag], code, text))
        self.count()

    def _wait_for_tls(self, head: ber.Head, shown: bool) -> Script:
        """`shown`: whoever listens has a password now."""
        if shown:
            yield Note("password-in-clear")
        yield from self._refuse(head, CONFIDENTIALITY_REQUIRED, (yield from self.first(b"TLS required")))

    def _abandon(self, head: ber.Head, octets: bytes) -> Script:
        """It has no answer."""
        self._pending.pop(int.from_bytes(ber.content(octets, head.operation), "big"), None)
        if self.reached:
            yield Send(BACKEND, octets)

    def _start_tls(self, head: ber.Head, octets: bytes) -> Script:
        name = ber.element(octets, head.operation.begin)
        assert name is not None, "it is StartTLS"
        if self.secured is not None:
            yield from self._refuse(head, OPERATIONS_ERROR, b"TLS already started")
        elif self._pending:
            yield from self._refuse(head, OPERATIONS_ERROR, b"other operations are outstanding")
        elif octets[name.end : head.operation.end] not in (b"", EMPTY_VALUE):
            yield from self._refuse(head, PROTOCOL_ERROR, b"StartTLS has no value")
        else:
            go_ahead = result(head.ident, EXTENDED_RESPONSE, SUCCESS, b"", STARTTLS)
            self.secured = yield StartTLS(CLIENT, go_ahead)
            # What was bound in the clear, by whomever, does not count inside: a fresh connection is made.
            self.reached = self._layered = False
            self._claim = None
            self.bad = 0

    # --- logins ---

    def _bind(self, head: ber.Head, octets: bytes) -> Answered:
        try:
            bind = read_bind(octets, head.operation)
        except ValueError:
            yield from self._refuse(head, *MALFORMED)
            return False
        claim = self._claimed(bind)
        if self.closed or (bind.login and self._guarded):
            yield from self._wait_for_tls(head, bind.secret)
        elif isinstance(claim, tuple):
            yield from self._refuse(head, *claim)
        elif bind.login and not (yield from self.may_log_in()):
            yield from self._refuse(head, BUSY, b"too many failed logins, try again later")
        else:
            answer = yield from self._verdict(head, octets)
            return (yield from self._judged(bind, claim, answer))
        return False

    def _claimed(self, bind: Bind) -> Claim | tuple[int, bytes]:
        """The login of which this is a step, or why it is refused.  Another mechanism begins anew, and an empty name
        takes a dialogue back (RFC 4511 4.2.1)."""
        if self._claim is not None and self._claim.mechanism == bind.mechanism:
            return self._claim
        if bind.mechanism in (b"", b"SIMPLE"):
            return Claim(bind.mechanism.decode())
        # Cyrus SASL strips -PLUS: EXTERNAL, perhaps.  Inside a security layer EXTERNAL could be said unseen.
        unusable = METHOD_NOT_SUPPORTED, bind.mechanism + b" is not available here"
        if self.terms.backend_local and bind.mechanism in sasl.LAYERED:
            return unusable
        return Claim.named(bind.mechanism, MALFORMED, unusable)

    def _verdict(self, request: ber.Head, octets: bytes) -> Hearing[Unit]:
        """The backend's answer to a bind; what it says before it to other requests goes on to the client."""
        heard = yield from self._send(request, octets)
        while True:
            if not isinstance(heard, Unit):
                heard = yield Await((BACKEND,), Patience.REPLY, MESSAGES)
            head, _ = read(heard)
            if isinstance(heard, TooLarge):
                self._settle(head)
                self.midway = True
                yield Pass(BACKEND, Counted(heard.octets), patience=Patience.REPLY)
                self.midway = False
            elif (head.ident, head.operation.tag) == (request.ident, RESPONSES[BIND]):
                self._settle(head)
                return heard
            else:
                yield from self._tell(heard)
            heard = None

    def _judged(self, bind: Bind, claim: Claim, answer: Unit) -> Answered:
        head, octets = read(answer)
        try:
            code, text = result_of(octets, head.operation)
        except ValueError as error:
            raise broken(f"{error}: {octets[:80]!r}") from None
        told: Script = self.tell(octets)
        if bind.credentials:
            claim.hear_octets(bind.credentials)
        self._claim = claim if code == SASL_IN_PROGRESS else None
        if not bind.login:
            if code == SUCCESS:
                yield Proven()  # anonymous, and the backend serves such clients
        elif code != SASL_IN_PROGRESS:
            if code == SUCCESS:
                claim.earned(octets)
            yield login_note(claim.mechanism, "ok" if code == SUCCESS else "failed", claim.user or shortened(bind.name))
            if code == SUCCESS:
                yield Proven()
                self.bad = 0
                self._layered = bind.mechanism in sasl.LAYERED
            elif code == INVALID_CREDENTIALS:
                told = self.rejected(told)
            elif code in (CONFIDENTIALITY_REQUIRED, STRONGER_AUTH_REQUIRED) and self.secured is not None:
                # It judges by its own connection.
                yield access.note(access.NO_LOGIN, "ldap", self.terms, text or b"result %d" % code)
        yield from told
        harmless = self.terms.backend_tls is BackendTLS.NONE and not self.terms.backend_local
        return harmless and bind.login and code == SUCCESS and self.secured is not None

    # --- the backend ---

    def _send(self, head: ber.Head, octets: bytes) -> Hearing[Unit | TooLarge | None]:
        """Send a request to the backend; returns what it said at once, if it had to be dialled for it."""
        self._expect(head)
        if not self.reached:
            return (yield from self._reach(partial(self._greeted, head, octets)))
        yield Send(BACKEND, octets)
        return None

    def _reach(self, hear: Callable[[], Hearing[Unit | TooLarge | None]]) -> Hearing[Unit | TooLarge | None]:
        heard = yield from reached(self.terms, self.secured, hear)
        self.reached = True
        return heard

    def _greeted(self, request: ber.Head, octets: bytes) -> Hearing[Unit | TooLarge | None]:
        """The first answer proves that there is a directory.  What changes it is not said again to the next address,
        so that its answer is not waited for here."""
        yield from self._secure_backend()
        yield Send(BACKEND, octets)
        if request.operation.tag not in (BIND, SEARCH):
            return None
        heard: Unit | TooLarge = yield Await((BACKEND,), Patience.GREETING, MESSAGES)
        read(heard)
        return heard

    def _secure_backend(self) -> Hearing[None]:
        if self.terms.backend_tls is BackendTLS.STARTTLS:
            yield Send(BACKEND, starttls_request(1))
            heard = yield Await((BACKEND,), Patience.GREETING, MESSAGES)
            head, octets = read(heard)
            try:
                code, text = result_of(octets, head.operation)
            except ValueError:
                raise ungreeted(octets) from None
            if head.operation.tag != EXTENDED_RESPONSE or isinstance(heard, TooLarge):
                raise ungreeted(octets)
            if code != SUCCESS:
                untrusted(f"the backend answers {code} to StartTLS: {text.decode('utf-8', 'replace')}")
            yield StartTLS(BACKEND)

    def _tell(self, heard: Unit) -> Script:
        """Bring one of the backend's messages to the client."""
        head, octets = read(heard)
        self._settle(head)
        yield Send(CLIENT, octets)

    # --- the end ---

    def goodbye(self, trouble: Trouble) -> bytes:
        match trouble:
            case Stopped():
                return self._last(b"the server is stopping")
            case Unavailable():
                return self._last(BACKEND_DOWN)
            case Violation(side=Side.CLIENT, key="client-protocol-error"):
                return notice(PROTOCOL_ERROR, b"not understood")
            case Violation(side=Side.CLIENT, key="too-many-failed-logins" | "too-many-bad-commands"):
                return notice(UNAVAILABLE, b"too many failures")
        return self._last(BACKEND_DOWN) if getattr(trouble, "side", CLIENT) is BACKEND else b""

    def _last(self, text: bytes) -> bytes:
        """What is outstanding is answered, too: some clients show only that."""
        answers = [result(ident, RESPONSES[tag], UNAVAILABLE, text) for ident, tag in self._pending.items()]
        return b"".join(answers) + notice(UNAVAILABLE, text)

    def farewell(self) -> bytes:
        return UNBIND_REQUEST if self.reached and not self._pending and not self.midway else b""

    unavailable_words = notice(UNAVAILABLE, BACKEND_DOWN)
    busy_words = notice(UNAVAILABLE, b"too many connections")


FOREIGN: Final = foreign_units(tls=rb"\x16")
"""Four octets, as in `ber.ENOUGH`."""


DIALECT = Dialect(
    name="ldap",
    script=lambda terms: converse(LDAP(terms)),
    unavailable=LDAP.unavailable,
    busy=LDAP.busy,
    patience={Patience.COMMAND: 3600.0, Patience.REPLY: 60.0, Patience.DATA: 60.0, Patience.SPLICE: 3600.0},
    policies={},
    foreign=FOREIGN,
    identities=frozenset({"proxy-v1", "proxy-v2"}),
    question=Question(ask=root, leave=UNBIND_REQUEST, listed=listed, access=logins, readable=readable),
    first=Side.CLIENT,
    probing=Probing(
        port=389,
        implicit=frozenset({636}),
        starttls=starttls_request(1),
        injected=root(b"", 3),
        complete=is_complete,
        agrees=agrees,
        attempts=(Attempt(nobodys_bind(), is_judged, name=b"a bind with a password"),),
        framing=lambda command: MESSAGES,
        greets=False,
        lists=False,  # any password may be tried, and StartTLS is listed inside TLS, too
    ),
)
