"""The protocols that the gateway speaks: one value each, and the only list of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .base import Dialect
from .chat.irc import DIALECT as IRC
from .chat.xmpp import DIALECT as XMPP
from .chat.xmpp import SERVERS as XMPP_SERVERS
from .database.mysql import DIALECT as MYSQL
from .database.postgresql import DIALECT as POSTGRESQL
from .directory.ldap import DIALECT as LDAP
from .files.ftp import DIALECT as FTP
from .mail.acap import DIALECT as ACAP
from .mail.imap import DIALECT as IMAP
from .mail.lmtp import DIALECT as LMTP
from .mail.managesieve import DIALECT as MANAGESIEVE
from .mail.pop3 import DIALECT as POP3
from .mail.smtp import DIALECT as SMTP
from .news.nntp import DIALECT as NNTP
from .web.http import HTTP, IPP

_ALL = (
    SMTP,
    IMAP,
    POP3,
    LMTP,
    MANAGESIEVE,
    NNTP,
    POSTGRESQL,
    IRC,
    LDAP,
    MYSQL,
    HTTP,
    IPP,
    ACAP,
    XMPP,
    XMPP_SERVERS,
    FTP,
)

DIALECTS: Mapping[str, Dialect] = MappingProxyType({each.name: each for each in _ALL})
