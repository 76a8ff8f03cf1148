"""Real clients through the gateway to real servers: `python -m interop` runs them all and writes the page."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from interop import others
from interop.clients import CLIENTS, Client
from interop.jobs import FILES
from interop.matrix import Outcome, install, play, show, world
from interop.places import Missing, need_root
from interop.servers import SERVERS, Server
from interop.table import NAMES, page, section
from interop.trials import TRIALS, attempt

PAGE = Path(__file__).parent.parent / "docs" / "compatibility.md"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m interop", description=__doc__)
    parser.add_argument("--client", action="append", metavar="NAME", help="this client only; may be repeated")
    parser.add_argument("--server", action="append", metavar="NAME", help="this server only; may be repeated")
    parser.add_argument("--protocol", choices=NAMES, help="only this protocol; renews its part of the page")
    parser.add_argument("--files", type=int, default=FILES, help="small files that an FTP client moves (%(default)s)")
    parser.add_argument("--page", type=Path, default=None, help=f"where to write the page; a full run writes {PAGE}")
    parser.add_argument("--trials", action="store_true", help="only the trials below the tables")
    parser.add_argument("--others", action="store_true", help="only the other protocols; renews their part of the page")
    chosen = parser.parse_args()
    if chosen.others:
        return run_others(chosen.page or PAGE)
    everything = not (chosen.client or chosen.server or chosen.trials or chosen.protocol)
    only = chosen.protocol
    clients = [
        one for one in CLIENTS if one.name in (chosen.client or [one.name]) and (not only or one.protocol == only)
    ]
    servers = [
        one for one in SERVERS if one.name in (chosen.server or [one.name]) and (not only or only in one.protocols)
    ]
    if not clients or not servers:
        known = ", ".join(dict.fromkeys([*(one.name for one in CLIENTS), *(one.name for one in SERVERS)]))
        parser.error(f"there is no such client or server; there are: {known}")
    trials = TRIALS if everything or chosen.trials else ()
    try:
        need_root()
        install(clients, servers)
        outcomes = [] if chosen.trials else run_all(clients, servers, chosen.files)
        tried = [(trial, attempt(trial)) for trial in trials]
        text = page(clients, servers, outcomes, datetime.now(timezone.utc).date(), tried, chosen.files)
        seen = others.play() if everything else {}
        if everything:
            text = others.renewed(text, "".join(others.section(seen)))
        elif only:
            text = others.renewed(PAGE.read_text(), "".join(section(only, clients, outcomes, chosen.files)))
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    print(text)
    whole = everything or (only and not (chosen.client or chosen.server))
    written = chosen.page or (PAGE if whole else None)
    if written is not None:
        written.write_text(text)
    wrong = sum(not outcome.ok and not outcome.known for outcome in outcomes) + sum(bool(said) for _, said in tried)
    wrong += sum(map(bool, seen.values()))
    print(f"{len(outcomes)} runs, {len(tried)} trials, {wrong} not as they should be", file=sys.stderr)
    return 1 if wrong else 0


def run_others(written: Path) -> int:
    try:
        found = others.play()
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 2
    written.write_text(others.renewed(written.read_text(), "".join(others.section(found))))
    return 1 if any(found.values()) else 0


def run_all(clients: Sequence[Client], servers: Sequence[Server], files: int) -> list[Outcome]:
    spoken = {protocol for server in servers for protocol in server.protocols}
    outcomes: list[Outcome] = []
    with world(servers, files) as there:
        for outcome in play(there, [client for client in clients if client.protocol in spoken]):
            show(outcome)
            outcomes.append(outcome)
    return outcomes


if __name__ == "__main__":
    sys.exit(main())
