"""`[admin]`: where the admin listener is, who may use it, and that it is never open to strangers by mistake."""

from __future__ import annotations

from ipaddress import ip_address

from .grammar import host_name, listener, one_file, several, single, yes_or_no
from .section import Section
from .tls import MISSING, TLSOptions, read_pairs
from .values import Address, Admin, SystemdAddress, TCPAddress

_one = single("write one address")


def _listener(text: str) -> Address:
    address = listener(_one(text))
    if isinstance(address, SystemdAddress):
        raise ValueError("a socket of systemd is not possible here; write one like 127.0.0.1:9180 or unix:/path")
    return address


def read_admin(section: Section, base: TLSOptions) -> Admin | None:
    """None where there is no such section; `base`: the certificates of `[tls]`."""
    if not section.options:
        return None
    address = section.take("listen", _listener, None)
    if "listen" not in section.options:
        section.wrong("listen", "is missing; write one like 127.0.0.1:9180 or unix:/path")
    token = section.take("token_file", one_file, "")
    path = section.file("token_file", token) if token else None
    names = section.take("names", several(host_name), ())
    tls = section.take("tls", yes_or_no, False)
    pairs = read_pairs(section, base.pairs)
    if not tls and (own := {"certificate", "key"} & section.options.keys()):
        section.wrong(min(own), "means nothing without tls = yes; remove it, or write tls = yes")
    if tls and not pairs and "key" not in section.options:
        section.wrong("certificate", f"is missing, and [tls] has none; {MISSING}")
    if address is not None and not is_local(address):
        if not token:
            section.wrong(
                "token_file",
                f"is missing, and other machines can reach {address}; name a file with a secret of at least 16 "
                "characters, or listen on 127.0.0.1:9180 or unix:/path",
            )
        if not tls:
            section.wrong(
                "tls",
                f"is missing, and other machines can reach {address}; write tls = yes, or listen on 127.0.0.1:9180 or "
                "unix:/path",
            )
    section.finish()
    if address is None:
        return None
    return Admin(address, path, tuple(one.lower() for one in names), pairs if tls else ())


def is_local(address: Address) -> bool:
    """Whether only this machine can connect to it."""
    match address:
        case TCPAddress(host=None):
            return False
        case TCPAddress(host=str(host)):
            try:
                return ip_address(host).is_loopback
            except ValueError:
                return host.lower() == "localhost"
    return True
