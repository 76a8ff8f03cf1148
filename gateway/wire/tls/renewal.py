"""Renewal: checks the files of certificates every few seconds and loads changed ones."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ...config.values import TLS, Pair
from ...records import dataclass
from .certificates import Authorities, CertificateError, Certified, load, load_authorities, remarks
from .files import looks
from .remarks import about_all
from .server import Inventory, ServerTLS

INTERVAL: Final = 5.0
"""Seconds between two calls of `look`.  A stat(2) takes a microsecond."""

RETRY: Final = timedelta(minutes=1)
"""A refused file is read again after this time even if it has not changed: it may become valid."""

ROTATION: Final = timedelta(days=1)
"""Lifetime of the keys of session tickets.  New contexts have new keys."""

WARNINGS: Final = (21, 7, 1, 0)
"""Days before a certificate expires with an event.  certbot renews 30 days before, so 21 is late."""

Source = Pair | Path
"""A certificate with its key, or the issuers of client certificates."""

Signature = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Watched:
    """The state of a source."""

    found: Certified | Authorities
    """What is in use."""
    seen: Signature
    """The version of its files when they were last read."""
    refused: str = ""
    """Why their present content is not used."""
    told: bool = False
    """The complaint was logged.  Not at the first look: certificate and key are written one after the other."""
    again: datetime | None = None
    """When to read unchanged files again."""
    warned: int | None = None
    """The last of WARNINGS that was logged."""


class Renewal:
    """All files of all services.  `emit`: as Events.emit.  `now`: the time of day, with a time zone."""

    def __init__(
        self, emit: Callable[..., None], now: Callable[[], datetime] | None = None, hostname: str | None = None
    ) -> None:
        """`hostname`: the name that clients use for the gateway."""
        self._emit = emit
        self.hostname = hostname
        self._now = now or _now
        self._watched: dict[Source, _Watched] = {}
        self._servers: list[ServerTLS] = []
        self._rotated = self._now()
        self._said: frozenset[str] = frozenset()
        """The last logged warnings about all certificates together."""

    def serve(self, values: TLS, alpn: tuple[bytes, ...]) -> ServerTLS:
        """TLS for one service, kept up to date.  A file of several services is read and logged once.

        Raises CertificateError; then nothing has changed.
        """
        server = ServerTLS(values, alpn)
        fresh = {source: self._load(source) for source in _sources(server) if source not in self._watched}
        server.wear(server.prepare(self._inventory({source: watched.found for source, watched in fresh.items()})))
        self._watched |= fresh
        self._servers.append(server)
        for source, watched in fresh.items():
            self._tell("loaded", source, watched.found)
        return server

    def days(self, certified: Certified) -> int:
        """That are left until it ends."""
        return certified.days(self._now())

    def still_readable(self) -> list[str]:
        """A line with the cure for each file that cannot be read any more.  Call it after the change of the user."""
        lines = []
        for source, watched in self._watched.items():
            locked = [_locked(path) for path in _files(source) if not _may_read(path)]
            if locked:
                lines += locked
                # A change of the permissions alone is not a renewal.
                self._watched[source] = replace(watched, seen=_signature(source), refused=locked[0])
        return list(dict.fromkeys(lines))

    @contextmanager
    def trial(self) -> Iterator[None]:
        """What `serve` does within the block is told at its end.  Where the block raises, it is undone and not told."""
        watched, servers, emit = dict(self._watched), list(self._servers), self._emit
        told: list[tuple[str, dict[str, Any]]] = []
        self._emit = lambda event, **fields: told.append((event, fields))
        try:
            yield
        except BaseException:
            self._watched, self._servers = watched, servers
            raise
        finally:
            self._emit = emit
        for event, fields in told:
            emit(event, **fields)

    def keep(self, servers: Collection[ServerTLS]) -> None:
        """Forget all other services, and the files that only they use."""
        self._servers = [server for server in self._servers if server in servers]
        used = {source for server in self._servers for source in _sources(server)}
        self._watched = {source: watched for source, watched in self._watched.items() if source in used}

    @property
    def files(self) -> frozenset[Path]:
        """All files in use."""
        return frozenset(path for source in self._watched for path in _files(source))

    @property
    def refused(self) -> list[str]:
        """A line with the reason for each file whose present content is not used."""
        return list(dict.fromkeys(watched.refused for watched in self._watched.values() if watched.refused))

    @property
    def served(self) -> list[Certified]:
        """The certificates that clients get."""
        return [watched.found for watched in self._watched.values() if isinstance(watched.found, Certified)]

    def look(self) -> None:
        """Check the files, and load changed ones."""
        now = self._now()
        for source in self._watched:
            self._look(source, now)
            self._warn(source, now)
        if now - self._rotated >= ROTATION:
            self._rotated = now
            # If this fails, the old contexts stay.
            with suppress(CertificateError):
                for server in self._servers:
                    server.wear(server.prepare(self._inventory({})))

    def tell_together(self) -> None:
        """Log new warnings about all certificates together."""
        found = {text: one for one, text in about_all(self.served, self.hostname)}
        for text, one in found.items():
            if text not in self._said:
                self._emit("certificate", state="warning", certificate=str(one.pair.certificate), warning=text)
        self._said = frozenset(found)

    # --- one source ------------------------------------------------------------------------------

    def _load(self, source: Source) -> _Watched:
        # Before reading: a change during reading is found at the next look.
        seen = _signature(source)
        return _Watched(_read(source, self._now()), seen)

    def _look(self, source: Source, now: datetime) -> None:
        watched = self._watched[source]
        seen = _signature(source)
        if seen == watched.seen and (watched.again is None or now < watched.again):
            return
        try:
            found = _read(source, now)
            changed = found != watched.found
            if changed:
                self._swap(source, found)
        except CertificateError as error:
            self._refuse(source, replace(watched, seen=seen), str(error), now)
            return
        self._watched[source] = _Watched(found, seen, warned=None if changed else watched.warned)
        if changed:
            self._tell("renewed", source, found)
            self.tell_together()

    def _swap(self, source: Source, found: Certified | Authorities) -> None:
        """For all services or for none.  Raises CertificateError."""
        inventory = self._inventory({source: found})
        concerned = [server for server in self._servers if source in _sources(server)]
        for server, prepared in [(server, server.prepare(inventory)) for server in concerned]:
            server.wear(prepared)

    def _refuse(self, source: Source, watched: _Watched, reason: str, now: datetime) -> None:
        if reason != watched.refused:
            self._watched[source] = replace(watched, refused=reason, told=False, again=now)
            return
        if not watched.told:
            self._tell("refused", source, watched.found, reason)
        self._watched[source] = replace(watched, told=True, again=now + RETRY)

    def _warn(self, source: Source, now: datetime) -> None:
        watched = self._watched[source]
        if not isinstance(watched.found, Certified):
            return
        left = watched.found.not_after - now
        due = min((days for days in WARNINGS if left <= timedelta(days=days)), default=None)
        if due is not None and (watched.warned is None or due < watched.warned):
            self._watched[source] = replace(watched, warned=due)
            self._tell("expiring" if due else "expired", source, watched.found, watched.refused or None)

    def _tell(self, state: str, source: Source, found: Certified | Authorities, detail: str | None = None) -> None:
        match found:
            case Certified():
                self._emit(
                    "certificate",
                    state=state,
                    certificate=str(found.pair.certificate),
                    names=" ".join(found.names),
                    key=found.key,
                    not_after=found.not_after.isoformat(),
                    days=found.days(self._now()),
                    tlsa=found.tlsa,
                    detail=detail,
                    warning=" | ".join(_remarks(found)) or None if state in ("loaded", "renewed") else None,
                )
            case Authorities():
                counted = f"{len(found.certificates)} issuers of client certificates"
                self._emit("certificate", state=state, certificate=str(found.path), detail=detail or counted)

    def _inventory(self, other: Mapping[Source, Certified | Authorities]) -> Inventory:
        """Everything in use, with these replacements."""
        found = {source: watched.found for source, watched in self._watched.items()} | dict(other)
        return Inventory(
            MappingProxyType({one.pair: one for one in found.values() if isinstance(one, Certified)}),
            MappingProxyType({one.path: one for one in found.values() if isinstance(one, Authorities)}),
        )


def _sources(server: ServerTLS) -> Iterator[Source]:
    yield from server.values.pairs
    if server.values.client_ca is not None:
        yield server.values.client_ca


def _files(source: Source) -> tuple[Path, ...]:
    match source:
        case Pair(certificate=certificate, key=key):
            return (certificate,) if key is None else (certificate, key)
        case path:
            return (path,)


def _remarks(found: Certified) -> Iterator[str]:
    """The warnings, without the file's name, which is in the event."""
    for text in remarks(found):
        yield text.removeprefix(f"{found.pair.certificate}: ")


def _read(source: Source, now: datetime) -> Certified | Authorities:
    try:
        return load(source, now) if isinstance(source, Pair) else load_authorities(source)
    except CertificateError:
        raise
    except Exception as fault:
        # A half-written file can cause any exception.
        raise CertificateError(f"{_files(source)[0]}: cannot be understood ({type(fault).__name__})") from None


def _signature(source: Source) -> Signature:
    """Identifies the versions of the files, with symbolic links followed."""
    return tuple(looks(path) for path in _files(source))


def _may_read(path: Path) -> bool:
    """Whether only permissions prevent reading the file."""
    try:
        path.open("rb").close()
    except PermissionError:
        return False
    except (OSError, ValueError):
        pass
    return True


def _locked(path: Path) -> str:
    """The cure for a file that root can read and the gateway's user cannot."""
    culprit = _culprit(path)
    what, right = ("directory", "g+x") if culprit.is_dir() else ("file", "g+r")
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    return (
        f"{path}: {user} may not read it. Started as root, the gateway serves it, but a renewed one only after its "
        f"next start. Started as {user}, the gateway does not start. The {what} {culprit} is in the way: chgrp it to a "
        f"group of {user} and chmod {right}, or let the deploy hook copy certificate and key"
    )


def _culprit(path: Path) -> Path:
    """The directory without access, also behind symbolic links; or the file itself."""
    real = Path(os.path.realpath(path))
    for one in (path.absolute(), real):
        for directory in reversed(one.parents):
            if not os.access(directory, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
                return directory
    return real


def _now() -> datetime:
    return datetime.now(timezone.utc)
