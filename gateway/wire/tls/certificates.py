"""Certificates from files: read, checked with messages for the administrator, and given to OpenSSL."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field
from datetime import datetime, timezone
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import PublicKeyAlgorithmOID
from OpenSSL import SSL, crypto

from ...config.values import Pair
from ...records import dataclass
from . import chain as chains
from . import files, formats
from . import remarks as remarking
from .context import LEGACY, OFFERED, Accepted, bare_context
from .files import CertificateError as CertificateError
from .proof import failures, refusal

_COMPLAINTS: Final = {
    "ee key too small": "the key is too small; use RSA with 2048 bits or more, or ECDSA P-256",
    "ca md too weak": "a certificate of the chain is signed with a broken hash; get it signed with SHA-256",
    "ee md too weak": "the certificate is signed with a broken hash; get it signed with SHA-256",
}

_CURVES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}

_UNANCHORED: Final = frozenset({2, 19, 20, 21})
"""X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, SELF_SIGNED_CERT_IN_CHAIN, UNABLE_TO_GET_ISSUER_CERT_LOCALLY and
UNABLE_TO_VERIFY_LEAF_SIGNATURE: this machine does not know the root of the chain."""


class TooWeak(CertificateError):
    """OpenSSL would use it at a lower security level."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A pair from files: a chain in the right order, and the key of its first certificate."""

    pair: Pair
    chain: tuple[x509.Certificate, ...]
    """The server's own first.  The file is not read again."""
    private: Any = field(compare=False, repr=False)
    keyed: bool = field(default=False, compare=False)
    """The certificates' file has the key too."""
    proven: set[Accepted] = field(default_factory=set, compare=False, repr=False)
    """The TLS options for which a test handshake has succeeded."""

    @property
    def names(self) -> tuple[str, ...]:
        """DNS names and IP addresses of the subjectAltName, not the common name (RFC 9525 2)."""
        return _names(self.chain[0])

    @property
    def hosts(self) -> tuple[bytes, ...]:
        """The DNS names for comparison with SNI: lower case, without a dot at the end (RFC 6066 3)."""
        return tuple(chains.plain(name.encode("utf-8")) for name in _dns_names(self.chain[0]))

    @property
    def not_after(self) -> datetime:
        return self.chain[0].not_valid_after_utc

    @property
    def key(self) -> str:
        """Type and size of the key: `RSA 2048`, `ECDSA P-256`, `Ed25519`."""
        return _key(self.chain[0])

    @property
    def tlsa(self) -> str:
        return _tlsa(self.chain[0])

    def days(self, now: datetime) -> int:
        """Whole days left; negative once it has expired."""
        return (self.not_after - now).days


@dataclass(frozen=True, slots=True)
class Authorities:
    """The trusted issuers of client certificates."""

    path: Path
    certificates: tuple[x509.Certificate, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The facts about a pair for `check`.  None or empty if the file cannot be read."""

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
    """Why the gateway does not use it.  Each is one line with the file's name and the cure."""
    warnings: tuple[str, ...] = ()
    """Problems that clients may have with it, in the same form."""


def load(pair: Pair, now: datetime | None = None) -> Certified:
    """Read and check a pair.  `now` has a time zone.  Raises CertificateError."""
    certified = _understood(pair)
    for complaint in _complaints(certified, now or _now()):
        raise CertificateError(complaint)
    return certified


def load_authorities(path: Path) -> Authorities:
    """Raises CertificateError."""
    return Authorities(path, files.certificates(path, "it must be a PEM file of CA certificates"))


def inspect(pairs: Iterable[Pair], now: datetime | None = None, profile: str = "intermediate") -> tuple[Report, ...]:
    """A report for each pair.  Raises nothing.

    `profile`: of `[tls]`.  With `legacy` small keys and weak hashes are not errors.
    """
    return tuple(_inspected(pair, now or _now(), profile) for pair in pairs)


def install(context: SSL.Context, certified: Certified, *, strict: bool = True) -> None:
    """Add a certificate to the context.  The context can have one for each type of key.

    Set the security level before.  Raises CertificateError for a certificate that is too weak for OpenSSL, or with
    `strict` for current clients.
    """
    if strict and (weak := chains.weakness(certified.chain)):
        raise TooWeak(f"{certified.pair.certificate}: {weak}")
    # From a file: with objects, all types of key would share one chain.  Not the administrator's file: it may have
    # changed since it was checked.
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
    """Set the trusted issuers of client certificates, and the list of issuers that clients get."""
    store = context.get_cert_store()
    assert store is not None
    for certificate in authorities.certificates:
        store.add_cert(crypto.X509.from_cryptography(certificate))
        context.add_client_ca(certificate)
    # Every certificate in the file is a trust anchor, also an intermediate.
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)


def prove(certified: Certified, accepted: Accepted) -> None:
    """Test handshakes in TLS 1.2 and 1.3.  Takes 1 to 10 ms, once for each certificate.  Raises CertificateError."""
    if accepted in certified.proven:
        return
    context = bare_context(accepted, b"proof")
    install(context, certified, strict=accepted is not LEGACY)
    failed = ", ".join(f"{version}: {reason}" for version, reason in failures(context, accepted.minimum).items())
    curve = getattr(getattr(certified.chain[0].public_key(), "curve", None), "name", "secp256r1")
    if failed and chains.cannot_sign(certified.chain[0]):
        raise CertificateError(
            f"{certified.pair.certificate}: clients cannot be served with it: its keyUsage lacks digitalSignature; "
            "have it issued with digitalSignature"
        )
    if curve not in _CURVES:
        failed = f"they know no keys of this kind, {certified.key}"
    if failed:
        raise CertificateError(
            f"{certified.pair.certificate}: clients cannot be served with it ({failed}); use an RSA key of 2048 bits "
            "or more, or an ECDSA key on P-256"
        )
    certified.proven.add(accepted)


# --- reading -------------------------------------------------------------------------------------


def _understood(pair: Pair) -> Certified:
    """Read the pair; does not check dates and chain."""
    certificate, key = pair.certificate, pair.key or pair.certificate
    octets = files.read(certificate)
    if key != certificate and not files.holds_certificate(octets) and files.holds_key(octets):
        other = files.read(key)
        if files.holds_certificate(other) and not files.holds_key(other):
            raise CertificateError(
                f"{certificate}: this is the private key, and {key} is the certificate; exchange the two in the "
                "configuration"
            )
    chain = files.certificates(certificate)
    wanted = "give the file that holds it as `key`" if key == certificate else "it must be a PEM file"
    if chain[0].public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        raise CertificateError(
            f"{certificate}: the certificate is for an RSA-PSS key, which cannot be served; use an ordinary RSA key "
            "(openssl genrsa) or an ECDSA key on P-256"
        )
    keys = files.private_keys(key, wanted, shared=key == certificate)
    try:
        public = [one.public_key() for one in chain]
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(f"{certificate}: the certificate's key is of an unknown kind") from None
    fitting = [one.public_key() == public[0] for one in keys]
    keyed = files.holds_key(octets)
    if not any(fitting):
        place = next((public.index(known) for one in keys if (known := one.public_key()) in public), None)
        raise CertificateError(_foreign(pair, chain, place, keyed))
    if not all(fitting):
        number = fitting.index(True) + 1
        raise CertificateError(
            f"{key}: there are {len(keys)} private keys in this file; number {number} belongs to the certificate; "
            f"remove the others: {formats.key_alone(key, number)}"
        )
    return Certified(pair, chain, keys[0], keyed)


def _foreign(pair: Pair, chain: Sequence[x509.Certificate], place: int | None, keyed: bool) -> str:
    """The message for a key of another certificate.  `place`: the index of that certificate."""
    certificate, key = pair.certificate, pair.key or pair.certificate
    first = "the server's own certificate must come first, its issuers behind it"
    text = f"{key}: the private key does not belong to the first certificate in {certificate}"
    if place is not None:
        cure = formats.rearranged(certificate, chains.in_order(chain, place), keyed)
        return f"{text}, but to certificate {place + 1}; {first}: {cure}"
    if not chains.why_not_issued(chain[0], chain[0]):
        return f"{text}, which is self-signed; name the key that was made with it, or the server's own certificate"
    if chains.is_authority(chain[0]):
        return (
            f"{text}, which is that of a CA ({chains.subject(chain[0])}); {first}; name the file that begins with it "
            "(certbot: fullchain.pem, not chain.pem)"
        )
    return f"{text}; {first}"


@contextmanager
def _as_file(octets: bytes) -> Iterator[str]:
    """A file in memory if possible: the process may have no writable directory."""
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
    file = certified.pair.certificate
    rearranged = partial(formats.rearranged, file, keyed=certified.keyed)
    return chains.complaints(file, certified.chain, now, rearranged)


def remarks(certified: Certified) -> Iterator[str]:
    """Warnings: clients may refuse this certificate.  Each is one line with the cure."""
    try:
        yield from _remarks(certified)
    except Exception as fault:  # over what only warns, nobody is left without TLS
        yield f"{certified.pair.certificate}: the certificate cannot be looked at closer ({type(fault).__name__})"


def _remarks(certified: Certified) -> Iterator[str]:
    file, chain = certified.pair.certificate, certified.chain
    if not certified.names:
        yield f"{file}: the certificate is for no host: it has no DNS name (subjectAltName); clients will refuse it"
    known = list(remarking.about_chain(file, chain))
    yield from known or _refusals(certified)
    key = certified.pair.key or file
    if wrong := files.rights_of_others(key):
        yield f"{key}: {wrong}"
    yield from _trust_remarks(certified)


def _refusals(certified: Certified) -> Iterator[str]:
    """The error of a client for the first name, unless another warning has it."""
    names = [name for name in _dns_names(certified.chain[0]) if name.isascii() and not name.endswith(".")]
    context = bare_context(LEGACY, b"proof")
    try:
        install(context, certified, strict=False)
    except (ValueError, TypeError, OSError):
        return  # What cannot be installed is an error of its own.
    for name in names:
        asked = name.replace("*", "any", 1)
        try:
            reason = refusal(context, certified.chain[-1], asked)
        except ValueError:
            continue  # Nobody connects to what is no name.
        if reason:
            yield (
                f"{certified.pair.certificate}: clients will refuse the certificate for {chains.shown(asked)}: "
                f"{reason.removeprefix('certificate refused: ')}; ask its issuer for one without that"
            )
        return


def _trust_remarks(certified: Certified) -> Iterator[str]:
    file, chain = certified.pair.certificate, certified.chain
    leaf, last = chain[0], chain[-1]
    if not chains.why_not_issued(leaf, leaf):
        yield f"{file}: the certificate is self-signed; each client must be told to trust it"
    elif _unanchored(chain):
        if not chains.why_not_issued(last, last):
            yield f"{file}: the chain ends at {chains.subject(last)}, which is no CA that this machine knows"
        else:
            yield (
                f"{file}: the chain ends at {chains.subject(last)}, whose issuer, {chains.issuer_of(last)}, is no CA "
                f"that this machine knows; if clients do not know it either: {_append(file, last)}"
            )
    elif len(chain) > 1 and not chains.why_not_issued(last, last):
        cure = formats.rearranged(file, range(1, len(chain)), certified.keyed)
        yield (
            f"{file}: the chain holds its root ({chains.subject(last)}); clients have it themselves, or do not trust "
            f"it; unless a TLSA record names it, remove it: {cure}"
        )


def _append(file: Path, last: x509.Certificate) -> str:
    """How to get the next certificate of the chain."""
    if file.name == "cert.pem" and (whole := file.with_name("fullchain.pem")).exists():
        return f"name {whole}, which holds the chain"
    place = chains.published_at(last)
    return "append the issuer's certificate in PEM form" + (f", from {place}" if place else "")


def _inspected(pair: Pair, now: datetime, profile: str) -> Report:
    try:
        certified = _understood(pair)
    except CertificateError as error:
        return Report(pair, errors=(str(error),))
    errors = list(_complaints(certified, now))
    try:
        prove(certified, OFFERED[profile])
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
        tuple(remarks(certified)),
    )


def _unanchored(chain: Sequence[x509.Certificate]) -> bool:
    """Whether this machine does not know the root of the chain.  We assume that clients know the same roots."""
    # The context must outlive its store, which OpenSSL owns.
    context = _known_here(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"), int(time.monotonic() / 60))
    store = context.get_cert_store()
    assert store is not None
    leaf, *others = map(crypto.X509.from_cryptography, chain)
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        return error.errors[0] in _UNANCHORED
    return False


@lru_cache(maxsize=1)
def _known_here(_file: str | None, _directory: str | None, _minute: int) -> SSL.Context:
    """The CAs of this machine.  They are read again after a minute, because updates can change them."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_default_verify_paths()
    return context


# --- telling -------------------------------------------------------------------------------------


def _dns_names(certificate: x509.Certificate) -> tuple[str, ...]:
    return tuple(name.value for name in chains.alternatives(certificate) if isinstance(name, x509.DNSName))


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    return tuple(
        str(name.value) for name in chains.alternatives(certificate) if isinstance(name, x509.DNSName | x509.IPAddress)
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
    # Python's hashlib would load the system's OpenSSL besides.
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key)
    return f"3 1 1 {digest.finalize().hex()}"


def _now() -> datetime:
    return datetime.now(timezone.utc)
