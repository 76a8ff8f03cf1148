"""Real clients through the gateway to real servers: `python -m interop` runs them all and writes the page."""

from __future__ import annotations

import argparse
import sys
from datetime import datetime, timezone
from pathlib import Path

from interop.clients import CLIENTS
from interop.matrix import Outcome, install, play, show, world
from interop.places import Missing, need_root
from interop.servers import SERVERS
from interop.table import page

PAGE = Path(__file__).parent.parent / "docs" / "compatibility.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m interop", description=__doc__)
    parser.add_argument("--client", action="append", metavar="NAME", help="this client only; may be repeated")
    parser.add_argument("--server", action="append", metavar="NAME", help="this server only; may be repeated")
    parser.add_argument("--page", type=Path, default=None, help=f"where to write the page; a full run writes {PAGE}")
    chosen = parser.parse_args()
    clients = [client for client in CLIENTS if not chosen.client or client.name in chosen.client]
    servers = [server for server in SERVERS if not chosen.server or server.name in chosen.server]
    if not clients or not servers:
        known = ", ".join(dict.fromkeys([*(one.name for one in CLIENTS), *(one.name for one in SERVERS)]))
        parser.error(f"there is no such client or server; there are: {known}")
    try:
        need_root()
        install(clients, servers)
        spoken = {protocol for server in servers for protocol in server.protocols}
        clients = [client for client in clients if client.protocol in spoken]
        outcomes: list[Outcome] = []
        with world(servers) as there:
            for outcome in play(there, clients):
                show(outcome)
                outcomes.append(outcome)
        written = chosen.page or (None if chosen.client or chosen.server else PAGE)
        text = page(clients, servers, outcomes, datetime.now(timezone.utc).date())
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    print(text)
    if written is not None:
        written.write_text(text)
    wrong = [outcome for outcome in outcomes if not outcome.ok and not outcome.known]
    print(f"{len(outcomes)} runs, {len(wrong)} not as they should be", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
