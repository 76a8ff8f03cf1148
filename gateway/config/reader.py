"""Sections -> `Configuration`: knows the options, their defaults, and which options exclude each other."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, TypeVar

from . import ini
from .addresses import collide, leads_to
from .admin import read_admin
from .errors import ConfigurationError
from .grammar import (
    Grammar,
    any_of,
    certificate_name,
    choice,
    count,
    count_or_auto,
    destination,
    duration,
    host_name,
    listener,
    meant,
    name,
    network,
    one_file,
    quoted,
    several,
    single,
    socket_path,
    verification,
    yes_or_no,
)
from .ini import Problem, Written
from .report import read_report
from .section import Machine, Section
from .tls import MISSING, TLSOptions, read_tls
from .users import read_users
from .values import (
    Address,
    Backend,
    Configuration,
    Control,
    Free,
    Limits,
    Report,
    Service,
    TCPAddress,
    Timeouts,
    Traits,
    UnixAddress,
)

WORKERS = 64
"""At most."""
_POLICIES = ("required", "auth-only", "optional")
_IDENTITIES = ("none", "proxy-v1", "proxy-v2", "xclient", "id", "webirc")
_PAIR = ("certificate", "key")
_FIXED = ("gateway", "tls", "limits", "timeouts", "report", "admin")
_NAMED = ("service", "backend")
OPTIONS = frozenset({
    "hostname", "drain", "log", "log_connects", "log_users", "users_key", "workers", "old_sessions", "probes",
    "control", "control_group", "control_mode",
    "certificate", "key", "profile", "legacy_clients", "client_certificate", "client_ca",
    "listen", "token_file", "names",
    "protocol", "starttls", "implicit", "policy", "backend", "received", "newlines", "accept_proxy", "downgrade",
    "passive_ports", "passive_address", "active", "protection", "data_session_reuse", "strict_close", "log_files",
    "address", "connect", "tls", "verify", "name", "ca", "identity", "allow_relay",
    "webirc_password_file",
    "file", "keep", "networks",
    *(one.name for kind in (Limits, Timeouts) for one in fields(kind)),
})  # fmt: skip
"""The options of all sections, for suggestions in messages only."""


N = TypeVar("N", Limits, Timeouts)


class _Reader:
    """One reading of one file."""

    def __init__(self, sections: ini.Sections, protocols: Mapping[str, Traits], machine: Machine) -> None:
        self.problems: list[Problem] = []
        self._sections = sections
        self._protocols = protocols
        self._machine = machine
        self._backends: dict[str, Backend] = {}
        self._unused: set[str] = set()
        self._listeners: list[tuple[Address, str]] = []
        self._destinations: list[tuple[Section, str, Address]] = []
        self._own_name = ""
        self._tls = TLSOptions()
        self._report = Report()

    def read(self) -> Configuration:
        self._check_titles()
        gateway = self._section("gateway")
        hostname = self._hostname(gateway)
        drain = gateway.take("drain", duration(0), 30.0)
        log = gateway.take("log", choice("text", "json"), "text")
        log_connects = gateway.take("log_connects", yes_or_no, False)
        log_users, users_key = read_users(gateway)
        old_sessions = gateway.take("old_sessions", duration(0), 3600.0)
        probes = gateway.take("probes", several(network), ())
        workers = gateway.take("workers", count_or_auto(1, WORKERS, self._machine.cores), 1)
        control = _control(gateway)
        gateway.finish()
        self._tls = self._shared_tls()
        limits = self._numbers("limits", Limits, {}, count(1, 1_000_000))
        timeouts = self._numbers("timeouts", Timeouts, {"message_rate": count(1, 1_000_000)}, duration(0.1))
        self._report = read_report(self._section("report"))
        self._backends = {title: self._backend(title) for title in self._named("backend")}
        self._unused = set(self._backends)
        services = tuple(self._service(title) for title in self._named("service"))
        if not services and not any(title.startswith("service") for title in self._sections):
            text = "[service:NAME]: there is no such section; add one, like [service:smtp]"
            self.problems.append(Problem(0, text))
        admin = read_admin(self._section("admin"), self._tls)
        if "admin" in self._sections and not self._sections["admin"].options:
            self._wrong("admin", "is empty; write listen = 127.0.0.1:9180, or remove the section")
        if admin is not None:
            self._claim(self._section("admin"), "listen", (admin.listen,))
        self._check_loops()
        for title in self._backends:
            if title in self._unused:
                self._wrong(f"backend:{title}", "no service uses this backend; name it in a service, or remove it")
        return Configuration(
            hostname,
            drain,
            log,
            self._tls.values,
            services,
            limits,
            timeouts,
            log_connects,
            self._report,
            old_sessions,
            workers,
            admin,
            control,
            log_users,
            users_key,
            probes,
        )

    def _section(self, title: str) -> Section:
        return Section(title, self._sections.get(title, Written(0)), self.problems.append, self._machine)

    def _wrong(self, title: str, what: str) -> None:
        """Report a problem of a whole section."""
        self.problems.append(Problem(self._sections[title].line, f"[{title}]: {what}"))

    def _named(self, kind: str) -> list[str]:
        prefix = f"{kind}:"
        return [title.removeprefix(prefix) for title in self._sections if title.startswith(prefix)]

    def _check_titles(self) -> None:
        for title in self._sections:
            kind, colon, own = title.partition(":")
            if colon and kind in _NAMED:
                try:
                    name(own)
                except ValueError as wrong:
                    self._wrong(title, str(wrong))
            elif title in _NAMED:
                self._wrong(title, f"has no name; write [{title}:NAME]")
            elif title not in _FIXED:
                guess = meant(kind.strip().lower(), _NAMED if colon else (*_FIXED, *_NAMED))
                right = f"{guess}:{own or 'NAME'}" if guess in _NAMED else guess
                known = ", ".join([*(f"[{title}]" for title in _FIXED), *(f"[{title}:NAME]" for title in _NAMED)])
                if title in self._protocols:
                    guess, right = "service", f"service:{title}"
                cure = f"did you mean [{right}]?" if guess else f"there are {known}"
                self._wrong(title, f"unknown section; {cure}")

    def _hostname(self, gateway: Section) -> str:
        given = gateway.take("hostname", host_name, "")
        if given or "hostname" in gateway.options:
            return given
        own = self._own_name = self._machine.hostname()
        try:
            return host_name(own)
        except ValueError:
            fault = f"is missing, and the name of this machine, {quoted(own)}, is not a host name"
            gateway.wrong("hostname", f"{fault}; add the option")
            return ""

    def _shared_tls(self) -> TLSOptions:
        section = self._section("tls")
        options = read_tls(section, TLSOptions())
        section.finish()
        titles = [f"service:{title}" for title in self._named("service")]
        bare = [title for title in ("tls", *titles) if self._section(title).options.keys().isdisjoint(_PAIR)]
        if "tls" in bare and (len(bare) > 1 or not titles):
            whose = f", and [{bare[1]}] has none of its own" if len(bare) <= len(titles) else ""
            section.wrong("certificate", f"is missing{whose}; {MISSING}")
        return options

    def _numbers(self, title: str, kind: type[N], special: Mapping[str, Grammar[Any]], usual: Grammar[Any]) -> N:
        """A section with one option for each field of `kind`."""
        section = self._section(title)
        values: dict[str, Any] = {}
        for option in fields(kind):
            values[option.name] = section.take(option.name, special.get(option.name, usual), option.default)
        section.finish()
        return kind(**values)

    def _backend(self, title: str) -> Backend:
        section = self._section(f"backend:{title}")
        addresses = section.take("address", several(destination), ())
        connect = section.take("connect", choice("eager", "lazy"), "eager")
        # None for a wrong value: no other check follows from it.
        tls = section.take("tls", choice("none", "starttls", "implicit"), None if "tls" in section.options else "none")
        verify = section.take("verify", verification, None if "verify" in section.options else "yes")
        certificate = section.take("name", certificate_name, None)
        ca = section.take("ca", one_file, "")
        profile = section.take("profile", choice("intermediate", "legacy"), "intermediate")
        identity = section.take("identity", choice(*_IDENTITIES), "none")
        allow_relay = section.take("allow_relay", yes_or_no, False)
        secret = _webirc_password(section, identity)
        if "address" not in section.options:
            section.wrong("address", "is missing; write host:port or unix:/path")
        idle = _idle_options(tls, verify)
        for option, why in idle.items():
            if option in section.options:
                section.wrong(option, why)
        if tls in ("starttls", "implicit") and verify == "yes" and "name" not in section.options:
            for nameless in [address for address in addresses if not isinstance(address, TCPAddress)][:1]:
                right = "write the name that the certificate must have, or verify = sha256:HEX"
                section.wrong("name", f"is missing, and {nameless} has no host name; {right}")
        if "allow_relay" in section.options and identity != "none":
            why = f"has no effect with identity = {identity}, because the backend then gets the client's address"
            section.wrong("allow_relay", f"{why}; remove it")
        section.finish()
        self._destinations += [(section, "address", address) for address in addresses]
        return Backend(
            title,
            addresses,
            connect,
            tls or "none",
            verify or "yes",
            certificate,
            section.file("ca", ca) if ca and "ca" not in idle else None,
            profile,
            identity,
            secret,
            allow_relay,
        )

    def _service(self, title: str) -> Service:
        section = self._section(f"service:{title}")
        protocol = section.take("protocol", str, title)
        traits = self._protocols.get(protocol)
        if traits is None:
            guess = meant(protocol, self._protocols)
            right = f"did you mean {guess}?" if guess else f"write protocol = {any_of(self._protocols)}"
            given = "protocol" in section.options
            fault = "" if given else "is missing, and the section's name "
            section.wrong("protocol", f"{fault}{quoted(protocol)} is not a protocol; {right}")
        starttls = section.take("starttls", several(listener), ())
        implicit = section.take("implicit", several(listener), ())
        if not section.options.keys() & {"starttls", "implicit"}:
            section.wrong(
                "starttls", "is missing, and so is implicit; name an address to listen on, like starttls = 25"
            )
        for option, addresses in (("starttls", starttls), ("implicit", implicit)):
            self._claim(section, option, addresses)
            for address in addresses:
                why = traits.forbidden.get(getattr(address, "port", 0)) if traits is not None else None
                if why:
                    section.wrong(option, f"{address} is no place for {protocol} ({why}); use another port")
        policy = section.take("policy", choice(*_POLICIES), "")
        if "policy" in section.options and "starttls" not in section.options:
            section.wrong("policy", "is for plaintext ports, and this service has none; remove it, or add starttls")
        if traits is not None and policy and policy not in (offers := [each.value for each in traits.offers]):
            section.wrong("policy", f"{protocol} does not support {policy}; write {any_of(offers)}, or remove it")
        defaults = traits.policies if traits is not None else {}
        options = self._own_options(section, protocol, traits)
        accept_proxy = section.take("accept_proxy", several(network), ())
        backend = self._named_backend(section)
        if traits is not None and backend.name in self._backends:
            self._check_backend(section.title, protocol, traits, backend, bool(starttls))
        tls = read_tls(section, self._tls).values
        policies = tuple(policy or _default_policy(address, defaults) for address in starttls)
        if traits is not None and traits.channels:
            _check_channels(section, dict(options), tls.client_certificate, backend)
        downgrade = self._downgrade(section, policies)
        if section.options.keys() - section.known.keys():
            self._options_of_others(section, protocol, traits)
        section.finish()
        return Service(title, protocol, starttls, implicit, policies, backend, tls, accept_proxy, options, downgrade)

    def _downgrade(self, section: Section, policies: Collection[str]) -> str:
        downgrade = section.take("downgrade", choice("log", "refuse"), "log")
        if "downgrade" in section.options:
            if set(policies) <= {"required"}:
                why = "is for plaintext ports where clients may do without TLS, and this service has none; remove it"
                section.wrong("downgrade", why)
            elif downgrade == "refuse" and self._report.file is None:
                section.wrong("downgrade", "refuse needs to know who always used TLS; add file = PATH in [report]")
        return downgrade

    def _own_options(self, section: Section, protocol: str, traits: Traits | None) -> tuple[tuple[str, str], ...]:
        """The options that only this protocol has."""
        own = {} if traits is None else traits.options
        return tuple((option, _own(section, option, values)) for option, values in own.items())

    def _options_of_others(self, section: Section, protocol: str, traits: Traits | None) -> None:
        """An option is left: it may be another protocol's."""
        for option in [*section.options]:
            others = [other for other, theirs in self._protocols.items() if option in theirs.options]
            if others and option not in section.known:
                section.take(option, str, "")
                if traits is not None:
                    section.wrong(option, f"{protocol} does not have this option, only {any_of(others)}; remove it")

    def _check_backend(self, service: str, protocol: str, traits: Traits, backend: Backend, starttls: bool) -> None:
        """Some options of a backend depend on the protocols of its services."""
        section = self._section(f"backend:{backend.name}")
        possible = ("none", *sorted(traits.identities))
        if backend.identity not in possible:
            fault = f"[{service}] uses this backend, and {protocol} does not support {backend.identity}"
            section.wrong("identity", f"{fault}; write {any_of(possible)}")
        if starttls and backend.identity == "proxy-v2" and "connect" in section.options and backend.connect == "eager":
            fault = f"eager is not possible for the starttls ports of [{service}]"
            why = "identity = proxy-v2 tells the client's TLS version, which is not known before TLS"
            section.wrong("connect", f"{fault}: {why}; write connect = lazy")
        if "allow_relay" in section.options and not traits.relays:
            fault = f"[{service}] uses this backend, and {protocol} does not relay mail"
            section.wrong("allow_relay", f"{fault}; remove it")

    def _named_backend(self, section: Section) -> Backend:
        one = single("write one address, or the NAME of a [backend:NAME] section with several")
        text = section.take("backend", one, "")
        if "backend" not in section.options:
            section.wrong("backend", "is missing; write host:port, unix:/path or the NAME of a [backend:NAME]")
        if not text or text in self._backends:
            self._unused.discard(text)
            return self._backends.get(text, Backend(text, ()))
        addresses: tuple[Address, ...] = ()
        if ":" in text:
            addresses = section.take("backend", several(destination), ())
            self._destinations += [(section, "backend", address) for address in addresses]
        else:
            guess = meant(text, self._backends)
            # One mistake, one message: do not report the section that was meant as unused.
            self._unused.discard(guess or "")
            right = f"did you mean {guess}?" if guess else "add it, or write an address with its port, like 10.0.0.5:25"
            section.wrong("backend", f"there is no [backend:{text}]; {right}")
        return Backend(text, addresses)

    def _claim(self, section: Section, option: str, addresses: Iterable[Address]) -> None:
        for address in addresses:
            place = f"[{section.title}] {option}"
            for other, owner in self._listeners:
                if collide(address, other):
                    also = f"{other} of {owner}" if other != address else owner
                    section.wrong(option, f"{address} is already used by {also}; use each address once")
                    break
            else:
                self._listeners.append((address, place))

    def _check_loops(self) -> None:
        for section, option, address in self._destinations:
            for own, owner in self._listeners:
                if leads_to(address, own, self._is_local):
                    fault = f"{address} is the gateway itself: {own} of {owner}"
                    section.wrong(option, f"{fault}; write the address of the server behind the gateway")
                    break

    def _is_local(self, host: str) -> bool:
        return host == self._own_name.lower() or self._machine.is_local(host)


def _check_channels(section: Section, options: Mapping[str, str], client_certificate: str, backend: Backend) -> None:
    """What a service with connections for data cannot have."""
    for address in backend.addresses:
        if isinstance(address, UnixAddress):
            section.wrong("backend", f"{address} has no ports for data connections; write host:port")
    if options["data_session_reuse"] == "required" and client_certificate != "none":
        why = "TLS sessions with a client certificate do not resume"
        section.wrong(
            "data_session_reuse",
            f"required is not possible with client_certificate = {client_certificate}: {why}; write no",
        )


def _own(section: Section, option: str, values: tuple[str, ...] | Free) -> str:
    """The text of an option that only this protocol has."""
    if isinstance(values, tuple):
        return section.take(option, choice(*values), values[0])

    def checked(text: str) -> str:
        values.grammar(text)
        return text

    return section.take(option, checked, values.default)


def _control(gateway: Section) -> Control:
    default = Control()
    path = gateway.take("control", socket_path, default.path)
    group = gateway.take("control_group", single("name one group"), "none")
    modes = {"0600": 0o600, "0660": 0o660}
    mode = modes[gateway.take("control_mode", choice(*modes), "0600" if group == "none" else "0660")]
    if path is None:
        for option in ("control_group", "control_mode"):
            if option in gateway.options:
                gateway.wrong(option, "means nothing with control = off; remove it")
    elif group != "none" and mode == 0o600:
        gateway.wrong("control_mode", f"0600 keeps the group {group} out; write 0660, or remove control_group")
    return Control(path, None if group == "none" else group, mode, "control" in gateway.options)


def control_of(text: str) -> Control:
    """The control socket of a file, whatever else is wrong with that file."""
    sections, _ = ini.parse(text, (*_FIXED, *_NAMED), OPTIONS)
    return _control(Section("gateway", sections.get("gateway", Written(0)), lambda problem: None, Machine()))


def _webirc_password(section: Section, identity: str) -> str:
    """Read with the configuration, so that a file that is wrong is a mistake in it."""
    option = "webirc_password_file"
    name = section.take(option, one_file, "")
    if identity != "webirc":
        if option in section.options:
            section.wrong(option, "is for identity = webirc only; remove it")
        return ""
    if option not in section.options:
        section.wrong(option, "is missing; name a file with the password that the IRC server expects in WEBIRC")
    return section.secret(option, name) if name else ""


def _idle_options(tls: str | None, verify: str | None) -> dict[str, str]:
    """The options of a backend that have no effect, and the reason."""
    if tls == "none":
        why = "is only for tls = starttls and tls = implicit; remove it, or set tls"
        return dict.fromkeys(("verify", "name", "ca", "profile"), why)
    if verify is None or verify == "yes":
        return {}
    shown, why = (
        ("no", "any certificate is accepted") if verify == "no" else ("sha256:HEX", "only that certificate is accepted")
    )
    fault = f"has no effect with verify = {shown}, because {why}"
    return dict.fromkeys(("name", "ca"), f"{fault}; remove it, or write verify = yes")


def _default_policy(address: Address, defaults: Mapping[int, Enum]) -> str:
    match address:
        case TCPAddress(_, port) if port in defaults:
            return str(defaults[port].value)
    return "required"


def parse(text: str, filename: str, protocols: Mapping[str, Traits], machine: Machine | None = None) -> Configuration:
    """`filename` is for the messages.  `protocols`: name -> traits.

    Raises ConfigurationError with all problems.
    """
    sections, problems = ini.parse(text, (*_FIXED, *_NAMED), OPTIONS)
    reader = _Reader(sections, protocols, machine or Machine())
    configuration = reader.read()
    problems += reader.problems
    if problems:
        raise ConfigurationError(problem.of(filename) for problem in problems)
    return configuration


class Places:
    """Section and option -> line number.  0 if the file does not have them."""

    def __init__(self, sections: ini.Sections) -> None:
        self._sections = sections

    def __call__(self, section: str, option: str = "") -> int:
        written = self._sections.get(section, Written(0))
        if not option:
            return written.line
        return written.options[option].line if option in written.options else 0


def located(text: str) -> Places:
    """The line numbers in this text."""
    sections, _ = ini.parse(text, (*_FIXED, *_NAMED), OPTIONS)
    return Places(sections)
