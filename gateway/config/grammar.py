"""Parsers for single values.  The text of a ValueError says what is wrong and what to write."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Collection
from typing import TypeVar

from .values import Address, IPAddress, Network, SystemdAddress, TCPAddress, UnixAddress

T = TypeVar("T")
Grammar = Callable[[str], T]

_UNITS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(ms|s|min|h)")
# A day: longer than every timer of a mail protocol.
_LONGEST = 86400.0
# RFC 1123 2.1: letters, digits and inner hyphens, up to 63 octets.  The loose form allows the underscore, which is
# common in names of container networks.
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LOOSE_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?:[^/@]*@)?(\[[^\]/]*\]|[^/:]*)(?::([0-9]+))?(?:/.*)?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_PIN = re.compile(r"sha256:((?:[0-9a-f]{2}:?){31}[0-9a-f]{2})", re.ASCII | re.IGNORECASE)
# sockaddr_un.sun_path has 108 octets with its NUL.
_LONGEST_PATH = 107


def quoted(text: str) -> str:
    """Text of the file for a message: one line, ASCII, at most 60 characters."""
    return json.dumps(text if len(text) <= 60 else text[:57] + "...")


def any_of(names: Collection[str]) -> str:
    """`a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def meant(name: str, known: Collection[str]) -> str | None:
    """The known name that is most similar to `name`, or None."""
    import difflib  # needed for a mistake only

    return next(iter(difflib.get_close_matches(name, known, 1, 0.6)), None)


def name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(f"{quoted(text)} is not a name; use up to 63 letters, digits, dots, hyphens and underscores")
    return text


def yes_or_no(text: str) -> bool:
    return choice("yes", "no")(text) == "yes"


def choice(*words: str) -> Grammar[str]:
    """One of these words."""

    def grammar(text: str) -> str:
        if text in words:
            return text
        raise ValueError(f"{quoted(text)} is not a valid value; write {any_of(words)}")

    return grammar


def count(least: int, most: int) -> Grammar[int]:
    def grammar(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"{quoted(text)} is not a number from {least} to {most}")
        return int(text)

    return grammar


def count_or_auto(least: int, most: int, auto: Callable[[], int]) -> Grammar[int]:
    """`auto` says what the word stands for; it is held to the same bounds."""

    def grammar(text: str) -> int:
        if text == "auto":
            return max(least, min(most, auto()))
        try:
            return count(least, most)(text)
        except ValueError:
            raise ValueError(f"{quoted(text)} is neither auto nor a number from {least} to {most}") from None

    return grammar


def duration(least: float) -> Grammar[float]:
    """In seconds.  `least` is the minimum."""

    def grammar(text: str) -> float:
        match = _DURATION.fullmatch(text)
        if match is None:
            raise ValueError(f"{quoted(text)} is not a duration; write a number and {any_of(_UNITS)}, like 30 s")
        seconds = float(match[1]) * _UNITS[match[2]]
        if not least <= seconds <= _LONGEST:
            raise ValueError(f"{quoted(text)} is out of range; write {least:g} s to 24 h")
        return seconds

    return grammar


_DAYS = re.compile(r"([0-9]{1,4})\s*d")


def days(least: int, most: int) -> Grammar[float]:
    """Seconds of whole days."""

    def grammar(text: str) -> float:
        match = _DAYS.fullmatch(text)
        if match is None or not least <= int(match[1]) <= most:
            raise ValueError(f"{quoted(text)} is not a number of days from {least} to {most}; write one like 90 d")
        return int(match[1]) * 86400.0

    return grammar


def prefixes(text: str) -> tuple[int, int]:
    """The lengths of an IPv4 and of an IPv6 prefix: `/24 /64`."""
    match = re.fullmatch(r"/([0-9]{1,2})\s+/([0-9]{1,3})", text)
    if match is None or not (8 <= int(match[1]) <= 32 and 16 <= int(match[2]) <= 128):
        raise ValueError(f"{quoted(text)} is not two prefix lengths; write one for IPv4 and one for IPv6, like /24 /64")
    return int(match[1]), int(match[2])


def host_name(text: str) -> str:
    """A host name (RFC 1123 2.1), for the gateway itself."""
    if not _is_host(text, _LABEL):
        raise ValueError(f"{quoted(text)} is not a host name; write a fully qualified one, like mail.example.org")
    return text


def canonical(text: str) -> IPAddress:
    """An IP address for comparison: never IPv4-mapped, with a zone only if it is link-local.

    Raises ValueError for other text.
    """
    match ipaddress.ip_address(text):
        case ipaddress.IPv6Address(ipv4_mapped=ipaddress.IPv4Address() as address):
            return address
        case ipaddress.IPv6Address(is_link_local=False) as address:
            return ipaddress.IPv6Address(int(address))
        case address:
            return address


def certificate_name(text: str) -> str:
    """The name in a backend's certificate: a DNS name, or an IP address without brackets."""
    try:
        # No certificate has a zone.
        return str(canonical(text.partition("%")[0]))
    except ValueError:
        pass
    if not _is_host(text, _LOOSE_LABEL):
        raise ValueError(
            f"{quoted(text)} is neither a host name nor an IP address; write the name that the certificate must have"
        )
    return text


def verification(text: str) -> str:
    """`yes`, `no`, or the SHA-256 digest of the leaf certificate, with or without colons."""
    if text in ("yes", "no"):
        return text
    if match := _PIN.fullmatch(text):
        return f"sha256:{match[1].replace(':', '').lower()}"
    if text.lower().startswith("sha256:"):
        raise ValueError(
            f"{quoted(text)} is not sha256: and 64 hexadecimal digits; "
            "see: openssl x509 -in FILE -noout -fingerprint -sha256"
        )
    raise ValueError(f"{quoted(text)} is not a valid value; write yes, no or sha256:HEX")


def network(text: str) -> Network:
    """A network like 10.0.0.0/8, or one address.  IPv4-mapped becomes IPv4."""
    host, slash, bits = text.partition("/")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(
            f"{quoted(text)} is not a network; write one like 10.0.0.0/8 or 2001:db8::/32, or one address"
        ) from None
    if "%" in host:
        raise ValueError(f"{quoted(text)}: a zone is not a valid value; write {host.partition('%')[0]}{slash}{bits}")
    most = address.max_prefixlen
    if slash and not (re.fullmatch("[0-9]{1,3}", bits) and int(bits) <= most):
        raise ValueError(f"{quoted(text)}: {quoted(bits)} is not a number of bits from 0 to {most}")
    length = int(bits) if slash else most
    # A network with fewer than 96 bits is not IPv4-mapped, but plain IPv6.
    if length >= 96 and (same := canonical(host)).version != address.version:
        address, length = same, length - 96
    whole = ipaddress.ip_network((address, length), strict=False)
    if whole.network_address != address:
        raise ValueError(f"{quoted(text)} has host bits set; write {whole}, or {address} for that address alone")
    return whole


def several(grammar: Grammar[T]) -> Grammar[tuple[T, ...]]:
    """A list, separated by spaces or newlines."""
    return lambda text: tuple(grammar(word) for word in text.split())


def single(what: str) -> Grammar[str]:
    def grammar(text: str) -> str:
        if len(text.split()) != 1:
            raise ValueError(f"{quoted(text)} is more than one word; {what}")
        return text

    return grammar


one_file = single("write one file; its name must not contain spaces")


def listener(text: str) -> Address:
    """A listen address: `25`, `0.0.0.0:25`, `[::]:25`, `unix:/path` or `systemd:NAME`.

    A port alone means all addresses.  Port 0 is any free port.
    """
    if re.fullmatch("[0-9]+", text):
        return TCPAddress(None, _port(text, text, 0))
    if text.startswith("systemd:"):
        return SystemdAddress(name(text.removeprefix("systemd:")))
    return _address(text, 0, "25, 0.0.0.0:25, [::]:25, unix:/path or systemd:NAME")


def destination(text: str) -> Address:
    """The address of a backend: `host:port` or `unix:/path`."""
    return _address(text, 1, "host:port, [IPv6]:port or unix:/path")


def socket_path(text: str) -> str | None:
    """An absolute path for a UNIX socket, or `off`."""
    if text == "off":
        return None
    if not text.startswith("/") or len(text.encode()) > _LONGEST_PATH:
        raise ValueError(f"{quoted(text)} is neither off nor an absolute path of at most {_LONGEST_PATH} octets")
    return text


def _address(text: str, least_port: int, right: str) -> Address:
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > _LONGEST_PATH:
            raise ValueError(f"{quoted(text)}: write an absolute path with at most {_LONGEST_PATH} octets")
        return UnixAddress(path)
    if url := _URL.fullmatch(text):
        raise ValueError(f"{quoted(text)} is a URL; write only {url[1] or 'host'}:{url[2] or 'port'}")
    host, colon, port = text.rpartition(":")
    if not colon or not port:
        raise ValueError(f"{quoted(text)} has no port; write {right}")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"{quoted(text)} is ambiguous; write an IPv6 address in brackets, like [2001:db8::1]:25")
    return TCPAddress(_host(host, text, right), _port(port, text, least_port))


def _host(host: str, text: str, right: str) -> str:
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise ValueError(f"{quoted(text)}: {quoted(host)} is not an IPv6 address; write {right}") from None
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    if not _is_host(host, _LOOSE_LABEL):
        raise ValueError(f"{quoted(text)}: {quoted(host)} is neither an address nor a host name; write {right}")
    return host


def _is_host(text: str, label: re.Pattern[str]) -> bool:
    labels = text.split(".")
    # If the last label is a number, the text is a wrong IPv4 address (RFC 1123 2.1).
    return len(text) <= 253 and all(map(label.fullmatch, labels)) and not labels[-1].isdigit()


def _port(port: str, text: str, least: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", port) or not least <= int(port) <= 65535:
        raise ValueError(f"{quoted(text)}: port {quoted(port)} is not a number from {least} to 65535")
    return int(port)
