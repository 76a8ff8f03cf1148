"""A failure in plain words, and what to do about it."""

from __future__ import annotations

import re
from typing import Final

from .catalogue import event as row
from .failures import Failure
from .report.alerts import ALERTS, alert_of

LIMITS: Final = {
    "sessions": ("the gateway was full ([limits] sessions)", "raise the limit, if memory and open files allow it"),
    "sessions-per-client": (
        "the client had as many open sessions as [limits] sessions_per_client allows",
        "`who CLIENT` shows them; raise the limit if many people share this address",
    ),
    "connects-per-minute": (
        "the client connected more often than [limits] connects_per_minute allows",
        "find out why it connects so often; raise the limit if many people share this address",
    ),
    "auth-failures-per-minute": (
        "the client had failed to log in too often ([limits] auth_failures_per_minute); the backend was not asked",
        "correct the password in all of its programs, and wait a minute",
    ),
    "drained": ("an administrator takes no new sessions for the service", "`undrain SERVICE` ends that"),
    "banned": ("an administrator banned the client", "`unban CLIENT` lets it in again"),
}
"""By the `limit` of a refusal."""

HANDSHAKES: Final = (
    (
        ("timed out",),
        "the client began a TLS handshake and did not finish it in time",
        "look for packet loss on the way; [timeouts] handshake, if the client is only slow",
    ),
    (
        ("connection closed",),
        "the client closed the connection during the TLS handshake",
        "many clients do this without a word if they do not accept the certificate: see `check`, and the client's log",
    ),
    (
        ("no shared cipher",),
        "the client and the gateway have no cipher suite in common",
        "update the client, or add its network to [tls] legacy_clients",
    ),
    (
        ("unsupported protocol", "version too low"),
        "the client only speaks versions of TLS that the gateway does not allow",
        "update the client, or add its network to [tls] legacy_clients",
    ),
    (
        ("no suitable signature algorithm",),
        "the client cannot use the kind of key that the certificate has",
        "serve an RSA certificate beside it",
    ),
    (
        ("http request",),
        "the client speaks HTTP where TLS was expected",
        "look at the port in the client's settings",
    ),
    (
        ("wrong version number", "packet length too long"),
        "the client did not speak TLS where TLS was expected",
        "set the client to STARTTLS, or to an implicit port of the gateway",
    ),
)
"""Parts of the detail of a failed handshake that has no alert of the client's; what they mean; what to do."""


_LINK = re.compile(r" ?\(\[[^]]*\]\([^)]*\)\)")
"""To another page of the documentation."""


def explained(failure: Failure) -> tuple[str, str]:
    """In words, and the cure; either is one line."""
    match failure.event:
        case "refused" if failure.cause in LIMITS:
            words, cure = LIMITS[failure.cause]
            return words, cure.replace("CLIENT", failure.client).replace("SERVICE", failure.service)
        case "auth":
            inside = f"inside {failure.tls}" if failure.tls else "in the clear"
            return (
                f"the backend rejected the login ({failure.cause or 'unknown mechanism'}, {inside})",
                "correct the user name or the password; the backend's log says which",
            )
        case "tls-failed":
            return _handshake(failure.cause)
    found = row(failure.event)
    return _LINK.sub("", found.meaning), failure.cure or found.cure


def _handshake(detail: str) -> tuple[str, str]:
    if (alert := ALERTS.get(alert_of(detail))) is not None:
        return f"TLS handshake: the client {alert.meaning}", alert.cure
    for parts, words, cure in HANDSHAKES:
        if any(part in detail.lower() for part in parts):
            return words, cure
    found = row("tls-failed")
    return found.meaning, found.cure
