"""All processes of a gateway: programs of several generations, their templates and workers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Family:
    """`file`: its configuration, which stands in the command line of each program."""

    file: Path

    @property
    def pids(self) -> list[int]:
        """Of all processes."""
        return self._found()

    @property
    def programs(self) -> list[int]:
        """Of the main processes alone."""
        return self._found(children=False)

    def _found(self, children: bool = True) -> list[int]:
        parents: dict[int, int] = {}
        found: list[int] = []
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            pid = int(entry.name)
            with suppress(OSError):
                state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
                if state == "Z":
                    continue
                parents[pid] = int(parent)
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                # Not that of an editor or of a test that looks at the file.
                if str(self.file).encode() in words and b"starttls-gateway" in words:
                    found.append(pid)
        for pid in found if children else ():
            found += [child for child, parent in parents.items() if parent == pid and child not in found]
        return found

    @property
    def memory(self) -> int:
        """Octets: what is shared by several counts once (Pss, proc_pid_smaps_rollup(5))."""
        return sum(sizes.get("Pss", 0) for sizes in map(sizes_of, self.pids))

    @property
    def descriptors(self) -> int:
        found = 0
        for pid in self.pids:
            with suppress(OSError):
                found += len(os.listdir(f"/proc/{pid}/fd"))
        return found

    @property
    def cpu(self) -> float:
        """Seconds of those that are there."""
        return sum(self._cpu())

    def _cpu(self) -> Iterator[float]:
        for pid in self.pids:
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                yield (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def sizes_of(pid: int) -> dict[str, int]:
    """Octets, by the names of smaps_rollup; nothing where the process is gone."""
    with suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return {name: int(size) * 1024 for name, size in re.findall(r"(?m)^(\w+):\s+(\d+) kB", text)}
    return {}


def private(pid: int) -> int:
    """Octets that no other process shares."""
    sizes = sizes_of(pid)
    return sizes.get("Private_Clean", 0) + sizes.get("Private_Dirty", 0)
