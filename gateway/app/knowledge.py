"""What is known, as messages from one process to another: which addresses of backends failed, and which relay; what is
drained; who is banned."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from ..guard.relaywatch import RelayWatch
from .workers.messages import Message

if TYPE_CHECKING:
    from .acting import Acting
    from .assembly import Drained, Reachable


class Knowledge:
    """All that a gateway knows besides its file: what a new worker has to know, and a program that takes over."""

    def __init__(self, backends: Callable[[], Collection[Reachable]], drained: Drained, acting: Acting) -> None:
        self._backends = backends
        self._drained = drained
        self._acting = acting

    def told(self) -> list[Message]:
        """All of it."""
        known: list[Message] = [{"drained": sorted(self._drained.addresses), "closed": sorted(self._drained.services)}]
        for backend in self._backends():
            name, health = backend.values.name, backend.dialer.health
            known += [{"health": name, "address": key, "record": health.record(key)} for key in health.addresses()]
            if backend.watch is not None:
                known.append(verdicts(name, backend.watch))
        return [*known, self._acting.knowledge]

    def learn(self, messages: Iterable[Message]) -> None:
        """What another process knows.  Nothing happens where a backend is not one of these."""
        for message in messages:
            match message:
                case {"drained": list(addresses), "closed": list(services)}:
                    self._drained.mark("service", set(services), drained=True)
                    self._drained.mark("backend", set(addresses), drained=True)
                case {"bans": _}:
                    self._acting.learn(message)
                case {"health": str(name), "address": str(address), "record": record}:
                    for backend in self._named(name):
                        backend.dialer.health.learn(address, record)
                case {"backend": str(name), "verdicts": dict(found)}:
                    for backend in self._named(name):
                        if backend.watch is not None:
                            backend.watch.learn(found)

    def _named(self, name: str) -> list[Reachable]:
        return [backend for backend in self._backends() if backend.values.name == name]


def verdicts(name: str, watch: RelayWatch) -> Message:
    return {"backend": name, "verdicts": {str(one): v and v.value for one, v in watch.verdicts.items()}}
