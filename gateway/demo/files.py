"""The legacy FTP server: a folder of files, in the clear."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.interfaces import IListeningPort, IReactorTCP
from twisted.protocols.ftp import FTP, BaseFTPRealm, FTPFactory
from twisted.python.filepath import FilePath

WELCOME = "This server has never heard of TLS.\n"


class Files(BaseFTPRealm):
    """One folder, of whoever logs in."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = FilePath(str(folder))

    def getHomeDirectory(self, avatarId: object) -> FilePath[str]:
        return self._folder


class FilesServer(FTPFactory):
    noisy = False
    allowAnonymous = False
    welcomeMessage = "legacy.demo FTP, plaintext only"

    def __init__(self, reactor: IReactorTCP, folder: Path) -> None:
        """`folder` must not exist."""
        folder.mkdir()
        (folder / "welcome.txt").write_text(WELCOME)
        known = InMemoryUsernamePasswordDatabaseDontUse()
        # FTP compares text, the others' servers octets.
        known.users["demo"] = "demo"  # type: ignore[index, assignment]
        super().__init__(Portal(Files(folder), [known]))
        self._reactor = reactor

    def buildProtocol(self, addr: Any) -> FTP | None:
        server: FTP | None = super().buildProtocol(addr)
        if server is not None:
            server.listenFactory = self._listen  # type: ignore[method-assign, assignment]
        return server

    def _listen(self, port: int, factory: Any) -> IListeningPort:
        return self._reactor.listenTCP(port, factory, interface="127.0.0.1")
