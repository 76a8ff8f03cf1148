"""How the gateway speaks TLS: to clients by Mozilla's intermediate profile, to each backend as its section says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL, crypto

from .verify import BackendTLS, check_for, judge, server_name

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

GROUPS: Final = (b"X25519MLKEM768:X25519:P-256:P-384", b"X25519:P-256:P-384")
"""Key exchange, post-quantum first; without it where OpenSSL (before 3.5) does not know it."""

NO_RENEGOTIATION: Final = 0x40000000
"""SSL_OP_NO_RENEGOTIATION, which pyOpenSSL does not name (platform.md 3)."""

ENABLE_PARTIAL_WRITE: Final = 0x1
"""SSL_MODE_ENABLE_PARTIAL_WRITE: pyOpenSSL sets it, and each write would be one record and no more."""

LEGACY_SERVER_CONNECT: Final = 0x4
"""SSL_OP_LEGACY_SERVER_CONNECT: servers without RFC 5746, too.  They may renegotiate as little as others."""


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

# The words by which PEM blocks of a private key end, PKCS#8, RSA or EC alike (RFC 7468 10, 11).
_KEY_MARK: Final = b"PRIVATE KEY-----"
_CERTIFICATE_MARK: Final = b"-----BEGIN CERTIFICATE-----"

_COMPLAINTS: Final = {
    "ee key too small": "the key is too small; use RSA with 2048 bits or more, or ECDSA P-256",
    "ca md too weak": "a certificate of the chain is signed with a broken hash; get it signed with SHA-256",
    "ee md too weak": "the certificate is signed with a broken hash; get it signed with SHA-256",
}


class CertificateError(ValueError):
    """A certificate or key cannot be used; the text is one line that names the file and the cure."""


def server_context(certificate: Path, key: Path | None) -> SSL.Context:
    """A context that accepts TLS 1.2 and 1.3 with this certificate.

    `certificate` is a PEM file, the leaf first and then its chain; `key` is None where that file holds the
    key too.  Raises CertificateError.
    """
    context = _intermediate()
    _certify(context, certificate, key if key is not None else certificate)
    return context


def accepting(context: SSL.Context) -> SSL.Connection:
    """A connection in memory that waits for a ClientHello."""
    connection = SSL.Connection(context, None)
    connection.set_accept_state()
    return connection


def client_context(wanted: BackendTLS) -> SSL.Context:
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
        _offer_groups(context, profile.groups)
    context.set_options(SSL.OP_NO_COMPRESSION | NO_RENEGOTIATION | profile.options)
    # Whoever resumes is not verified again; and there is no second connection to make it worth it.
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(ENABLE_PARTIAL_WRITE)
    if wanted.ca is not None:
        _trust(context, wanted.ca)
    elif wanted.verify == "yes":
        context.set_default_verify_paths()
    # Refuses every connection that `connecting` did not make.
    context.set_verify(SSL.VERIFY_PEER, judge)
    return context


def connecting(context: SSL.Context, wanted: BackendTLS) -> SSL.Connection:
    """A connection in memory that is about to say a ClientHello, and verifies what it gets.

    `context` comes from `client_context`, for a value that differs from this one in its names at most.
    """
    connection = SSL.Connection(context, None)
    connection.set_app_data(check_for(wanted))
    if (said := server_name(wanted)) is not None:
        connection.set_tlsext_host_name(said)
    connection.set_connect_state()
    return connection


def _offer_groups(context: SSL.Context, groups: bytes) -> None:
    # As in `_choose_groups`; without it OpenSSL's own list is offered.
    library: Any = getattr(SSL, "_lib", None)
    choose = getattr(library, "SSL_CTX_set1_curves_list", None)
    if choose is not None and choose(context._context, groups) != 1:
        library.ERR_clear_error()


def _trust(context: SSL.Context, authorities: Path) -> None:
    if _CERTIFICATE_MARK not in _read(authorities):
        raise CertificateError(f"{authorities}: no certificate in this file; it must be a PEM file of CA certificates")
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


def _intermediate() -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    _choose_groups(context)
    context.set_options(SSL.OP_NO_COMPRESSION | NO_RENEGOTIATION)
    # Tickets resume a session; a cache in memory would only grow.  Without an id a client with a certificate
    # that resumes is refused (platform.md T5).
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"starttls-gateway")
    # An idle session gives its 34 KiB of record buffers back.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.clear_mode(ENABLE_PARTIAL_WRITE)
    return context


def _choose_groups(context: SSL.Context) -> None:
    # pyOpenSSL has no public way to give a list, and `set_tmp_ecdh` would cut it to one group (platform.md 3).
    # Should the private one go away, OpenSSL's own choice stays: a good one, only longer.
    library: Any = getattr(SSL, "_lib", None)
    choose = getattr(library, "SSL_CTX_set1_curves_list", None)
    if choose is None:
        return
    for groups in GROUPS:
        if choose(context._context, groups) == 1:
            return
        library.ERR_clear_error()


def _certify(context: SSL.Context, certificate: Path, key: Path) -> None:
    chain = _read(certificate)
    if _CERTIFICATE_MARK not in chain:
        cure = "it must be a PEM file that begins with the server's certificate"
        if chain[:1] == b"\x30":
            cure = "it is in DER form; convert it: openssl x509 -inform DER -in FILE -out FILE.pem"
        raise CertificateError(f"{certificate}: no certificate in this file; {cure}")
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise CertificateError(
            f"{certificate}: a certificate in this file is damaged; fetch the file again from its issuer"
        ) from None
    # cryptography tells apart what OpenSSL would lump together as "bad decrypt" or "no start line".
    secret = _read(key)
    if _KEY_MARK not in secret:
        cure = "give the file that holds it as `key`" if key == certificate else "it must be a PEM file"
        raise CertificateError(f"{key}: no private key in this file; {cure}")
    try:
        private = load_pem_private_key(secret[_beginning(secret) :], None)
    except TypeError:
        raise CertificateError(
            f"{key}: the private key is protected by a passphrase; remove it: openssl pkey -in {key} -out NEW"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{key}: the private key in this file is damaged or of an unknown kind") from None
    try:
        matches = certificates[0].public_key() == private.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{certificate}: the certificate's key is of an unknown kind") from None
    if not matches:
        raise CertificateError(
            f"{key}: the private key does not belong to the first certificate in {certificate}; "
            "the server's own certificate must come first, its issuers behind it"
        )
    try:
        # Files, not objects: a second certificate of another kind then keeps its own chain (platform.md 3).
        context.use_certificate_chain_file(str(certificate))
        context.use_privatekey(private)  # type: ignore[arg-type]
        context.check_privatekey()
    except SSL.Error as error:
        text = "; ".join(reason for _library, _function, reason in error.args[0] if reason)
        raise CertificateError(f"{certificate}: {_COMPLAINTS.get(text, f'OpenSSL refuses it ({text})')}") from None


def _beginning(secret: bytes) -> int:
    """Where the key's PEM block begins: before it there may be certificates, or EC PARAMETERS."""
    return secret.rindex(b"-----BEGIN", 0, secret.index(_KEY_MARK))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CertificateError(f"{path}: no such file; write the name of the PEM file in full") from None
    except IsADirectoryError:
        raise CertificateError(f"{path}: this is a directory; name the PEM file in it") from None
    except PermissionError:
        raise CertificateError(
            f"{path}: the gateway may not read this file; let its group read it (chgrp, chmod g+r), its directory too"
        ) from None
    except (OSError, ValueError) as error:
        raise CertificateError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
