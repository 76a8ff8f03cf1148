"""Processes that are measured from outside: started, watched through /proc, and ended by number."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
LOOK, QUIET = 0.05, 0.001
"""Seconds between two looks, and seconds of CPU meanwhile that are the stirring of somebody who has nothing to do."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)
_PARTS = ("Pss", "Rss")


def start(
    command: Sequence[str], directory: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """A process that ends when we do, whatever becomes of us; what it says goes to `log`."""
    with open(log, "ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=dict(environment),
            preexec_fn=die_with_us,
        )


def die_with_us() -> None:
    """To be called in a child: the kernel ends it when its parent has ended."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def end(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """Stop it and everything that it started."""
    family = tree(process.pid) if process.poll() is None else []
    if family:
        process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in family[1:]:
        # An orphan; its number cannot have been given to anybody else within these seconds.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def tree(pid: int) -> list[int]:
    """This process and all that came from it, oldest first."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found


def cpu(pid: int) -> float:
    """Seconds of CPU, user and system, that this process, its threads and its children have used.

    Those that run are asked for their CPU clock, which counts nanoseconds and knows the threads that have ended
    (/proc/PID/task/*/schedstat does not).  Children that have ended stand in /proc/PID/stat only, in hundredths.
    """
    seconds = 0.0
    for one in tree(pid):
        fields = _stat(one)
        if fields:
            own, ended = (sum(map(int, fields[first : first + 2])) / TICKS for first in (11, 13))
            clock = _clock(one)
            seconds += ended + (own if clock is None else clock)
    return seconds


def spent(pid: int) -> tuple[float, float]:
    """Seconds that this process and its children have spent in their own code and in the kernel, in hundredths.

    The kernel looks who runs a hundred times a second; of much work it has a fair picture.
    """
    user = kernel = 0
    for one in tree(pid):
        if fields := _stat(one):
            user += int(fields[11]) + int(fields[13])
            kernel += int(fields[12]) + int(fields[14])
    return user / TICKS, kernel / TICKS


def _clock(pid: int) -> float | None:
    """What the process's CPU clock shows; None if it has none."""
    clock = ctypes.c_int()
    if _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)):
        return None
    try:
        return time.clock_gettime(clock.value)
    except OSError:
        return None


def memory(pid: int) -> dict[str, int]:
    """Octets, as `Pss` (shared pages divided among those who share them) and as `Rss`."""
    octets = dict.fromkeys(_PARTS, 0)
    for one in tree(pid):
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue  # it ended meanwhile
        for part in _PARTS:
            found = re.search(rf"^{part}:\s+(\d+) kB", rollup, re.MULTILINE)
            octets[part] += int(found[1]) * 1024 if found else 0
    return octets


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; nothing for a process that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The name stands in parentheses and may hold anything.
    return text[text.rindex(")") + 2 :].split()


def machine_cpu() -> float:
    """Seconds of CPU that everything on this machine has used, all processors together."""
    user, nice, system, _idle, _wait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def own_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def raise_descriptor_limit(wanted: int) -> int:
    """How many descriptors we, and those whom we start, may have now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, limit)
            return limit[0]
    return soft


def settle(pid: int, patience: float = 3.0) -> None:
    """Wait until a process has done what it still had to do."""
    before = cpu(pid)
    for _ in range(int(patience / LOOK)):
        time.sleep(LOOK)
        now = cpu(pid)
        if now - before < QUIET:
            return
        before = now
