"""Verification of backend certificates, with reasons for the log."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from OpenSSL import SSL, crypto
from service_identity import CertificateError as UnusableName
from service_identity import VerificationError
from service_identity.hazmat import (
    DNS_ID,
    CertificatePattern,
    DNSPattern,
    IPAddress_ID,
    IPAddressPattern,
    verify_service_identity,
)

from ...records import dataclass

PIN: Final = "sha256:"
"""Prefix of the digest in `verify`."""

_SHA256: Final = 32
"""Octets of a digest."""

_NAMES: Final = 3
"""Names of a certificate in a reason."""

_LONGEST: Final = 100
"""Characters of a name in a reason."""

_LONGEST_HOST: Final = 253
"""Octets of a host name (RFC 1035 3.1, as text).  OpenSSL sends no SNI for more than 255, without an error."""

_Codes = SSL.X509VerificationCodes
_Name = x509.DNSName | x509.IPAddress

_KEY_TOO_SMALL: Final = (66, 67)
_HASH_TOO_WEAK: Final = 68
"""X509_V_ERR_EE_KEY_TOO_SMALL, CA_KEY_TOO_SMALL and CA_MD_TOO_WEAK, which pyOpenSSL does not name."""


@dataclass(frozen=True, slots=True)
class TLSClientOptions:
    """The TLS options of one backend.  All are from the configuration, none from the backend or DNS (RFC 7817 3)."""

    name: str
    """The reference identifier (RFC 9525 6.1): a DNS name or an IP address.  Empty only if `verify` does not check
    names."""
    verify: str = "yes"
    """`yes` (chain and name), `no` (anything), or `sha256:HEX` of the leaf in DER, colons or not."""
    ca: Path | None = None
    """PEM file with the trust anchors; None means the system's."""
    profile: str = "intermediate"
    """`intermediate` or `legacy`."""
    sni: str | None = None
    """SNI if it is not `name`; empty for no SNI."""
    alpn: tuple[bytes, ...] = ()
    """Names of the protocol (RFC 7301); none as a rule."""


class Check(Protocol):
    """A check of a backend's certificates."""

    def objection(self, certificate: crypto.X509, error: int | None, depth: int) -> str | None:
        """Why this certificate is refused; None if it is accepted.

        Called for each certificate of the chain, from the root to the leaf (depth 0).  `error` is OpenSSL's error, if
        there is one.  An exception is a refusal too.
        """


@dataclass(frozen=True, slots=True)
class Named:
    """A chain to a trust anchor, and the name in the subjectAltName, not in the common name (RFC 9525 2)."""

    identifier: DNS_ID | IPAddress_ID
    name: str

    def objection(self, certificate: crypto.X509, error: int | None, depth: int) -> str | None:
        if error is not None:
            return _complaint(certificate, error, depth)
        return None if depth else self._about_names(certificate.to_cryptography())

    def _about_names(self, leaf: x509.Certificate) -> str | None:
        names = _subject_names(leaf)
        if names is None:
            return "certificate has no subjectAltName"
        patterns = [pattern for name in names if (pattern := _pattern(name)) is not None]
        try:
            if patterns and verify_service_identity(patterns, [self.identifier], []):
                return None
        except VerificationError:
            pass
        return f"certificate is for {_listed(names)}, not {self.name}"


@dataclass(frozen=True, slots=True)
class Pinned:
    """Exactly this leaf.  Its issuer, dates and names do not matter."""

    digest: str

    def objection(self, certificate: crypto.X509, error: int | None, depth: int) -> str | None:
        if depth or (found := _digest(certificate)) == self.digest:
            return None
        return f"pin does not match: {PIN}{found}"


@dataclass(frozen=True, slots=True)
class Anything:
    """`verify = no`: no check."""

    def objection(self, certificate: crypto.X509, error: int | None, depth: int) -> str | None:
        return None


def check_for(wanted: TLSClientOptions) -> Check:
    """The check for these options.  Raises ValueError, with one line of text, for a wrong `verify` or name."""
    match wanted.verify:
        case "no":
            return Anything()
        case "yes":
            return Named(_identifier(wanted.name), wanted.name)
        case text if text.startswith(PIN):
            return Pinned(_pin(text))
    raise ValueError(f"verify: {wanted.verify!r} is none of yes, no, sha256:HEX")


def server_name(wanted: TLSClientOptions) -> bytes | None:
    """The SNI, or None for an IP address (RFC 6066 3).  Raises ValueError."""
    text = wanted.name if wanted.sni is None else wanted.sni
    identifier = _identifier(text) if text else None
    return identifier.hostname if isinstance(identifier, DNS_ID) else None


def judge(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, passed: int) -> bool:
    """OpenSSL's verify callback: asks the Check that is the connection's app data.

    A refusal is raised as SSL.Error, which the handshake then raises.  So each exception refuses the certificate.  In
    pyOpenSSL this works for a callback of the context, not of the connection.
    """
    try:
        check: Check = connection.get_app_data()
        objection = check.objection(certificate, None if passed else error, depth)
    except Exception as fault:
        objection = f"certificate cannot be checked ({type(fault).__name__})"
    if objection is None:
        return True
    raise SSL.Error([("certificate", "", objection)])


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """Facts about the backend's certificate, for reports."""

    names: tuple[str, ...]
    """DNS names and IP addresses of the subjectAltName, unchanged: not safe for a terminal."""
    not_after: datetime
    sha256: str
    """Digest of the DER form, for `verify = sha256:HEX`."""


def peer_certificate(connection: SSL.Connection) -> PeerCertificate | None:
    """None without a certificate, or if it cannot be read."""
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return None
    # A bad certificate can cause any exception, mostly not a ValueError.
    with suppress(Exception):
        readable = certificate.to_cryptography()
        names: tuple[_Name, ...] = ()
        with suppress(Exception):
            names = _subject_names(readable) or ()
        return PeerCertificate(
            tuple(str(name.value) for name in names), readable.not_valid_after_utc, _digest(certificate)
        )
    return None


# --- what is wanted ------------------------------------------------------------------------------


def _identifier(name: str) -> DNS_ID | IPAddress_ID:
    with suppress(ValueError):
        return IPAddress_ID(ipaddress.ip_address(name))
    try:
        # Certificates and SNI have no dot at the end (RFC 6066 3).
        identifier = DNS_ID(name.removesuffix("."))
        if len(identifier.hostname) <= _LONGEST_HOST:
            return identifier
    except ValueError:
        pass
    raise ValueError(f"name: {name!r} is neither a host name nor an IP address")


def _pin(text: str) -> str:
    digits = text.removeprefix(PIN).replace(":", "")
    try:
        digest = bytes.fromhex(digits)
    except ValueError:
        digest = b""
    if len(digest) != _SHA256 or len(digits) != 2 * _SHA256:
        raise ValueError(
            f"verify: {PIN} wants {2 * _SHA256} hexadecimal digits; "
            "see: openssl x509 -in FILE -noout -fingerprint -sha256"
        )
    return digest.hex()


# --- what is found -------------------------------------------------------------------------------


def _digest(certificate: crypto.X509) -> str:
    return certificate.digest("sha256").replace(b":", b"").decode("ascii").lower()


def _subject_names(certificate: x509.Certificate) -> tuple[_Name, ...] | None:
    """The DNS names and IP addresses in the subjectAltName; None without the extension.  Can raise any exception.

    Ignores other entries: `extract_patterns` of service-identity fails at a URI with a port.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return None
    return tuple(name for name in extension.value if isinstance(name, x509.DNSName | x509.IPAddress))


def _pattern(name: _Name) -> CertificatePattern | None:
    """None for what can match no name: a NUL, `*.com`, an IP address as a DNS name."""
    try:
        match name:
            case x509.IPAddress(value=ipaddress.IPv4Address() | ipaddress.IPv6Address() as address):
                return IPAddressPattern(address)
            case x509.DNSName(value=host):
                return DNSPattern.from_bytes(host.encode("utf-8"))
    except UnusableName:
        pass
    return None


def _complaint(certificate: crypto.X509, error: int, depth: int) -> str:
    """Text for OpenSSL's error of the chain."""
    whose = "certificate" if depth == 0 else "an issuer's certificate"
    match error:
        case _Codes.ERR_CERT_HAS_EXPIRED:
            return f"{whose} expired on {_day(certificate.get_notAfter())}"
        case _Codes.ERR_CERT_NOT_YET_VALID:
            return f"{whose} is not valid before {_day(certificate.get_notBefore())}"
        case _Codes.ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
            return f"self-signed certificate, {PIN}{_digest(certificate)}"
        case _Codes.ERR_SELF_SIGNED_CERT_IN_CHAIN:
            return f"unknown CA: {_issuer(certificate)}"
        case (
            _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT
            | _Codes.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
            | _Codes.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE
        ):
            return f"unknown CA, or the backend does not send its certificate: {_issuer(certificate)}"
        case _Codes.ERR_INVALID_PURPOSE if depth == 0:
            return "not a server certificate (its key usage says so)"
        case _Codes.ERR_INVALID_CA | _Codes.ERR_INVALID_PURPOSE:
            return f"issued by one that is no CA: {_subject(certificate)}"
        case _Codes.ERR_CERT_SIGNATURE_FAILURE:
            return f"{whose} is not signed by whom it names: {_issuer(certificate)}"
        case _Codes.ERR_PERMITTED_VIOLATION | _Codes.ERR_EXCLUDED_VIOLATION:
            return "certificate has a name that its issuer may not certify"
        case code if code in _KEY_TOO_SMALL:
            return f"{whose} has a key that is too small"
        case code if code == _HASH_TOO_WEAK:
            return f"{whose} is signed with a broken hash ({_signature(certificate)})"
    return f"{whose} refused: {_words(error)}"


def _words(error: int) -> str:
    """OpenSSL's text for an error of X509_verify_cert.  pyOpenSSL has no function for it."""
    for name, code in vars(_Codes).items():
        if code == error and name.startswith("ERR_"):
            return name.removeprefix("ERR_").lower().replace("_", " ")
    return f"X509 error {error}"


def _day(moment: bytes | None) -> str:
    """The day of a GENERALIZEDTIME (YYYYMMDDHHMMSSZ), the form of all times in pyOpenSSL."""
    text = (moment or b"").decode("ascii")
    return date(int(text[:4]), int(text[4:6]), int(text[6:8])).isoformat()


def _issuer(certificate: crypto.X509) -> str:
    return _distinguished(certificate, "issuer")


def _subject(certificate: crypto.X509) -> str:
    return _distinguished(certificate, "subject")


def _distinguished(certificate: crypto.X509, whose: str) -> str:
    with suppress(Exception):
        name: x509.Name = getattr(certificate.to_cryptography(), whose)
        return _shown(name.rfc4514_string()) or "(empty name)"
    return "(unreadable name)"


def _signature(certificate: crypto.X509) -> str:
    return certificate.get_signature_algorithm().decode("ascii", "backslashreplace")


def _listed(names: tuple[_Name, ...]) -> str:
    if not names:
        return "no host"
    rest = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return ", ".join(_shown(str(name.value)) for name in names[:_NAMES]) + rest


def _shown(name: str) -> str:
    """Text from a certificate, printable and of limited length."""
    text = ascii(name)[1:-1]
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
