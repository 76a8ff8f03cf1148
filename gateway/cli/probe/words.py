"""A probe for people and for programs; docs/probe.md tells what the keys mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ...telemetry.words import counted
from ..report import Paint, Problem, heading, problems, row
from .facts import Chain, Dane, Facts, Sts, Tried


def in_json(facts: Facts, found: Sequence[Problem], remarks: Sequence[str], status: int) -> str:
    verdict = {0: "good", 1: "findings", 2: "unreachable"}[status]
    findings = [{"finding": one.problem, "detail": one.detail, "cure": one.cure} for one in found]
    whole = {"verdict": verdict, **facts.as_json(), "findings": findings, "remarks": list(remarks)}
    return json.dumps(whole, indent=2)


def in_words(facts: Facts, found: Sequence[Problem], remarks: Sequence[str], paint: Paint) -> Iterable[str]:
    if facts.unreachable:
        yield heading(_title(facts), "UNREACHABLE", False, paint)
        yield from row("wrong", facts.unreachable)
        yield from row("verdict", "Nothing is known about this server.")
        return
    good = not found
    word = "good" if good else f"{len(found)} FINDING{'S' if len(found) != 1 else ''}"
    yield heading(_title(facts), word, good, paint)
    if facts.greeting:
        yield from row("greeting", facts.greeting)
    yield from row("starttls", _starttls(facts))
    yield from row("tls", _tls(facts))
    if facts.versions:
        yield from row("versions", _tried(facts.versions))
    if facts.groups:
        yield from row("groups", _tried(facts.groups))
    if facts.chain is not None:
        yield from row("certificate", _certificate(facts.chain))
        yield from row("chain", " <- ".join(facts.chain.subjects))
    if not facts.implicit:
        yield from row("in the clear", _logins(facts))
        yield from row("injection", _injection(facts))
    if facts.dns:
        yield from row("dns", f"skipped: {facts.dns}")
    if facts.dane is not None:
        yield from row("dane", _dane(facts.dane))
    if facts.sts is not None:
        yield from row("mta-sts", _sts(facts.sts))
    for remark in remarks:
        yield from row("remark", remark)
    yield from problems(found, paint)
    yield from row("verdict", _verdict(facts, found))


def _verdict(facts: Facts, found: Sequence[Problem]) -> str:
    if not found:
        return "Good: a client that insists on TLS gets it, and its password is safe on the way."
    names = {one.problem for one in found}
    if not facts.secured:
        return "Nobody gets TLS here: whoever is on the way reads and changes everything."
    if names & {"command-injection", "response-injection"}:
        return "TLS can be got around here: whoever is on the way can put words into the session."
    if "credentials-in-the-clear" in names:
        return "There is TLS, but passwords are also taken without it."
    if "starttls-stripped" in names:
        return "The server has TLS, but somebody on the way hides it: clients that do not insist talk in the clear."
    if any(name.startswith("certificate") for name in names):
        return "There is TLS, but careful clients refuse the certificate, or soon will."
    return "There is TLS, and something about it should be better."


def _title(facts: Facts) -> str:
    title = f"{facts.protocol} at {facts.address}"
    return f"{title} ({facts.reached})" if facts.reached not in ("", facts.address) else title


def _starttls(facts: Facts) -> str:
    if facts.implicit:
        return "not needed: TLS comes first"
    words = {True: "offered", False: "NOT offered", None: "the server lists nothing"}[facts.offered]
    if facts.masked:
        words = "OVERWRITTEN in the server's list"
    return f"{words}; answered: {facts.go_ahead}" if facts.go_ahead else words


def _tls(facts: Facts) -> str:
    if not facts.secured:
        return f"NONE: {facts.failure}"
    return ", ".join(filter(None, (facts.version, facts.cipher, facts.group)))


def _tried(those: Sequence[Tried]) -> str:
    parts = []
    for label, answer in (("", True), ("refused: ", False), ("not known: ", None)):
        if names := [one.name for one in those if one.accepted is answer]:
            parts.append(label + ", ".join(names))
    return "; ".join(parts)


def _certificate(chain: Chain) -> str:
    days = chain.days_left
    left = f"EXPIRED {counted(-days, 'day')} ago" if days < 0 else f"{counted(days, 'day')} left"
    trust = "; ".join(chain.objections) or "a client accepts it"
    return f"{', '.join(chain.names) or 'no names'}; {left}; {trust}"


def _logins(facts: Facts) -> str:
    offered = "the server does not say how to log in" if facts.logins is None else "no login is offered"
    if facts.logins:
        offered = f"offers {', '.join(facts.logins)}"
    answers = [f"{one.command}: {'TAKEN' if one.taken else 'refused'} ({one.answer})" for one in facts.tried]
    return "; ".join([offered, *answers])


def _injection(facts: Facts) -> str:
    ours = {
        True: "commands behind STARTTLS are RUN",
        False: "commands behind STARTTLS are not run",
        None: "whether commands behind STARTTLS are run could not be tried",
    }[facts.injection]
    theirs = (
        "the server's words BEHIND the go-ahead come in the clear"
        if facts.behind
        else "nothing comes behind the go-ahead"
    )
    return f"{ours}; {theirs}" if facts.go_ahead else ours


def _dane(dane: Dane) -> str:
    if dane.error:
        return f"not known: {dane.error}"
    if not dane.records:
        return "no TLSA record"
    fits = {True: "fits", False: "does NOT fit", None: "nothing to compare with"}[dane.matches]
    safe = "vouched for by DNSSEC" if dane.secure else "not vouched for by DNSSEC"
    return f"{counted(dane.records, 'TLSA record')}, {safe}; {fits}"


def _sts(sts: Sts) -> str:
    if sts.error:
        return f"{sts.domain}: BROKEN: {sts.error}"
    if not sts.mode:
        return f"{sts.domain} has no policy"
    listed = "lists this host" if sts.lists_host else "does not list this host"
    return f"{sts.domain}: mode {sts.mode}, {listed}"
