"""Verification of client certificates.

With client certificates TLS sessions are not resumed.  A resumed session keeps our result in OpenSSL, and would turn a
tolerated certificate into a verified one.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from cryptography import x509
from OpenSSL import SSL, crypto

from ...protocol.vocabulary import ClientCertificate

MODES: Final = {
    "none": SSL.VERIFY_NONE,
    "request": SSL.VERIFY_PEER,
    "require": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}
"""Value of `client_certificate` -> OpenSSL's mode."""

_OBJECTIONS: Final = {
    2: "unknown CA", 9: "not yet valid", 10: "expired", 18: "self-signed", 19: "unknown CA", 20: "unknown CA",
    21: "unknown CA", 23: "revoked", 26: "not for TLS clients (its key usage says so)", 66: "its key is too small",
    68: "signed with a broken hash",
}  # fmt: skip
"""X509_V_ERR_* -> text, for the common errors."""


class ClientVerification:
    """The app data of an accepting connection."""

    __slots__ = ("_contexts", "judged", "name", "objection", "tolerant")

    def __init__(self, contexts: object, tolerant: bool, name: bytes = b"") -> None:
        # Keeps the first context alive.  SNI switches the connection to another context, but after a HelloRetryRequest
        # OpenSSL calls the SNI callback of the first context again.
        self._contexts = contexts
        self.tolerant = tolerant
        """Accept clients with a wrong certificate."""
        self.name = name
        """Whom the client has asked for before TLS; empty if nobody."""
        self.judged = False
        """The whole chain of a certificate was checked."""
        self.objection: str | None = None

    @property
    def refusal(self) -> str | None:
        """Why the handshake failed, if the client certificate was the reason."""
        return None if self.tolerant else self.objection


def judge(connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, passed: int) -> bool:
    """OpenSSL's verify callback, of contexts with the mode of `request` or `require`.

    It must not raise: pyOpenSSL would keep the exception, and raise it in another connection of the context that
    this one had before its SNI was known.
    """
    verification = connection.get_app_data()
    if not isinstance(verification, ClientVerification):
        return False
    if not passed and verification.objection is None:
        verification.objection = (
            f"client certificate: {_OBJECTIONS.get(error, f'X509 error {error}')} ({_whose(certificate)})"
        )
    verification.judged = verification.judged or depth == 0
    return verification.tolerant or bool(passed)


def presented(connection: SSL.Connection) -> ClientCertificate | None:
    """The client's certificate after the handshake; None if there is none, or this is no accepting end."""
    verification = connection.get_app_data()
    if not isinstance(verification, ClientVerification) or not verification.judged:
        return None
    certificate = connection.get_peer_certificate()
    if certificate is None:
        return None
    return ClientCertificate(verified=verification.objection is None, common_name=_common_name(certificate))


def asked_for(connection: SSL.Connection) -> bytes:
    """Whom the client has asked for before TLS; empty if nobody."""
    verification = connection.get_app_data()
    return verification.name if isinstance(verification, ClientVerification) else b""


def refusal(connection: SSL.Connection) -> str | None:
    """Why the client was refused, if its certificate was the reason."""
    verification = connection.get_app_data()
    return verification.refusal if isinstance(verification, ClientVerification) else None


def _common_name(certificate: crypto.X509) -> str | None:
    """The last common name, which is the most specific one."""
    # A client's certificate can cause any exception.
    with suppress(Exception):
        names = certificate.to_cryptography().subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        if names and isinstance(names[-1].value, str):
            return names[-1].value
    return None


def _whose(certificate: crypto.X509) -> str:
    name = _common_name(certificate)
    return "without a common name" if name is None else ascii(name[:64])[1:-1]
