"""The facts in a SQLite file.  It may be lost without harm: it is made anew, and the gateway serves without it.

Several processes may write the same file: what they write is added to what is there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .facts import KINDS, Fact, Key, Times

if TYPE_CHECKING:
    import sqlite3

ROWS: Final = 150_000
"""Facts that are kept; the oldest go first."""
OCTETS: Final = 64 * 1024 * 1024
"""The file never grows beyond this, nor do all facts that fit into ROWS need more than half of it."""
_PAGE: Final = 4096
_SLACK: Final = ROWS // 20
"""Facts that are deleted more than needed, so that it is not done for each new one."""
BUSY: Final = 5.0
"""Seconds to wait for another process that writes."""
VERSION: Final = 1
"""Of the schema (PRAGMA user_version)."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS fact (
    service TEXT NOT NULL, network TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (service, network, kind, value)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS fact_last ON fact (last);
"""
_ADD: Final = """
INSERT INTO fact VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET first = min(first, excluded.first), last = max(last, excluded.last),
                          count = count + excluded.count
"""


class StoreError(Exception):
    """The file cannot be used; the text says why, and what to do."""


class Store:
    """One file.  Each call opens it: it is called a few times a minute at most, from any thread."""

    def __init__(self, file: Path, rows: int = ROWS, octets: int = OCTETS) -> None:
        # Not before somebody has a report: it takes 1.5 MB.
        import sqlite3

        self._sqlite3 = sqlite3
        self.file = file
        self._rows = rows
        self._slack = min(_SLACK, rows // 20)
        self._octets = octets

    def add(self, facts: Mapping[Key, Times], oldest: int) -> None:
        """Add these, and forget what was last true before `oldest`.  Raises StoreError."""
        rows = [(*key, times.first, times.last, times.count) for key, times in facts.items()]
        try:
            try:
                self._add(rows, oldest)
            except self._sqlite3.DatabaseError as broken:
                if not _is_damaged(broken):
                    raise
                self._start_anew()
                self._add(rows, oldest)
        except (self._sqlite3.Error, OSError) as wrong:
            raise StoreError(f"{self.file}: {wrong}") from None

    def _add(self, rows: list[tuple[str, str, str, str, int, int, int]], oldest: int) -> None:
        with closing(self._open()) as database, database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("DELETE FROM fact WHERE last < ?", (oldest,))
            database.executemany(_ADD, rows)
            (there,) = database.execute("SELECT count(*) FROM fact").fetchone()
            if there > self._rows:
                too_many = there - self._rows + self._slack
                database.execute(
                    "DELETE FROM fact WHERE (service, network, kind, value) IN "
                    "(SELECT service, network, kind, value FROM fact ORDER BY last LIMIT ?)",
                    (too_many,),
                )

    def facts(self, since: int = 0, kinds: Sequence[str] = KINDS) -> list[Fact]:
        """Those that were true at `since` or later; none where there is no file.  Raises StoreError."""
        if not self.file.exists():
            return []
        try:
            address = f"{self.file.absolute().as_uri()}?mode=ro"
            with closing(self._sqlite3.connect(address, uri=True, timeout=BUSY)) as database:
                found = database.execute(
                    "SELECT service, network, kind, value, first, last, count FROM fact WHERE last >= ? "
                    f"AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY service, network, kind, value",
                    (since, *kinds),
                ).fetchall()
        except self._sqlite3.Error as wrong:
            raise StoreError(f"{self.file}: {wrong}") from None
        return [Fact(*row) for row in found]

    def _open(self) -> sqlite3.Connection:
        if not self.file.exists():
            # Who has used this server is nobody else's business.
            os.close(os.open(self.file, os.O_CREAT | os.O_WRONLY, 0o640))
        database = self._sqlite3.connect(self.file, timeout=BUSY, isolation_level=None)
        try:
            database.execute(f"PRAGMA max_page_count = {self._octets // _PAGE}")
            # A lost batch harms nobody, and a rollback journal leaves no second file behind.
            database.execute("PRAGMA synchronous = OFF")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                if version:
                    raise self._sqlite3.DatabaseError(f"{DAMAGED}: schema {version}")
                database.executescript(f"PRAGMA page_size = {_PAGE}; {_SCHEMA} PRAGMA user_version = {VERSION};")
        except BaseException:
            database.close()
            raise
        return database

    def _start_anew(self) -> None:
        """The old file stays beside the new one, for whoever wants to look at it."""
        self.file.replace(self.file.with_name(self.file.name + ".damaged"))
        self.file.with_name(self.file.name + "-journal").unlink(missing_ok=True)


DAMAGED: Final = "another version of the gateway wrote it"


def _is_damaged(wrong: sqlite3.DatabaseError) -> bool:
    return str(wrong).startswith(DAMAGED) or getattr(wrong, "sqlite_errorname", str(wrong)) in (
        "SQLITE_CORRUPT",
        "SQLITE_NOTADB",
        "file is not a database",
        "database disk image is malformed",
    )
