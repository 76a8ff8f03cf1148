"""The events of data connections, a part of the catalogue."""

from __future__ import annotations

from .entries import WHY, detail, of_a_transfer, of_backend, of_client, word
from .kinds import Event, Field, Scope, Severity, Type

DATA = (
    Event(
        "transfer", Severity.INFO, "a data connection is over, which had been made",
        (
            word("command", "that it was for, like `RETR`; absent: for none"),
            Field("file", Type.TEXT, "the name in the command; only with `log_files = yes`"),
            Field("received", Type.OCTETS, "from the client"),
            Field("sent", Type.OCTETS, "to the client"),
            word("protection", "the version of TLS with the client, or `none`"),
            word(
                "reason",
                "`client-closed` or `backend-closed`: who said first that it was all; otherwise it may be incomplete: "
                "`client-lost`, `backend-lost`, `stalled`, `aborted`, or an event of this section",
            ),
            Field("seconds", Type.SECONDS, "from its beginning to its end"),
        ),
        Scope.SESSION, of_a_transfer,
    ),
    of_client(
        "data-stranger", "somebody else connected to a port that was opened for a client; the port stays open for it",
        Field("came_from", Type.ADDRESS, "the address of the other"), ends=None, severity=Severity.WARNING,
        cure="many of them, or all: a NAT that changes the client's address between its two connections",
    ),
    of_client(
        "data-refused", "a data connection was refused; the client was answered 425",
        word(
            "limit",
            "`passive-ports`: all ports are in use; `data-connections`: of `[limits]`; `system`: see `detail`",
        ),
        detail("what the system lacks"), ends=None,
        cure="passive_ports: write a larger range, in the firewall as well",
    ),
    of_client(
        "data-timeout", "a data connection was not complete within `[timeouts] data_connect`", WHY, ends=None,
        cure="let the firewall pass passive_ports; behind a NAT write passive_address",
    ),
    of_client("data-tls-failed", "the handshake with a client on a data connection failed", WHY, ends=None),
    of_client(
        "data-session-not-resumed",
        "a client began a new TLS session on its data connection, and `data_session_reuse = required`", WHY, ends=None,
        cure="data_session_reuse = no, if the client cannot resume",
    ),
    of_backend(
        "data-connect-failed", "the port that the backend announced for data cannot be reached",
        detail("address and error"), ends=None, cure="does a firewall let the gateway to the backend's passive ports?",
    ),
    of_backend(
        "backend-data-tls-failed", "TLS with the backend on a data connection failed", WHY, severity=Severity.ERROR,
        ends=None,
    ),
)  # fmt: skip
