"""The other end of TLS: the standard library's `ssl` over memory, with no code in common with the gateway's."""

from __future__ import annotations

import ssl
from contextlib import suppress
from pathlib import Path

import trustme
from OpenSSL import SSL

from gateway.config.values import Pair
from gateway.wire.tls.certificates import install, load
from gateway.wire.tls.context import INTERMEDIATE, bare_context


class Authority:
    """A certificate for `mail.example.test`, and contexts of the standard library that use it or trust it."""

    def __init__(self, ca: trustme.CA, directory: Path) -> None:
        self.ca = ca
        issued = ca.issue_cert("mail.example.test")
        self.certificate = directory / "certificate.pem"
        self.key = directory / "key.pem"
        self.both = directory / "both.pem"
        chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
        self.certificate.write_bytes(chain)
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.both.write_bytes(issued.private_key_pem.bytes() + chain)

    def client(self, trusting: bool = True) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if trusting:
            self.ca.configure_trust(context)
        return context

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Peer:
    """One end of a TLS connection that is stepped by hand."""

    def __init__(
        self, context: ssl.SSLContext, *, server: bool = False, name: str | None = "mail.example.test"
    ) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_side=server, server_hostname=None if server else name)
        self.heard = b""
        self.shaken = False
        self.ended = False

    def feed(self, ciphertext: bytes) -> bytes:
        """Take octets from the wire, answer with octets for the wire; plaintext gathers in `heard`."""
        if ciphertext:
            self._in.write(ciphertext)
        try:
            if not self.shaken:
                self.tls.do_handshake()
                self.shaken = True
            while chunk := self.tls.read(65536):
                self.heard += chunk
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return self._out.read()

    def hello(self) -> bytes:
        return self.feed(b"")

    def say(self, plaintext: bytes) -> bytes:
        self.tls.write(plaintext)
        return self._out.read()

    def goodbye(self) -> bytes:
        """Ciphertext of close_notify."""
        with suppress(ssl.SSLError):
            self.tls.unwrap()
        return self._out.read()

    def last_words(self) -> bytes:
        """What a failed handshake left to send: the alert."""
        return self._out.read()


def server_context(certificate: Path, key: Path | None) -> SSL.Context:
    """A context as a service with this one certificate has it.  Raises CertificateError."""
    context = bare_context(INTERMEDIATE, b"starttls-gateway")
    install(context, load(Pair(certificate, key)))
    return context
