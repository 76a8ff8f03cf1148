"""What is said in each protocol, as far as it is the same thing in other words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """Of one protocol.  What is heard are regular expressions where they end in `_`, else exact octets."""

    greeting_: bytes
    """What legacy.py's server says, as the gateway shows it."""
    starttls: bytes
    go_ahead: bytes
    active: bytes
    """The answer to STARTTLS inside TLS."""
    hello: bytes
    """The first command inside TLS; also reaches the backend in the clear where TLS is optional."""
    hello_: bytes
    login: bytes
    """Takes the canary password."""
    login_: bytes
    refused: bytes
    """The answer to `login` in the clear."""
    quit: bytes
    quit_: bytes
    polite: bytes
    """How the gateway leaves a backend."""
    unavailable: bytes
    lost_idle: bytes
    """The backend closed and owed nothing."""
    lost_busy: bytes
    """The backend closed and owed a reply to `hello`."""
    shutdown: bytes
    too_long_: bytes
    step: bytes
    """A command that changes nothing, ..."""
    step_: bytes
    """... and legacy.py's answer."""
    dialogue: bytes
    """Begins a login whose response is asked for."""
    authority: bytes
    """A command by which the gateway's address could speak for others."""


WORDS: Mapping[str, Words] = {
    "smtp": Words(
        greeting_=rb"^220 legacy\.example\.test ESMTP\r\n",
        starttls=b"STARTTLS\r\n",
        go_ahead=b"220 2.0.0 Ready to start TLS\r\n",
        active=b"503 5.5.1 TLS already active\r\n",
        hello=b"EHLO client.example.test\r\n",
        hello_=rb"^250-legacy\.example\.[a-z]+\r\n.*^250 [^\n]*\n",
        login=b"AUTH PLAIN AGdyZXRlAFphdW5rb2VuaWctNzctaW0tU2NoYWNodA==\r\n",
        login_=rb"^235 2\.7\.0 Ok\r\n",
        refused=b"530 5.7.0 Must issue a STARTTLS command first\r\n",
        quit=b"QUIT\r\n",
        quit_=rb"^221 2\.0\.0 Bye\r\n",
        polite=b"QUIT\r\n",
        unavailable=b"421 gw.example.test Service not available, closing transmission channel\r\n",
        lost_idle=b"421 4.4.2 gw.example.test Connection to mail server lost\r\n",
        lost_busy=b"421 4.4.2 gw.example.test Connection to mail server lost\r\n",
        shutdown=b"421 4.3.2 gw.example.test Service not available, closing transmission channel\r\n",
        too_long_=rb"(500 5\.5\.2|421 4\.7\.0) [^\n]*[Ll]ine too long\r\n|^$",
        step=b"RSET\r\n",
        step_=rb"250 [^\n]*\n",
        dialogue=b"AUTH LOGIN\r\n",
        authority=b"XCLIENT ADDR=192.0.2.1\r\n",
    ),
    "imap": Words(
        greeting_=rb"^\* OK \[CAPABILITY IMAP4rev1 [^\]]*\] legacy ready\r\n",
        starttls=b"s STARTTLS\r\n",
        go_ahead=b"s OK Begin TLS negotiation now\r\n",
        active=b"s BAD TLS is already active\r\n",
        hello=b"c CAPABILITY\r\n",
        hello_=rb"^\* CAPABILITY [^\n]*\nc OK done\r\n",
        login=b"l LOGIN grete Zaunkoenig-77-im-Schacht\r\n",
        login_=rb"^l OK LOGIN by the backend\r\n",
        refused=b"l NO [PRIVACYREQUIRED] Must issue a STARTTLS command first\r\n",
        quit=b"q LOGOUT\r\n",
        quit_=rb"^\* BYE legacy\r\nq OK bye\r\n",
        polite=b"LOGOUT\r\n",
        unavailable=b"* BYE [UNAVAILABLE] Service temporarily unavailable\r\n",
        lost_idle=b"* BYE [UNAVAILABLE] Connection to mail server lost\r\n",
        lost_busy=b"c NO [UNAVAILABLE] Connection to mail server lost\r\n"
        b"* BYE [UNAVAILABLE] Connection to mail server lost\r\n",
        shutdown=b"* BYE Server shutting down\r\n",
        too_long_=rb"\* BYE Command too long\r\n|^$",
        step=b"z NOOP\r\n",
        step_=rb"z OK [^\n]*\n",
        dialogue=b"a AUTHENTICATE PLAIN\r\n",
        authority=b'x ID ("x-originating-ip" "192.0.2.1")\r\n',
    ),
    "pop3": Words(
        greeting_=rb"^\+OK legacy ready <1896\.697170952@legacy\.example\.test>\r\n",
        starttls=b"STLS\r\n",
        go_ahead=b"+OK Begin TLS negotiation now\r\n",
        active=b"-ERR Command not permitted when TLS active\r\n",
        hello=b"CAPA\r\n",
        hello_=rb"^\+OK\r\n.*^\.\r\n",
        login=b"PASS Zaunkoenig-77-im-Schacht\r\n",
        login_=rb"^\+OK PASS by the backend\r\n",
        refused=b"-ERR [SYS/PERM] Must issue a STLS command first\r\n",
        quit=b"QUIT\r\n",
        quit_=rb"^\+OK bye\r\n",
        polite=b"QUIT\r\n",
        unavailable=b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n",
        lost_idle=b"",
        lost_busy=b"-ERR [SYS/TEMP] Connection to mail server lost\r\n",
        # RFC 1939 3: a server that leaves by itself says nothing.
        shutdown=b"",
        too_long_=rb"-ERR Command too long\r\n|^$",
        step=b"NOOP\r\n",
        step_=rb"\+OK NOOP by the backend\r\n",
        dialogue=b"AUTH PLAIN\r\n",
        authority=b"XCLIENT ADDR=192.0.2.1\r\n",
    ),
}
