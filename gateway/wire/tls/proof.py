"""Test handshakes: the gateway connects to itself in memory before it uses a certificate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from .context import connecting
from .verify import TLSClientOptions, judge

VERSIONS: Final = {"TLS 1.2": SSL.TLS1_2_VERSION, "TLS 1.3": SSL.TLS1_3_VERSION}

_MOST_FLIGHTS: Final = 6
"""Flights of a full handshake; TLS 1.2 needs four."""
_RECORD: Final = 1 << 16
_NO_CHECK_TIME: Final = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which pyOpenSSL does not name.  Other code checks the dates."""


def failures(context: SSL.Context, minimum: int) -> Mapping[str, str]:
    """Version -> OpenSSL's reason, for the versions from `minimum` on in which a handshake fails.

    `context` is one for clients, with its certificate.  The other end is a default OpenSSL context, which accepts the
    keys that current clients accept.  It does not verify the certificate.
    """
    found = {}
    for name, version in VERSIONS.items():
        if version >= minimum and (reason := _failure(context, version)):
            found[name] = reason
    return found


def refusal(context: SSL.Context, anchor: x509.Certificate, name: str) -> str:
    """Why a client that trusts `anchor` refuses the certificate for this name; empty if it accepts it.

    The client checks what the gateway checks of a backend: purpose, critical extensions, name constraints and the name.
    Raises ValueError for what is no name.
    """
    wanted = SSL.Context(SSL.TLS_CLIENT_METHOD)
    store = wanted.get_cert_store()
    assert store is not None
    store.add_cert(crypto.X509.from_cryptography(anchor))
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN | _NO_CHECK_TIME)
    # As clients have it, whatever the machine's OpenSSL was told for old servers.
    wanted.set_cipher_list(b"DEFAULT:@SECLEVEL=2")
    wanted.set_verify(SSL.VERIFY_PEER, judge)
    try:
        _shake(connecting(wanted, TLSClientOptions(name)), context)
    except SSL.Error as error:
        # Other errors are not about the certificate.
        return "".join(reason for about, _function, reason in _told(error) if about == "certificate")
    return ""


def _failure(context: SSL.Context, version: int) -> str:
    """Why a handshake in this version fails; empty if it succeeds."""
    wanted = SSL.Context(SSL.TLS_CLIENT_METHOD)
    wanted.set_min_proto_version(version)
    wanted.set_max_proto_version(version)
    # Other code checks small keys of the profile `legacy`.
    wanted.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    try:
        finished = _shake(SSL.Connection(wanted, None), context)
    except SSL.Error as error:
        return _reason(error)
    return "" if finished else "it does not come to an end"


def _shake(client: SSL.Connection, context: SSL.Context) -> bool:
    """Whether the handshake comes to an end.  Raises SSL.Error of the end that ends it."""
    server = SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    done = set()
    for _ in range(_MOST_FLIGHTS):
        for ours, theirs in ((client, server), (server, client)):
            try:
                ours.do_handshake()
                done.add(ours)
            except SSL.WantReadError:
                pass
            _carry(ours, theirs)
    return len(done) == 2


def _carry(ours: SSL.Connection, theirs: SSL.Connection) -> None:
    while True:
        try:
            theirs.bio_write(ours.bio_read(_RECORD))
        except SSL.WantReadError:
            return


def _reason(error: SSL.Error) -> str:
    return "; ".join(reason for _library, _function, reason in _told(error) if reason) or "OpenSSL does not say why"


def _told(error: SSL.Error) -> Sequence[tuple[str, str, str]]:
    return error.args[0] if error.args else ()
