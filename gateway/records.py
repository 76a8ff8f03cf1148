"""Dataclasses at half the price: the gateway has 200 of them, and Python's take 13 KB each.

`dataclass` is Python's own to mypy, which knows that nobody changes a frozen one.  It differs in three ways:

* nothing checks at run time that it is frozen: that costs a call for each field of each object;
* comparison, hash and repr are functions that all classes share, and none that is compiled for each class.  They are
  slow: no session may need them. A class cannot have its own comparison or hash;
* with `slots`, the class without them is collected.  Python 3.11.2 keeps it, and later ones keep a frozen one's.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls=None, /, *, frozen=False, eq=True, slots=False):
        def made(cls):
            own = cls.__dict__
            # Python would write the signature there, which takes long.
            cls.__doc__ = cls.__doc__ or cls.__name__
            if "__repr__" not in own:
                cls.__repr__ = _repr
            assert not {"__eq__", "__hash__"} & own.keys(), f"{cls.__name__} compares in a way of its own"
            if eq:
                cls.__eq__ = _eq
                cls.__hash__ = _hash if frozen else None
            record = dataclasses.dataclass(init=True, repr=False, eq=False, slots=slots)(cls)
            if slots:
                # Of the class without slots, which it keeps; Python has it until 3.11.2.
                with suppress(AttributeError):
                    del record.__weakref__
            return record

        return made if cls is None else made(cls)


def _compared(record: Any) -> tuple[object, ...]:
    return tuple(getattr(record, field.name) for field in dataclasses.fields(record) if field.compare)


def _eq(record: object, other: object) -> bool:
    return _compared(record) == _compared(other) if type(other) is type(record) else NotImplemented


def _hash(record: object) -> int:
    return hash(_compared(record))


def _repr(record: Any) -> str:
    shown = (f"{field.name}={getattr(record, field.name)!r}" for field in dataclasses.fields(record) if field.repr)
    return f"{type(record).__qualname__}({', '.join(shown)})"
