"""Lines in the log about listeners and reloads, the same with one process and with several."""

from __future__ import annotations

from ..config.values import Configuration, SystemdAddress
from ..dialects import DIALECTS
from ..telemetry.summary import Teller
from ..wire.listener import inherited
from .plan import Opening, Reload, openings


def tell_listening(opening: Opening, address: str, events: Teller) -> None:
    """`address`: with the real port, where port 0 was asked for."""
    backend = opening.service.backend
    events.emit(
        "listening",
        service=opening.service.name,
        protocol=opening.service.protocol,
        mode="implicit" if opening.implicit else "starttls",
        policy=opening.policy,
        connect="lazy" if backend.lazy and not opening.implicit else "eager",
        address=address,
        experimental=bool(DIALECTS[opening.service.protocol].experimental),
    )


def tell_unused(configuration: Configuration, events: Teller) -> None:
    """Connections to a socket that systemd passed and nobody accepts from would wait for ever."""
    used = {one.address.name for one in openings(configuration) if isinstance(one.address, SystemdAddress)}
    for name, place in inherited():
        if name not in used:
            events.emit(
                "unused-socket",
                name=name,
                address=place,
                cure=f"write systemd:{name} in the starttls or implicit of a service, or disable its .socket unit",
            )


def tell_reload(outcome: Reload, events: Teller) -> None:
    events.emit(
        "reload",
        result="ok" if outcome.good else "refused",
        problems=len(outcome.problems) or None,
        detail=" | ".join(outcome.problems or outcome.changes) or None,
        opened=" ".join(outcome.opened) or None,
        closed=" ".join(outcome.closed) or None,
    )
