"""The ledger of limits that several processes share: a table in memory that belongs to no file.

Every change is made under one lock, so each limit is exact over all processes.  The kernel gives the lock free when
the process that holds it dies (fcntl(2), record locks).  What such a process counted is in a column of its own, and
`release` takes it out; it can leave one connect or one failed login uncounted, and nothing else.  A process that hangs
while it holds the lock would hold up all the others: it is killed.

A client is found by a keyed hash of 64 bits in a bucket of WAYS places.  When all of these are in use, the one that did
nothing for the longest time and has no session is forgotten.  Memory is used only as it is touched.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from typing import Final

from .limits import REMEMBERED, SLICES, Client, OwnLedger

WAYS: Final = 16
"""Places that a client can be in."""
SPARE: Final = 4
"""Places for each session.  Each of so many clients finds one but for one in a million."""
COLUMNS: Final = 128
"""Processes that can count: the workers of two generations, the old one of which drains."""

PAUSES: Final = 0.00005, 0.001
"""Seconds between two looks at a lock that another process holds: at first, and after some looks."""
HUNG: Final = 5.0
"""Seconds for which a process may hold it.  Looks are counted and not time: when the whole machine stands still, nobody
hangs.  A process that waits gives no sign of life: it must be shorter than the silence for which a worker is killed."""

_FLOCK: Final = "hhqqi"
"""struct flock of fcntl(2): type, whence, start, length, process."""
_LAYOUT: Final = 0x53_54_4C_53_02
"""The beginning of the memory.  The last octet is to change with the layout: another version of the gateway that
inherits the memory makes a new ledger then."""
_CLAIMS: Final = 32 + 8 * COLUMNS
_HEADER: Final = _CLAIMS + COLUMNS

Killed = Callable[[int], None]
"""Called with the process that held the lock for too long, and was killed."""


class SharedLedger:
    """`descriptor` is of a memory file that `create` made.  It must not be closed as long as the ledger is used:
    closing any descriptor of the file gives the process's lock free.

    One process counts in one `column`; several may read.
    """

    def __init__(self, descriptor: int, killed: Killed, column: int = 0, generation: int = 1) -> None:
        """`generation`: which gateway this is, 1 to 255; after an upgrade there are two.  Raises ValueError where the
        memory is not that of a ledger as this version makes it."""
        check_layout(descriptor)
        self.descriptor = descriptor
        self.column = column
        self.generation = generation
        self._memory = memoryview(mmap.mmap(descriptor, 0))
        self.capacity = self._memory[:32].cast("Q")[1]
        self._key = bytes(self._memory[16:32])
        self._killed = killed
        self._asked = "", 1
        """The client of the last question, and its tag: there are several questions about each."""
        self._totals = self._memory[32:_CLAIMS].cast("Q")
        self._claims = self._memory[_CLAIMS:_HEADER]
        minute = _SharedMinute.size(self.capacity)
        self._present = self._words(_HEADER + 2 * minute)
        self.connects = _SharedMinute(self, _HEADER, self._present.__getitem__)
        self.failures = _SharedMinute(self, _HEADER + minute, _nobody)
        self._columns = _HEADER + 2 * minute + 4 * self.capacity
        self._mine = self._words(self._columns + 4 * self.capacity * column)

    @classmethod
    def create(cls, sessions: int, killed: Killed, remembered: int = REMEMBERED) -> SharedLedger:
        """Room for so many sessions, and for the last minute of so many clients at least."""
        capacity = 1 << (max(WAYS, remembered, SPARE * sessions) - 1).bit_length()
        size = _HEADER + 2 * _SharedMinute.size(capacity) + 4 * capacity * (1 + COLUMNS)
        descriptor = os.memfd_create("starttls-gateway", os.MFD_CLOEXEC)
        os.truncate(descriptor, size)
        os.pwrite(descriptor, _LAYOUT.to_bytes(8, "little") + capacity.to_bytes(8, "little") + os.urandom(16), 0)
        return cls(descriptor, killed)

    def of(self, column: int) -> SharedLedger:
        """The same ledger, for the process that counts in this column."""
        return SharedLedger(self.descriptor, self._killed, column, self.generation)

    @property
    def sessions(self) -> int:
        """As many have room in it."""
        return self.capacity // SPARE

    def __enter__(self) -> SharedLedger:
        if not self._lock():
            self._wait()
        return self

    def _lock(self) -> bool:
        """False where another process has it."""
        try:
            fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _wait(self) -> None:
        """For the lock: another process has it for 20 us, or for 5 ms where it releases a column."""
        pause, longest = PAUSES
        while True:
            for _ in range(round(HUNG / longest)):
                time.sleep(pause)
                if self._lock():
                    return
                pause = min(longest, 2 * pause)
            self._kill_holder()

    def _kill_holder(self) -> None:
        holder = self._holder()
        with suppress(OSError):
            handle = os.pidfd_open(holder)
            try:
                # Unless it has ended meanwhile, and another process has its number.
                if self._holder() == holder:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    self._killed(holder)
            finally:
                os.close(handle)

    def _holder(self) -> int:
        """The process that has the lock; 0 where nobody has it, -1 where it is none of our namespace."""
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(self.descriptor, fcntl.F_GETLK, asked))
        return 0 if kind == fcntl.F_UNLCK else int(pid) or -1

    def __exit__(self, *error: object) -> None:
        fcntl.lockf(self.descriptor, fcntl.LOCK_UN)

    @property
    def total(self) -> int:
        return sum(self._totals)

    def total_of(self, generation: int) -> int:
        """The sessions of that gateway."""
        return sum(total for claimed, total in zip(self._claims, self._totals, strict=True) if claimed == generation)

    @property
    def tables(self) -> tuple[()]:
        """Its memory does not grow."""
        return ()

    @property
    def mine(self) -> int:
        return self._totals[self.column]

    def begun(self) -> None:
        if self._is_mine:
            self._totals[self.column] += 1

    def ended(self) -> None:
        if self._is_mine:
            assert self._totals[self.column]
            self._totals[self.column] -= 1

    def present(self, client: Client) -> int:
        place = self.connects.find(self.tag(client))
        return 0 if place is None else self._present[place]

    def enter(self, client: Client, slice_: int) -> bool:
        if not self._is_mine:
            return True
        place = self.connects.claim(self.tag(client), slice_)
        if place is None:
            return False
        self._present[place] += 1
        self._mine[place] += 1
        return True

    def leave(self, client: Client) -> None:
        if not self._is_mine:
            return
        place = self.connects.find(self.tag(client))
        assert place is not None and self._mine[place], "who has a session is in the table"
        self._present[place] -= 1
        self._mine[place] -= 1

    @property
    def _is_mine(self) -> bool:
        """Whether this process still counts here.  A worker that outlives its master does not: another program has
        taken out what it had counted."""
        return bool(self._claims[self.column] == self.generation)

    def claim(self) -> int:
        """A column for a process that begins to count.  Raises StopIteration where all are claimed."""
        with self:
            column = next(column for column, claimed in enumerate(self._claims) if not claimed)
            self._claims[column] = self.generation
        return column

    def release(self, column: int) -> int:
        """The process that counted in this column is gone: so are its sessions.  Says how many it had."""
        with self:
            lost = self._totals[column]
            self._claims[column] = 0
            self._totals[column] = 0
            theirs = self._words(self._columns + 4 * self.capacity * column)
            theirs[:] = memoryview(bytes(4 * self.capacity)).cast("I")
            # Not by subtraction: it may have died between two steps.
            self._present[:] = memoryview(bytes(4 * self.capacity)).cast("I")
            for other, total in enumerate(self._totals):
                if total:
                    counts = self._words(self._columns + 4 * self.capacity * other)
                    for place, count in enumerate(counts.tolist()):
                        if count:
                            self._present[place] += count
        return lost

    def end(self, generation: int) -> None:
        """That gateway is gone, with all its processes."""
        for column, claimed in enumerate(self._claims):
            if claimed == generation:
                self.release(column)

    def take(self, other: OwnLedger) -> None:
        """All that a process counted by itself until now: it goes on here."""
        with self:
            for client, sessions in other.sessions():
                for _ in range(sessions):
                    self.enter(client, 0)
            self._totals[self.column] += other.total
            for mine, theirs in ((self.connects, other.connects), (self.failures, other.failures)):
                for client, slice_, count in theirs.counts():
                    for _ in range(count):
                        mine.add(client, slice_)

    def tag(self, client: Client) -> int:
        """What stands for the client in the table; never 0, which is an empty place."""
        if client != self._asked[0]:
            digest = blake2b(client.encode(), digest_size=8, key=self._key).digest()
            self._asked = client, int.from_bytes(digest, "little") | 1
        return self._asked[1]

    def _words(self, at: int) -> memoryview:
        return self._memory[at : at + 4 * self.capacity].cast("I")

    def view(self, at: int, octets: int) -> memoryview:
        return self._memory[at : at + octets]


def check_layout(descriptor: int) -> None:
    """Raises ValueError where the memory is not that of a ledger as this version makes it."""
    if os.pread(descriptor, 8, 0) != _LAYOUT.to_bytes(8, "little"):
        raise ValueError("the shared memory has another layout")


def following(generation: int) -> int:
    """The gateway that succeeds that one."""
    return generation % 255 + 1


class _SharedMinute:
    """How often each client did something in the last minute: for each place the client's tag, the slice in which it
    did something last, and a ring of SLICES counts.

    `held` says of a place whether its client must not be forgotten.
    """

    def __init__(self, ledger: SharedLedger, at: int, held: Callable[[int], int]) -> None:
        capacity = ledger.capacity
        self._ledger = ledger
        self._held = held
        self._buckets = capacity // WAYS
        self._tags = ledger.view(at, 8 * capacity).cast("Q")
        self._latest = ledger.view(at + 8 * capacity, 4 * capacity).cast("I")
        self._counts = ledger.view(at + 12 * capacity, 4 * SLICES * capacity).cast("I")

    @staticmethod
    def size(capacity: int) -> int:
        """Octets."""
        return (8 + 4 + 4 * SLICES) * capacity

    def count(self, client: Client, slice_: int) -> int:
        place = self.find(self._ledger.tag(client))
        if place is None:
            return 0
        ring, latest = SLICES * place, self._latest[place]
        counts = self._counts[ring : ring + SLICES].tolist()
        # What is too old stands there until the client does something.
        for number in range(latest + 1, min(slice_, latest + SLICES) + 1):
            counts[number % SLICES] = 0
        return sum(counts)

    def add(self, client: Client, slice_: int) -> None:
        place = self.claim(self._ledger.tag(client), slice_)
        assert place is not None, "who has a session was given one by `enter`, and no failure is held"
        ring, latest = SLICES * place, self._latest[place]
        for number in range(max(latest + 1, slice_ - SLICES + 1), slice_ + 1):
            self._counts[ring + number % SLICES] = 0
        self._latest[place] = slice_
        self._counts[ring + slice_ % SLICES] += 1

    def expire(self, slice_: int) -> None:
        """Nothing: the memory is never more than it was made for."""

    def find(self, tag: int) -> int | None:
        """The place of a client; None for one of whom nothing is known."""
        first = self._bucket(tag)
        try:
            return first + self._tags[first : first + WAYS].tolist().index(tag)
        except ValueError:
            return None

    def claim(self, tag: int, slice_: int) -> int | None:
        """The same, with a place for a client who has none; None where clients with sessions have taken all of them."""
        place = self.find(tag)
        if place is None and (place := self._free(tag)) is not None:
            self._tags[place] = tag
            # So its counts are too old to matter.
            self._latest[place] = max(0, slice_ - SLICES)
        return place

    def _free(self, tag: int) -> int | None:
        """An empty place, whose `latest` is 0, or that of whoever did nothing for the longest time."""
        first = self._bucket(tag)
        free = [place for place in range(first, first + WAYS) if not self._held(place)]
        return min(free, key=self._latest.__getitem__, default=None)

    def _bucket(self, tag: int) -> int:
        return (tag >> 16) % self._buckets * WAYS


def _nobody(place: int) -> int:
    return 0
