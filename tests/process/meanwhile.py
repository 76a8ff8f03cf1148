"""Tests that wait for deadlines of other processes: what they do is begun at once, by the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Name = TypeVar("Name")
Begun = Callable[[], None]
"""Waits for the end, and raises what went wrong."""


@contextmanager
def at_once(works: Mapping[Name, Callable[[], None]]) -> Iterator[Mapping[Name, Begun]]:
    with ThreadPoolExecutor(len(works)) as pool:
        yield {name: pool.submit(work).result for name, work in works.items()}
