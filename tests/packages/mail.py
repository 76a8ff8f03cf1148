"""A mail through a gateway on port 25 of some network, to a backend in it."""

from __future__ import annotations

import smtplib
import ssl
import time
from collections.abc import Callable

import trustme

from tests.packages.roots import in_network_of
from tests.process.legacy import smtp
from tests.process.recording import Backend, Connection
from tests.process.running import DEADLINE

NAME = "mail.example.org"
TEXT = b"Subject: through the gateway\r\n\r\nHello.\r\n"


class Mail:
    """`leader` is a process in the network."""

    def __init__(self, leader: int, authority: trustme.CA) -> None:
        self._leader = leader
        self._context = ssl.create_default_context()
        authority.configure_trust(self._context)
        self.backend = in_network_of(leader, lambda: Backend(smtp()))
        self._authority = authority

    @property
    def configuration(self) -> str:
        """A file with one service that has a certificate where the hook copies it to."""
        return (
            "[gateway]\nhostname = gw.example.test\ndrain = 20 s\n"
            f"[tls]\ncertificate = /etc/starttls-gateway/tls/{NAME}.pem\n"
            f"[service:smtp]\nstarttls = 25\nbackend = old\n[backend:old]\naddress = {self.backend.address}\n"
            "allow_relay = yes\n"
        )

    def pair(self) -> tuple[bytes, bytes]:
        """A certificate with its chain, and its key."""
        issued = self._authority.issue_cert(NAME)
        return b"".join(pem.bytes() for pem in issued.cert_chain_pems), issued.private_key_pem.bytes()

    def connect(self, port: int = 25) -> smtplib.SMTP:
        """Inside TLS."""
        client = in_network_of(self._leader, lambda: smtplib.SMTP("127.0.0.1", port, "client.test", DEADLINE))
        client._host = NAME  # type: ignore[attr-defined]
        try:
            client.starttls(context=self._context)
            client.ehlo()
        except BaseException:
            client.close()
            raise
        return client

    def until_connected(self, port: int = 25) -> smtplib.SMTP:
        return until(lambda: self.connect(port), OSError, smtplib.SMTPException)

    def send(self, client: smtplib.SMTP) -> None:
        assert client.sendmail("a@example.test", ["b@example.test"], TEXT) == {}

    def heard(self) -> Connection:
        return self.backend.connection()


def until(act: Callable[[], smtplib.SMTP], *errors: type[BaseException]) -> smtplib.SMTP:
    """Again and again, until it does not fail or DEADLINE is over: nothing tells from outside when a port is bound."""
    end = time.monotonic() + DEADLINE
    while True:
        try:
            return act()
        except errors:
            if time.monotonic() > end:
                raise
