"""Test handshakes: the gateway connects to itself in memory before it uses a certificate."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final

from OpenSSL import SSL

VERSIONS: Final = {"TLS 1.2": SSL.TLS1_2_VERSION, "TLS 1.3": SSL.TLS1_3_VERSION}

_MOST_FLIGHTS: Final = 6
"""Flights of a full handshake; TLS 1.2 needs four."""
_RECORD: Final = 1 << 16
_NO_CHECK_TIME: Final = ssl.VerifyFlags(0x200000)
"""X509_V_FLAG_NO_CHECK_TIME, which Python does not name.  Other code checks the dates."""


def failures(context: SSL.Context, minimum: int) -> Mapping[str, str]:
    """Version -> OpenSSL's reason, for the versions from `minimum` on in which a handshake fails.

    `context` is one for clients, with its certificate.  The other end is a default OpenSSL context, which accepts the
    keys that current clients accept.  It does not verify the certificate.
    """
    found = {}
    for name, version in VERSIONS.items():
        if version >= minimum and (reason := _failure(context, version)):
            found[name] = reason
    return found


def refusal(context: SSL.Context, anchor: str, name: str) -> str:
    """Why a client that trusts `anchor` (PEM) refuses the certificate for this name; empty if it accepts it.

    The client is Python's ssl module.  It checks purpose, critical extensions, name constraints and the name.
    """
    wanted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    wanted.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    wanted.load_verify_locations(cadata=anchor)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = wanted.wrap_bio(incoming, outgoing, server_hostname=name)
    server = SSL.Connection(context, None)
    server.set_accept_state()
    for _ in range(_MOST_FLIGHTS):
        try:
            client.do_handshake()
            return ""
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLCertVerificationError as error:
            return error.verify_message
        except ssl.SSLError:
            return ""  # not about the certificate
        server.bio_write(outgoing.read())
        try:
            server.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error:
            return ""
        incoming.write(_said(server))
    return ""


def _said(connection: SSL.Connection) -> bytes:
    try:
        return connection.bio_read(_RECORD)
    except SSL.WantReadError:
        return b""


def _failure(context: SSL.Context, version: int) -> str:
    """Why a handshake in this version fails; empty if it succeeds."""
    wanted = SSL.Context(SSL.TLS_CLIENT_METHOD)
    wanted.set_min_proto_version(version)
    wanted.set_max_proto_version(version)
    # Other code checks small keys of the profile `legacy`.
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
