"""Warnings about certificates that clients may refuse.  Each is one line with the cure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import crypto

from ...config.values import Pair
from .chain import Chain, cannot_sign, extension, other_key_named, plain, subject, why_not_issued

_LONGEST_VALIDITY: Final = timedelta(days=825)
"""Apple's systems accept no server certificate that is valid for more days."""

_CURVE: Final = bytes.fromhex("06072a8648ce3d0201")
"""The object identifier id-ecPublicKey.  After it comes the one of a curve, or a SEQUENCE of explicit parameters."""
_SEQUENCE: Final = 0x30

_CONSTRAINED: Final = frozenset({47, 48})
"""X509_V_ERR_PERMITTED_VIOLATION and EXCLUDED_VIOLATION."""


def about_chain(file: Path, chain: Chain) -> Iterator[str]:
    """Warnings from the certificates themselves."""
    yield from _about_leaf(file, chain[0])
    for number, certificate in enumerate(chain[1:], 2):
        if wrong := _why_no_issuer(certificate, number - 2):
            yield (
                f"{file}: certificate {number} of the chain ({subject(certificate)}) may not issue certificates for "
                f"servers: {wrong}; clients will refuse the chain; put the right issuer there"
            )
        below = chain[number - 2]
        if why_not_issued(below, certificate):
            continue  # reported as an error
        if other_key_named(below, certificate):
            yield (
                f"{file}: certificate {number - 1} has an authorityKeyIdentifier of another issuer than certificate "
                f"{number} ({subject(certificate)}), although this one signed it; clients with OpenSSL will refuse the "
                "chain; fetch the issuer's certificate again, or have the certificate issued anew"
            )
        elif below.issuer.public_bytes() != certificate.subject.public_bytes():
            yield (
                f"{file}: certificate {number - 1} spells the name of its issuer differently than certificate {number} "
                f"({subject(certificate)}) does; clients that compare octets will refuse the chain; "
                "have it issued anew with the same name"
            )
    yield from _constrained(file, chain)
    for number, certificate in enumerate(chain, 1):
        with suppress(UnsupportedAlgorithm):
            certificate.signature_hash_algorithm  # noqa: B018
            continue
        yield (
            f"{file}: certificate {number} is signed with an algorithm that is unknown here "
            f"({certificate.signature_algorithm_oid.dotted_string}), and probably to clients; get it signed with "
            "SHA-256"
        )


def _about_leaf(file: Path, leaf: x509.Certificate) -> Iterator[str]:
    feature = extension(leaf, x509.TLSFeature)
    if feature is not None and x509.TLSFeatureType.status_request in list(feature):
        yield (
            f"{file}: the certificate demands OCSP stapling (must-staple), which the gateway does not do; clients that "
            "check it will refuse it; have it issued without must-staple (certbot: without --must-staple)"
        )
    usages = extension(leaf, x509.ExtendedKeyUsage)
    if usages is not None and ExtendedKeyUsageOID.SERVER_AUTH not in list(usages):
        yield (
            f"{file}: the certificate is not for servers: its extendedKeyUsage lacks serverAuth; clients will refuse "
            "it; have it issued for a server"
        )
    if cannot_sign(leaf):
        yield (
            f"{file}: the certificate's keyUsage lacks digitalSignature, and TLS needs a signature of its key; clients "
            "that check it will refuse it; have it issued with digitalSignature"
        )
    if leaf.not_valid_after_utc - leaf.not_valid_before_utc > _LONGEST_VALIDITY:
        yield (
            f"{file}: the certificate is valid for more than {_LONGEST_VALIDITY.days} days; Apple's clients will "
            "refuse it; have it issued for a shorter time"
        )
    if has_explicit_curve(leaf):
        yield (
            f"{file}: the certificate spells out the parameters of its curve instead of naming it (RFC 5480 2.1.1 "
            "forbids that); many clients will refuse it; make a new key (openssl ecparam -name prime256v1 -genkey "
            "-noout), and have a certificate issued for it"
        )
    for name in extension(leaf, x509.SubjectAlternativeName) or ():
        if isinstance(name, x509.DNSName) and _is_address(name.value):
            yield (
                f"{file}: {name.value} is a DNS name in the certificate, but it is an IP address; clients that "
                "connect to it will refuse it; have it issued with this as an IP address"
            )


def _why_no_issuer(certificate: x509.Certificate, below: int) -> str:
    """`below`: number of CA certificates between it and the server's own."""
    basic = extension(certificate, x509.BasicConstraints)
    if basic is None or not basic.ca:
        return "it is not a CA (basicConstraints)"
    usage = extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return "its keyUsage lacks keyCertSign"
    purposes = extension(certificate, x509.ExtendedKeyUsage)
    if purposes is not None and not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(
        purposes
    ):
        return "its extendedKeyUsage lacks serverAuth"
    if basic.path_length is not None and below > basic.path_length:
        return f"it allows {basic.path_length} CA certificates below it (path length), and there are {below}"
    return ""


def _constrained(file: Path, chain: Chain) -> Iterator[str]:
    """Names that the nameConstraints of issuers forbid, including those of the last issuer."""
    store = crypto.X509Store()
    leaf, *others = map(crypto.X509.from_cryptography, chain)
    store.add_cert(others[-1] if others else leaf)
    store.set_flags(crypto.X509StoreFlags.PARTIAL_CHAIN)
    try:
        crypto.X509StoreContext(store, leaf, others).verify_certificate()
    except crypto.X509StoreContextError as error:
        code, _depth, words = error.errors[:3]
        if code in _CONSTRAINED:
            yield (
                f"{file}: the certificate has a name that its issuer may not certify (nameConstraints of the chain: "
                f"{words}); clients will refuse it; get it from another issuer, or without this name"
            )


def has_explicit_curve(certificate: x509.Certificate) -> bool:
    # cryptography replaces explicit parameters by the curve's name.
    octets = certificate.tbs_certificate_bytes
    place = octets.find(_CURVE)
    return place >= 0 and octets[place + len(_CURVE)] == _SEQUENCE


def _is_address(text: str) -> bool:
    with suppress(ValueError):
        ip_address(text)
        return True
    return False


# --- about all of them together ------------------------------------------------------------------------


class Shown(Protocol):
    """What `about_all` needs of a certificate."""

    @property
    def pair(self) -> Pair: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def key(self) -> str | None: ...


S = TypeVar("S", bound=Shown)


def about_all(served: Iterable[S], hostname: str | None) -> Iterator[tuple[S, str]]:
    """Warnings about all certificates together, each with the certificate that shows it."""
    known = list(served)
    if known and hostname and not any(covers(one.names, hostname) for one in known):
        others = ", and no other is" if len(known) > 1 else ""
        text = (
            f"the certificate is not for {hostname}, the `hostname` of [gateway]{others}; clients that connect to this "
            "name will refuse it; get a certificate for it, or write the name that clients use as `hostname`"
        )
        yield known[0], f"{known[0].pair.certificate}: {text}"
    usual = [one for one in known if not _is_edwards(one)]
    for one in known:
        if _is_edwards(one) and not all(any(covers(other.names, name, False) for other in usual) for name in one.names):
            text = (
                f"many mail clients know no {one.key} keys and cannot connect; have an ECDSA or RSA certificate issued "
                "for the same names, and write it beside this one"
            )
            yield one, f"{one.pair.certificate}: {text}"


def covers(names: Iterable[str], hostname: str, unnamed: bool = True) -> bool:
    """Whether clients that connect to this name accept a certificate with these names (RFC 9525 6.3).

    `unnamed`: a certificate without names counts as covering all names, and every certificate as covering `localhost`.
    These have other warnings.
    """
    host = plain(hostname.encode("utf-8"))
    parent = host.partition(b".")[2]
    known = {plain(name.encode("utf-8")) for name in names}
    if unnamed and (not known or host == b"localhost"):
        return True
    return host in known or (bool(parent) and b"*." + parent in known)


def _is_edwards(one: Shown) -> bool:
    return (one.key or "").startswith("Ed")
