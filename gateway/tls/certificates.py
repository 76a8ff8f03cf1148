"""Certificates as the operator keeps them: read, judged in words, and handed to OpenSSL exactly as they were judged."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import AuthorityInformationAccessOID
from OpenSSL import SSL, crypto

from gateway.config.values import Pair

# The words by which PEM blocks of a private key end, PKCS#8, RSA or EC alike (RFC 7468 10, 11).
_KEY_MARK: Final = b"PRIVATE KEY-----"
CERTIFICATE_MARK: Final = b"-----BEGIN CERTIFICATE-----"

_COMPLAINTS: Final = {
    "ee key too small": "the key is too small; use RSA with 2048 bits or more, or ECDSA P-256",
    "ca md too weak": "a certificate of the chain is signed with a broken hash; get it signed with SHA-256",
    "ee md too weak": "the certificate is signed with a broken hash; get it signed with SHA-256",
}

_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

_LONGEST: Final = 100
"""Characters of a distinguished name that a line shows."""

_UNANCHORED: Final = frozenset({2, 19, 20, 21})
"""X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, SELF_SIGNED_CERT_IN_CHAIN, UNABLE_TO_GET_ISSUER_CERT_LOCALLY and
UNABLE_TO_VERIFY_LEAF_SIGNATURE: the chain leads to nobody whom this machine knows."""


class CertificateError(ValueError):
    """A certificate or key cannot be used; the text is one line that names the file and the cure."""


class TooWeak(CertificateError):
    """OpenSSL would use it at a lower security level."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A pair as it was read: a chain that is in order, and the key to its first certificate."""

    pair: Pair
    chain: tuple[x509.Certificate, ...]
    """The server's own first; none of them needs the file any more."""
    private: Any = field(compare=False, repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names and IP addresses of the subjectAltName; the common name is none (RFC 9525 2)."""
        return _names(self.chain[0])

    @property
    def hosts(self) -> tuple[bytes, ...]:
        """The DNS names as SNI is compared with them: lower case, without the root's dot (RFC 6066 3)."""
        return tuple(plain(name.encode("utf-8")) for name in _dns_names(self.chain[0]))

    @property
    def not_after(self) -> datetime:
        return self.chain[0].not_valid_after_utc

    @property
    def key(self) -> str:
        """What kind the key is, and how strong: `RSA 2048`, `ECDSA P-256`, `Ed25519`."""
        return _key(self.chain[0])

    @property
    def tlsa(self) -> str:
        return _tlsa(self.chain[0])

    def days(self, now: datetime) -> int:
        """Whole days left; negative once it has expired."""
        return (self.not_after - now).days


@dataclass(frozen=True, slots=True)
class Authorities:
    """Whose word counts for the certificates of clients."""

    path: Path
    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` tells of a pair.  The facts are None, or no names, where the file cannot be understood."""

    pair: Pair
    names: tuple[str, ...] = ()
    """DNS names and IP addresses."""
    not_after: datetime | None = None
    days: int | None = None
    """Whole days left; negative once it has expired."""
    key: str | None = None
    """`RSA 2048`, `ECDSA P-256`, `Ed25519`."""
    tlsa: str | None = None
    """`3 1 1 HEX`: what a TLSA record says for this key (RFC 6698 2.1; DANE-EE, SubjectPublicKeyInfo, SHA-256)."""
    errors: tuple[str, ...] = ()
    """Why the gateway does not serve it; each is one line with the file's name and the cure."""
    warnings: tuple[str, ...] = ()
    """What clients will probably complain of; lines of the same kind."""


def load(pair: Pair, now: datetime | None = None) -> Certified:
    """The pair, if there is nothing against serving it.  `now` is aware of its zone.  Raises CertificateError."""
    certified = _understood(pair)
    for complaint in _complaints(certified, now or _now()):
        raise CertificateError(complaint)
    return certified


def load_authorities(path: Path) -> Authorities:
    """Raises CertificateError."""
    octets = read(path)
    if CERTIFICATE_MARK not in octets:
        raise CertificateError(f"{path}: no certificate in this file; it must be a PEM file of CA certificates")
    return Authorities(path, _parsed(path, octets))


def inspect(pairs: Iterable[Pair], now: datetime | None = None, weak: bool = False) -> tuple[Report, ...]:
    """Everything there is to say about each pair; raises nothing.

    `weak`: it is for the profile `legacy`, where small keys and broken hashes are no error.
    """
    return tuple(_inspected(pair, now or _now(), weak) for pair in pairs)


def install(context: SSL.Context, certified: Certified) -> None:
    """Let the context serve this certificate, beside those of other kinds of key that it has.

    Its security level must be set before.  Raises CertificateError where OpenSSL wants something better.
    """
    # A file, not objects: only so does each kind of key keep a chain of its own.  And not the
    # operator's file, which may have changed since it was judged.
    try:
        with _as_file(b"".join(one.public_bytes(Encoding.PEM) for one in certified.chain)) as name:
            context.use_certificate_chain_file(name)
        context.use_privatekey(certified.private)
        context.check_privatekey()
    except SSL.Error as error:
        text = "; ".join(reason for _library, _function, reason in error.args[0] if reason)
        if text in _COMPLAINTS:
            raise TooWeak(f"{certified.pair.certificate}: {_COMPLAINTS[text]}") from None
        raise CertificateError(f"{certified.pair.certificate}: OpenSSL refuses it ({text})") from None
    except OSError as error:
        raise CertificateError(f"{certified.pair.certificate}: cannot be handed to OpenSSL: {error}") from None


def trust(context: SSL.Context, authorities: Authorities) -> None:
    """Let the context believe these authorities about clients, and tell clients whose certificates it wants."""
    store = context.get_cert_store()
    assert store is not None
    for certificate in authorities.certificates:
        store.add_cert(crypto.X509.from_cryptography(certificate))
        context.add_client_ca(certificate)
    # What the operator lists is trusted as it is, an intermediate without its root, too.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def plain(name: bytes) -> bytes:
    """A DNS name as names are compared."""
    return name.lower().removesuffix(b".")


def read(path: Path) -> bytes:
    """Raises CertificateError."""
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


# --- reading -------------------------------------------------------------------------------------


def _understood(pair: Pair) -> Certified:
    """The pair, whatever dates and chain are like."""
    certificate, key = pair.certificate, pair.key or pair.certificate
    octets = read(certificate)
    if CERTIFICATE_MARK not in octets:
        cure = "it must be a PEM file that begins with the server's certificate"
        if not octets.strip():
            cure = "it is empty; whatever writes it has not finished, or failed"
        elif octets[:1] == b"\x30":
            cure = "it is in DER form; convert it: openssl x509 -inform DER -in FILE -out FILE.pem"
        raise CertificateError(f"{certificate}: no certificate in this file; {cure}")
    chain = _parsed(certificate, octets)
    private = _private(key, "give the file that holds it as `key`" if key == certificate else "it must be a PEM file")
    try:
        matches = chain[0].public_key() == private.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{certificate}: the certificate's key is of an unknown kind") from None
    if not matches:
        raise CertificateError(
            f"{key}: the private key does not belong to the first certificate in {certificate}; "
            "the server's own certificate must come first, its issuers behind it"
        )
    return Certified(pair, chain, private)


def _parsed(path: Path, octets: bytes) -> tuple[x509.Certificate, ...]:
    try:
        return tuple(x509.load_pem_x509_certificates(octets))
    except ValueError:
        raise CertificateError(
            f"{path}: a certificate in this file is damaged; fetch the file again from its issuer"
        ) from None


def _private(key: Path, cure: str) -> Any:
    # cryptography tells apart what OpenSSL would lump together as "bad decrypt" or "no start line".
    secret = read(key)
    if _KEY_MARK not in secret:
        raise CertificateError(f"{key}: no private key in this file; {cure}")
    # Before the key's PEM block there may be certificates, or EC PARAMETERS.
    begin = secret.rfind(b"-----BEGIN", 0, secret.index(_KEY_MARK))
    damaged = CertificateError(f"{key}: the private key in this file is damaged or of an unknown kind")
    try:
        # The whole validation of an RSA key with 4096 bits takes 0.3 s, in which nobody would be served.
        private = load_pem_private_key(secret[max(begin, 0) :], None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise CertificateError(
            f"{key}: the private key is protected by a passphrase; remove it: openssl pkey -in {key} -out NEW"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise damaged from None
    if isinstance(private, rsa.RSAPrivateKey) and not _signs(private):
        raise damaged
    return private


def _signs(private: rsa.RSAPrivateKey) -> bool:
    """Whether the key can do the one thing that it is there for."""
    try:
        signature = private.sign(b"", padding.PKCS1v15(), hashes.SHA256())
        private.public_key().verify(signature, b"", padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature):
        return False
    return True


@contextmanager
def _as_file(octets: bytes) -> Iterator[str]:
    """A file in memory where the system has such; a service may have no directory that it can write to."""
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):
        with open(os.memfd_create("chain"), "wb") as file:
            file.write(octets)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as named:
            named.write(octets)
            named.flush()
            yield named.name


# --- judging -------------------------------------------------------------------------------------


def _complaints(certified: Certified, now: datetime) -> Iterator[str]:
    """What is wrong with a pair that could be read."""
    file, chain = certified.pair.certificate, certified.chain
    for number, certificate in enumerate(chain, 1):
        what = "the certificate" if number == 1 else f"certificate {number} of the chain ({_subject(certificate)})"
        if certificate.not_valid_after_utc < now:
            cure = "renew it" if number == 1 else "fetch the chain again from the issuer"
            yield f"{file}: {what} expired on {_day(certificate.not_valid_after_utc)}; {cure}"
        elif certificate.not_valid_before_utc > now:
            day = _day(certificate.not_valid_before_utc)
            yield f"{file}: {what} is not valid before {day}; wait for it, or see whether this machine's clock is right"
    for number, (certificate, issuer) in enumerate(pairwise(chain), 1):
        if _issued(certificate, issuer):
            continue
        if any(_issued(certificate, other) for other in chain if other not in (certificate, issuer)):
            yield (
                f"{file}: the chain is out of order: certificate {number + 1} ({_subject(issuer)}) did not issue "
                f"certificate {number} ({_subject(certificate)}); each must be followed by its issuer"
            )
        else:
            yield (
                f"{file}: certificate {number + 1} ({_subject(issuer)}) does not belong to the chain: it did not issue "
                f"certificate {number} ({_subject(certificate)}); remove it, or put the right issuer there"
            )
        return  # what comes behind follows from that


def _remarks(certified: Certified) -> Iterator[str]:
    """What is no reason not to serve it."""
    file, leaf, last = certified.pair.certificate, certified.chain[0], certified.chain[-1]
    if not certified.names:
        yield f"{file}: the certificate is for no host: it has no DNS name (subjectAltName); clients will refuse it"
    if _issued(leaf, leaf):
        yield f"{file}: the certificate is self-signed; each client must be told to trust it"
    elif _unanchored(certified.chain):
        if _issued(last, last):
            yield f"{file}: the chain ends at {_subject(last)}, which is no CA that this machine knows"
        else:
            place = _published_at(last)
            cure = f"append the issuer's certificate in PEM form, from {place}" if place else "append its issuer's"
            yield (
                f"{file}: the chain ends at {_subject(last)}, whose issuer, {_issuer(last)}, is no CA that this "
                f"machine knows; if clients do not know it either: {cure}"
            )


def _inspected(pair: Pair, now: datetime, weak: bool) -> Report:
    try:
        certified = _understood(pair)
    except CertificateError as error:
        return Report(pair, errors=(str(error),))
    errors = list(_complaints(certified, now))
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    if weak:
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    try:
        install(context, certified)
    except CertificateError as error:
        errors.append(str(error))
    return Report(
        pair,
        certified.names,
        certified.not_after,
        certified.days(now),
        certified.key,
        certified.tlsa,
        tuple(errors),
        tuple(_remarks(certified)),
    )


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except UnsupportedAlgorithm:
        # A signature of the past, which only old clients can check either: the names must do.
        return certificate.issuer == issuer.subject
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _unanchored(chain: Sequence[x509.Certificate]) -> bool:
    """Whether the chain leads to no CA of this machine's, which stands here for those that clients know."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_default_verify_paths()
    store = context.get_cert_store()
    assert store is not None
    leaf, *others = map(crypto.X509.from_cryptography, chain)
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return error.errors[0] in _UNANCHORED
    return False


# --- telling -------------------------------------------------------------------------------------


def _alternatives(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    # A name that cannot be read is one that no client can ask for; cryptography may raise anything over it.
    with suppress(Exception):
        return tuple(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    return ()


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    return tuple(name.value for name in _alternatives(certificate) if isinstance(name, x509.DNSName))


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    return tuple(
        str(name.value) for name in _alternatives(certificate) if isinstance(name, x509.DNSName | x509.IPAddress)
    )


def _key(certificate: x509.Certificate) -> str:
    match certificate.public_key():
        case rsa.RSAPublicKey(key_size=bits):
            return f"RSA {bits}"
        case ec.EllipticCurvePublicKey(curve=curve):
            return f"ECDSA {_CURVES.get(curve.name, curve.name)}"
        case ed25519.Ed25519PublicKey():
            return "Ed25519"
        case ed448.Ed448PublicKey():
            return "Ed448"
        case other:
            return type(other).__name__.removesuffix("PublicKey")


def _tlsa(certificate: x509.Certificate) -> str:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"3 1 1 {hashlib.sha256(key).hexdigest()}"


def _published_at(certificate: x509.Certificate) -> str | None:
    """Where the issuer's certificate can be had (RFC 5280 4.2.2.1); usually in DER form."""
    with suppress(Exception):
        for access in certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value:
            if access.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
                return _shown(str(access.access_location.value))
    return None


def _subject(certificate: x509.Certificate) -> str:
    return _distinguished(certificate, "subject")


def _issuer(certificate: x509.Certificate) -> str:
    return _distinguished(certificate, "issuer")


def _distinguished(certificate: x509.Certificate, whose: str) -> str:
    with suppress(ValueError):
        name: x509.Name = getattr(certificate, whose)
        return _shown(name.rfc4514_string()) or "without a name"
    return "with an unreadable name"


def _shown(text: str) -> str:
    """Harmless in a terminal, one line, and in bounds."""
    harmless = ascii(text)[1:-1]
    return harmless if len(harmless) <= _LONGEST else harmless[:_LONGEST] + "..."


def _day(moment: datetime) -> str:
    return moment.date().isoformat()


def _now() -> datetime:
    return datetime.now(timezone.utc)
