"""OpenSSL contexts: for clients with Mozilla's profiles, for backends with the options of their sections."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from OpenSSL import SSL, crypto

from ...records import dataclass
from . import files
from .files import CertificateError as CertificateError
from .private import set_groups
from .verify import TLSClientOptions, check_for, judge, server_name

OPENSSL: Final = SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace").split()[1]
"""The version of OpenSSL that is used."""

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
"""TLS 1.2: only forward secrecy and AEAD, as always in TLS 1.3."""

SUITES: Final = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""TLS 1.3, in the order of Mozilla's profiles.  OpenSSL's own order begins with AES-256 and SHA-384, which makes a
handshake 5 % dearer."""

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
"""Mozilla's `old`, without 3DES (not in OpenSSL any more) and DHE (needs parameters)."""

GROUPS: Final = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
"""Key exchange groups.  The first is post-quantum and needs OpenSSL 3.5."""

NO_RENEGOTIATION: Final = 0x40000000
"""SSL_OP_NO_RENEGOTIATION, which pyOpenSSL does not name."""

PRIORITIZE_CHACHA: Final = 0x200000
"""SSL_OP_PRIORITIZE_CHACHA: prefer ChaCha20 for clients that list it first."""

ENABLE_PARTIAL_WRITE: Final = 0x1
"""SSL_MODE_ENABLE_PARTIAL_WRITE: pyOpenSSL sets it.  With it each write makes only one record."""

LEGACY_SERVER_CONNECT: Final = 0x4
"""SSL_OP_LEGACY_SERVER_CONNECT: connect to servers without RFC 5746.  Renegotiation stays off."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """The TLS options of one profile for clients."""

    minimum: int
    ciphers: bytes


MODERN: Final = Accepted(SSL.TLS1_3_VERSION, CIPHERS)
INTERMEDIATE: Final = Accepted(SSL.TLS1_2_VERSION, CIPHERS)
# Set SECLEVEL before the certificate, or a small key is refused.
LEGACY: Final = Accepted(SSL.TLS1_VERSION, CIPHERS + b":" + _CIPHERS_OF_THE_PAST + b":@SECLEVEL=0")


OFFERED: Final = {"modern": MODERN, "intermediate": INTERMEDIATE, "legacy": LEGACY}
"""Profile of `[tls]` -> the widest options for a client."""


@dataclass(frozen=True, slots=True)
class _Profile:
    """The TLS options of one profile for backends."""

    minimum: int
    ciphers: bytes
    groups: bytes | None
    options: int


_NO_STRANGERS: Final = b":!aNULL:!eNULL:!PSK:!SRP"
"""No suites without a certificate: there is nothing to verify."""

PROFILES: Final = {
    # More suites than for clients: many backends with TLS 1.2 have only CBC or RSA key exchange.
    "intermediate": _Profile(SSL.TLS1_2_VERSION, b"DEFAULT:@SECLEVEL=2" + _NO_STRANGERS, None, 0),
    # SECLEVEL=0 already allows TLS 1.0.  Without ML-KEM the ClientHello is one segment, for servers that read only one.
    "legacy": _Profile(
        SSL.TLS1_VERSION, b"DEFAULT:@SECLEVEL=0" + _NO_STRANGERS, b"X25519:P-256:P-384:P-521", LEGACY_SERVER_CONNECT
    ),
}
"""Profile of `[backend:NAME]` -> options."""


def bare_context(accepted: Accepted, identity: bytes) -> SSL.Context:
    """A context for clients, without a certificate yet.

    `identity`: up to 32 octets, the session id context.  Sessions resume only in the same context, which has the ticket
    keys.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(accepted.minimum)
    context.set_cipher_list(accepted.ciphers)
    context.set_tls13_ciphersuites(SUITES)
    _choose_groups(context)
    # An old client may name its worst suite first.
    context.set_options(SSL.OP_NO_COMPRESSION | NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE | PRIORITIZE_CHACHA)
    # Sessions resume with tickets.  A cache would only use memory.  Without an id a client with a certificate
    # that resumes is refused.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(identity)
    # Free the 34 KiB of record buffers of an idle session.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(ENABLE_PARTIAL_WRITE)
    return context


def accepting(context: SSL.Context) -> SSL.Connection:
    """A connection in memory that waits for a ClientHello."""
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return connection


def client_context(wanted: TLSClientOptions) -> SSL.Context:
    """A context for connections to one backend.  Make one for each backend and keep it.

    Raises CertificateError, also for errors that `connecting` would have.
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
    # A resumed session would not be verified again.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(ENABLE_PARTIAL_WRITE)
    if wanted.ca is not None:
        trust(context, wanted.ca)
    elif wanted.verify == "yes":
        context.set_default_verify_paths()
    # Refuses connections that `connecting` did not make.
    context.set_verify(SSL.VERIFY_PEER, judge)
    return context


def connecting(context: SSL.Context, wanted: TLSClientOptions) -> SSL.Connection:
    """A connection in memory that will send a ClientHello and verify the backend's certificate.

    `context` is from `client_context` with the same options; only the names may differ.
    """
    connection = SSL.Connection(context, None)
    connection.set_app_data(check_for(wanted))
    if (said := server_name(wanted)) is not None:
        connection.set_tlsext_host_name(said)
    if wanted.alpn:
        connection.set_alpn_protos(list(wanted.alpn))
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
    # Every certificate in the file is a trust anchor, also an intermediate or the leaf itself.
    store = context.get_cert_store()
    assert store is not None
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def _choose_groups(context: SSL.Context) -> None:
    # If none of ours can be set, OpenSSL's longer list stays.
    for groups in GROUPS:
        if set_groups(context, groups):
            return
