"""Scripted backends that speak TLS: what recording.py plays, inside TLS."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path

from tests.process.legacy import SERVERS
from tests.process.recording import Connection, Script

GO_AHEAD: Mapping[str, bytes] = {
    "smtp": b"220 2.0.0 Go ahead\r\n",
    "imap": b"sgw1 OK Go ahead\r\n",
    "pop3": b"+OK Go ahead\r\n",
}
"""What a backend answers to the gateway's STARTTLS."""
ASKED: Mapping[str, bytes] = {
    "smtp": b"EHLO gw.example.test\r\nSTARTTLS\r\n",
    "imap": b"sgw1 STARTTLS\r\n",
    "pop3": b"STLS\r\n",
}
"""All that the gateway says to a backend before TLS."""
VERBS: Mapping[str, bytes] = {"smtp": b"STARTTLS", "imap": b"STARTTLS", "pop3": b"STLS"}


def presenting(certificate: Path) -> ssl.SSLContext:
    """A server's context with the certificate and the key in this file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


def shake_hands(connection: Connection, context: ssl.SSLContext) -> None:
    """TLS from here on: what is said and heard later is inside it."""
    connection.socket = context.wrap_socket(connection.socket, server_side=True)


def over_tls(context: ssl.SSLContext, script: Script) -> Script:
    """The same from the first octet, inside TLS."""

    def play(connection: Connection) -> None:
        shake_hands(connection, context)
        script(connection)

    return play


def behind_starttls(protocol: str, context: ssl.SSLContext, script: Script) -> Script:
    """Greets and starts TLS when it is asked to; inside, `script` goes on behind its greeting."""

    def upgrade(connection: Connection) -> None:
        connection.say(GO_AHEAD[protocol])
        shake_hands(connection, context)
        swallow_the_greeting(connection)
        script(connection)

    return SERVERS[protocol]({VERBS[protocol]: upgrade})


def swallow_the_greeting(connection: Connection) -> None:
    """Say nothing where the next words would be said."""

    def nothing(_: bytes) -> None:
        del vars(connection)["say"]

    vars(connection)["say"] = nothing


def secured(protocol: str, way: str, context: ssl.SSLContext, script: Script | None = None) -> Script:
    """By `starttls` or `implicit`, or not at all (`none`); the usual script if there is none."""
    script = script or SERVERS[protocol](None)
    match way:
        case "implicit":
            return over_tls(context, script)
        case "starttls":
            return behind_starttls(protocol, context, script)
    return script


def section(protocol: str, address: str, **options: str) -> dict[str, str]:
    """`[backend:NAME]`; scripted SMTP servers take mail for anybody, and that is meant."""
    meant = {"allow_relay": "yes"} if protocol == "smtp" else {}
    return {"address": address, **meant, **options}
