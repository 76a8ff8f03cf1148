"""What is known of backends, as messages from one process to another: which addresses failed, and which relay."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from ..guard.relaywatch import RelayWatch
from .workers.messages import Message

if TYPE_CHECKING:
    from .assembly import Reachable


def knowledge(backends: Collection[Reachable]) -> list[Message]:
    """All of it."""
    known: list[Message] = []
    for backend in backends:
        name, health = backend.values.name, backend.dialer.health
        known += [{"health": name, "address": key, "record": health.record(key)} for key in health.addresses()]
        if backend.watch is not None:
            known.append(verdicts(name, backend.watch))
    return known


def verdicts(name: str, watch: RelayWatch) -> Message:
    return {"backend": name, "verdicts": {str(one): v and v.value for one, v in watch.verdicts.items()}}


def learn(backends: Collection[Reachable], message: Message) -> None:
    """What another process knows.  Nothing happens where the backend is not one of these."""
    match message:
        case {"health": str(name), "address": str(address), "record": record}:
            for backend in _named(backends, name):
                backend.dialer.health.learn(address, record)
        case {"backend": str(name), "verdicts": dict(found)}:
            for backend in _named(backends, name):
                if backend.watch is not None:
                    backend.watch.learn(found)


def _named(backends: Collection[Reachable], name: str) -> list[Any]:
    return [backend for backend in backends if backend.values.name == name]
