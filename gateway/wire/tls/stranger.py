"""TLS towards a server that is only looked at: what a client would object to is written down, and not acted on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256, SHA512, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto

from ...records import dataclass
from .chain import subject, weakness
from .context import ENABLE_PARTIAL_WRITE, LEGACY_SERVER_CONNECT, NO_RENEGOTIATION, connecting, trust
from .half import TLSHalf
from .private import set_groups
from .verify import Check, TLSClientOptions, check_for, judge, peer_certificate, server_name

VERSIONS: Final = {
    "TLSv1.3": SSL.TLS1_3_VERSION,
    "TLSv1.2": SSL.TLS1_2_VERSION,
    "TLSv1.1": SSL.TLS1_1_VERSION,
    "TLSv1": SSL.TLS1_VERSION,
}
"""By OpenSSL's names, the best first."""

GROUPS: Final = {
    "X25519MLKEM768": b"X25519MLKEM768",
    "X25519": b"X25519",
    "P-256": b"P-256",
    "P-384": b"P-384",
}
"""Groups that clients of today offer, the best first (RFC 8446 4.2.7)."""
POST_QUANTUM: Final = "X25519MLKEM768"

_ALL: Final = b"DEFAULT:@SECLEVEL=0:!aNULL:!eNULL:!PSK:!SRP"
"""Whatever OpenSSL still has, as old clients do: which of it the server takes is the question."""


class Unsupported(Exception):
    """This machine's OpenSSL cannot offer that."""


@dataclass(frozen=True, slots=True)
class Presented:
    """The certificates that a server sent."""

    names: tuple[str, ...]
    """DNS names and addresses of the first one: not fit for a terminal as they are."""
    not_after: datetime
    sha256: str
    subjects: tuple[str, ...]
    """From the server's own up.  Fit for a terminal."""
    weakness: str
    """What clients refuse about keys and signatures; nothing if all are strong."""
    chain: tuple[x509.Certificate, ...]


class _Witness:
    """A client that goes on whatever it thinks of the certificate."""

    def __init__(self, check: Check, objections: list[str]) -> None:
        self._check = check
        self._objections = objections

    def objection(self, certificate: crypto.X509, error: int | None, depth: int) -> str | None:
        try:
            found = self._check.objection(certificate, error, depth)
        except Exception as fault:
            found = f"certificate cannot be checked ({type(fault).__name__})"
        if found is not None and found not in self._objections:
            self._objections.append(found)
        return None


class Stranger:
    """host -> the connecting half of TLS towards a server that nothing is known of.

    `name`: whose certificate a client expects.  `ca`: trust anchors, PEM; None stands for the system's.  `version`
    and `group`: the only ones that are offered.  Raises Unsupported, CertificateError, and ValueError for a name that
    is none.
    """

    def __init__(
        self, name: str, ca: Path | None = None, version: str = "", group: str = "", alpn: tuple[bytes, ...] = ()
    ) -> None:
        self.objections: list[str] = []
        """Why a client would refuse the certificate; the first connection's."""
        self._connection: SSL.Connection | None = None
        self._wanted = TLSClientOptions(name, ca=ca, alpn=alpn)
        self._check = check_for(self._wanted)
        server_name(self._wanted)
        self._context = _context(ca, version, group)

    def __call__(self, host: str) -> TLSHalf:
        self._connection = connecting(self._context, self._wanted)
        self._connection.set_app_data(_Witness(self._check, self.objections))
        return TLSHalf(self._connection)

    @property
    def presented(self) -> Presented | None:
        """None before there was a handshake, and where the certificate cannot be read."""
        if self._connection is None or (leaf := peer_certificate(self._connection)) is None:
            return None
        # A stranger's certificates may raise anything.
        with suppress(Exception):
            sent = tuple(self._connection.get_peer_cert_chain(as_cryptography=True) or ())
            return Presented(leaf.names, leaf.not_after, leaf.sha256, tuple(map(subject, sent)), weakness(sent), sent)
        return None


def _context(ca: Path | None, version: str, group: str) -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(VERSIONS[version] if version else SSL.TLS1_VERSION)
    if version:
        context.set_max_proto_version(VERSIONS[version])
    context.set_cipher_list(_ALL)
    if group and not set_groups(context, GROUPS[group]):
        raise Unsupported(group)
    context.set_options(SSL.OP_NO_COMPRESSION | NO_RENEGOTIATION | LEGACY_SERVER_CONNECT)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.clear_mode(ENABLE_PARTIAL_WRITE)
    if ca is None:
        context.set_default_verify_paths()
    else:
        trust(context, ca)
    context.set_verify(SSL.VERIFY_PEER, judge)
    return context


# --- DANE (RFC 6698) -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TLSA:
    """A TLSA record (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def matches(self, chain: Sequence[x509.Certificate]) -> bool:
        """Whether one of the certificates that its usage is about is the one that it names.

        DANE-EE (3) and PKIX-EE (1) are about the server's own, DANE-TA (2) and PKIX-TA (0) about those behind it.
        """
        about = chain[:1] if self.usage in (1, 3) else chain[1:] or chain
        return any(self._of(certificate) == self.data for certificate in about)

    def _of(self, certificate: x509.Certificate) -> bytes:
        if self.selector == 0:
            octets = certificate.public_bytes(Encoding.DER)
        else:
            octets = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if self.matching == 0:
            return octets
        digest = Hash(SHA256() if self.matching == 1 else SHA512())
        digest.update(octets)
        return digest.finalize()
