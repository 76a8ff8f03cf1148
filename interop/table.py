"""The page that tells what a run of the matrix has seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

from interop.clients import Client
from interop.jobs import CONTROLS, FILES, MODES, Mode
from interop.matrix import Outcome
from interop.servers import Server
from interop.trials import Trial

HEAD = """# Compatibility

`make interop` wrote this page on {day}. It ran each client through the gateway against each server, with the client's
check of the certificate on. It needs root. Mail takes ten minutes, FTP took 50 minutes on a busy machine.

* **ok**: the client got a mail through, word for word, inside TLS. An FTP client: see there.
* **no**: it did not. The reason stands below the table.
* **-**: the client does not know this way to start TLS.
* **refuses wrong certificates**: the same client was sent to a port with a certificate of an unknown issuer, and to
  one with a certificate for another name. *yes*: it refused both.

The servers speak in the clear. Each of them runs as Debian packs it.

| server | version | protocols |
|---|---|---|
"""

NAMES = {"smtp": "SMTP", "imap": "IMAP", "pop3": "POP3", "ftp": "FTP"}
WAYS: Mapping[Mode, str] = {"starttls": "STARTTLS", "implicit": "implicit TLS"}
ABOUT = {
    "ftp": """
*ok*: the client did all of this, control and data inside TLS, and each file was the same on both sides:

* a listing;
* a file of 100 MB, stored and fetched;
* half a file of 100 MB, completed at the server and at the client;
* {files:,} small files, stored and fetched: {connections:,} data connections;
* a transfer of 1 GB that it aborted, and a listing after it.

STARTTLS is `AUTH TLS` here.
"""
}


def page(
    clients: Sequence[Client],
    servers: Sequence[Server],
    outcomes: Sequence[Outcome],
    day: date,
    trials: Sequence[tuple[Trial, str]] = (),
    files: int = FILES,
) -> str:
    """`trials`: with what went wrong in each, or nothing; `files`: small ones that an FTP client moved."""
    lines = [HEAD.format(day=day.isoformat())]
    for server in servers:
        version = f"{server.house.version(server.packages[0])} ({server.house.origin})"
        lines.append(f"| {server.name} | {version} | {', '.join(NAMES[one] for one in server.protocols)} |\n")
    for protocol in NAMES:
        lines += section(protocol, clients, outcomes, files)
    lines += _trials(trials)
    return "".join(lines)


def section(protocol: str, clients: Sequence[Client], outcomes: Sequence[Outcome], files: int = FILES) -> Iterable[str]:
    """One protocol's; nothing if no outcome is of it."""
    clients = [one for one in clients if one.protocol == protocol]
    outcomes = [one for one in outcomes if one.protocol == protocol]
    if not outcomes:
        return
    against = list(dict.fromkeys(one.against for one in outcomes if one.against not in CONTROLS))
    columns = [(mode, server) for mode in MODES for server in against]
    about = ABOUT.get(protocol, "").format(files=files, connections=2 * files)
    yield f"\n## {NAMES[protocol]}\n{about}\n| client | version | "
    yield " | ".join(f"{server}, {WAYS[mode]}" for mode, server in columns) + " | refuses wrong certificates |\n"
    yield "|---" * (len(columns) + 3) + "|\n"
    notes: list[str] = []
    for client in clients:
        mine = {(one.mode, one.against): one for one in outcomes if one.client == client.name}
        cells = [_cell(mine.get(column), column[0] in client.lacks) for column in columns]
        controls = [one for (_, server), one in mine.items() if server in CONTROLS]
        verified = "-" if not controls else "yes" if all(one.ok for one in controls) else "no"
        version = f"{client.place.version(client.packages[0])} ({client.place.origin})"
        yield f"| {client.name} | {version} | {' | '.join(cells)} | {verified} |\n"
        if client.needs and mine:
            options = ", ".join(f"`{option} = {value}`" for option, value in client.needs.items())
            notes.append(f"* {client.name}: with {options}")
        if client.stalls and mine:
            notes.append(f"* {client.name}: {client.stalls}")
        alike: dict[tuple[Mode, str], list[str]] = {}
        for one in mine.values():
            if one.detail:
                alike.setdefault((one.mode, one.detail), []).append(one.against)
        for (mode, detail), where in alike.items():
            notes.append(f"* {client.name}, {WAYS[mode]}, {', '.join(where)}: {detail}")
    if notes:
        yield "\n" + "\n".join(notes) + "\n"


def _cell(outcome: Outcome | None, unknown: bool) -> str:
    if outcome is None:
        return "-"
    return "ok" if outcome.ok else "-" if unknown else "no"


def _trials(trials: Sequence[tuple[Trial, str]]) -> Iterable[str]:
    if not trials:
        return
    yield "\n## More than a mail that arrives\n\n| trial | server | what is expected | went so |\n|---|---|---|---|\n"
    for trial, wrong in trials:
        server = f"{trial.server.name} {trial.server.house.version(trial.server.packages[0])}"
        yield f"| {trial.name} | {server} | {trial.expected} | {f'no: {wrong}' if wrong else 'yes'} |\n"
