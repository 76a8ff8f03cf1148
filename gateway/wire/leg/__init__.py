"""One connection: a socket, in the clear or under TLS, for the session that owns it.

`Leg` talks to the owner and to the reactor. It is composed of three state machines: `Reading` (may the socket be
read?), `Writing` (what is still to be sent?) and `Ending` (how long does a closing leg wait?).
"""

from __future__ import annotations

from ..tls.half import MOST
from .descriptor import ends, reset_on_close
from .ending import FLUSH_PATIENCE
from .interfaces import End, Owner
from .leg import MOST_ANSWERS, READ_SIZE, Leg, prepare
from .steered import nobody
from .writing import HIGH_WATER, LOW_WATER

__all__ = [
    "FLUSH_PATIENCE",
    "HIGH_WATER",
    "LOW_WATER",
    "MOST",
    "MOST_ANSWERS",
    "READ_SIZE",
    "End",
    "Leg",
    "Owner",
    "ends",
    "nobody",
    "prepare",
    "reset_on_close",
]
