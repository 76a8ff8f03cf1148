"""TLS with the clients of one service: chooses certificate and TLS versions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Final

from OpenSSL import SSL

from ...config.values import TLS, Pair
from ...records import dataclass
from .certificates import Authorities, Certified, TooWeak, install, prove, trust
from .chain import plain
from .clients import MODES, ClientVerification, asked_for, judge
from .context import INTERMEDIATE, LEGACY, MODERN, OFFERED, Accepted, accepting, bare_context
from .half import TLSHalf
from .private import set_scope

Group = tuple[Certified, ...]
"""The certificates of one context, one for each type of key.  OpenSSL takes the one that the client supports."""

_ORDINARY: Final = {"modern": MODERN, "intermediate": INTERMEDIATE, "legacy": INTERMEDIATE}
"""Profile -> options for all clients.  `legacy_clients` get more."""

_WEB: Final = frozenset({b"h2", b"h2c", b"h3"})
_WEB_BEGINS: Final = b"http/"
_OFFERS_SHOWN: Final = 3
_OFFER_SHOWN: Final = 32
"""ALPN names, and octets of each, in a message; a client can send hundreds."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """The content of the files.  Immutable: a renewal makes a new one."""

    certificates: Mapping[Pair, Certified]
    authorities: Mapping[Path, Authorities]


@dataclass(frozen=True, slots=True, eq=False)
class Contexts:
    """The contexts of one profile: the default one, and those for names (SNI)."""

    first: SSL.Context
    others: Mapping[bytes, SSL.Context | None]
    """Name -> context, None for the default one.  `*.example.org` is for each name with another label in place of the
    asterisk (RFC 9525 6.3)."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Everything that new handshakes use, replaced in one step."""

    ordinary: Contexts
    legacy: Contexts | None


class ServerTLS:
    """`accept` makes a connection for a client.  `wear` sets the contexts for the next ones.

    `alpn`: the names of the dialect, the preferred one first.  Make one object for each service: TLS sessions
    of one are not resumed at another.
    """

    def __init__(self, values: TLS, alpn: tuple[bytes, ...]) -> None:
        self.values = values
        self.alpn = alpn
        self._identity = os.urandom(16)
        self._worn: Prepared | None = None

    def prepare(self, inventory: Inventory) -> Prepared:
        """Contexts for the inventory; `wear` puts them into use.  Raises CertificateError."""
        certificates = [inventory.certificates[pair] for pair in self.values.pairs]
        for certified in certificates:
            prove(certified, OFFERED[self.values.profile])
        group_of = grouped(certificates)
        authorities = None if self.values.client_ca is None else inventory.authorities[self.values.client_ca]
        make = partial(self._contexts, group_of, authorities)
        legacy = self.values.profile == "legacy"
        # Weak certificates are only for old clients.
        ordinary = make(_ORDINARY[self.values.profile], legacy)
        return Prepared(ordinary, make(LEGACY, False) if legacy else None)

    def wear(self, prepared: Prepared) -> None:
        self._worn = prepared

    def accept(self, client: str, name: bytes = b"", scope: bytes = b"") -> TLSHalf:
        """`client`: a canonical address, or empty for a UNIX socket.  `name`: whom it has asked for before TLS; its SNI
        counts more (RFC 6120 13.7.2.2).  `scope`: up to 32 octets; the TLS session resumes only where these are the
        same."""
        return TLSHalf(self.connection(client, name, scope))

    def connection(self, client: str, name: bytes = b"", scope: bytes = b"") -> SSL.Connection:
        """What the half is made of, for those who bring their own transport."""
        assert self._worn is not None, "nothing was loaded"
        contexts = self._worn.ordinary
        if self._worn.legacy is not None and client and self._admits(client):
            contexts = self._worn.legacy
        if scope:
            # A connection takes over the context's scope when it is made, and keeps it.
            set_scope(contexts.first, scope)
        connection = accepting(contexts.first)
        if scope:
            set_scope(contexts.first, self._identity)
        connection.set_app_data(ClientVerification(contexts, self.values.client_certificate != "require", name))
        return connection

    def _admits(self, client: str) -> bool:
        address = ip_address(client)
        return any(address in network for network in self.values.legacy_clients)

    def _contexts(
        self,
        groups: tuple[Group, Mapping[bytes, Group]],
        authorities: Authorities | None,
        accepted: Accepted,
        lax: bool,
    ) -> Contexts:
        default, by_name = groups
        made: dict[tuple[Pair, ...], SSL.Context] = {}
        others: dict[bytes, SSL.Context | None] = {}
        for name, group in by_name.items():
            if group is default:
                others[name] = None
                continue
            pairs = tuple(certified.pair for certified in group)
            if pairs not in made:
                made[pairs] = self._context(group, authorities, accepted, lax)
            others[name] = made[pairs]
        first = self._context(default, authorities, accepted, lax)
        if made:
            first.set_tlsext_servername_callback(partial(_switch, others))
        return Contexts(first, MappingProxyType(others))

    def _context(self, group: Group, authorities: Authorities | None, accepted: Accepted, lax: bool) -> SSL.Context:
        context = bare_context(accepted, self._identity)
        weak: list[TooWeak] = []
        for certified in group:
            try:
                install(context, certified, strict=accepted is not LEGACY)
            except TooWeak as error:
                weak.append(error)
        if weak and not (lax and len(weak) < len(group)):
            raise weak[0]
        # SNI switches certificates, ALPN and trust, but not the mode of verification: it is the same in all contexts.
        context.set_alpn_select_callback(partial(_agree, self.alpn))
        if (mode := MODES[self.values.client_certificate]) != SSL.VERIFY_NONE:
            context.set_options(SSL.OP_NO_TICKET)
            context.set_verify(mode, judge)
        if authorities is not None:
            trust(context, authorities)
        return context


def grouped(certificates: Sequence[Certified]) -> tuple[Group, Mapping[bytes, Group]]:
    """The certificates without a name, and for each name: the first one for each type of key."""
    by_name: dict[bytes, dict[str, Certified]] = {}
    for certified in certificates:
        for host in certified.hosts:
            by_name.setdefault(host, {}).setdefault(_kind(certified), certified)
    # Equal groups are one object.
    known: dict[tuple[Pair, ...], Group] = {}
    groups = {}
    for host, kinds in by_name.items():
        group = tuple(kinds.values())
        groups[host] = known.setdefault(tuple(certified.pair for certified in group), group)
    first = certificates[0]
    default = groups[first.hosts[0]] if first.hosts else (first,)
    return default, groups


def find(others: Mapping[bytes, SSL.Context | None], name: bytes | None) -> SSL.Context | None:
    """The context for this name; None for the default one.  Does not store the name."""
    wanted = plain(name or b"")
    if wanted in others:
        return others[wanted]
    label, _dot, parent = wanted.partition(b".")
    return others.get(b"*." + parent) if label else None


def _kind(certified: Certified) -> str:
    """The type of key: OpenSSL has one certificate for each.  All ECDSA curves are one type."""
    return certified.key.partition(" ")[0]


def _switch(others: Mapping[bytes, SSL.Context | None], connection: SSL.Connection) -> None:
    """OpenSSL's SNI callback, also called without a name.  An exception ends the handshake."""
    context = find(others, connection.get_servername() or asked_for(connection))
    if context is not None:
        connection.set_context(context)


def _agree(ours: tuple[bytes, ...], connection: SSL.Connection, offered: list[bytes]) -> bytes:
    """OpenSSL's ALPN callback, called if the client offers names.

    Refuses clients with Web names only: a browser that an attacker sent here (ALPACA, RFC 9325 3.8).  Accepts all other
    unknown names.
    """
    for name in ours:
        if name in offered:
            return name
    if any(name in _WEB or name.startswith(_WEB_BEGINS) for name in offered):
        shown = ", ".join(ascii(name[:_OFFER_SHOWN])[2:-1] for name in offered[:_OFFERS_SHOWN])
        # The client gets the alert no_application_protocol.
        raise SSL.Error([("alpn", "", f"no application protocol in common: {shown}")])
    return SSL.NO_OVERLAPPING_PROTOCOLS  # type: ignore[return-value]
