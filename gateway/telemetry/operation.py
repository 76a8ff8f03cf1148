"""The events of the gateway as a whole, a part of the catalogue: start, reload, upgrade, stop, and what runs."""

from __future__ import annotations

from .entries import COSTS_NOTHING, CURE, LISTEN, WHY, detail, word
from .kinds import Event, Field, Scope, Severity, Type

OPERATION = (
    Event(
        "listening", Severity.INFO, "an address is being served",
        (
            *LISTEN[:1],
            word("protocol", "the service's protocol"),
            word("mode", "`starttls` or `implicit`"),
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
            word("limit", "always `sessions`"),
            Field("wanted", Type.INTEGER, "what the configuration says"),
            Field("value", Type.INTEGER, "what holds"),
            WHY,
            CURE,
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
        (*LISTEN, detail("what happened, and the cure")),
        budget=COSTS_NOTHING,
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
            Field("worker", Type.INTEGER, "its number, from 0"),
            Field("pid", Type.INTEGER, "its process"),
            word("how", "the signal that killed it, or its exit code"),
            Field("sessions", Type.INTEGER, "that were lost with it"),
            Field("again", Type.SECONDS, "until the next one is started"),
            Field("count", Type.INTEGER, "lines that were lost"),
            detail("why, or what happens next"),
        ),
        cure="a worker that dies again and again without somebody who kills it is a bug: report it, with the lines "
        "before; where `how` is `SIGKILL` and nobody did it, memory ran out (`journalctl -k`)",
    ),
    Event(
        "process-killed", Severity.ERROR,
        "a process of the gateway hung while it held what all its processes need, and was killed by one of them",
        (Field("pid", Type.INTEGER, "the process that was killed"), detail("what it held, and for how long")),
        cure="a worker is replaced, and an old program's sessions are lost; if nobody stopped the process (SIGSTOP, a "
        "debugger), look for a disk or memory that does not answer (`journalctl -k`)",
    ),
    Event(
        "upgrade", Severity.NOTICE, "a new program takes over the listening sockets ([operation.md](operation.md))",
        (
            word(
                "state",
                "`started`; `done`: the new program serves, and this one ends when its sessions have; `failed`: this "
                "one goes on; `lost`: the new program served, and broke down while this one waited for its sessions; "
                "`killed`: the old program did not end when its time was over",
            ),
            Field("pid", Type.INTEGER, "the new process; with `killed` the old one"),
            detail("why it failed, or was killed"),
        ),
        cure="with `failed`, `detail` has the cause: mend it and upgrade again; with `killed` do nothing; if it comes "
        "again, report it",
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
        "stopping", Severity.NOTICE, "the gateway stops; it comes again when the sessions that are left are cut off",
        (
            Field("sessions", Type.INTEGER, "that are open"),
            Field("until", Type.TIME, "when they are cut off"),
            Field("left", Type.INTEGER, "seconds until then; told every 10 seconds"),
            detail("how to hurry it, or why they are cut off"),
        ),
    ),
    Event(
        "rights-missing", Severity.WARNING,
        "at the start: the user that the gateway runs as cannot open its log file again, or cannot remove its pidfile",
        (Field("file", Type.TEXT, "which"), WHY, CURE),
        cure="what to change stands in the line",
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
            word("network", "an address, or a network"),
            Field("until", Type.TIME, "when it ends"),
            detail("which file of bans cannot be read at the start, or be written for the next one, and why"),
        ),
    ),
    Event(
        "control-unavailable", Severity.WARNING,
        "the control socket cannot be made at its default place; the gateway serves without it",
        (WHY,),
        cure="what to change stands in the line",
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
        (detail("the exception's class"),),
        Scope.BACKEND,
        cure="report it, with the lines before",
    ),
)  # fmt: skip
