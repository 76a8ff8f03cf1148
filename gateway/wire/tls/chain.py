"""Checks of certificate chains, with messages (RFC 5280 6.1, RFC 8446 4.4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID

Chain = Sequence[x509.Certificate]

_LONGEST: Final = 100
"""Characters of a distinguished name in a message."""
_SMALLEST: Final = 2048
"""Bits of an RSA or DSA key at OpenSSL's security level 2, the usual default."""
_SMALLEST_CURVE: Final = 224
_BROKEN: Final = (hashes.MD5, hashes.SHA1)


def complaints(file: Path, chain: Chain, now: datetime, rearranged: Callable[[Sequence[int]], str]) -> Iterator[str]:
    """The errors of the chain.  Each is one line with the cure.

    `rearranged` gives the command that writes these certificates, counted from 1, in this order.
    """
    for number, certificate in enumerate(chain, 1):
        what = _called(chain, number)
        if certificate.not_valid_after_utc < now:
            cure = "renew it" if number == 1 else f"fetch the chain again from the issuer{_place(chain[number - 2])}"
            yield f"{file}: {what} expired on {_day(certificate.not_valid_after_utc)}; {cure}"
        elif certificate.not_valid_before_utc > now:
            day = _day(certificate.not_valid_before_utc)
            yield f"{file}: {what} is not valid before {day}; wait, or check the clock of this machine"
    right = in_order(chain, 0) or [1]
    cure = f"each must be followed by its issuer; put them in order: {rearranged(right)}"
    for number, (certificate, issuer) in enumerate(pairwise(chain), 1):
        if issuer in chain[:number]:
            first = list(chain).index(issuer) + 1
            yield (
                f"{file}: certificate {number + 1} is the same as certificate {first}; remove one of them: "
                f"{rearranged(right)}"
            )
            return
        if not (reason := why_not_issued(certificate, issuer)):
            continue
        if not why_not_issued(certificate, certificate):
            yield (
                f"{file}: certificate {number + 1} ({subject(issuer)}) does not belong to the chain: certificate "
                f"{number} ({subject(certificate)}) is self-signed, so no certificate may follow it; remove it: "
                f"{rearranged(right)}"
            )
        elif any(not why_not_issued(certificate, other) for other in chain if other not in (certificate, issuer)):
            yield (
                f"{file}: the chain is out of order: certificate {number + 1} ({subject(issuer)}) did not issue "
                f"certificate {number} ({subject(certificate)}); {cure}"
            )
        else:
            yield (
                f"{file}: certificate {number + 1} ({subject(issuer)}) does not belong to the chain: it did not issue "
                f"certificate {number} ({subject(certificate)}): {reason}; put the right issuer there"
                f"{_place(certificate)}, or remove the wrong certificates: {rearranged(right)}"
            )
        return  # other errors follow from this one


def in_order(chain: Chain, first: int | None = None) -> list[int]:
    """The numbers of the certificates, counted from 1, from the server's own up, without those that are not on its
    way.  `first` is the place of the server's own, counted from 0; without it, it is looked for.  Empty if there is
    none, or more than one."""
    different = list(dict.fromkeys(chain))
    if first is None:
        alone = [
            one for one in different if not any(other != one and not why_not_issued(other, one) for other in different)
        ]
        if len(alone) != 1:
            return []
        first = list(chain).index(alone[0])
    way = [chain[first]]
    while why_not_issued(way[-1], way[-1]):
        issuers = [one for one in different if one not in way and not why_not_issued(way[-1], one)]
        if not issuers:
            break
        way.append(issuers[0])
    return [list(chain).index(one) + 1 for one in way]


def why_not_issued(certificate: x509.Certificate, issuer: x509.Certificate) -> str:
    """Empty if this is the issuer.  Does not check the strength of the signature."""
    if not same_name(certificate.issuer, issuer.subject):
        return f"its issuer is {issuer_of(certificate)}"
    if _signed(certificate, issuer) is not False:
        return ""
    if other_key_named(certificate, issuer):
        return "its issuer has this name, but another key (authorityKeyIdentifier)"
    return "its signature was not made with this key"


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool | None:
    """None if the algorithm is unknown."""
    # `verify_directly_issued_by` refuses SHA-1, and names that differ in their encoding alone.
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    try:
        hashed = certificate.signature_hash_algorithm
        key = issuer.public_key()
        parameters = certificate.signature_algorithm_parameters
        match key:
            case rsa.RSAPublicKey() if hashed:
                padded = parameters if isinstance(parameters, padding.PSS) else padding.PKCS1v15()
                key.verify(signature, signed, padded, hashed)
            case ec.EllipticCurvePublicKey() if hashed:
                key.verify(signature, signed, ec.ECDSA(hashed))
            case dsa.DSAPublicKey() if hashed:
                key.verify(signature, signed, hashed)
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() if not hashed:
                key.verify(signature, signed)
            case _:
                # Ed25519 has no hash of its own, RSA and ECDSA do: this key makes no such signature.
                return False
    except InvalidSignature:
        return False
    except (UnsupportedAlgorithm, ValueError, TypeError):
        return None
    return True


def weakness(chain: Chain) -> str:
    """The weak key or signature of the chain that current clients refuse, and the cure.  Empty if all are strong.

    The signature of a self-signed certificate does not matter: it is trusted or not.
    """
    # OpenSSL does not refuse SHA-1 in its own certificates.
    for number, certificate in enumerate(chain, 1):
        what = "the certificate" if number == 1 else f"certificate {number} of the chain"
        itself = same_name(certificate.issuer, certificate.subject)
        hashed = None
        with suppress(UnsupportedAlgorithm):
            hashed = certificate.signature_hash_algorithm
        if isinstance(hashed, _BROKEN) and not itself:
            return f"{what} is signed with a broken hash ({hashed.name.upper()}); get it signed with SHA-256"
        if number > 1 and (size := _small(certificate)):
            cure = "remove it: clients have it already" if itself else "get a certificate from another issuer"
            return f"{_called(chain, number)} has a key that is too small ({size}), so clients refuse the chain; {cure}"
    return ""


def _small(certificate: x509.Certificate) -> str:
    with suppress(UnsupportedAlgorithm, ValueError):
        match certificate.public_key():
            case rsa.RSAPublicKey(key_size=bits) if bits < _SMALLEST:
                return f"RSA {bits}"
            case dsa.DSAPublicKey(key_size=bits) if bits < _SMALLEST:
                return f"DSA {bits}"
            case ec.EllipticCurvePublicKey(key_size=bits, curve=curve) if bits < _SMALLEST_CURVE:
                return f"ECDSA {curve.name}"
    return ""


# --- facts ---------------------------------------------------------------------------------------


E = TypeVar("E", bound=x509.ExtensionType)


def extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    # cryptography can raise any exception for a bad extension.
    with suppress(Exception):
        return certificate.extensions.get_extension_for_class(kind).value
    return None


def plain(name: bytes) -> bytes:
    """A DNS name for comparison."""
    return name.lower().removesuffix(b".")


def same_name(one: x509.Name, other: x509.Name) -> bool:
    """A name for comparison as in OpenSSL: case, multiple spaces and string types do not matter (RFC 5280 7.1)."""
    return one == other or _plain(one) == _plain(other)


def _plain(name: x509.Name) -> list[frozenset[tuple[str, str]]]:
    return [
        frozenset((part.oid.dotted_string, " ".join(_text(part.value).lower().split())) for part in group)
        for group in name.rdns
    ]


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.hex()


def other_key_named(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether its authorityKeyIdentifier names another certificate than this (RFC 5280 4.2.1.1): OpenSSL looks for
    that one, and takes no other."""
    wanted = extension(certificate, x509.AuthorityKeyIdentifier)
    had = extension(issuer, x509.SubjectKeyIdentifier)
    if wanted is None:
        return False
    if wanted.key_identifier and had and wanted.key_identifier != had.digest:
        return True
    if wanted.authority_cert_serial_number not in (None, issuer.serial_number):
        return True
    names = [name.value for name in wanted.authority_cert_issuer or () if isinstance(name, x509.DirectoryName)]
    return bool(names) and not any(same_name(name, issuer.issuer) for name in names)


def is_authority(certificate: x509.Certificate) -> bool:
    basic = extension(certificate, x509.BasicConstraints)
    return basic is not None and basic.ca


def cannot_sign(certificate: x509.Certificate) -> bool:
    """Whether keyUsage forbids digital signatures, which TLS 1.3 and our cipher suites need."""
    usage = extension(certificate, x509.KeyUsage)
    return usage is not None and not usage.digital_signature


def alternatives(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    """The subjectAltName.  Names that cannot be read are left out."""
    return tuple(extension(certificate, x509.SubjectAlternativeName) or ())


def published_at(certificate: x509.Certificate) -> str | None:
    """URL of the issuer's certificate (RFC 5280 4.2.2.1), usually in DER form."""
    for access in extension(certificate, x509.AuthorityInformationAccess) or ():
        if access.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
            return shown(str(access.access_location.value))
    return None


def _place(certificate: x509.Certificate) -> str:
    place = published_at(certificate)
    return f" (it is at {place})" if place else ""


def _called(chain: Chain, number: int) -> str:
    return "the certificate" if number == 1 else f"certificate {number} of the chain ({subject(chain[number - 1])})"


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
    """Text for a message: printable, one line, limited length."""
    harmless = ascii(text)[1:-1]
    return harmless if len(harmless) <= _LONGEST else harmless[:_LONGEST] + "..."


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
