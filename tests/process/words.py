"""What is said in each protocol, as far as it is the same thing in other words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


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
    """A command by which the gateway's address could speak for others; empty where there is none."""

    def verb(self, command: bytes) -> bytes:
        """Its name, which stands behind a tag where there are tags."""
        return command.split()[len(self.starttls.split()) - 1]


WORDS: dict[str, Words] = {
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
"""The protocols of mail, over which everything runs."""

GREETING: Mapping[str, Words] = {
    **WORDS,
    "lmtp": replace(WORDS["smtp"], hello=b"LHLO client.example.test\r\n"),
    "managesieve": Words(
        greeting_=rb'^"IMPLEMENTATION" "legacy"\r\n.*^OK "legacy ready"\r\n',
        starttls=b"STARTTLS\r\n",
        go_ahead=b'OK "Begin TLS negotiation now."\r\n',
        active=b'NO "TLS is already active"\r\n',
        # Behind the handshake there is a list that nobody has asked for.
        hello=b"NOOP\r\n",
        hello_=rb'^OK "NOOP [^\n]*\n',
        login=b'AUTHENTICATE "PLAIN" "AGdyZXRlAFphdW5rb2VuaWctNzctaW0tU2NoYWNodA=="\r\n',
        login_=rb'^OK "AUTHENTICATE by the backend"\r\n',
        refused=b'NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n',
        quit=b"LOGOUT\r\n",
        quit_=rb'^OK "bye"\r\n',
        polite=b"LOGOUT\r\n",
        unavailable=b'BYE (TRYLATER) "Service temporarily unavailable"\r\n',
        lost_idle=b'BYE (TRYLATER) "Connection to server lost"\r\n',
        lost_busy=b'BYE (TRYLATER) "Connection to server lost"\r\n',
        shutdown=b'BYE (TRYLATER) "Server shutting down"\r\n',
        too_long_=rb'(NO|BYE) "Command too long"\r\n|^$',
        step=b"NOOP\r\n",
        step_=rb'OK "NOOP [^\n]*\n',
        dialogue=b'AUTHENTICATE "PLAIN"\r\n',
        authority=b"XCLIENT ADDR=192.0.2.1\r\n",
    ),
    "nntp": Words(
        greeting_=rb"^200 legacy ready\r\n",
        starttls=b"STARTTLS\r\n",
        go_ahead=b"382 Continue with TLS negotiation\r\n",
        active=b"502 Already using a security layer\r\n",
        hello=b"CAPABILITIES\r\n",
        hello_=rb"^101 [^\n]*\n.*^\.\r\n",
        login=b"AUTHINFO SASL PLAIN AGdyZXRlAFphdW5rb2VuaWctNzctaW0tU2NoYWNodA==\r\n",
        login_=rb"^281 AUTHINFO by the backend\r\n",
        refused=b"483 Encryption required, use STARTTLS\r\n",
        quit=b"QUIT\r\n",
        quit_=rb"^205 bye\r\n",
        polite=b"QUIT\r\n",
        unavailable=b"400 Service temporarily unavailable\r\n",
        lost_idle=b"400 Connection to news server lost\r\n",
        lost_busy=b"400 Connection to news server lost\r\n",
        shutdown=b"400 Service temporarily unavailable\r\n",
        too_long_=rb"(400|501) Line too long\r\n|^$",
        step=b"DATE\r\n",
        step_=rb"111 [^\n]*\n",
        dialogue=b"AUTHINFO SASL PLAIN\r\n",
        authority=b"",
    ),
    "acap": Words(
        greeting_=rb'^\* ACAP \(IMPLEMENTATION "legacy"\)[^\n]*\n',
        starttls=b"s STARTTLS\r\n",
        go_ahead=b's OK "Begin TLS negotiation now"\r\n',
        active=b's BAD "TLS is already active"\r\n',
        # Behind the handshake there is a greeting again.
        hello=b"c NOOP\r\n",
        hello_=rb'^c OK "NOOP [^\n]*\n',
        login=b'l AUTHENTICATE "PLAIN" "Zaunkoenig-77-im-Schacht"\r\n',
        login_=rb'^l OK "AUTHENTICATE by the backend"\r\n',
        refused=b'l NO (ENCRYPT-NEEDED) "Must issue a STARTTLS command first"\r\n',
        quit=b"q LOGOUT\r\n",
        quit_=rb'^\* BYE "bye"\r\nq OK "Done"\r\n',
        polite=b"sgw0 LOGOUT\r\n",
        unavailable=b'* BYE (TRYLATER) "Service temporarily unavailable"\r\n',
        lost_idle=b'* BYE (TRYLATER) "Connection to server lost"\r\n',
        lost_busy=b'* BYE (TRYLATER) "Connection to server lost"\r\n',
        shutdown=b'* BYE (TRYLATER) "Server shutting down"\r\n',
        too_long_=rb'\* (BAD|BYE) "Command too long"\r\n|^$',
        step=b"z NOOP\r\n",
        step_=rb'z OK "NOOP [^\n]*\n',
        dialogue=b'l AUTHENTICATE "PLAIN"\r\n',
        authority=b"",
    ),
}
"""All protocols of lines whose server greets."""

LINES: Mapping[str, Words] = {
    **GREETING,
    "irc": Words(
        greeting_=rb"",
        starttls=b"STARTTLS\r\n",
        go_ahead=b":gw.example.test 670 * :STARTTLS successful, proceed with TLS handshake\r\n",
        active=b":gw.example.test 691 * :STARTTLS failed (TLS is already active)\r\n",
        hello=b"CAP LS 302\r\n",
        hello_=rb"^:(gw\.example\.test|legacy) CAP \* LS [^\n]*\n",
        login=b"NICK grete\r\nUSER grete 0 * :Zaunkoenig-77-im-Schacht\r\n",
        login_=rb"^:legacy 001 grete :Welcome\r\n",
        refused=b"ERROR :Closing Link: gw.example.test (TLS required: use STARTTLS, or a port with TLS)\r\n",
        quit=b"QUIT\r\n",
        quit_=rb"^ERROR :[^\n]*\n",
        polite=b"QUIT\r\n",
        unavailable=b"ERROR :Closing Link: gw.example.test (Service temporarily unavailable)\r\n",
        lost_idle=b"ERROR :Closing Link: gw.example.test (Connection to server lost)\r\n",
        lost_busy=b"ERROR :Closing Link: gw.example.test (Connection to server lost)\r\n",
        shutdown=b"ERROR :Closing Link: gw.example.test (Server shutting down)\r\n",
        too_long_=rb":gw\.example\.test 417 \* [^\n]*\n|ERROR [^\n]*\n|^$",
        step=b"PING x\r\n",
        step_=rb":legacy PONG [^\n]*\n",
        dialogue=b"AUTHENTICATE PLAIN\r\n",
        authority=b"WEBIRC x gateway client.example.test 192.0.2.1\r\n",
    ),
}
"""All protocols of lines.  Where the client speaks first, a backend is dialled for `hello` inside TLS."""
