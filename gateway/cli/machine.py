"""The part of `check` about this machine: addresses, names, sockets, and files that the user of --uid can read."""

from __future__ import annotations

import errno
import grp
import json
import os
import pwd
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..app.rights import group_of, user_name
from ..config import Places
from ..config.values import Address, Configuration, Service, SystemdAddress, TCPAddress, UnixAddress
from ..dialects import DIALECTS
from . import dataports
from .finding import Finding, at
from .units import SocketUnit, passed, socket_units

AT_ONCE = 16
"""Names that are resolved at the same time."""
_LOCAL_NAMES = ("localhost", "localhost.localdomain")
_TRANSIENT = (socket.EAI_AGAIN,)


def look(configuration: Configuration, places: Places, live: bool = False) -> list[Finding]:
    """In the order of the file.  Without the names of backends if `live`: the report has them."""
    found = [
        *_hostname(configuration, places),
        *_control(configuration, places),
        *_listeners(configuration, places),
        *_sockets(configuration, places),
        *(() if live else _backends(configuration, places)),
        *_report(configuration, places),
        *_experimental(configuration, places),
        *dataports.look(configuration, places),
    ]
    return sorted(found, key=lambda finding: finding.line)


def _hostname(configuration: Configuration, places: Places) -> Iterator[Finding]:
    name = configuration.hostname
    if name.lower().rstrip(".") in _LOCAL_NAMES:
        own = "" if places("gateway", "hostname") else ", the name of this machine"
        fault = f"the gateway's host name is {name}{own}; write the name that clients connect to"
        yield at(places, "gateway", "hostname", fault, fatal=False)


def _experimental(configuration: Configuration, places: Places) -> Iterator[Finding]:
    for service in configuration.services:
        if why := DIALECTS[service.protocol].experimental:
            fault = f"{service.protocol} is experimental: {why}"
            yield at(places, f"service:{service.name}", "protocol", fault, fatal=False)


def _report(configuration: Configuration, places: Places) -> Iterator[Finding]:
    file = configuration.report.file
    if file is not None and not file.parent.is_dir():
        fault = (
            f"{file.parent} is no directory, so nothing is remembered; make it, and let the gateway's user write to it"
        )
        yield at(places, "report", "file", f"{file}: {fault}", fatal=False)


def _control(configuration: Configuration, places: Places) -> Iterator[Finding]:
    control = configuration.control
    if control.group is not None:
        try:
            grp.getgrnam(control.group)
        except KeyError:
            fault = f"there is no group {control.group}; `getent group` lists those that there are"
            yield at(places, "gateway", "control_group", fault)
    if control.path is not None and control.named:
        above = os.path.dirname(os.path.dirname(control.path))
        if not os.path.isdir(above):
            fault = f"{control.path}: {above} is no directory; create it, or write another path"
            yield at(places, "gateway", "control", fault)


def _listening(configuration: Configuration) -> Iterator[tuple[Service, str, Address]]:
    for service in configuration.services:
        for option, addresses in (("starttls", service.starttls), ("implicit", service.implicit)):
            for address in addresses:
                yield service, option, address


# --- addresses and names -----------------------------------------------------------------------------


def _listeners(configuration: Configuration, places: Places) -> Iterator[Finding]:
    for service, option, address in _listening(configuration):
        section = f"service:{service.name}"
        match address:
            case TCPAddress(host=str(host)):
                if fault := _not_ours(host):
                    yield at(places, section, option, f"{address}: {fault}")
            case UnixAddress(path=path) if not os.path.isdir(os.path.dirname(path)):
                fault = f"{os.path.dirname(path)} is not a directory; create it before the gateway starts"
                yield at(places, section, option, f"{address}: {fault}", fatal=False)


def _not_ours(host: str) -> str:
    """Why this machine cannot listen on this address or name; empty if it can.

    Does not use the port: the gateway itself may be running.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        return f"the name {host} does not resolve ({_why(error)}); write an IP address, or only the port"
    faults = [_cannot_bind(family, place) for family, *_, place in found]
    if "" in faults:
        return ""
    what = "this address" if host == found[0][4][0] else f"an address of {host} ({found[0][4][0]})"
    cure = "`ip address` lists its addresses" if faults[0] != _NO_FAMILY else "use an address of the other family"
    return f"this machine does not have {what}: {faults[0]}; {cure}"


_NO_FAMILY = os.strerror(errno.EAFNOSUPPORT)


def _cannot_bind(family: socket.AddressFamily, place: Any) -> str:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind(place)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            return error.strerror or str(error)
    return ""


def _backends(configuration: Configuration, places: Places) -> Iterator[Finding]:
    named: dict[tuple[str, str, TCPAddress], None] = {}
    for service in configuration.services:
        for address in service.backend.addresses:
            if isinstance(address, TCPAddress):
                section, option = f"backend:{service.backend.name}", "address"
                if not places(section):
                    section, option = f"service:{service.name}", "backend"
                named[section, option, address] = None
    hosts = list(dict.fromkeys(address.host or "" for _, _, address in named))
    if not hosts:
        return
    with ThreadPoolExecutor(min(AT_ONCE, len(hosts))) as pool:
        unresolved = dict(zip(hosts, pool.map(_unresolved, hosts), strict=True))
    for section, option, address in named:
        if trouble := unresolved[address.host or ""]:
            why, fatal = trouble
            cure = "correct it, or write an IP address" if fatal else "check the resolver of this machine"
            yield at(places, section, option, f"{address}: the name does not resolve ({why}); {cure}", fatal=fatal)


def _unresolved(host: str) -> tuple[str, bool] | None:
    """The reason, and whether it is permanent."""
    try:
        socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return _why(error), getattr(error, "errno", None) not in _TRANSIENT
    return None


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


# --- sockets of systemd --------------------------------------------------------------------------------


def _sockets(configuration: Configuration, places: Places) -> Iterator[Finding]:
    wanted: dict[str, tuple[str, str]] = {}
    for service, option, address in _listening(configuration):
        if isinstance(address, SystemdAddress):
            wanted.setdefault(address.name, (f"service:{service.name}", option))
    names = passed()
    units = None if names is not None else socket_units()
    if names is None and units is not None:
        names = [unit.name for unit in units]
    for name, (section, option) in wanted.items():
        if names is None:
            fault, cure = "there is no systemd on this machine", "write an address with its port"
        elif name not in names:
            source = "systemd passes no socket of this name" if units is None else "no .socket unit has this name"
            fault, cure = source, f"set FileDescriptorName={name} in the .socket unit of the gateway"
        else:
            continue
        yield at(places, section, option, f"systemd:{name}: {fault}; {cure}", fatal=False)
    for name, unit in _spare(names, units, wanted):
        cure = f"write systemd:{name} in the starttls or implicit of a service, or disable {unit}"
        yield Finding(0, f"systemd passes a socket {name}, and no service uses it; {cure}", fatal=False)


def _spare(
    names: Sequence[str] | None, units: Sequence[SocketUnit] | None, wanted: Iterable[str]
) -> Iterator[tuple[str, str]]:
    if units is None:
        yield from ((name, "its .socket unit") for name in dict.fromkeys(names or ()) if name not in wanted)
    else:
        yield from ((unit.name, unit.unit) for unit in units if unit.ours and unit.name not in wanted)


# --- another user ------------------------------------------------------------------------------------


def as_user(uid: int, gid: int | None, configuration: Configuration) -> list[Finding]:
    """The files that the gateway cannot read as this user.  Only for files that the caller can read."""
    from ..wire.tls.certificates import CertificateError
    from ..wire.tls.renewal import Renewal

    if uid != os.geteuid() and os.geteuid() != 0:
        text = f"only root can check which keys {user_name(uid)} can read; run this as root"
        return [Finding(0, text, fatal=False)]
    renewal = Renewal(lambda *_, **__: None)
    try:
        for service in configuration.services:
            renewal.serve(service.tls, ())
    except CertificateError as wrong:
        return [Finding(0, str(wrong))]
    lines = renewal.still_readable() if uid == os.geteuid() else _in_a_child(uid, gid, renewal.still_readable)
    return [Finding(0, line, fatal=False) for line in lines]


def _in_a_child(uid: int, gid: int | None, ask: Callable[[], list[str]]) -> list[str]:
    """The answer in a child process of this user, so that groups and ACLs count."""
    heard, say = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            os.close(heard)
            group = group_of(uid) if gid is None else gid
            os.initgroups(pwd.getpwuid(uid).pw_name, group)
            os.setgid(group)
            os.setuid(uid)
            with os.fdopen(say, "w") as pipe:
                json.dump(ask(), pipe)
            status = 0
        finally:
            # Do not flush or clean up what belongs to the parent.
            os._exit(status)
    os.close(say)
    with os.fdopen(heard) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        return [f"cannot check what {user_name(uid)} can read: this process cannot become that user"]
    lines: list[str] = json.loads(text)
    return lines
