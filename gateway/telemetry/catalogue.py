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
    LISTEN,
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
        "an SMTP backend refuses the EHLO that a client must repeat after STARTTLS (RFC 3207 4.2); the gateway makes a "
        "fresh connection to it for what is said inside TLS",
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
    # --- the gateway -----------------------------------------------------------------------------
    Event(
        "listening", Severity.INFO, "an address is being served",
        (
            *LISTEN[:1], word("protocol", "the service's protocol"), word("mode", "`starttls` or `implicit`"),
            word("policy", "`required`, `auth-only` or `optional`; absent on implicit ports"),
            word("connect", "`eager` or `lazy`"),
            Field("address", Type.ADDRESS, "with the real port, where port 0 was asked for"),
            Field("experimental", Type.YES, "the protocol is experimental; `check` says why"),
        ),
    ),
    Event(
        "admin-listening", Severity.INFO, "the admin listener is being served",
        (word("scheme", "`http` or `https`"), LISTEN[1]),
    ),
    Event(
        "suppressed", Severity.WARNING,
        "a minute is over in which clients caused more events than are told one by one (see below)",
        (
            Field("count", Type.INTEGER, "of all that were not told"),
            Field("seconds", Type.SECONDS, "since the minute began"),
            Field("clients", Type.INTEGER, "that caused them; 1024 at most are counted"),
            Field("worst", Type.ADDRESS, "the client, or its IPv6 /64, that caused most"),
            Field("worst_count", Type.INTEGER, "how many it caused"),
            detail("event, service, reason or limit, and count of each kind"),
        ),
    ),
    Event(
        "limit-lowered", Severity.WARNING,
        "at the start: the gateway may open too few files for what the configuration wants, and the limit is lowered "
        "by more than 1 %",
        (
            word("limit", "always `sessions`"), Field("wanted", Type.INTEGER, "what the configuration says"),
            Field("value", Type.INTEGER, "what holds"), WHY, CURE,
        ),
        cure="raise the limit of open files (LimitNOFILE), or lower [limits] sessions",
    ),
    Event(
        "certificate", Severity.NOTICE,
        "something about a certificate of the gateway's, or about a `client_ca` file ([tls.md](tls.md))",
        (
            word(
                "state",
                "`loaded`: at start; `renewed`: a change was found, and new handshakes get it; `refused`: a change was "
                "found that cannot be served, and the old one still is; `expiring`: 21, 7 and 1 days before the end; "
                "`expired`; `unreadable`: a renewal could not be read after privileges were dropped; `warning`: at "
                "start and after a renewal, what only all certificates together show, as that none is for `hostname`",
            ),
            Field("certificate", Type.TEXT, "the file"),
            Field("names", Type.TEXT, "that it is for"),
            Field("key", Type.TEXT, "such as `ECDSA P-256`"),
            Field("not_after", Type.TIME, "its end"),
            Field("days", Type.INTEGER, "left"),
            Field("tlsa", Type.TEXT, "the record for DANE"),
            detail("why it was refused or cannot be read; of a `client_ca` file also how many issuers it has"),
            Field("warning", Type.TEXT, "what clients will complain of, and the cure; ` | ` between two"),
        ),
        cure="the cure stands in `detail` or `warning`",
    ),
    Event(
        "descriptors-exhausted", Severity.ERROR, "connections were turned away for want of file descriptors or memory",
        (*LISTEN, detail("what happened, and the cure")), budget=COSTS_NOTHING,
        cure="raise the limit of open files (LimitNOFILE), or lower [limits] sessions",
    ),
    Event(
        "worker", Severity.WARNING,
        "something about one of the worker processes, where there are several ([operation.md](operation.md))",
        (
            word(
                "state",
                "`serving`; `died`: its sessions are lost, and another one takes its place; `orphaned`: the master is "
                "gone, and the worker ends when its sessions have; `no-template`: the process that workers are forked "
                "from is gone; `lines-lost`: the log could not keep up with a worker",
            ),
            Field("worker", Type.INTEGER, "its number, from 0"), Field("pid", Type.INTEGER, "its process"),
            word("how", "the signal that killed it, or its exit code"),
            Field("sessions", Type.INTEGER, "that were lost with it"),
            Field("again", Type.SECONDS, "until the next one is started"),
            Field("count", Type.INTEGER, "lines that were lost"), detail("why, or what happens next"),
        ),
        cure="a worker that dies again and again without somebody who kills it is a bug: report it, with the lines "
        "before; where `how` is `SIGKILL` and nobody did it, memory ran out (`journalctl -k`)",
    ),
    Event(
        "upgrade", Severity.NOTICE,
        "a new program takes over the listening sockets ([operation.md](operation.md))",
        (
            word(
                "state",
                "`started`; `done`: the new program serves, and this one ends when its sessions have; `failed`: this "
                "one goes on; `lost`: the new program served, and broke down while this one waited for its sessions",
            ),
            Field("pid", Type.INTEGER, "the new process"), detail("why it failed"),
        ),
        cure="the cause stands in `detail`; mend it and upgrade again",
    ),
    Event(
        "signal", Severity.INFO, "SIGHUP, SIGUSR1 or SIGUSR2 was handled ([operation.md](operation.md))",
        (
            word("signal", "its name"),
            word("configuration", "`used`: the new file is in use; `refused`: it is not, see `reload`"),
            word("certificates", "`read`"),
            word(
                "log",
                "`reopened`; `kept`: it could not be opened again, and the line before says why; `none`: there is no "
                "log file",
            ),
            detail("what it did not do"),
        ),
    ),
    Event(
        "reload", Severity.NOTICE, "the configuration file was read again ([operation.md](operation.md))",
        (
            word("result", "`ok`: all of it is in use; `refused`: nothing of it is, and the old one is kept"),
            Field("problems", Type.INTEGER, "what is wrong with the new file: so many mistakes"),
            detail("these mistakes; or the sections that have changed"),
            Field("opened", Type.TEXT, "addresses that are listened on from now on"),
            Field("closed", Type.TEXT, "addresses that are listened on no more"),
        ),
        cure="`starttls-gateway check FILE` lists all mistakes; mend them and reload again",
    ),
    Event(
        "stopping", Severity.NOTICE,
        "the gateway stops; it comes again when the sessions that are left are cut off",
        (
            Field("sessions", Type.INTEGER, "that are open"), Field("until", Type.TIME, "when they are cut off"),
            Field("left", Type.INTEGER, "seconds until then; told every 10 seconds"),
            detail("how to hurry it, or why they are cut off"),
        ),
    ),
    Event(
        "rights-missing", Severity.WARNING,
        "at the start: the user that the gateway runs as cannot open its log file again, or cannot remove its pidfile",
        (Field("file", Type.TEXT, "which"), WHY, CURE), cure="what to change stands in the line",
    ),
    Event(
        "unused-socket", Severity.WARNING, "at the start: systemd passed a socket that no service listens on",
        (Field("name", Type.TEXT, "its FileDescriptorName"), Field("address", Type.ADDRESS, "its address"), CURE),
        cure="name it in a service, or disable its .socket unit",
    ),
    Event(
        "report-unwritable", Severity.WARNING,
        "the file of `[report]` cannot be written; what is known is kept in memory, within bounds, and written when it "
        "can be; nothing else is affected",
        (detail("the file, and why"), CURE),
        cure="let the gateway's user write to the file's directory, or write [report] file = off",
    ),
    Event(
        "control", Severity.NOTICE,
        "an administrator asked for a change at the control socket ([control.md](control.md)), or on the status page "
        "([admin.md](admin.md))",
        (
            word("command", "`reload`, `upgrade`, `drain`, `undrain`, `kick`, `ban`, `unban` or `capture`"),
            Field("about", Type.TEXT, "what it is about"),
            Field("user", Type.TEXT, "whose process asked; `admin listener` and an address: on the status page"),
        ),
    ),
    Event(
        "ban", Severity.NOTICE, "clients are kept out, or no longer ([control.md](control.md#bans))",
        (
            word("state", "`began`, `lifted` (by an administrator), `over` (it has ended by itself), `unkept`"),
            word("network", "an address, or a network"), Field("until", Type.TIME, "when it ends"),
            detail("which file of bans cannot be read at the start, or be written for the next one, and why"),
        ),
    ),
    Event(
        "control-unavailable", Severity.WARNING,
        "the control socket cannot be made at its default place; the gateway serves without it",
        (WHY,), cure="what to change stands in the line",
    ),
    Event(
        "log-lines-lost", Severity.WARNING,
        "lines of the log could not be written; told when the next one can be.  No session is harmed",
        (Field("count", Type.INTEGER, "how many lines are lost"), detail("why, like `No space left on device`")),
        cure="make room for the log, or rotate it earlier",
    ),
    Event(
        "log", Severity.INFO, "a message of Twisted or Python",
        (word("level", "`debug`, `info`, `warn`, `error` or `critical`"), Field("message", Type.TEXT, "its text")),
    ),
    Event(
        "internal-error", Severity.ERROR, "a bug ended a look at a backend",
        (detail("the exception's class"),), Scope.BACKEND, cure="report it, with the lines before",
    ),
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
