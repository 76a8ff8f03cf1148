"""Proof that a certificate can be served: the gateway shakes hands with itself before any client does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from OpenSSL import SSL

VERSIONS: Final = {"TLS 1.2": SSL.TLS1_2_VERSION, "TLS 1.3": SSL.TLS1_3_VERSION}

_MOST_FLIGHTS: Final = 6
"""Flights of a whole handshake; TLS 1.2 needs four."""
_RECORD: Final = 1 << 16


def failures(context: SSL.Context, minimum: int) -> Mapping[str, str]:
    """Version -> OpenSSL's reason, for the versions from `minimum` on in which a handshake fails.

    `context` is one for clients, with its certificate.  The other end is OpenSSL as it comes, which takes all keys
    that clients of today take; it does not judge the certificate.
    """
    found = {}
    for name, version in VERSIONS.items():
        if version >= minimum and (reason := _failure(context, version)):
            found[name] = reason
    return found


def _failure(context: SSL.Context, version: int) -> str:
    """Why a handshake in this version fails; nothing if it succeeds."""
    wanted = SSL.Context(SSL.TLS_CLIENT_METHOD)
    wanted.set_min_proto_version(version)
    wanted.set_max_proto_version(version)
    # A small key of the profile `legacy` is judged elsewhere.
    wanted.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
    client, server = SSL.Connection(wanted, None), SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    done = set()
    for _ in range(_MOST_FLIGHTS):
        for ours, theirs in ((client, server), (server, client)):
            try:
                ours.do_handshake()
                done.add(ours)
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                return _reason(error)
            _carry(ours, theirs)
        if len(done) == 2:
            return ""
    return "it does not come to an end"


def _carry(ours: SSL.Connection, theirs: SSL.Connection) -> None:
    while True:
        try:
            theirs.bio_write(ours.bio_read(_RECORD))
        except SSL.WantReadError:
            return


def _reason(error: SSL.Error) -> str:
    reasons = [reason for _library, _function, reason in error.args[0]] if error.args else []
    return "; ".join(filter(None, reasons)) or "OpenSSL does not say why"
