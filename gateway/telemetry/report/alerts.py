"""What a client means by the alert with which it ends a handshake (RFC 8446 6.2), and what to do."""

from __future__ import annotations

from typing import Final, NamedTuple


class Alert(NamedTuple):
    meaning: str
    cure: str


_CHAIN: Final = "send the whole chain (starttls-gateway check), or install your issuer's certificate on the client"

ALERTS: Final = {
    "unknown_ca": Alert("does not know the issuer of the certificate", _CHAIN),
    "certificate_expired": Alert("finds that the certificate has expired", "renew it, or set the client's clock"),
    "certificate_unknown": Alert("does not accept the certificate", f"look at its name; else {_CHAIN}"),
    "bad_certificate": Alert("does not accept the certificate", f"look at its name and key; else {_CHAIN}"),
    "unsupported_certificate": Alert("cannot use a certificate of this kind", "serve an RSA certificate beside it"),
    "certificate_revoked": Alert("finds that the certificate was revoked", "get a new one"),
    "bad_certificate_status_response": Alert("does not accept the OCSP response", "renew the certificate"),
    "unrecognized_name": Alert("got a certificate for another name", "add one for the name that the client asks for"),
    "access_denied": Alert("refuses the server", "look into the client's settings"),
    "protocol_version": Alert("wants another TLS version", "update the client, or add it to [tls] legacy_clients"),
    "handshake_failure": Alert("finds no cipher suite or group in common", "update the client, or see legacy_clients"),
    "insufficient_security": Alert("demands stronger cipher suites", "look into the client's settings"),
    "illegal_parameter": Alert("does not understand the server's answer", "update the client"),
    "decode_error": Alert("does not understand the server's answer", "update the client"),
    "decrypt_error": Alert("finds a wrong signature", "look whether certificate and key belong together"),
    "internal_error": Alert("has trouble of its own", "look into the client's log"),
    "user_canceled": Alert("was stopped by its user", "ask the user what the program showed"),
    "no_application_protocol": Alert("wants another protocol on this port (ALPN)", "look at the client's port"),
    "unexpected_message": Alert("does not speak TLS as it should", "update the client"),
    "missing_extension": Alert("misses an extension", "update the client"),
    "unsupported_extension": Alert("got an extension that it did not ask for", "update the client"),
}
"""By OpenSSL's name."""

CERTIFICATE: Final = frozenset({
    "unknown_ca", "certificate_expired", "certificate_unknown", "bad_certificate", "unsupported_certificate",
    "certificate_revoked", "bad_certificate_status_response", "unrecognized_name",
})  # fmt: skip
"""Those that are about the server's certificate."""


def alert_of(detail: str) -> str:
    """The name of the alert in the detail of a `tls-failed` event; nothing where the client sent none."""
    word, colon, rest = detail.partition(":")
    return rest.partition(" (")[0].strip().replace(" ", "_") if colon and word == "alert" else ""
