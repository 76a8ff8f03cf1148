"""What a client says in a login: who it is, how it proves that, and whether it has said anything that can.

A name is what the client said, octets without a promise: for the log, and never for a decision.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from .conversation import broken
from .sasl import BLANKS, MECHANISM, cancels, is_request, proves, refused

LONGEST: Final = 256
"""Octets of a name that are remembered."""
_DIGEST: Final = re.compile(rb'(?:\A|[, ])username="((?:[^"\\]|\\.)*)"')
"""RFC 2831 2.1.2."""
_SCRAM: Final = re.compile(rb"\A[^,]*,[^,]*,(?:[^,]*,)*?n=([^,]*)")
"""Behind the GS2 header (RFC 5802 7)."""
_GS2: Final = re.compile(rb"\A[^,]*,a=([^,]*),")
"""RFC 7628 3.1."""
_XOAUTH2: Final = re.compile(rb"\Auser=([^\x01]*)\x01")
_NTLM: Final = b"NTLMSSP\0\x03\0\0\0"
"""The beginning of the message with the name (MS-NLMP 2.2.1.3)."""

T = TypeVar("T")


class Claim:
    """One login: `hear` each response of the client's, as it stands in the protocol (base64).

    Only the first response counts where a password may be in the next one.  A mechanism that a client names comes in by
    `asked` or `named` only, so that no dialect can forget to check it.
    """

    __slots__ = ("_over", "cancelled", "mechanism", "tried", "user")

    def __init__(self, way: str = "") -> None:
        """`way`: our own word for a login that is no SASL; `USER`."""
        self.mechanism = way.encode("ascii")
        """In capital letters."""
        self._over = False
        self.user = b""
        """Empty while it is not known: GSSAPI never tells."""
        self.tried = False
        """Something was said that can prove who the client is: a failure is a failed login."""
        self.cancelled = False
        """The client has taken its login back."""

    @classmethod
    def asked(cls, arguments: bytes, malformed: T, unusable: T) -> Claim | T:
        """For the arguments of an AUTH command: a mechanism, and an initial response at most."""
        if not is_request(arguments):
            return malformed
        mechanism, _, initial = arguments.partition(b" ")
        return cls.named(mechanism, malformed, unusable, filter(None, [initial]))

    @classmethod
    def named(cls, mechanism: bytes, malformed: T, unusable: T, initial: Iterable[bytes] = ()) -> Claim | T:
        """For the name of a mechanism, and the response in the command itself, if it has one.

        `malformed` is what becomes of octets that are no name: slapd reads one up to a NUL.  `unusable` is what becomes
        of a mechanism by which the backend would take the gateway for the client.
        """
        if not MECHANISM.match(mechanism):
            return malformed
        if refused(mechanism):
            return unusable
        claim = cls(mechanism.decode("ascii").upper())
        for response in initial:
            claim.hear(response)
        return claim

    @property
    def given(self) -> bool:
        """Whether a success of the backend's is one of this client's.  Else it is us whom the backend lets in."""
        return self.tried and not self.cancelled

    def earned(self, success: bytes) -> None:
        """Raises Violation where this success of the backend's is none of the client's."""
        if not self.given:
            raise broken(f"a success without credentials: {success[:80]!r}")

    def hear(self, response: bytes) -> None:
        try:
            said = base64.b64decode(response.strip(BLANKS), validate=True)
        except binascii.Error:
            said = b""  # `=`, or what no server takes
        self.cancelled = self.cancelled or cancels(response)
        self.tried = self.tried or proves(self.mechanism, response)
        if self._over:
            return
        if self.mechanism == b"NTLM":
            self.user = _of_ntlm(said)
            self._over = bool(self.user)
        else:
            self._over = True
            self.user = shortened(_READERS.get(self.mechanism, _of_others(self.mechanism))(said))

    def hear_octets(self, said: bytes) -> None:
        """The same where the protocol has no base64: an asterisk is a password here, and takes nothing back."""
        self.hear(base64.b64encode(said))


def shortened(name: bytes) -> bytes:
    return name[:LONGEST]


def _of_others(mechanism: bytes) -> Callable[[bytes], bytes]:
    return _of_scram if mechanism.startswith(b"SCRAM-") else lambda said: b""


def _of_plain(said: bytes) -> bytes:
    """RFC 4616 2: whom to act as, who one is, the password."""
    parts = said.split(b"\0")
    return parts[1] if len(parts) == 3 else b""


def _of_cram(said: bytes) -> bytes:
    """RFC 2195 2: the name, a blank, the digest."""
    return said.rpartition(b" ")[0]


def _of_scram(said: bytes) -> bytes:
    found = _SCRAM.match(said)
    return found[1].replace(b"=2C", b",").replace(b"=3D", b"=") if found else b""


def _of_digest(said: bytes) -> bytes:
    found = _DIGEST.search(said)
    return re.sub(rb"\\(.)", rb"\1", found[1]) if found else b""


def _first(pattern: re.Pattern[bytes]) -> Callable[[bytes], bytes]:
    def read(said: bytes) -> bytes:
        found = pattern.match(said)
        return found[1] if found else b""

    return read


def _of_ntlm(said: bytes) -> bytes:
    if not said.startswith(_NTLM) or len(said) < 64:
        return b""
    length, offset = int.from_bytes(said[36:38], "little"), int.from_bytes(said[40:44], "little")
    name = said[offset : offset + length]
    if said[60] & 1:  # UTF-16
        name = name.decode("utf-16-le", "replace").encode()
    return shortened(name)


_READERS: Final[Mapping[bytes, Callable[[bytes], bytes]]] = {
    b"PLAIN": _of_plain,
    b"LOGIN": lambda said: said,
    b"CRAM-MD5": _of_cram,
    b"DIGEST-MD5": _of_digest,
    b"OAUTHBEARER": _first(_GS2),
    b"XOAUTH2": _first(_XOAUTH2),
}
