"""How the gateway speaks TLS: to clients by Mozilla's profiles, to each backend as its section says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from OpenSSL import SSL, crypto

from . import files
from .files import CertificateError as CertificateError
from .private import set_groups
from .verify import TLSClientOptions, check_for, judge, server_name

CIPHERS: Final = b":".join(
    (
        b"ECDHE-ECDSA-AES128-GCM-SHA256",
        b"ECDHE-RSA-AES128-GCM-SHA256",
        b"ECDHE-ECDSA-AES256-GCM-SHA384",
        b"ECDHE-RSA-AES256-GCM-SHA384",
        b"ECDHE-ECDSA-CHACHA20-POLY1305",
        b"ECDHE-RSA-CHACHA20-POLY1305",
    )
)
"""TLS 1.2: forward secrecy and AEAD only.  TLS 1.3 has nothing else."""

_CIPHERS_OF_THE_PAST: Final = b":".join(
    (
        b"ECDHE-ECDSA-AES128-SHA256",
        b"ECDHE-RSA-AES128-SHA256",
        b"ECDHE-ECDSA-AES128-SHA",
        b"ECDHE-RSA-AES128-SHA",
        b"ECDHE-ECDSA-AES256-SHA384",
        b"ECDHE-RSA-AES256-SHA384",
        b"ECDHE-ECDSA-AES256-SHA",
        b"ECDHE-RSA-AES256-SHA",
        b"AES128-GCM-SHA256",
        b"AES256-GCM-SHA384",
        b"AES128-SHA256",
        b"AES256-SHA256",
        b"AES128-SHA",
        b"AES256-SHA",
    )
)
"""Mozilla's `old`, without what OpenSSL no longer has (3DES) and DHE, which would want parameters."""

GROUPS: Final = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
"""Key exchange, post-quantum first; without it where OpenSSL (before 3.5) does not know it."""

NO_RENEGOTIATION: Final = 0x40000000
"""SSL_OP_NO_RENEGOTIATION, which pyOpenSSL does not name."""

PRIORITIZE_CHACHA: Final = 0x200000
"""SSL_OP_PRIORITIZE_CHACHA: who puts ChaCha20 first has no hardware for AES, and gets it although we choose."""

ENABLE_PARTIAL_WRITE: Final = 0x1
"""SSL_MODE_ENABLE_PARTIAL_WRITE: pyOpenSSL sets it, and each write would be one record and no more."""

LEGACY_SERVER_CONNECT: Final = 0x4
"""SSL_OP_LEGACY_SERVER_CONNECT: servers without RFC 5746, too.  They may renegotiate as little as others."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What clients are offered."""

    minimum: int
    ciphers: bytes


MODERN: Final = Accepted(SSL.TLS1_3_VERSION, CIPHERS)
INTERMEDIATE: Final = Accepted(SSL.TLS1_2_VERSION, CIPHERS)
# SECLEVEL is said before any certificate is there: a small key would be refused else.
LEGACY: Final = Accepted(SSL.TLS1_VERSION, CIPHERS + b":" + _CIPHERS_OF_THE_PAST + b":@SECLEVEL=0")


OFFERED: Final = {"modern": MODERN, "intermediate": INTERMEDIATE, "legacy": LEGACY}
"""The most that any client is offered, by the profile of `[tls]`."""


@dataclass(frozen=True, slots=True)
class _Profile:
    """What is offered to a backend."""

    minimum: int
    ciphers: bytes
    groups: bytes | None
    options: int


_NO_STRANGERS: Final = b":!aNULL:!eNULL:!PSK:!SRP"
"""A suite without a certificate would have nothing to verify; OpenSSL leaves them out by itself, today."""

PROFILES: Final = {
    # Not the suites for clients: many a backend that has TLS 1.2 knows but CBC or RSA key exchange.
    "intermediate": _Profile(SSL.TLS1_2_VERSION, b"DEFAULT:@SECLEVEL=2" + _NO_STRANGERS, None, 0),
    # SECLEVEL=0 alone would admit TLS 1.0; it is said all the same.  Without ML-KEM the ClientHello is one segment,
    # for servers that read no second one.
    "legacy": _Profile(
        SSL.TLS1_VERSION, b"DEFAULT:@SECLEVEL=0" + _NO_STRANGERS, b"X25519:P-256:P-384:P-521", LEGACY_SERVER_CONNECT
    ),
}
"""By the word for it in `[backend:NAME]`."""


def bare_context(accepted: Accepted, identity: bytes) -> SSL.Context:
    """A context for clients, still without a certificate.

    `identity` (32 octets at most) tells apart what must not resume each other's sessions; contexts never do anyway,
    each has ticket keys of its own.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(accepted.minimum)
    context.set_cipher_list(accepted.ciphers)
    _choose_groups(context)
    # An old client may name its worst suite first.
    context.set_options(SSL.OP_NO_COMPRESSION | NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE | PRIORITIZE_CHACHA)
    # Tickets resume a session; a cache in memory would only grow.  Without an id a client with a certificate
    # that resumes is refused.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(identity)
    # An idle session gives its 34 KiB of record buffers back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(ENABLE_PARTIAL_WRITE)
    return context


def accepting(context: SSL.Context) -> SSL.Connection:
    """A connection in memory that waits for a ClientHello."""
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return connection


def client_context(wanted: TLSClientOptions) -> SSL.Context:
    """A context for connections to one backend and to no other; make it once and keep it there.

    Raises CertificateError, also for what `connecting` would stumble over.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    try:
        profile = PROFILES[wanted.profile]
        check_for(wanted)
        server_name(wanted)
    except KeyError:
        raise CertificateError(f"profile: {wanted.profile!r} is none of {', '.join(PROFILES)}") from None
    except ValueError as error:
        raise CertificateError(str(error)) from None
    context.set_min_proto_version(profile.minimum)
    context.set_cipher_list(profile.ciphers)
    if profile.groups is not None:
        set_groups(context, profile.groups)
    context.set_options(SSL.OP_NO_COMPRESSION | NO_RENEGOTIATION | profile.options)
    # Whoever resumes is not verified again; and there is no second connection to make it worth it.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(ENABLE_PARTIAL_WRITE)
    if wanted.ca is not None:
        trust(context, wanted.ca)
    elif wanted.verify == "yes":
        context.set_default_verify_paths()
    # Refuses every connection that `connecting` did not make.
    context.set_verify(SSL.VERIFY_PEER, judge)
    return context


def connecting(context: SSL.Context, wanted: TLSClientOptions) -> SSL.Connection:
    """A connection in memory that is about to say a ClientHello, and verifies what it gets.

    `context` comes from `client_context`, for a value that differs from this one in its names at most.
    """
    connection = SSL.Connection(context, None)
    connection.set_app_data(check_for(wanted))
    if (said := server_name(wanted)) is not None:
        connection.set_tlsext_host_name(said)
    connection.set_connect_state()
    return connection


def trust(context: SSL.Context, authorities: Path) -> None:
    """Trust these and nobody else.  Raises CertificateError."""
    files.certificates(authorities, "it must be a PEM file of CA certificates")
    try:
        context.load_verify_locations(str(authorities))
    except SSL.Error:
        raise CertificateError(
            f"{authorities}: a certificate in this file is damaged; fetch the file again from its issuer"
        ) from None
    # What the operator lists is trusted as it is, an intermediate without its root or the leaf itself, too.
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def _choose_groups(context: SSL.Context) -> None:
    # OpenSSL's own list stays if none of ours can be set. It is good, only longer.
    for groups in GROUPS:
        if set_groups(context, groups):
            return
