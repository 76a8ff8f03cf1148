"""What legs, listeners and dialling need of Twisted's reactor, and no more, so that tests can stand in for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.interfaces import IHostnameResolver


class Delayed(Protocol):
    """The part of IDelayedCall that is used."""

    def cancel(self) -> None: ...


class Timing(Protocol):
    """A part of IReactorTime."""

    def callLater(self, delay: float, callable: Callable[..., Any], /, *args: Any) -> Delayed: ...


class Reading(Timing, Protocol):
    """What a listener needs: a part of IReactorFDSet, besides."""

    def addReader(self, reader: Any, /) -> object: ...
    def removeReader(self, reader: Any, /) -> object: ...


class Writing(Timing, Protocol):
    """Another part of IReactorFDSet."""

    def addWriter(self, writer: Any, /) -> object: ...
    def removeWriter(self, writer: Any, /) -> object: ...


class Reactor(Reading, Writing, Protocol):
    """What a leg needs."""


class Dialling(Writing, Protocol):
    """What dialling needs: IReactorPluggableNameResolver and the clock, besides."""

    @property
    def nameResolver(self) -> IHostnameResolver: ...
    def seconds(self) -> float: ...
