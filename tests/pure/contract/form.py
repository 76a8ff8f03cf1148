"""What a dialect has to answer so that the contract can be played with it.

Write `tests/pure/contract/answers/NAME.py` with one value:

    ANSWERS = Answers(greeting=b"+OK hi\\r\\n", ...)

All values are octets as they cross the wire, line ends included.  The gateway calls itself `gw.example.org`
(`playbook.terms`).  Copy them from the RFC, not from what the dialect says: the contract compares both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.dialects.base import Identity, Policy


class Exchange(NamedTuple):
    """One side says this, and this is the answer."""

    said: bytes
    answered: bytes


@dataclass(frozen=True)
class Telling:
    """How the backend is told who the client is: 192.0.2.10, port 40000, which connected to 198.51.100.1, port 143."""

    offer: bytes
    """The backend's greeting."""
    exchanges: tuple[Exchange, ...]
    """What the gateway says then, each with the backend's answer."""
    welcome: bytes
    """The greeting that the client gets."""
    refusal: bytes
    """An answer to the last command by which the backend does not let the gateway tell."""


@dataclass(frozen=True)
class Look:
    """What `check --live` asks a backend."""

    exchanges: tuple[Exchange, ...]
    """What the gateway says after the greeting, each with the backend's answer; the last one ends the session."""
    offered: list[bytes]
    """The capabilities that the backend lists, ..."""
    shown: list[bytes]
    """... those that a client inside TLS sees, ..."""
    logins: tuple[str, ...]
    """... and the ways to log in."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """What every protocol can answer, however it is spoken."""

    unavailable: bytes
    """What the client hears in place of a greeting when no backend can be reached."""
    busy: bytes
    """The same when it has too many connections."""
    alpn: tuple[bytes, ...]
    """The protocol's ALPN names (RFC 7301)."""
    policies: Mapping[int, Policy] = field(default_factory=dict)
    """Ports whose default is not `required`."""
    offers: frozenset[Policy] = frozenset(Policy)
    """The policies that can be configured."""
    proxied: bool = True
    """A PROXY header can come before everything else that is said to a backend."""
    options: frozenset[str] = frozenset()
    """Options of `[service:...]` that only this protocol has."""
    idle: float
    """Seconds that a client may say nothing: what the RFC demands, and a little more."""
    tells: Mapping[Identity, Telling] = field(default_factory=dict)
    """How the backend is told about the client in commands of this protocol."""
    look: Look | None = None
    """None where the dialect has no `question`."""


@dataclass(frozen=True, kw_only=True)
class Apart(Named):
    """The form for an experimental protocol that fits none of the others: the server greets, and the client's first
    words are its login.  Its own tests take the place of the contract's conversations."""

    first: float
    """Seconds that a client may take for its first words."""


@dataclass(frozen=True, kw_only=True)
class Shared(Named):
    """How a protocol is spoken: what every protocol can answer."""

    # --- the beginning ---

    greeting: bytes
    """A backend's greeting that the client gets as it is."""
    greeting_inside: bytes | None = None
    """What a client inside TLS gets of it; None for all of it as it is."""
    refusal: bytes
    """A backend's greeting that turns the client away.  The client gets it, and the session ends."""
    no_greetings: tuple[bytes, ...]
    """First words that no server of this protocol says, each whole."""
    web: bool = False
    """The protocol is HTTP."""
    user: bytes = b""
    """Whose login `login` is, as the log may name the user; empty where the protocol does not tell."""
    words: bytes
    """Words of both sides, separated by blanks, of which nonsense is made."""
    before_tls: bytes
    """A pattern (`re`): the commands that a backend may hear before TLS under `required`."""

    # --- before TLS with the client ---

    starttls: Exchange
    """The client asks for TLS, and the gateway's go-ahead."""
    closed_login: bytes
    """The gateway's answer to `login` before TLS, under `required` and `auth-only`."""

    # --- inside TLS ---

    reissue: Exchange | None = None
    """Where the server speaks first again inside TLS: what the gateway asks the backend when the client's handshake
    is over, and the answer, which the client gets as it is.  Nothing is asked where the gateway says the backend's
    greeting again."""
    introduction: tuple[Exchange, ...] = ()
    """What a client has to say there before it can log in.  All of it passes as it is."""
    login: bytes
    """Credentials in one command."""
    accepted: bytes
    """The backend's answer to it: success, ..."""
    rejected: bytes
    """... wrong credentials, ..."""
    logins: tuple[bytes, ...]
    """Every command that begins a login."""
    named: Callable[[bytes], bytes] | None
    """A login by SASL with the mechanism of this name; None where clients name none."""
    splices: bool = True
    """After a login the gateway reads nothing more."""
    farewell: bytes
    """The goodbye that the gateway says to the backend when the client has gone."""

    # --- what a client does wrong ---

    too_many_logins: bytes
    """The gateway's last words after five logins that failed; they follow the backend's answer."""
    limited: bytes
    """The gateway's answer to a login of a client above `auth-failures-per-minute`."""
    http_words: bytes
    """The gateway's last words to somebody who speaks HTTP."""
    proxy_words: bytes
    """The gateway's last words to somebody who may send no PROXY header (version 1) and does."""

    # --- how a session ends ---

    lost_words: bytes
    """What the client hears when the backend is lost before its answer to `command`, ..."""
    late_words: bytes
    """... and when the answer does not come in time."""
    idle_words: bytes
    """What a client hears that says nothing for too long, ..."""
    idle_early_words: bytes
    """... or that is too late before its greeting."""
    stop_words: bytes
    """What a client hears when the gateway stops, ..."""
    stop_early_words: bytes
    """... before its greeting."""

    # --- the way to the backend ---

    offer: bytes
    """The greeting of a backend that offers STARTTLS."""
    asks: tuple[Exchange, ...]
    """What the gateway says before STARTTLS, with the backend's answers."""
    backend_starttls: Exchange
    """The gateway's STARTTLS, and the answer that means yes."""
    again: tuple[Exchange, ...] = ()
    """What the gateway says first inside TLS.  Nothing is said where the backend speaks first there."""
    welcome: bytes
    """The greeting that the client gets then before TLS with it (`required`), ..."""
    welcome_inside: bytes
    """... and inside TLS."""
    offer_inside: bytes
    """The greeting of the same backend on its port for implicit TLS."""
    no: tuple[bytes, ...]
    """Answers to STARTTLS that are not yes."""


@dataclass(frozen=True, kw_only=True)
class Answers(Shared):
    """The whole form, for a protocol whose server greets and that has commands."""

    # --- the beginning ---

    lazy_greeting: bytes
    """The gateway's own greeting under `connect = lazy` and `starttls = required`."""

    # --- before TLS with the client ---

    starttls_again: bytes
    """The gateway's answer to the same inside TLS."""
    closed: Exchange
    """A command other than a login which the gateway answers by itself before TLS under `required`, and its answer:
    a refusal, if the protocol allows one."""

    # --- inside TLS ---

    command: Exchange
    """A command that needs no login, and the backend's answer.  Both pass as they are."""
    listing: Exchange
    """The client asks for capabilities; the backend offers TLS, a password login, EXTERNAL, and more."""
    listing_closed: bytes
    """What the client is told of that before TLS, under `required` and `auth-only`: no login, but STARTTLS."""
    listing_open: bytes
    """The same under `optional`: with a login."""
    listing_inside: bytes
    """The same inside TLS: without STARTTLS."""
    postponed: bytes
    """... and a temporary failure, which says nothing about them."""
    taken_back: tuple[Exchange, ...] = ()
    """A login that the client takes back when it is asked for its credentials; empty where none can be."""
    leave: Exchange
    """The client's goodbye, and the backend's answer."""

    # --- what a client does wrong ---

    bad: Exchange
    """A command that the gateway refuses by itself and counts as a bad one."""
    unclean: tuple[Exchange, ...]
    """Units with octets at which a backend might split them."""
    long: Callable[[int], bytes]
    """A command with an argument of so many octets."""
    long_answer: bytes
    """The gateway's answer to one that is too long."""
    endless: tuple[bytes, ...]
    """Beginnings of commands that never end, one for each limit of their length."""
    endless_words: bytes
    """The gateway's last words to that client."""
    too_many_bad: bytes
    """The gateway's last words after too many bad commands, ..."""
    last_answered: bool = True
    """... which follow the answer to the last of them."""
    proxy2_words: bytes
    """All that it says to a header of version 2, which reads as lines, the last one QUIT, ..."""
    proxy2_reason: str
    """... and why the session ends then, as the log has it; empty where this protocol has no QUIT."""

    # --- how a session ends ---

    part: bytes
    """The beginning of an answer to `command`."""
    part_told: bytes = b""
    """What of it the client gets when the backend is lost there; nothing follows it."""
    garbage: bytes
    """An answer to `command` that is none."""
    garbage_words: bytes
    """What the client hears then."""
    unasked: bytes
    """A backend's line inside TLS that nobody asked for."""
    unasked_words: bytes
    """What the client hears then."""
    lost_idle_words: bytes
    """... while no answer is due, ..."""
    down_words: bytes
    """The answer to `listing` of a lazy session inside TLS whose backend cannot be reached."""

    def last(self, answer: bytes) -> bytes:
        """What is said to the last bad command that may be said, which has this answer."""
        return (answer if self.last_answered else b"") + self.too_many_bad


@dataclass(frozen=True, kw_only=True)
class ClientFirst(Shared):
    """The form for a protocol whose client speaks first, and whose first words are its login.

    The backend is dialled for `login`.  `greeting` is its answer, a question for the credentials; `refusal` is an
    answer that turns the client away.  Commands, listings and the gateway's own greeting do not apply.
    """

    knock: bytes = b""
    """What the gateway itself asks the backend before that.  Then `greeting` is the answer to this, which the client
    does not hear, and `login` follows it."""
    judges: bool = True
    """The backend judges `credentials`.  Where it does not, the session is spliced behind `greeting`, and the request
    for TLS is `login` with a wish besides: the backend gets it inside TLS."""
    lockstep: bool = True
    """Behind `credentials` the backend alone is waited for."""
    first: float
    """Seconds that a client may take for its first words."""
    early: bytes = b""
    """What a client says to log in before TLS, where that is more than `login`."""
    blanks: bool = False
    """Blanks behind a unit mean nothing, and are dropped before TLS."""
    credentials: bytes
    """The client's answer to `greeting`; the backend then says `accepted` or `rejected`."""
    closed_reason: str
    """Why the session ends after `closed_login`, ..."""
    rejected_reason: str
    """... and after `rejected`; both empty where it goes on."""
    owed: bytes = b""
    """What `login` is answered with before `unavailable`, where no backend can be reached."""
    garbage: tuple[bytes, ...]
    """First words that no client of this protocol says, each whole.  Nothing is answered."""


def alike(*, unavailable: bytes, lost: bytes, timed_out: bytes, stopping: bytes, **others: Any) -> Answers:
    """The form for a protocol that says the same words wherever a session is: at a failure of the backend, when that is
    lost, to a client that says nothing, and at a stop."""
    return Answers(
        unavailable=unavailable,
        garbage_words=unavailable,
        unasked_words=unavailable,
        down_words=unavailable,
        lost_words=lost,
        lost_idle_words=lost,
        late_words=lost,
        idle_words=timed_out,
        idle_early_words=timed_out,
        stop_words=stopping,
        stop_early_words=stopping,
        **others,
    )
