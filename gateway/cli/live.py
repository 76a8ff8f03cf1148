"""`check --live`: every backend is asked what it says, what it can do and whom it trusts, all at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from ..backend import Dialer
from ..config.values import Address, Backend, Configuration
from ..dialects import DIALECTS
from ..dialects.base import Identity
from ..dialects.relay import CURE, Probe, Verdict
from ..dialects.survey import Survey, Visit
from ..errand import Errand, terms_of_errands
from ..negotiation.vocabulary import Secured
from ..proxyprotocol import Origin
from ..tls.half import TLSHalf
from ..tls.towards import Towards
from ..tls.verify import PeerCertificate, peer_certificate
from .report import Certificate, Problem, Relay, Report, shown

LIMIT = 60.0
"""Seconds for all of it: a greeting may take half of them, and nobody waits longer than a minute for a report."""

_TRUST = {"yes": "verified", "no": "unverified"}

_SEE_THE_LOG = "look into the server's log for what happened at this moment"
CURES = {
    "backend-connect-failed": "start the server, let the gateway through its firewall, or correct the address",
    "backend-greeting-timeout": "look whether this is the right port; a server that waits for TLS (tls = implicit) or "
    "for a PROXY header (identity) says nothing by itself",
    "backend-bad-greeting": "look whether port and protocol belong together; a port on which TLS begins at once needs "
    "tls = implicit",
    "backend-refused": "the server turns the gateway away: look into its access lists, bans and connection limits",
    "backend-tls-failed": "mend it on the server, or say what is to be expected of it: tls, name, ca, "
    "verify = sha256:HEX, or profile = legacy for what is older than TLS 1.2",
    "backend-starttls-injection": "what came in the clear behind the go-ahead is the server's fault or an attack; "
    "use tls = implicit if the server has it",
    "backend-preauth": "make the server ask for passwords: it takes whoever comes from the gateway for logged in",
}
_PROXY_CURE = (
    "make this port of the server expect the PROXY protocol from the gateway: haproxy = yes (Dovecot), "
    "smtpd_upstream_proxy_protocol = haproxy (Postfix)"
)
IDENTITY_CURES = {
    "proxy-v1": _PROXY_CURE,
    "proxy-v2": _PROXY_CURE,
    "xclient": "make the server take XCLIENT from the gateway's address: smtpd_authorized_xclient_hosts (Postfix), "
    "login_trusted_networks (Dovecot)",
    "id": "make the server take ID from the gateway's address: login_trusted_networks (Dovecot)",
}

Look = tuple[Backend, str, Address]
"""What is looked at: a backend, in a protocol, at one of its addresses."""


class Inspection:
    """Looks at all backends of a configuration; `done` is called once, with the reports in the file's order.

    `towards` holds the TLS of those backends that have it.
    """

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        towards: dict[Backend, Towards],
        done: Callable[[list[Report]], object],
    ) -> None:
        self._done = done
        looks = dict.fromkeys(_looks(configuration))
        self._reports: dict[Look, Report | None] = dict.fromkeys(looks)
        self._under_way = [_Looking(reactor, configuration, look, towards.get(look[0]), self._looked) for look in looks]

    def start(self) -> None:
        for looking in self._under_way:
            looking.start()

    def _looked(self, look: Look, report: Report) -> None:
        self._reports[look] = report
        reports = [report for report in self._reports.values() if report is not None]
        if len(reports) == len(self._reports):
            self._done(reports)


def _looks(configuration: Configuration) -> Iterable[Look]:
    for service in configuration.services:
        for address in service.backend.addresses:
            yield service.backend, service.protocol, address


class _Looking:
    """One address: a survey, and then the question whether it relays."""

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        look: Look,
        towards: Towards | None,
        done: Callable[[Look, Report], object],
    ) -> None:
        backend, protocol, address = look
        self._reactor = reactor
        self._look = look
        self._backend = backend
        self._dialect = DIALECTS[protocol]
        self._services = tuple(
            service.name
            for service in configuration.services
            if service.backend == backend and service.protocol == protocol
        )
        self._timeouts = configuration.timeouts
        self._terms = terms_of_errands(configuration.hostname, backend, "check")
        self._dialer = Dialer(reactor, (address,), configuration.timeouts.connect)
        self._towards = towards
        self._done = done
        self._connections: list[Any] = []
        self._errand: Errand | None = None
        self._until = 0.0

    def start(self) -> None:
        question = self._dialect.question
        assert question is not None, "every dialect can be asked"
        self._until = self._reactor.seconds() + LIMIT
        self._survey = Survey(self._dialect, self._terms, question, self._ends)
        self._send(self._survey, self._surveyed)

    def _send(self, visit: Visit, done: Callable[[Errand], None]) -> None:
        self._errand = Errand(
            self._reactor,
            visit.script(),
            self._dialer,
            self._connect_tls,
            self._timeouts,
            self._dialect.patience,
            max(0.0, self._until - self._reactor.seconds()),
            done,
        )
        self._errand.start()

    def _ends(self) -> Origin | None:
        assert self._errand is not None
        return self._errand.ends

    def _connect_tls(self, host: str) -> TLSHalf:
        assert self._towards is not None
        self._connections.append(self._towards.connection(host))
        return TLSHalf(self._connections[-1])

    def _surveyed(self, errand: Errand) -> None:
        self._surveying = errand
        self._certificate = peer_certificate(self._connections[-1]) if self._connections else None
        # Whom the backend is told of, it does not take for the gateway.
        if self._survey.greeted and self._dialect.relays and self._terms.identity is Identity.NONE:
            probe = Probe(self._dialect, self._terms)
            self._send(probe, lambda _: self._report(probe))
        else:
            self._report(None)

    def _report(self, probe: Probe | None) -> None:
        survey, backend, secured = self._survey, self._backend, self._surveying.secured
        relay = None
        if probe is not None:
            verdict = probe.verdict
            relay = Relay(verdict.value if verdict else None, shown(probe.text), backend.allow_relay)
        self._done(
            self._look,
            Report(
                backend=backend.name,
                services=self._services,
                protocol=self._dialect.name,
                address=str(self._look[2]),
                reached=self._surveying.place,
                greeting=_lines(survey.greeting),
                welcome=_lines(survey.welcome) if survey.greeted else (),
                offered=_names(survey.offered),
                shown=_names(survey.shown),
                mode=backend.tls,
                version=secured.version if secured else None,
                cipher=secured.cipher if secured else None,
                group=secured.group if secured else None,
                certificate=_certified(self._certificate, secured, backend),
                identity=backend.identity,
                accepted=self._accepted(),
                relay=relay,
                problems=tuple(self._problems(relay)),
            ),
        )

    def _accepted(self) -> bool | None:
        if self._terms.identity is Identity.NONE:
            return None
        if self._surveying.trouble.key == "backend-identity-refused" or self._misunderstood:
            return False
        # Whoever does not trust us ignores ID in silence (Dovecot), so nothing is proven by its OK.
        provable = self._terms.identity is not Identity.ID
        return True if self._survey.greeted and provable else None

    @property
    def _misunderstood(self) -> bool:
        """Whoever does not expect a PROXY header greets all the same, and takes it for a command."""
        told = self._terms.identity in (Identity.PROXY_V1, Identity.PROXY_V2)
        return told and self._survey.greeted and self._survey.offered is None

    def _problems(self, relay: Relay | None) -> Iterable[Problem]:
        trouble = self._surveying.trouble
        if self._misunderstood:
            detail = "the server greets, but does not answer as if it had understood the PROXY header"
            yield Problem("backend-identity-refused", detail, IDENTITY_CURES[self._backend.identity])
        elif key := self._failure():
            cure = CURES.get(key, _SEE_THE_LOG)
            if key == "backend-identity-refused":
                cure = IDENTITY_CURES[self._backend.identity]
            yield Problem(key, shown((trouble.detail or self._last_words()).encode("utf-8")), cure)
        if relay is not None and relay.verdict == Verdict.OPEN.value and not relay.allowed:
            yield Problem("open-relay", relay.text, CURE)

    def _failure(self) -> str:
        """What went wrong, as an event's name; nothing if nothing did."""
        errand = self._surveying
        if any(note.event == "backend-refused" for note in errand.notes):
            return "backend-refused"  # however politely the two parted
        asked = [exchange.said for exchange in self._survey.exchanges]
        leave = self._dialect.question and self._dialect.question.leave
        # A server that closes instead of answering the last command is only in a hurry.
        hurried = errand.trouble.key in ("backend-lost", "backend-closed") and leave in asked
        return "" if hurried or errand.trouble.key == "quit" else errand.trouble.key

    def _last_words(self) -> str:
        return " ".join(_lines(self._survey.greeting or self._survey.exchanges[-1].heard))


def _certified(found: PeerCertificate | None, secured: Secured | None, backend: Backend) -> Certificate | None:
    if found is None:
        return None
    return Certificate(
        tuple(shown(name.encode("utf-8")) for name in found.names),
        found.not_after,
        (found.not_after - datetime.now(timezone.utc)).days,
        found.sha256,
        _TRUST.get(backend.verify, "pinned") if secured else "refused",
    )


def _lines(octets: bytes) -> tuple[str, ...]:
    return tuple(map(shown, octets.splitlines()))


def _names(listed: Sequence[bytes] | None) -> tuple[str, ...] | None:
    return None if listed is None else tuple(map(shown, listed))


def look(configuration: Configuration, towards: dict[Backend, Towards]) -> list[Report]:
    """The reports of all backends; raises KeyboardInterrupt if it is broken off."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    found: list[Report] | None = None

    def done(reports: list[Report]) -> None:
        nonlocal found
        found = reports
        reactor.stop()

    reactor.callWhenRunning(Inspection(reactor, configuration, towards, done).start)
    reactor.run()
    if found is None:
        raise KeyboardInterrupt
    return found
