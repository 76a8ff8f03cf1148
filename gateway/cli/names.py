"""The reactor of a command, with a resolver that does not delay the end of the process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

T = TypeVar("T")


def awaited(start: Callable[[Any], Deferred[T]]) -> T:
    """Run the reactor until this is done.  Raises what it fails with, or KeyboardInterrupt after Ctrl-C."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    ended: list[Any] = []

    def done(result: Any) -> None:
        ended.append(result)
        reactor.stop()

    reactor.installNameResolver(Names(reactor))
    reactor.callWhenRunning(lambda: maybeDeferred(start, reactor).addBoth(done))
    reactor.run()
    if not ended:
        raise KeyboardInterrupt
    if isinstance(ended[0], Failure):
        ended[0].raiseException()
    result: T = ended[0]
    return result


@implementer(IHostResolution)
class _Resolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        pass  # getaddrinfo cannot be interrupted


@implementer(IHostnameResolver)
class Names:
    """The system's resolver in daemon threads.

    Twisted's resolver waits for its threads when the reactor stops.  If the name server does not answer, this takes
    minutes.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)

        def tell(found: list[IAddress]) -> None:
            for address in found:
                resolutionReceiver.addressResolved(address)
            resolutionReceiver.resolutionComplete()

        def resolve() -> None:
            found = _addresses(hostName, portNumber)
            with suppress(Exception):  # the reactor may have stopped
                self._reactor.callFromThread(tell, found)

        threading.Thread(target=resolve, name=f"resolving {hostName}", daemon=True).start()
        return resolution


def _addresses(host: str, port: int) -> list[IAddress]:
    """Empty if the name does not resolve or is not valid (a label that is too long is a UnicodeError)."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    found: list[IAddress] = []
    for family, _, _, _, place in answers:
        where: Any = place
        if family == socket.AF_INET:
            found.append(IPv4Address("TCP", *where))
        elif family == socket.AF_INET6:
            found.append(IPv6Address("TCP", *where))
    return found
