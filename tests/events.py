"""docs/events.md holds the tables of gateway/telemetry/catalogue.py.

python -m tests.events         # says whether it does
python -m tests.events --write # writes them
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gateway.telemetry.catalogue import EVENTS
from gateway.telemetry.entries import COMMON
from gateway.telemetry.kinds import Budget, Event, Field, Scope, Type
from tests.generated import DOCS, between, main

DOCUMENT = DOCS / "events.md"
BEGIN = "<!-- The tables are written by `python -m tests.events --write`. -->\n"
END = "<!-- End of the tables. -->\n"

PARTS = (
    ("Sessions", "Fields of all: `session`, `service`, `client`, `phase`.", (Scope.SESSION,)),
    ("Backends", "Fields of all: those of a session, or `backend`, `address` and `phase=probe`.", (Scope.BACKEND,)),
    ("The gateway", "", (Scope.GATEWAY, Scope.SERVICE)),
)


def _fields(fields: Iterable[Field]) -> str:
    return "; ".join(f"`{field.name}`: {field.meaning}" for field in fields)


def _often(event: Event) -> str:
    budget = event.budget
    if callable(budget):
        return "see below"
    words = _budget(budget)
    return f"once per backend, {words}" if event.once else words


def _budget(budget: Budget | None) -> str:
    return "always" if budget is None else f"{budget.per_client}, {budget.per_kind} a minute"


def _event(event: Event) -> str:
    cells = (
        f"`{event.name}`", event.severity.word, event.meaning, _fields(event.fields), _often(event), event.cure
    )  # fmt: skip
    return _row(*cells)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def tables() -> str:
    told = [event for event in EVENTS.values() if event.told]
    text = "## Fields that come first\n\n| field | holds | meaning |\n|---|---|---|\n"
    text += "".join(_row(f"`{field.name}`", field.type.value, field.meaning) for field in COMMON)
    for title, fields, scopes in PARTS:
        text += f"\n## {title}\n\n" + (f"{fields}\n\n" if fields else "")
        text += "| event | severity | when | fields | how often | cure |\n|---|---|---|---|---|---|\n"
        text += "".join(_event(event) for event in told if event.scope in scopes)
    text += "\n## `reason` of a session\n\n"
    text += "The event that ended it, or one of these.\n\n"
    text += "| reason | outcome | when |\n|---|---|---|\n"
    text += "".join(_row(f"`{one.name}`", one.ends.value, one.meaning) for one in EVENTS.values() if one.ends)
    return text


filled = between(BEGIN, END, tables)


_HOLDS: Mapping[Type, type | tuple[type, ...]] = {
    Type.WORD: (str, bytes),
    Type.TEXT: (str, bytes),
    Type.INTEGER: int,
    Type.OCTETS: int,
    Type.SECONDS: (int, float),
    Type.YES: bool,
    Type.ADDRESS: str,
    Type.TIME: str,
}
"""What the code gives for a field."""
_COMMON = {field.name: field for field in COMMON}


def wrong(told: Mapping[str, object], typed: bool = True) -> str:
    """What does not fit the table in an event that was told; nothing if all fits.

    `typed`: the values are those of the code, not the words of a line.
    """
    name = str(told["event"])
    event = EVENTS.get(name)
    if event is None:
        return f"{name} is not in the table"
    if not event.told:
        return f"{name} has no line of its own"
    common = ("time", "event", "service", "client", *event.scope.fields)
    fields = {**{one: _COMMON[one] for one in common}, **{field.name: field for field in event.fields}}
    for key, value in told.items():
        if key not in fields:
            return f"{name} has no field {key}"
        if typed and value is not None and not isinstance(value, _HOLDS[fields[key].type]):
            return f"{name}: {key} is {value!r}"
    return ""


if __name__ == "__main__":
    main(DOCUMENT, filled)
