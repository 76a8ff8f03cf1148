"""A chain of certificates in words: what each one is, and why a client would not follow it (RFC 5280 6.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

Chain = Sequence[x509.Certificate]

_LONGEST: Final = 100
"""Characters of a distinguished name that a line shows."""


def complaints(file: Path, chain: Chain, now: datetime) -> Iterator[str]:
    """Why the chain is not served; each is one line with the cure."""
    for number, certificate in enumerate(chain, 1):
        what = "the certificate" if number == 1 else f"certificate {number} of the chain ({subject(certificate)})"
        if certificate.not_valid_after_utc < now:
            cure = "renew it" if number == 1 else "fetch the chain again from the issuer"
            yield f"{file}: {what} expired on {_day(certificate.not_valid_after_utc)}; {cure}"
        elif certificate.not_valid_before_utc > now:
            day = _day(certificate.not_valid_before_utc)
            yield f"{file}: {what} is not valid before {day}; wait for it, or see whether this machine's clock is right"
    for number, (certificate, issuer) in enumerate(pairwise(chain), 1):
        reason = why_not_issued(certificate, issuer)
        if not reason:
            continue
        if issuer in chain[:number]:
            first = list(chain).index(issuer) + 1
            yield f"{file}: certificate {number + 1} is the same as certificate {first}; remove one of them"
        elif any(not why_not_issued(certificate, other) for other in chain if other not in (certificate, issuer)):
            yield (
                f"{file}: the chain is out of order: certificate {number + 1} ({subject(issuer)}) did not issue "
                f"certificate {number} ({subject(certificate)}); each must be followed by its issuer"
            )
        else:
            yield (
                f"{file}: certificate {number + 1} ({subject(issuer)}) does not belong to the chain: it did not issue "
                f"certificate {number} ({subject(certificate)}): {reason}; remove it, or put the right issuer there"
            )
        return  # what comes behind follows from that


def why_not_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> str:
    """Nothing if this is the issuer.  Whether the signature is strong enough is OpenSSL's to say."""
    if certificate.issuer != issuer.subject:
        return f"its issuer is {issuer_of(certificate)}"
    wanted, had = _authority_key(certificate), _subject_key(issuer)
    if wanted and had and wanted != had:
        return "its issuer has this name, but another key (authorityKeyIdentifier)"
    try:
        certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        return "its signature was not made with this key"
    except (UnsupportedAlgorithm, ValueError, TypeError):
        # cryptography knows no signatures of the past, like SHA-1.
        if not _signed_of_old(certificate, issuer):
            return "its signature was not made with this key"
    return ""


def _signed_of_old(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    hashed = None
    with suppress(UnsupportedAlgorithm):
        hashed = certificate.signature_hash_algorithm
    if not isinstance(key, rsa.RSAPublicKey) or hashed is None:
        return True  # the names must do
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, padding.PKCS1v15(), hashed)
    except InvalidSignature:
        return False
    except (UnsupportedAlgorithm, ValueError):
        pass
    return True


def weakly_signed(chain: Chain) -> str:
    """Which certificate is signed with a hash that clients refuse, and which hash; nothing if none is.

    OpenSSL does not refuse SHA-1 in what it serves.  A certificate that signs itself is trusted for itself.
    """
    for number, certificate in enumerate(chain, 1):
        hashed = None
        with suppress(UnsupportedAlgorithm):
            hashed = certificate.signature_hash_algorithm
        if isinstance(hashed, hashes.MD5 | hashes.SHA1) and certificate.issuer != certificate.subject:
            what = "the certificate" if number == 1 else f"certificate {number} of the chain"
            return f"{what} is signed with a broken hash ({hashed.name.upper()})"
    return ""


def remarks(file: Path, chain: Chain) -> Iterator[str]:
    """What most clients refuse although it can be served; each is one line with the cure."""
    leaf = chain[0]
    feature = _extension(leaf, x509.TLSFeature)
    if feature is not None and x509.TLSFeatureType.status_request in list(feature):
        yield (
            f"{file}: the certificate demands OCSP stapling (must-staple), which the gateway does not do; clients that "
            "check it will refuse it; have it issued without must-staple (certbot: without --must-staple)"
        )
    usages = _extension(leaf, x509.ExtendedKeyUsage)
    if usages is not None and not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(
        usages
    ):
        yield (
            f"{file}: the certificate is not for servers: its extendedKeyUsage lacks serverAuth; clients will refuse "
            "it; have it issued for a server"
        )
    for number, certificate in enumerate(chain[1:], 2):
        if wrong := _why_no_issuer(certificate, number - 2):
            yield (
                f"{file}: certificate {number} of the chain ({subject(certificate)}) may not issue certificates: "
                f"{wrong}; clients will refuse the chain; put the right issuer there"
            )


def cannot_sign(certificate: x509.Certificate) -> bool:
    """Whether its keyUsage forbids the signature that a handshake needs (RFC 5280 4.2.1.3)."""
    usage = _extension(certificate, x509.KeyUsage)
    return usage is not None and not usage.digital_signature


def _why_no_issuer(certificate: x509.Certificate, below: int) -> str:
    """`below`: how many CA certificates stand between it and the server's own."""
    basic = _extension(certificate, x509.BasicConstraints)
    if basic is None or not basic.ca:
        return "it is no CA (basicConstraints)"
    usage = _extension(certificate, x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        return "its keyUsage lacks keyCertSign"
    if basic.path_length is not None and below > basic.path_length:
        return f"it allows {basic.path_length} CA certificates below it (path length), and there are {below}"
    return ""


# --- facts ---------------------------------------------------------------------------------------


E = TypeVar("E", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    # cryptography may raise anything over an extension that it cannot read.
    with suppress(Exception):
        return certificate.extensions.get_extension_for_class(kind).value
    return None


def _authority_key(certificate: x509.Certificate) -> bytes | None:
    found = _extension(certificate, x509.AuthorityKeyIdentifier)
    return None if found is None else found.key_identifier


def _subject_key(certificate: x509.Certificate) -> bytes | None:
    found = _extension(certificate, x509.SubjectKeyIdentifier)
    return None if found is None else found.key_identifier


def alternatives(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """Its subjectAltName; a name that cannot be read is one that no client can ask for."""
    return tuple(_extension(certificate, x509.SubjectAlternativeName) or ())


def published_at(certificate: x509.Certificate) -> str | None:
    """Where the issuer's certificate can be had (RFC 5280 4.2.2.1); usually in DER form."""
    for access in _extension(certificate, x509.AuthorityInformationAccess) or ():
        if access.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
            return shown(str(access.access_location.value))
    return None


def subject(certificate: x509.Certificate) -> str:
    return _distinguished(certificate, "subject")


def issuer_of(certificate: x509.Certificate) -> str:
    return _distinguished(certificate, "issuer")


def _distinguished(certificate: x509.Certificate, whose: str) -> str:
    with suppress(ValueError):
        name: x509.Name = getattr(certificate, whose)
        return shown(name.rfc4514_string()) or "without a name"
    return "with an unreadable name"


def shown(text: str) -> str:
    """Harmless in a terminal, one line, and in bounds."""
    harmless = ascii(text)[1:-1]
    return harmless if len(harmless) <= _LONGEST else harmless[:_LONGEST] + "..."


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
