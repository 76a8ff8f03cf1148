"""The options of `[tls]`, which each `[service:NAME]` may have too."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..records import dataclass
from .grammar import any_of, choice, network, one_file, several
from .section import Section
from .values import TLS, Network, Pair

_PROFILES = ("modern", "intermediate", "legacy")
_CLIENT_CERTIFICATES = ("none", "request", "require")
_WHOSE_CLIENTS = "name the networks of the clients that need TLS 1.0 or 1.1"
_WHOSE_CA = "name the PEM file with the accepted issuers"
MISSING = "name the PEM file with the certificate and its chain"
"""The cure for a missing certificate."""


@dataclass(frozen=True, slots=True)
class TLSOptions:
    """The options of one section, with inherited values for missing options."""

    pairs: tuple[Pair, ...] = ()
    profile: str | None = "intermediate"
    """None for a wrong value: no other check follows from it.  The same below."""
    legacy_clients: tuple[Network, ...] = ()
    client_certificate: str | None = "none"
    client_ca: Path | None = None
    written: frozenset[str] = frozenset()
    """The options in the file, right or wrong."""

    @property
    def values(self) -> TLS:
        """Without options that have no effect, so that services with the same TLS have equal values."""
        legacy, asked = self.profile == "legacy", self.client_certificate != "none"
        return TLS(
            self.pairs,
            self.profile or "intermediate",
            self.legacy_clients if legacy else (),
            self.client_certificate or "none",
            self.client_ca if asked else None,
        )


def read_tls(section: Section, base: TLSOptions) -> TLSOptions:
    """The TLS options of the section.  `base` has the inherited values."""
    written = section.options.keys()
    certificates = section.take("certificate", several(str), ())
    keys = section.take("key", several(str), ())
    profile = section.take("profile", choice(*_PROFILES), None if "profile" in written else base.profile)
    clients = section.take("legacy_clients", several(network), base.legacy_clients)
    asked = section.take(
        "client_certificate",
        choice(*_CLIENT_CERTIFICATES),
        None if "client_certificate" in written else base.client_certificate,
    )
    authorities = section.take("client_ca", one_file, "")
    found = TLSOptions(
        _own_pairs(section, certificates, keys, base.pairs),
        profile,
        clients,
        asked,
        section.file("client_ca", authorities) if authorities else base.client_ca,
        base.written | written,
    )
    _check_companion(section, found, "profile", profile, ("legacy",), "legacy_clients", _WHOSE_CLIENTS)
    _check_companion(section, found, "client_certificate", asked, ("request", "require"), "client_ca", _WHOSE_CA)
    return found


def read_pairs(section: Section, inherited: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """The certificates with their keys of a section that has no other of these options."""
    certificates = section.take("certificate", several(str), ())
    keys = section.take("key", several(str), ())
    return _own_pairs(section, certificates, keys, inherited)


def _own_pairs(
    section: Section, certificates: tuple[str, ...], keys: tuple[str, ...], inherited: tuple[Pair, ...]
) -> tuple[Pair, ...]:
    """Certificate and key belong together: a section with its own certificate does not inherit the key."""
    if "certificate" in section.options:
        return _pairs(section, certificates, keys)
    if "key" in section.options:
        section.wrong("certificate", f"is missing, and key needs it; {MISSING}, or remove the key")
    return inherited


def _pairs(section: Section, certificates: tuple[str, ...], keys: tuple[str, ...]) -> tuple[Pair, ...]:
    """Each certificate with its key.  There is one key for each certificate, or no key at all."""
    holders = [section.file("certificate", name) for name in certificates]
    for twice in [path for place, path in enumerate(holders) if path in holders[:place]]:
        section.wrong("certificate", f"{twice} is there twice; write each file once")
    if not keys:
        return tuple(Pair(path, None) for path in holders)
    paths = [section.file("key", name) for name in keys]
    if holders and len(paths) != len(holders):
        fault = f"there are {_counted(holders, 'certificate')}, but {_counted(paths, 'key')}"
        right = (
            "write one key for each certificate, in the same order; if a file contains both, name it in both options"
        )
        section.wrong("key", f"{fault}; {right}")
    # Not strict: another number of keys has just been reported.
    return tuple(Pair(path, key if key != path else None) for path, key in zip(holders, paths, strict=False))


def _counted(things: Collection[object], what: str) -> str:
    return f"{len(things)} {what}{'s' if len(things) != 1 else ''}"


def _check_companion(
    section: Section,
    found: TLSOptions,
    switch: str,
    word: str | None,
    wanting: Collection[str],
    companion: str,
    right: str,
) -> None:
    """Some values of `switch` need the option `companion`.  With other values it has no effect."""
    if word is None or section.options.keys().isdisjoint({switch, companion}):
        return  # Inherited options were checked in their own section.
    if word in wanting and companion not in found.written:
        section.wrong(companion, f"is missing, and {switch} = {word} needs it; {right}")
    if word not in wanting and companion in section.options:
        section.wrong(
            companion, f"has no effect with {switch} = {word}; remove it, or write {switch} = {any_of(wanting)}"
        )
