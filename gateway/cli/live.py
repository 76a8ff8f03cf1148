"""`check --live`: can a client log in at every backend, and send mail?  All are asked at the same time.

It always ends, and in bounded time: whatever goes wrong with one backend is a finding about that backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from ..config.values import Address, Backend, Configuration
from ..dialects import DIALECTS
from ..dialects.access import NO_LOGIN, TLS_FIRST, Access, cure
from ..dialects.base import Identity, Policy
from ..dialects.openrelay import CURE, Probe, Verdict
from ..dialects.scripted import ScriptedClient
from ..dialects.survey import Survey, unreached
from ..protocol.proxyprotocol import Origin
from ..protocol.vocabulary import Secured, Side
from ..sessions.agreed import hands_in, terms_of_errands
from ..sessions.errand import Errand
from ..wire.dialer import Dialer
from ..wire.tls.connector import TLSConnector
from ..wire.tls.half import TLSHalf
from ..wire.tls.verify import PeerCertificate, peer_certificate
from .names import awaited
from .report import Certificate, Lazy, Login, Problem, Relay, Report, Sending, shown

LIMIT = 60.0
"""Seconds for all dialogues with one address; a greeting may take half of them."""
GRACE = 10.0
"""More seconds, for closing connections.  After them the test is given up, whatever the reason."""

_TRUST = {"yes": "verified", "no": "unverified"}

_SEE_THE_LOG = "look for the reason in the server's log"
CURES = {
    "backend-connect-failed": "start the server, let the gateway through its firewall, or correct the address",
    "backend-greeting-timeout": "check the port; a server that expects TLS (tls = implicit) or "
    "a PROXY header (identity) sends no greeting first",
    "backend-bad-greeting": "check port and protocol; a port with implicit TLS needs tls = implicit",
    "backend-refused": "the server refuses the gateway: check its access lists, bans and connection limits",
    "backend-tls-failed": "correct it on the server, or change the options of this backend: tls, name, ca, "
    "verify = sha256:HEX, or profile = legacy for TLS 1.0 and 1.1",
    "backend-starttls-injection": "the server sent plaintext after its reply to STARTTLS, which is a bug or "
    "an attack; use tls = implicit if the server supports it",
    "backend-unresolved": "correct the name, or check why this machine cannot resolve it (getent hosts NAME)",
    "internal-error": "this is a bug in starttls-gateway, not in the server: please report it with this line",
    "check-timeout": "try again; if it stays, this is a bug in starttls-gateway: please report it",
    "not-asked": "test it with a client of this protocol",
    "backend-preauth": "configure the server to ask for passwords; it treats connections from the gateway as logged in",
}
_PROXY_CURE = (
    "configure this port of the server for PROXY headers from the gateway: haproxy = yes (Dovecot), "
    "smtpd_upstream_proxy_protocol = haproxy (Postfix)"
)
IDENTITY_CURES = {
    "proxy-v1": _PROXY_CURE,
    "proxy-v2": _PROXY_CURE,
    "xclient": "configure the server to accept XCLIENT from the gateway's address: "
    "smtpd_authorized_xclient_hosts (Postfix), login_trusted_networks (Dovecot)",
    "webirc": "configure the server to accept WEBIRC from the gateway's address, with the password in "
    'webirc_password_file: WebircPassword (ngIRCd), <cgihost type="webirc"> (InspIRCd)',
    "id": "configure the server to accept ID from the gateway's address: login_trusted_networks (Dovecot)",
}

UNRESOLVED = ("the name does not resolve", "the name was not resolved")
"""Errors of the dialer about a name."""


def inspected(
    reactor: Any, configuration: Configuration, connectors: dict[Backend, TLSConnector], domain: str = ""
) -> Deferred[list[Report]]:
    """Look at all backends of a configuration: their reports, in the file's order.

    `connectors`: of the backends that have TLS.  `domain`: what servers are asked for that serve domains (XMPP); the
    gateway's own name if it is empty.
    """
    looks = dict.fromkeys(
        (service.backend, service.protocol, address)
        for service in configuration.services
        for address in service.backend.addresses
    )
    return gatherResults(
        _Looking(reactor, configuration, backend, protocol, address, connectors.get(backend), domain).start()
        for backend, protocol, address in looks
    )


class _Looking:
    """Tests one address: a survey, then the test for open relay.  There is a report in every case."""

    def __init__(
        self,
        reactor: Any,
        configuration: Configuration,
        backend: Backend,
        protocol: str,
        address: Address,
        connector: TLSConnector | None,
        domain: str,
    ) -> None:
        self._reactor = reactor
        self._backend = backend
        self._dialect = DIALECTS[protocol]
        self._services = tuple(
            service for service in configuration.services if service.backend == backend and service.protocol == protocol
        )
        self._timeouts = configuration.timeouts
        addressed = self._dialect.probing is not None and self._dialect.probing.addressed
        hostname = domain if domain and addressed else configuration.hostname
        self._terms = terms_of_errands(hostname, backend, "check")
        self._dialer = Dialer(reactor, (address,), configuration.timeouts.connect)
        self._connector = connector
        self._done: Deferred[Report] = Deferred()
        self._connections: list[Any] = []
        self._errand: Errand | None = None
        self._until = 0.0
        self._guard: Any = None
        self._survey = Survey(self._dialect, self._terms, self._dialect.question, self._ends)
        self._nothing = Report(
            backend=backend.name,
            services=tuple(service.name for service in self._services),
            protocol=protocol,
            address=str(address),
            mode=backend.tls,
            identity=backend.identity,
        )

    # --- what is done ------------------------------------------------------------------------

    def start(self) -> Deferred[Report]:
        self._until = self._reactor.seconds() + LIMIT
        self._guard = self._reactor.callLater(LIMIT + GRACE, self._give_up)
        self._safely(lambda: self._send(self._survey, self._surveyed))
        return self._done

    def _safely(self, step: Callable[[], object]) -> None:
        """Turns an exception into a finding.  Otherwise `check` would wait for ever."""
        if self._done.called:
            return
        try:
            step()
        except Exception as error:
            self._break_off(Problem("internal-error", f"{type(error).__name__}: {error}", CURES["internal-error"]))

    def _give_up(self) -> None:
        detail = f"not finished after {LIMIT + GRACE:.0f} seconds"
        self._break_off(Problem("check-timeout", detail, CURES["check-timeout"]))

    def _break_off(self, problem: Problem) -> None:
        errand, self._errand = self._errand, None
        self._finish(replace(self._nothing, problems=(replace(problem, detail=shown(problem.detail.encode("utf-8"))),)))
        if errand is not None:
            errand.cancel()

    def _finish(self, report: Report) -> None:
        if self._done.called:
            return
        if self._guard.active():
            self._guard.cancel()
        self._done.callback(report)

    def _send(self, visit: ScriptedClient, done: Callable[[Errand], None]) -> None:
        self._errand = Errand(
            self._reactor,
            visit.script(),
            self._dialer,
            self._connect_tls,
            self._timeouts,
            self._dialect.patience,
            max(0.0, self._until - self._reactor.seconds()),
            lambda errand: self._safely(lambda: done(errand)),
        )
        self._errand.start()

    def _ends(self) -> Origin | None:
        assert self._errand is not None
        return self._errand.ends

    def _connect_tls(self, host: str) -> TLSHalf:
        assert self._connector is not None
        self._connections.append(self._connector.connection(host))
        return TLSHalf(self._connections[-1])

    def _surveyed(self, errand: Errand) -> None:
        self._surveying = errand
        self._certificate = peer_certificate(self._connections[-1]) if self._connections else None
        # With another identity the backend does not judge by the gateway's address.
        if self._survey.greeted and self._dialect.relays and self._terms.identity is Identity.NONE:
            probe = Probe(self._dialect, self._terms)
            self._send(probe, lambda _: self._report(probe))
        else:
            self._report(None)

    # --- what is told ------------------------------------------------------------------------

    def _report(self, probe: Probe | None) -> None:
        survey, backend, secured = self._survey, self._backend, self._surveying.secured
        relay = None
        if probe is not None:
            verdict = probe.verdict
            relay = Relay(verdict.value if verdict else None, shown(probe.text), backend.allow_relay)
        access = survey.access
        self._finish(
            replace(
                self._nothing,
                lazy=tuple(self._lazy()),
                reached=self._surveying.place,
                greeting=self._readable(survey.greeting),
                welcome=self._readable(survey.welcome) if survey.greeted else (),
                offered=_names(survey.offered),
                shown=_names(survey.shown),
                version=secured.version if secured else None,
                cipher=secured.cipher if secured else None,
                group=secured.group if secured else None,
                certificate=_certified(self._certificate, secured, backend),
                accepted=self._accepted(),
                login=self._login(access) if survey.greeted and not self._misunderstood else None,
                sending=_sending(access) if not self._misunderstood else None,
                relay=relay,
                problems=tuple(self._problems(relay, access)),
                warnings=tuple(self._warnings(access)),
            )
        )

    def _lazy(self) -> Iterable[Lazy]:
        """What clients see before the gateway connects to the backend, for each policy."""
        question = self._dialect.question
        if not self._backend.lazy or question is None or self._dialect.first is Side.CLIENT:
            return
        listeners: dict[str, list[str]] = {}
        for service in self._services:
            for address, policy in zip(service.starttls, service.policies, strict=True):
                listeners.setdefault(policy, []).append(str(address))
        for policy, addresses in listeners.items():
            terms = replace(self._terms, implicit=False, lazy=True, policy=Policy(policy))
            heard = unreached(self._dialect, terms, [question.ask(terms.hostname)])
            at = question.listed_in
            listed = next((question.listed(each.told) for each in heard[at : at + 1]), None)
            yield Lazy(tuple(addresses), _lines(heard[0].told), _names(listed))

    def _login(self, access: Access) -> Login:
        possible = None if access.logins is None else bool(access.logins)
        return Login(possible, self._needs_login(access), access.logins or (), shown(access.refusal))

    def _needs_login(self, access: Access) -> bool:
        """Whether clients can do nothing without login."""
        if access.mail is not None and access.mail.wants_login:
            return True
        if not self._dialect.submission:
            return True
        return any(map(hands_in, self._services)) and not self._backend.allow_relay

    def _accepted(self) -> bool | None:
        if self._terms.identity is Identity.NONE:
            return None
        if self._surveying.trouble.key == "backend-identity-refused" or self._misunderstood:
            return False
        # Dovecot ignores ID from untrusted clients without an error, so OK proves nothing.
        provable = self._terms.identity is not Identity.ID
        return True if self._survey.greeted and provable else None

    @property
    def _misunderstood(self) -> bool:
        """Whether the backend takes the PROXY header for a command: it sends a greeting, but no capabilities."""
        told = self._terms.identity in (Identity.PROXY_V1, Identity.PROXY_V2)
        asked = self._dialect.question is not None and self._dialect.question.lists
        return told and asked and self._survey.greeted and self._survey.offered is None

    def _problems(self, relay: Relay | None, access: Access) -> Iterable[Problem]:
        trouble = self._surveying.trouble
        if self._misunderstood:
            detail = "the server sends a greeting, but its replies show that it does not understand the PROXY header"
            yield Problem("backend-identity-refused", detail, IDENTITY_CURES[self._backend.identity])
        elif key := self._failure():
            detail = trouble.detail or self._last_words()
            remedy = CURES.get(key, _SEE_THE_LOG)
            if key == "backend-identity-refused":
                remedy = IDENTITY_CURES[self._backend.identity]
            elif any(words in detail for words in UNRESOLVED):
                remedy = CURES["backend-unresolved"]
            yield Problem(key, shown(detail.encode("utf-8")), remedy)
        elif self._dialect.question is None:
            detail = "check has no test for this protocol, and knows only the greeting"
            yield Problem("not-asked", detail, CURES["not-asked"])
        else:
            yield from self._locked_out(access)
        if relay is not None and relay.verdict == Verdict.OPEN.value and not relay.allowed:
            yield Problem("open-relay", relay.text, CURE)

    def _locked_out(self, access: Access) -> Iterable[Problem]:
        """Nobody can send mail, or nobody can log in.  Only one of them, because the cause is the same."""
        mail = access.mail
        if mail is not None and mail.taken is False:
            yield Problem(TLS_FIRST, _first(mail.answer), self._cure(TLS_FIRST, access))
        elif access.logins == () and self._needs_login(access):
            detail = shown(access.refusal)
            if mail is not None and mail.wants_login:
                detail += f"; the reply to MAIL FROM is: {_first(mail.answer)}"
            yield Problem(NO_LOGIN, detail, self._cure(NO_LOGIN, access))

    def _warnings(self, access: Access) -> Iterable[Problem]:
        """Some clients can log in, but not with a plain password.

        Only without TLS to the backend.  With TLS the reason is another setting of the server.
        """
        in_the_clear = self._backend.tls == "none" and not self._misunderstood
        if in_the_clear and access.logins and access.refusal and self._needs_login(access):
            detail = f"only clients with {', '.join(access.logins)} can log in: {shown(access.refusal)}"
            yield Problem(NO_LOGIN, detail, self._cure(NO_LOGIN, access))

    def _cure(self, event: str, access: Access) -> str:
        ends = self._surveying.ends
        return cure(
            event,
            self._dialect.name,
            self._terms.backend_tls,
            self._survey.greeting + b"".join(exchange.heard for exchange in self._survey.exchanges),
            starttls=access.starttls,
            gateway=ends.source[0] if ends else "the gateway's address",
        )

    def _failure(self) -> str:
        """The failure as the name of an event; empty without one."""
        errand = self._surveying
        if any(note.event == "backend-refused" for note in errand.notes):
            return "backend-refused"  # also if the session ended with QUIT
        if self._dialect.question is None:
            return "" if self._survey.greeted else errand.trouble.key
        asked = [exchange.said for exchange in self._survey.exchanges]
        # A server may close without a reply to QUIT.
        hurried = errand.trouble.key in ("backend-lost", "backend-closed") and self._dialect.question.leave in asked
        return "" if hurried or errand.trouble.key == "quit" else errand.trouble.key

    def _last_words(self) -> str:
        return " ".join(self._readable(self._survey.greeting or self._survey.exchanges[-1].heard))

    def _readable(self, said: bytes) -> tuple[str, ...]:
        question = self._dialect.question
        return _lines(question.readable(said) if question else said)


def _sending(access: Access) -> Sending | None:
    mail = access.mail
    return None if mail is None else Sending(mail.taken, mail.wants_login, _first(mail.answer))


def _first(answer: bytes) -> str:
    """The first line of it."""
    return shown(answer.splitlines()[0])


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


def look(configuration: Configuration, connectors: dict[Backend, TLSConnector], domain: str = "") -> list[Report]:
    """The reports of all backends.  `domain`: as in `inspected`.  Raises KeyboardInterrupt after Ctrl-C."""
    return awaited(lambda reactor: inspected(reactor, configuration, connectors, domain))
