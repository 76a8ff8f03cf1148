"""Ten servers without TLS, with one account: demo, password demo."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.mail.imap4 import IAccount
from twisted.mail.interfaces import IMailboxPOP3, IMessageDelivery
from twisted.web.server import Site
from twisted.web.static import Data
from zope.interface import Interface, implementer

from .database import DatabaseServer
from .files import FilesServer
from .imap import Account, IMAPServer
from .lines import ChatServer, NewsServer, Scripts, SieveServer
from .mailbox import Folder
from .pop3 import Maildrop, POP3Server
from .smtp import Delivery, LMTPServer, SMTPServer

WELCOME = """\
From: The gateway's demo <postmaster@legacy.demo>
To: demo@legacy.demo
Subject: Welcome
Date: {date}
Message-ID: <welcome@legacy.demo>

The server that keeps this message has never heard of TLS.
You read it over TLS all the same.
"""


@implementer(IRealm)
class Realm:
    """What each protocol gets after a login."""

    def __init__(self, inbox: Folder) -> None:
        account = Account(inbox)
        self._avatars: dict[type[Interface], Callable[[], object]] = {
            IAccount: lambda: account,
            IMailboxPOP3: lambda: Maildrop(inbox),
            IMessageDelivery: lambda: Delivery(inbox),
        }

    def requestAvatar(self, avatarId: object, mind: object, *interfaces: Any) -> tuple[Any, object, Callable[[], None]]:
        wanted = next(one for one in interfaces if one in self._avatars)
        return wanted, self._avatars[wanted](), lambda: None


class Servers(ServerFactory):
    noisy = False

    def __init__(self, build: Callable[[], Any], portal: Portal) -> None:
        self._build = build
        self._portal = portal

    def buildProtocol(self, addr: object) -> Protocol:
        server = self._build()
        server.portal, server.factory = self._portal, self
        assert isinstance(server, Protocol)
        return server


def listen(reactor: IReactorTCP, directory: Path) -> dict[str, IListeningPort]:
    """Listen on free ports of the loopback address.  Keys are the names of the dialects.  Files are in `directory`."""
    inbox = Folder()
    inbox.deliver(WELCOME.format(date=formatdate(localtime=True)).replace("\n", "\r\n").encode("ascii"))
    portal = Portal(Realm(inbox), [InMemoryUsernamePasswordDatabaseDontUse(demo=b"demo")])
    scripts, everybody = Scripts(), set[ChatServer]()
    articles = [b"Subject: Welcome\r\nNewsgroups: demo.gateway\r\n\r\nThis server has never heard of TLS."]
    builds: dict[str, Callable[[], Any]] = {
        "smtp": lambda: SMTPServer(Delivery(inbox)),
        "imap": IMAPServer,
        "pop3": POP3Server,
        "lmtp": lambda: LMTPServer(Delivery(inbox)),
        "managesieve": lambda: SieveServer(scripts),
        "nntp": lambda: NewsServer(articles),
        "irc": lambda: ChatServer(everybody),
        "postgresql": DatabaseServer,
    }
    factories: dict[str, Any] = {protocol: Servers(build, portal) for protocol, build in builds.items()}
    page = Data(b"This server has never heard of TLS.\n", "text/plain")
    page.isLeaf = True
    factories["ftp"] = FilesServer(reactor, directory / "files")
    factories["http"] = Site(page)
    factories["http"].noisy = False
    return {protocol: reactor.listenTCP(0, factory, interface="127.0.0.1") for protocol, factory in factories.items()}
