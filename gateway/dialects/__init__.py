"""The protocols that the gateway speaks: one value each, and the only list of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Final

from .base import Dialect

_PLACES: Final = {
    "smtp": "mail.smtp:DIALECT",
    "imap": "mail.imap:DIALECT",
    "pop3": "mail.pop3:DIALECT",
    "lmtp": "mail.lmtp:DIALECT",
    "managesieve": "mail.managesieve:DIALECT",
    "nntp": "news.nntp:DIALECT",
    "postgresql": "database.postgresql:DIALECT",
    "irc": "chat.irc:DIALECT",
    "ldap": "directory.ldap:DIALECT",
    "mysql": "database.mysql:DIALECT",
    "http": "web.http:HTTP",
    "ipp": "web.http:IPP",
    "acap": "mail.acap:DIALECT",
    "xmpp": "chat.xmpp:DIALECT",
    "xmpp-server": "chat.xmpp:SERVERS",
    "ftp": "files.ftp:DIALECT",
}
"""Name -> module and the name of the value in it."""


class _Registry(Mapping[str, Dialect]):
    """Imports a dialect when it is asked for: a gateway for one protocol does not keep 14 others in memory."""

    def __init__(self) -> None:
        self._imported: dict[str, Dialect] = {}

    def __getitem__(self, name: str) -> Dialect:
        if name not in self._imported:
            module, _, value = _PLACES[name].partition(":")
            found = getattr(import_module(f".{module}", __name__), value)
            assert isinstance(found, Dialect) and found.name == name
            self._imported[name] = found
        return self._imported[name]

    def __contains__(self, name: object) -> bool:
        return name in _PLACES

    def __iter__(self) -> Iterator[str]:
        return iter(_PLACES)

    def __len__(self) -> int:
        return len(_PLACES)


DIALECTS: Mapping[str, Dialect] = _Registry()
