"""Each parser under a coverage-guided fuzzer: `make fuzz MINUTES=5`, or `python -m tests.fuzz --minutes 5 smtp imap`.

Every target gets the minutes for itself; as many run at once as there are processors.  A run begins with the kept
corpus (tests/fuzz/corpus) and what earlier runs found (build/fuzz/corpus).  A failure is kept in build/fuzz and
shown with its traceback; as a file in tests/fuzz/corpus it becomes a test (test_fuzz_corpus.py).

`--keep` replaces the kept corpus by the smallest inputs that reach what all known ones do, within a few KB.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
BUILD = HERE.parents[1] / "build" / "fuzz"
HANG = 10
"""Seconds that one input may take."""
LARGEST = 4096
FOUND = re.compile(r"[0-9a-f]{40}\Z")
"""How what was found is named; other names are given by people."""
Step = tuple[str, int, int]
KEPT = 4096
"""Octets of one target's kept corpus."""


def fuzz(name: str, arguments: Sequence[str]) -> None:
    """One target in this process, which libFuzzer ends."""
    atheris = importlib.import_module("atheris")  # only where it is installed: it does not come with the tests

    with atheris.instrument_imports(include=["gateway"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([name, *arguments], TARGETS[name])
    atheris.Fuzz()


def _command(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz", "--target", name, *arguments]


def start(name: str, seconds: int) -> tuple[subprocess.Popen[bytes], Path]:
    found, log = BUILD / "corpus" / name, BUILD / f"{name}.log"
    found.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            _command(
                name,
                f"-max_total_time={seconds}",
                f"-timeout={HANG}",
                f"-max_len={LARGEST}",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
                f"-artifact_prefix={BUILD}/{name}-",
                *([f"-dict={HERE / 'words.dict'}"] if name != "config" else []),
                str(found),
                str(CORPUS / name),
            ),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    return process, log


def report(name: str, log: Path, status: int) -> str:
    text = log.read_text(errors="replace")
    figures = dict(re.findall(r"stat::(\w+):\s+(\d+)", text))
    covered = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)", text)
    branches, features, inputs = covered[-1] if covered else ("?", "?", "?")
    line = (
        f"{name:<8} {'ok' if status == 0 else 'FAILED':<6} {figures.get('number_of_executed_units', '?'):>9} runs "
        f"{figures.get('average_exec_per_sec', '?'):>6}/s  {branches:>5} branches {features:>6} features "
        f"{inputs:>5} inputs  {figures.get('slowest_unit_time_sec', '?')} s the slowest  "
        f"{figures.get('peak_rss_mb', '?')} MB"
    )
    if status:
        line += "\n" + "\n".join(text.splitlines()[-40:])
    return line


def keep(name: str) -> None:
    """The smallest inputs first, each that goes a way that none did before it, until the room is full."""
    target = importlib.import_module("tests.fuzz.targets").TARGETS[name]
    known = sorted((CORPUS / name).iterdir(), key=lambda path: (FOUND.match(path.name) is not None, path.name))
    named = [path for path in known if not FOUND.match(path.name)]
    octets = {path.read_bytes() for path in known[len(named) :]}
    found = BUILD / "corpus" / name
    octets |= {path.read_bytes() for path in found.iterdir()} if found.is_dir() else set()
    seen: set[Step] = set()
    room = KEPT
    for path in named:
        seen |= ways(target, path.read_bytes())
        room -= path.stat().st_size
    for path in known[len(named) :]:
        path.unlink()
    for some in sorted(octets, key=lambda each: (len(each), each)):
        new = ways(target, some) - seen
        if new and len(some) <= room:
            room -= len(some)
            seen |= new
            (CORPUS / name / hashlib.sha1(some).hexdigest()).write_bytes(some)


def ways(target: Callable[[bytes], None], octets: bytes) -> set[Step]:
    """Each step from a line of the gateway's to another that this input takes."""
    steps: set[Step] = set()

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if "/gateway/" not in frame.f_code.co_filename:
            return None
        last = frame.f_code.co_firstlineno

        def line(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
            nonlocal last
            if event == "line":
                steps.add((frame.f_code.co_filename, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        target(octets)
    finally:
        sys.settrace(None)
    return steps


def main() -> None:
    if sys.argv[1:2] == ["--target"]:
        fuzz(sys.argv[2], sys.argv[3:])
        return
    everything = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(everything)}; default all")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="renew the kept corpus instead")
    options = parser.parse_args()
    wanted = options.targets or everything
    if unknown := set(wanted) - set(everything):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    BUILD.mkdir(parents=True, exist_ok=True)
    if options.keep:
        for name in wanted:
            keep(name)
        return
    waiting, failed = list(wanted), False
    running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < options.jobs:
                name = waiting.pop(0)
                running[name] = start(name, max(1, int(options.minutes * 60)))
            time.sleep(0.2)
            for name, (process, log) in list(running.items()):
                status = process.poll()
                if status is not None:
                    del running[name]
                    failed = failed or status != 0
                    print(report(name, log, status), flush=True)
    finally:
        for process, _ in running.values():
            process.kill()
    sys.exit(failed)


if __name__ == "__main__":
    main()
