"""Fields and budgets that many events have, and short ways to write an event."""

from __future__ import annotations

from typing import Any

from .kinds import Budget, Event, Field, Fields, Outcome, Scope, Severity, Type

COSTS_NOTHING = Budget(per_client=5, per_kind=20, shared=True)
"""What anybody can cause by connecting: enough to see what goes on, and who began."""
COSTS_A_DIALOGUE = Budget(per_client=30, per_kind=300)
"""What takes a TLS handshake or a polite end: monitoring, clients that look around, mail that was not accepted."""
FAILED_LOGIN = Budget(per_client=20, per_kind=300, first=True)
"""fail2ban counts these.  `[limits] auth_failures_per_minute` is the same for one client; against many clients at once
the first of each is what bans it."""


def of_a_session(fields: Fields) -> Budget | None:
    phase = fields.get("phase")
    if fields.get("proven") or fields.get("messages") or phase == "relaying":
        return None
    return COSTS_A_DIALOGUE if phase == "secure" or fields.get("reason") == "quit" else COSTS_NOTHING


def of_a_login(fields: Fields) -> Budget | None:
    return None if fields.get("result") == "ok" else FAILED_LOGIN


def of_a_transfer(fields: Fields) -> Budget | None:
    return None if fields.get("received") or fields.get("sent") else COSTS_A_DIALOGUE


def of_client(name: str, meaning: str, *fields: Field, ends: Outcome | None = Outcome.CLIENT, **more: Any) -> Event:
    """What anybody who connects can cause."""
    severity = Severity.WARNING if ends is Outcome.ATTACK else Severity.NOTICE
    options: dict[str, Any] = {"severity": severity, "scope": Scope.SESSION, "budget": COSTS_NOTHING, **more}
    return Event(name, meaning=meaning, fields=fields, ends=ends, **options)


def of_backend(name: str, meaning: str, *fields: Field, ends: Outcome | None = Outcome.BACKEND, **more: Any) -> Event:
    """What happens to every client while something is wrong with the backend."""
    options: dict[str, Any] = {
        "severity": Severity.WARNING, "scope": Scope.BACKEND, "budget": COSTS_NOTHING, **more
    }  # fmt: skip
    return Event(name, meaning=meaning, fields=fields, ends=ends, **options)


def reason(name: str, meaning: str, ends: Outcome) -> Event:
    return Event(name, Severity.INFO, meaning, scope=Scope.SESSION, ends=ends, told=False)


def detail(meaning: str) -> Field:
    return Field("detail", Type.TEXT, meaning)


def word(name: str, meaning: str) -> Field:
    return Field(name, Type.WORD, meaning)


CURE = Field("cure", Type.TEXT, "what to change")
BACKEND_NAME = word("backend", "the name of its `[backend:...]` section")
BACKEND_ADDRESS = Field("address", Type.ADDRESS, "which of its addresses")
PROBED = (BACKEND_NAME, BACKEND_ADDRESS, Field("text", Type.TEXT, "its answer"))
WORDS = Field("text", Type.TEXT, "its words")
WHY = detail("why")
AWAITED = detail("what was awaited")
LISTEN = (
    word("service", "the name of its `[service:...]` section"),
    Field("address", Type.ADDRESS, "the address that is listened on"),
)

COMMON = (
    Field("time", Type.TIME, "when, UTC"),
    word("event", "the name in this table"),
    word("session", "of a session: its identity, also the beginning of the `id` in its `Received:` lines"),
    word("service", "the name of its `[service:...]` section"),
    Field("client", Type.ADDRESS, "the client's address; empty for a UNIX socket"),
    word(
        "phase",
        "where the session is: `dialling`, `greeting`, `plaintext`, `handshake`, `secure` or `relaying`; `probe` in "
        "what the relay watch tells",
    ),
    BACKEND_NAME,
    BACKEND_ADDRESS,
)
"""Fields that come first, where the scope of the event has them."""
TLS = (
    word("tls", "the version of TLS; absent: none"),
    word("cipher", "OpenSSL's name"),
    word("group", "of the key exchange, OpenSSL's name"),
)
USER = Field(
    "user", Type.TEXT, "whom the client said that it is; only with `[gateway] log_users`, which also says in which form"
)
BACKEND_REACHED = Field("backend_address", Type.ADDRESS, "which address of the backend was reached last")
