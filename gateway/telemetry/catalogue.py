"""Every event that the gateway tells: its name, how grave it is, how often it is told, its fields, and its cure.

Other modules name an event by its string.  A test finds every name and every field that `gateway/` tells, and compares
them with this table.  docs/events.md is written from it: `python -m tests.events --write`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .data import DATA
from .entries import (
    AWAITED,
    BACKEND_REACHED,
    COSTS_A_DIALOGUE,
    COSTS_NOTHING,
    CURE,
    PROBED,
    TLS,
    USER,
    WHY,
    WORDS,
    detail,
    of_a_login,
    of_a_session,
    of_backend,
    of_client,
    reason,
    word,
)
from .kinds import Blame, Event, Field, Outcome, Scope, Severity, Type
from .operation import OPERATION

PROTOCOL_ERROR = "backend-protocol-error"
"""Several dialects tell it."""

_TABLE = (
    # --- sessions --------------------------------------------------------------------------------
    Event(
        "connected", Severity.INFO, "a client connected and was let in; only with `[gateway] log_connects = yes`",
        scope=Scope.SESSION, budget=COSTS_NOTHING, optional=True,
    ),
    Event(
        "probed", Severity.INFO,
        "a connection from `[gateway] probes` closed without a word; only with `[gateway] log_connects = yes`",
        scope=Scope.SERVICE, budget=COSTS_NOTHING, optional=True,
    ),
    Event(
        "secured", Severity.INFO, "a TLS handshake is finished, with the client or with the backend",
        (
            word("leg", "`client` or `backend`"), *TLS,
            Field("sni", Type.TEXT, "the name that the client asked for"),
            Field("seconds", Type.SECONDS, "how long the handshake took"),
        ),
        Scope.SESSION, COSTS_A_DIALOGUE,
    ),
    Event(
        "backend-connected", Severity.INFO,
        "a connection to the backend was made; only with `[gateway] log_connects = yes`",
        (BACKEND_REACHED, Field("seconds", Type.SECONDS, "how long it took to connect")),
        Scope.SESSION, COSTS_NOTHING, optional=True,
    ),
    Event(
        "session", Severity.INFO, "a session is over",
        (
            word("protocol", "the service's protocol"),
            word("policy", "`required`, `auth-only` or `optional`; `implicit` on implicit ports"),
            *TLS,
            Field("sni", Type.TEXT, "the name that the client asked for"),
            Field("alpn", Type.TEXT, "the protocol that was agreed on"),
            Field("certificate", Type.TEXT, "the common name of a verified client certificate"),
            Field("user", Type.TEXT, "who logged in; only with `[gateway] log_users`"),
            BACKEND_REACHED,
            word("reason", "the event that ended it, or a word of the list below"),
            detail("more about the reason"),
            Field("received", Type.OCTETS, "from the client"),
            Field("sent", Type.OCTETS, "to the client"),
            Field("messages", Type.INTEGER, "that the backend accepted; absent: none"),
            Field("transfers", Type.INTEGER, "data connections (`transfer`); absent: none"),
            Field("proven", Type.YES, "the client logged in or had a recipient accepted"),
            Field("seconds", Type.SECONDS, "how long it lasted"),
        ),
        Scope.SESSION, of_a_session,
    ),
    Event(
        "downgrade", Severity.WARNING,
        "a client of a network, or a user, that always used TLS at this service goes on without: perhaps somebody on "
        "the way takes STARTTLS out ([report.md](report.md))",
        (
            word("action", "`logged`: it was served; `refused`: TLS is required of it (`downgrade = refuse`)"),
            Field("first_tls", Type.TIME, "the first session of the network, or of the user, inside TLS that is known"),
            Field("last_tls", Type.TIME, "its last one"),
            Field("user", Type.TEXT, "which user always used TLS; absent: it is the network"),
        ),
        Scope.SESSION, COSTS_NOTHING,
        "from the client's network: starttls-gateway probe; if the client was changed, write downgrade = log",
    ),
    Event(
        "auth", Severity.INFO, "the backend answered a login",
        (
            word(
                "result",
                "`ok`, `failed`; `unproven`: an SMTP backend said 235 to a client that had given no data, which counts "
                "as no login",
            ),
            word(
                "mechanism",
                "SASL's name; `USER`: a user name of POP3 that was refused, or its password; `other`: what the client "
                "said is no well-known name, and may be a password",
            ),
            word("tls", "the version of TLS with the client; absent: the login came in the clear"),
            USER,
        ),
        Scope.SESSION, of_a_login,
        cure="many failures of one client: fail2ban, or [limits] auth_failures_per_minute",
    ),
    of_client(
        "tls-failed", "a handshake with a client failed",
        word("key", "always `client-tls-failed`"),
        detail(
            "the client's alert (`alert: unknown_ca`: it does not trust our certificate), OpenSSL's reason (`no shared "
            "cipher`), `handshake timed out`, or `connection closed during the handshake`"
        ),
        cure="`starttls-gateway check` says what clients will complain of; old clients: [tls] legacy_clients",
    ),
    of_client(
        "starttls-injection", "a client sent commands in the clear behind STARTTLS; it was cut off",
        detail("how much, and the first 32 octets"), ends=Outcome.ATTACK,
        cure="a client that you know: update it, it must wait for TLS; else an attack, which failed",
    ),
    of_client(
        "tls-required",
        "a command was refused for want of TLS: policy `required`, a login under `auth-only`, or `downgrade = refuse`; "
        "told once in a session",
        cure="set the client to STARTTLS, or to an implicit port of the gateway; if it cannot do TLS: a service with "
        "`policy = optional` for its network",
    ),
    of_client(
        "tls-on-plaintext-port", "a client speaks TLS where STARTTLS is expected", WHY, unheard=True,
        cure="set the client to STARTTLS, or to an implicit port of the gateway",
    ),
    of_client("http-client", "a client speaks HTTP; a web page may have made its browser do so", WHY,
              ends=Outcome.ATTACK, cure="a program that you know: correct its port; else nothing, it was refused"),
    of_client(
        "unexpected-proxy-header", "a PROXY header from an address that is not in `accept_proxy`", WHY,
        ends=Outcome.ATTACK, cure="if it is your load balancer, add its address to accept_proxy",
    ),
    of_client(
        "client-bad-proxy-header", "the PROXY header of a load balancer is malformed", WHY, unheard=True,
        cure="let the load balancer send PROXY protocol version 1 or 2, or take its address out of accept_proxy",
    ),
    of_client(
        "password-in-clear",
        "a client sent a password before TLS; it was refused, but others on the line can read it",
        ends=None, cure="the user needs a new password, and the client a stricter setting: ldapsearch -ZZ, not -Z",
    ),
    of_client("client-protocol-error", "what a client sends is no unit of the protocol", WHY),
    of_client("client-line-too-long", "a line beyond the protocol's limit was refused", WHY),
    of_client("client-timeout", "a client exceeded a deadline", AWAITED,
              cure="[timeouts], if honest clients need more"),
    of_client("client-bad-command", "it cannot be told where a command ends; the session ended", WHY),
    of_client("client-bare-newline", "`newlines = reject` refused a message with a bare CR or LF", ends=Outcome.ATTACK,
              cure="update the client; newlines = normalize serves all"),
    of_client("too-many-bad-commands", "`[limits] bad_commands` was reached", WHY),
    Event(
        "refused", Severity.WARNING,
        "a limit of `[limits]` was reached. A connection was turned away; then there is no `session`, unless a load "
        "balancer's PROXY header told the client. Or a login got a temporary failure, and the backend was not asked",
        (
            word(
                "limit",
                "`sessions`, `sessions-per-client`, `connects-per-minute` or `auth-failures-per-minute`; `drained`: an "
                "administrator drains the service; `banned`: an administrator banned the client",
            ),
        ),
        Scope.SESSION, COSTS_NOTHING, "raise the limit in [limits], if the clients are honest", Outcome.REFUSED,
    ),
    of_client("sasl-layer-unsupported", "a SASL security layer began where the gateway must keep inspecting", WHY,
            cure="the client must not ask for a SASL security layer; TLS already protects it"),
    *DATA,
    # --- backends --------------------------------------------------------------------------------
    of_backend(
        "backend-connect-failed", "no address of the backend could be reached", detail("address and error"),
        severity=Severity.ERROR, blame=Blame.CLIENT, closes_at_once=True,
        cure="is the backend running, and does a firewall let the gateway in?",
    ),
    of_backend("backend-greeting-timeout", "the backend sent no greeting in time", AWAITED, blame=Blame.SLOW),
    of_backend("backend-timeout", "the backend exceeded a deadline", AWAITED, blame=Blame.SLOW),
    of_backend(
        "backend-tls-failed",
        "TLS towards the backend is demanded and cannot be had: not offered, refused, or the certificate is wrong",
        detail("which, and why"), severity=Severity.ERROR,
        cure="`starttls-gateway check --live` says which certificate",
    ),
    of_backend(
        "backend-starttls-injection",
        "the backend, or somebody on the way, sent octets in the clear behind its go-ahead",
        detail("how much, and the first 32 octets"), severity=Severity.ERROR, ends=Outcome.ATTACK,
        cure="update the backend; if that is done, look at the network on the way to it",
    ),
    of_backend(
             "backend-identity-refused", "the backend does not let the gateway tell it who the client is (`identity`)",
             WHY, severity=Severity.ERROR, cure="name the gateway's address in the backend's list of trusted proxies"),
    of_backend("backend-bad-greeting", "the backend speaks another protocol", detail("its first octets"),
             blame=Blame.CLIENT, cure="check the port in `address`"),
    of_backend(
        "backend-refused",
        "the backend refuses service: by its greeting, in answer to what the gateway asks before, or later without "
        "being asked; the client was told in its words, and other clients are served",
        WORDS, detail("the same, where the gateway asked for its own sake"),
    ),
    of_backend(
        "backend-greets-once",
        "an SMTP backend refuses the EHLO that a client must repeat after STARTTLS (RFC 3207, section 4.2); the "
        "gateway makes a fresh connection to it for what is said inside TLS",
        WORDS, severity=Severity.NOTICE, ends=None, once=True,
    ),
    of_backend(
        "backend-preauth", "an IMAP backend takes every client of the gateway's address for logged in; refused", WHY,
        severity=Severity.ERROR, blame=Blame.CLIENT, cure="let the backend ask for a login from the gateway's address",
    ),
    of_backend(
        "backend-trusts",
        "a PostgreSQL server lets clients in without a password (`trust` or `ident` in its pg_hba.conf): everybody who "
        "reaches the gateway can be any user",
        ends=None, once=True, cure="write scram-sha-256 for the gateway's address in pg_hba.conf",
    ),
    of_backend(
        "backend-clear-password",
        "a MySQL server wants the password itself, which would cross the network in the clear behind the gateway: the "
        "login is refused",
        CURE, severity=Severity.ERROR, ends=None, once=True,
        cure="let the user log in with mysql_native_password or ed25519, or reach the server by a UNIX socket",
    ),
    of_backend(
        PROTOCOL_ERROR,
        "a reply that is none; the session ends, except where the verdict on a message is waited for", WHY,
        garbled=True,
    ),
    of_backend("backend-line-too-long", "a reply without end", WHY, garbled=True),
    of_backend("backend-lost", "the backend closed while the session was inspected", WHY),
    of_backend("backend-closed", "the backend closed in order, between two commands", WHY, severity=Severity.NOTICE,
             ends=Outcome.DONE),
    of_backend(
        "backend-refuses-plaintext-auth",
        "the backend refuses passwords, or offers no login, although the client is inside TLS: it takes its own "
        "connection for insecure. IMAP: `LOGINDISABLED`, or a login refused for want of TLS (`[PRIVACYREQUIRED]` and "
        "the like). POP3: a refusal for want of TLS, or a CAPA list with neither `USER` nor `SASL`. SMTP: AUTH refused "
        "for want of TLS (530, 538), or no `AUTH` in a submission service. LDAP: a bind answered with 8 or 13",
        detail("the backend's words, or what it does not offer"), CURE, severity=Severity.ERROR, ends=None, once=True,
        cure="the settings to change, the server's and the gateway's, stand in the line",
    ),
    of_backend(
        "backend-requires-tls",
        "an SMTP backend refuses mail until its own connection is under TLS (`530 5.7.0 Must issue a STARTTLS command "
        "first`)",
        detail("its words"), CURE, severity=Severity.ERROR, ends=None, once=True,
        cure="the settings to change, the server's and the gateway's, stand in the line",
    ),
    of_backend(
        "backend-channel-binding",
        "the backend offers channel binding (`-PLUS`), which cannot work through a gateway", CURE,
        severity=Severity.NOTICE, ends=None, once=True, cure="disable channel binding on the backend",
    ),
    Event(
        "open-relay", Severity.ERROR,
        "an SMTP backend that is not told the client (`identity = none`) takes mail for strangers' addresses from the "
        "gateway; its services answer 421 until it is mended, which is looked at once a minute",
        (*PROBED, CURE), cure="what to change stands in the line", ends=Outcome.REFUSED,
    ),
    Event("relay-closed", Severity.INFO, "it does not, or no longer: it is served", (*PROBED, CURE)),
    Event(
        "relay-undecided", Severity.WARNING,
        "it did not say; it is served, and asked again once a minute. Where it demands TLS before MAIL, nobody can "
        "send, and `cure` names the settings",
        (*PROBED, CURE),
    ),
    *OPERATION,
    # --- reasons of a session that have no line of their own -----------------------------------------
    reason("quit", "the client said QUIT or LOGOUT", Outcome.DONE),
    reason("client-closed", "in order, nothing under way", Outcome.DONE),
    reason("client-lost", "without a goodbye, or something was under way", Outcome.CLIENT),
    reason("idle", "nothing moved for `[timeouts] idle` after the login", Outcome.DONE),
    reason("shutdown", "the gateway stopped; also where the session was cut off at the end of the drain",
            Outcome.GATEWAY),
    reason("drained", "all addresses of the backend are drained (`starttls-gateway drain`)", Outcome.REFUSED),
    reason("kicked", "an administrator cut it off (`starttls-gateway kick`)", Outcome.GATEWAY),
    reason("aborted", "a bug of the gateway", Outcome.GATEWAY),
    reason("too-many-failed-logins", "the backend rejected the fifth login; each has its `auth` line", Outcome.CLIENT),
    reason("client-bad-bdat", "a BDAT command from which it cannot be told where its chunk ends", Outcome.CLIENT),
    reason("client-refused-chunk", "a BDAT chunk that was refused and is too long to be read", Outcome.CLIENT),
    reason("relay-unknown", "an SMTP backend was not yet asked whether it relays", Outcome.REFUSED),
)  # fmt: skip

EVENTS: Mapping[str, Event] = MappingProxyType({event.name: event for event in _TABLE})
"""By name; in the order of docs/events.md."""

UNKNOWN = Event("", Severity.NOTICE, "an event that is not in the table", budget=COSTS_NOTHING)
"""It stands for a name that is missing here, so that a mistake costs a session nothing."""


def event(name: str) -> Event:
    return EVENTS.get(name, UNKNOWN)


def blame(failed: str, told: bool) -> Blame:
    """Whom the failure of an address speaks against.

    `told`: the backend learns the client's address, so that it may refuse this client in any form.  One that closes
    at once may do so anyway.
    """
    found = event(failed)
    return found.blame if told or found.closes_at_once else Blame.ADDRESS
