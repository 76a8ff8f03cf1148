"""The table of docs/comparison.md is what happens: for the gateway, and for peers that are here in the same version."""

from __future__ import annotations

from benchmarks import peers
from benchmarks.comparison import BEGIN, END, PAGE, ROWS, compare
from tests.process.conftest import directory_for_servers


def columns() -> dict[str, list[str]]:
    table = PAGE.read_text("utf-8").partition(BEGIN)[2].partition(END)[0].strip()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.split("\n")]
    return {name: [row[place] for row in rows[2:]] for place, name in enumerate(rows[0]) if name}


def test_the_table_of_the_comparison_is_true() -> None:
    written = columns()
    assert all(len(cells) == len(ROWS) for cells in written.values())
    # The others are not waited for: their renewed certificates, the last row, would need 15 seconds each.
    *most, _ = ROWS
    with directory_for_servers() as directory:  # Dovecot's sockets need a short path
        found = compare(directory, [peers.gateway()]) | compare(directory, peers.OTHERS, most)
    assert "gateway" in found
    for name in found.keys() & written.keys():
        assert found[name] == written[name][: len(found[name])], name
