"""The gateway's dataclasses: equal, hashed and shown as Python's own."""

from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import field, replace

import pytest

from gateway.records import dataclass


@dataclass(frozen=True, slots=True)
class Told:
    name: str
    number: int = 1
    place: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Other:
    name: str
    number: int = 1


@dataclass
class Changing:
    words: list[str]

    def __repr__(self) -> str:
        return "its own"


@dataclass(slots=True, eq=False)
class Single:
    """Equal to itself only."""

    name: str


def test_it_is_equal_by_the_fields_that_are_compared() -> None:
    assert Told("a") == Told("a", 1, "elsewhere")
    assert Told("a") != Told("a", 2)
    assert Told("a") != Told("a", secret="x")
    others: list[object] = [Other("a")]
    assert Told("a") not in others
    assert Changing(["a"]) == Changing(["a"])


def test_a_frozen_one_is_hashed_by_the_same_fields_and_another_is_not() -> None:
    assert {Told("a"), Told("a", place="elsewhere"), Told("b")} == {Told("a"), Told("b")}
    with pytest.raises(TypeError):
        hash(Changing([]))


def test_without_eq_each_is_itself() -> None:
    one = Single("a")
    assert one == one
    assert one != Single("a")
    assert len({one, Single("a")}) == 2


def test_its_repr_has_the_fields_but_no_secret() -> None:
    assert repr(Told("a", secret="x")) == "Told(name='a', number=1, place='')"
    assert repr(Single("a")) == "Single(name='a')"
    assert repr(Changing([])) == "its own"


def test_it_is_replaced_matched_copied_and_pickled() -> None:
    told = replace(Told("a"), number=2)
    match told:
        case Told(name=name, number=number):
            assert (name, number) == ("a", 2)
    assert copy.copy(told) == told
    assert pickle.loads(pickle.dumps(told)) == told


def test_its_docstring_is_the_one_of_the_class_or_its_name() -> None:
    assert (Told.__doc__, Single.__doc__) == ("Told", "Equal to itself only.")


def test_the_class_without_slots_does_not_stay() -> None:
    gc.collect()
    for made in (Told, Single):
        assert not hasattr(made("a"), "__dict__")
        assert [one for one in object.__subclasses__() if str(one) == str(made)] == [made]
