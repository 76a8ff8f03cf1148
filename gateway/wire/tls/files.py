"""Reads PEM files with certificates and keys.  Messages name other formats."""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from . import formats

_KEY_BEGINS: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
"""PKCS#8, RSA or EC (RFC 7468 10, 11)."""
_CERTIFICATE_BEGINS: Final = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----")
"""The first label is of OpenSSL before 0.9.5."""


class CertificateError(ValueError):
    """A certificate or key cannot be used.  The text is one line with the file and the cure."""


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
            f"{path}: the gateway cannot read this file; give its group the permission (chgrp, chmod g+r), also for "
            "the directory"
        ) from None
    except (OSError, ValueError) as error:
        raise CertificateError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def looks(path: Path) -> tuple[int, ...]:
    """Identifies a version of a file, with symbolic links followed; the errno if stat(2) fails."""
    try:
        # ctime: a change of permissions changes nothing else.
        found = os.stat(path)
    except OSError as error:
        return (error.errno or 0,)
    except ValueError:
        return ()
    return (found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino, found.st_size)


def certificates(
    path: Path, wanted: str = "it must be a PEM file that begins with the server's certificate"
) -> tuple[x509.Certificate, ...]:
    """All certificates.  Raises CertificateError, with `wanted` if the format is unknown."""
    octets = read(path)
    if not holds_certificate(octets):
        raise CertificateError(f"{path}: no certificate in this file; {formats.what_is(path, octets) or wanted}")
    try:
        found = tuple(x509.load_pem_x509_certificates(octets))
        for one in found:
            # cryptography parses these on access, and can raise then.
            _ = one.subject, one.issuer, one.not_valid_before_utc, one.not_valid_after_utc
        return found
    except Exception:  # for example for an unknown version; not a ValueError
        cure = formats.damage(path, octets) or "fetch the file again from its issuer"
        raise CertificateError(f"{path}: a certificate in this file is damaged; {cure}") from None


def private_keys(path: Path, wanted: str, *, shared: bool = False) -> list[Any]:
    """All keys, at least one.  Raises CertificateError, with `wanted` if the format is unknown.

    `shared`: the certificate is in the same file.
    """
    octets = read(path)
    if not _KEY_BEGINS.search(octets):
        other = "" if shared else formats.what_is(path, octets)
        raise CertificateError(f"{path}: no private key in this file; {other or wanted}")
    # Certificates or EC PARAMETERS can come before the key.
    begins = [match.start() for match in _KEY_BEGINS.finditer(octets)]
    return [_private(path, octets[begin:end]) for begin, end in zip(begins, [*begins[1:], None], strict=True)]


def holds_certificate(octets: bytes) -> bool:
    return bool(_CERTIFICATE_BEGINS.search(octets))


def holds_key(octets: bytes) -> bool:
    return bool(_KEY_BEGINS.search(octets))


def _private(path: Path, octets: bytes) -> Any:
    # cryptography has more exact errors than OpenSSL.
    if octets.startswith(b"-----BEGIN OPENSSH"):
        raise CertificateError(f"{path}: the private key has SSH's own form; {formats.ssh_key(path, octets)}")
    cure = formats.damage(path, octets) or "restore it from a copy"
    damaged = CertificateError(f"{path}: the private key in this file is damaged or of an unknown kind; {cure}")
    try:
        # The full check of an RSA key with 4096 bits takes 0.3 s and would block all clients.
        private = load_pem_private_key(octets, None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        cure = formats.without_passphrase(path)
        raise CertificateError(f"{path}: the private key is protected by a passphrase; remove it: {cure}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise damaged from None
    if isinstance(private, rsa.RSAPrivateKey) and not _signs(private):
        raise damaged
    return private


def _signs(private: rsa.RSAPrivateKey) -> bool:
    """Whether the key can sign."""
    try:
        signature = private.sign(b"", padding.PKCS1v15(), hashes.SHA256())
        private.public_key().verify(signature, b"", padding.PKCS1v15(), hashes.SHA256())
    except (ValueError, InvalidSignature):
        return False
    return True


def rights_of_others(path: Path) -> str:
    """The problem with the permissions of a private key, and the cure.  Empty if other users cannot read or write it.

    The permissions of its directories count too.
    """
    try:
        mode = os.stat(path).st_mode
        entered = all(os.stat(directory).st_mode & stat.S_IXOTH for directory in Path(os.path.realpath(path)).parents)
    except (OSError, ValueError):
        return ""
    rights = {"r": ("read", stat.S_IROTH), "w": ("write", stat.S_IWOTH)}
    letters = "".join(letter for letter, (_word, bit) in rights.items() if mode & bit)
    if not entered or not letters:
        return ""
    words = " and ".join(rights[letter][0] for letter in letters)
    cure = f"remove the permission: chmod o-{letters} {shlex.quote(str(path))}"
    return f"every user of this machine can {words} the private key; {cure}"
