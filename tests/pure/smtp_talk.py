"""What the SMTP tests share: a backend that offers everything, and conversations up to a point."""

from __future__ import annotations

from typing import Any

from gateway.dialects.base import Policy
from gateway.dialects.mail.smtp import DIALECT
from gateway.protocol.vocabulary import Secured
from tests.pure.playbook import DIAL, TLS13, Playbook, terms, tls, to_client

GREETING = b"220 legacy.example.org ESMTP Postfix\r\n"
EHLO = b"EHLO client.example.com\r\n"
REPLY = (
    b"250-legacy.example.org\r\n"
    b"250-PIPELINING\r\n"
    b"250-SIZE 10240000\r\n"
    b"250-VRFY\r\n"
    b"250-STARTTLS\r\n"
    b"250-AUTH PLAIN LOGIN EXTERNAL\r\n"
    b"250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n"
    b"250-8BITMIME\r\n"
    b"250-CHUNKING\r\n"
    b"250 SMTPUTF8\r\n"
)
"""A backend that offers everything."""
CLOSED = (
    b"250-legacy.example.org\r\n"
    b"250-PIPELINING\r\n"
    b"250-SIZE 10240000\r\n"
    b"250-VRFY\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n"
    b"250-8BITMIME\r\n"
    b"250-CHUNKING\r\n"
    b"250-SMTPUTF8\r\n"
    b"250 STARTTLS\r\n"
)
"""What the client sees of it before TLS, where authentication waits for it."""
OPEN = CLOSED.replace(b"250-ENH", b"250-AUTH PLAIN LOGIN\r\n250-ENH")
"""... where authentication is the client's choice."""
SECURE = (
    b"250-legacy.example.org\r\n"
    b"250-PIPELINING\r\n"
    b"250-SIZE 10240000\r\n"
    b"250-VRFY\r\n"
    b"250-AUTH PLAIN LOGIN\r\n"
    b"250-ENHANCEDSTATUSCODES\r\n"
    b"250-8BITMIME\r\n"
    b"250-CHUNKING\r\n"
    b"250 SMTPUTF8\r\n"
)
"""... inside TLS."""
HARMLESS = b"250-legacy.example.org\r\n250-CHUNKING\r\n250 AUTH PLAIN GSSAPI DIGEST-MD5\r\n"
"""The reply of a backend that grants our address nothing."""

GO_AHEAD = b"220 2.0.0 Ready to start TLS\r\n"
MUST_STARTTLS = b"530 5.7.0 Must issue a STARTTLS command first\r\n"
MUST_EHLO = b"503 5.5.1 Send EHLO/HELO first\r\n"
NOT_IMPLEMENTED = b"502 5.5.1 Command not implemented\r\n"
SYNTAX = b"500 5.5.2 Syntax error\r\n"
LOST = b"421 4.4.2 gw.example.org Connection to mail server lost\r\n"
GARBAGE = b"421 4.3.0 gw.example.org Internal error\r\n"
TOO_MANY = b"421 4.7.0 gw.example.org Too many errors\r\n"
DOWN_LATER = b"421 4.3.2 gw.example.org Service not available, closing transmission channel\r\n"
OK = b"250 2.0.0 OK\r\n"

AUTH_ONLY = Policy.AUTH_ONLY
OPTIONAL = Policy.OPTIONAL
REQUIRED = Policy.REQUIRED


def greeted(policy: Policy = REQUIRED, **changes: Any) -> Playbook:
    """A client on a plaintext port with its greeting; no trace field unless asked for."""
    agreed = terms(**{"policy": policy, "received": False, **changes})
    return Playbook(DIALECT, agreed).start(DIAL).dialled().returns(GREETING)


def hello(play: Playbook, reply: bytes = REPLY, told: bytes = SECURE) -> Playbook:
    return play.passes(EHLO).backend(reply, to_client(told))


def upgraded(policy: Policy = REQUIRED, facts: Secured = TLS13, **changes: Any) -> Playbook:
    """Inside TLS, and nothing said there yet."""
    play = hello(greeted(policy, **changes), told=OPEN if policy is OPTIONAL else CLOSED)
    return play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured(facts=facts)


def secure(policy: Policy = REQUIRED, facts: Secured = TLS13, **changes: Any) -> Playbook:
    """Inside TLS behind EHLO."""
    return hello(upgraded(policy, facts, **changes))


def envelope(play: Playbook, parameters: bytes = b"") -> Playbook:
    play.asks(b"MAIL FROM:<a@example.com>%s\r\n" % parameters, b"250 2.1.0 Ok\r\n")
    return play.asks(b"RCPT TO:<b@example.org>\r\n", b"250 2.1.5 Ok\r\n")


def authenticated(play: Playbook) -> Playbook:
    return play.asks(b"AUTH PLAIN AGEAYg==\r\n", b"235 2.7.0 Authentication successful\r\n")
