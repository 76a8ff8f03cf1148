"""What clients do: each scenario is one session, and raises if the gateway did what it should not.

Those in HONEST do nothing wrong, and nothing wrong is done to them; whatever they miss was lost.  Those in FAULTS are
the injected ones, by the client, the backend or its certificate; what they check is how the session fails.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from soak.backend import STALL, digest, mail
from soak.crowd import PROTOCOLS
from tests.process.running import CANARY, Gateway
from tests.process.wire import Client, Ending
from tests.process.words import WORDS

PATIENCE = 60.0
HANDSHAKE = 3.0
"""Seconds that the gateway gives a handshake."""
WEB = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MODES = ("starttls", "implicit")


class Visitor(Client):
    """A client with an address of its own."""

    def __init__(self, address: tuple[str, int], source: str) -> None:
        self.source = source
        super().__init__(address, PATIENCE)


@dataclass
class World:
    """What a session needs to know."""

    gateway: Gateway
    trusting: ssl.SSLContext
    distrusting: ssl.SSLContext
    random: random.Random

    def connect(self, service: str, mode: str) -> Visitor:
        source = f"127.{self.random.randrange(1, 250)}.{self.random.randrange(250)}.{self.random.randrange(1, 250)}"
        return Visitor(self.gateway.address(service, mode), source)

    def protocol(self) -> str:
        return self.random.choice(PROTOCOLS)

    def secure(self, protocol: str, mode: str = "") -> Visitor:
        """Inside TLS, and past the first command there."""
        mode = mode or self.random.choice(MODES)
        client = self.connect(protocol, mode)
        try:
            words = WORDS[protocol]
            if mode == "starttls":
                client.hear(GREETINGS[protocol])
                client.say(words.starttls)
                assert client.line() == words.go_ahead
            client.shake_hands(self.trusting)
            if mode == "implicit":
                client.hear(GREETINGS[protocol])
            client.say(words.hello)
            client.hear(HELLO[protocol])
        except BaseException:
            client.socket.close()
            raise
        return client

    def enter(self, protocol: str, mode: str = "") -> Visitor:
        """Logged in."""
        client = self.secure(protocol, mode)
        client.say(LOGIN[protocol])
        client.hear(WELCOME[protocol])
        return client

    def size(self) -> int:
        """Most mails are small."""
        return int(10 ** self.random.uniform(1.5, 6))


Scenario = Callable[[World], None]

GREETINGS = {"smtp": rb"^220 [^\n]*\n", "imap": rb"^\* OK [^\n]*\n", "pop3": rb"^\+OK[^\n]*\n"}
HELLO = {"smtp": rb"^250 [^\n]*\n", "imap": rb"^c OK [^\n]*\n", "pop3": rb"^\.\r\n"}
LOGIN = {
    "smtp": WORDS["smtp"].login,
    "imap": b"l LOGIN grete %s\r\n" % CANARY.encode(),
    "pop3": b"USER grete\r\nPASS %s\r\n" % CANARY.encode(),
}
WELCOME = {"smtp": rb"^235 [^\n]*\n", "imap": rb"^l OK [^\n]*\n", "pop3": rb"^\+OK\r\n\+OK\r\n"}


# --- nothing wrong ----------------------------------------------------------------------------------


def submit(world: World) -> None:
    """One to three mails, with pipelining."""
    client = world.enter("smtp")
    with client:
        for _ in range(world.random.randrange(1, 4)):
            body = b"Subject: soak\r\n\r\n" + mail(world.size()) + b"\r\n..\r\n..x\r\n"
            client.say(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nRCPT TO:<nobody@x>\r\nDATA\r\n")
            client.hear(rb"^250 [^\n]*\n250 [^\n]*\n550 [^\n]*\n354 [^\n]*\n")
            client.say(body + b".\r\n")
            assert client.line() == b"250 2.0.0 %s\r\n" % digest(body)
        leave(client, "smtp")


def submit_in_chunks(world: World) -> None:
    client = world.enter("smtp")
    with client:
        parts = [b"Subject: soak\r\n\r\n", mail(world.size()), b"\r\n.\r\nQUIT\r\n", b"end\r\n"]
        client.say(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\n")
        client.hear(rb"^250 [^\n]*\n250 [^\n]*\n")
        for part in parts:
            last = b" LAST" if part is parts[-1] else b""
            client.say(b"BDAT %d%s\r\n" % (len(part), last) + part)
            answer = client.line()
        assert answer == b"250 2.0.0 %s\r\n" % digest(b"".join(parts))
        leave(client, "smtp")


def deliver_in_the_clear(world: World) -> None:
    """As servers without TLS do."""
    client = world.connect("mx", "starttls")
    with client:
        client.hear(GREETINGS["smtp"])
        client.say(WORDS["smtp"].hello)
        client.hear(rb"^250 STARTTLS\r\n")
        body = mail(world.size()) + b"\r\n"
        client.say(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
        client.hear(rb"^354 [^\n]*\n")
        client.say(body + b".\r\n")
        assert client.line() == b"250 2.0.0 %s\r\n" % digest(body)
        leave(client, "smtp")


def read_by_imap(world: World) -> None:
    fetch(world, world.enter("imap"))


def read_by_imap_behind_tls(world: World) -> None:
    """The backend's leg is inside TLS, too."""
    client = world.connect("imap-tls", "implicit")
    client.shake_hands(world.trusting)
    client.hear(GREETINGS["imap"])
    client.say(LOGIN["imap"])
    client.hear(WELCOME["imap"])
    fetch(world, client)


def fetch(world: World, client: Visitor) -> None:
    with client:
        client.say(b"s SELECT INBOX\r\n")
        client.hear(rb"^s OK [^\n]*\n")
        for number in range(world.random.randrange(1, 6)):
            size = world.size()
            client.say(b"f%d FETCH %d BODY[]\r\n" % (number, size))
            expect(client, b"* 1 FETCH (BODY[] {%d}\r\n%s)\r\nf%d OK done\r\n" % (size, mail(size), number))
        leave(client, "imap")


def append_by_imap(world: World) -> None:
    client = world.enter("imap")
    with client:
        size = world.size()
        literal = mail(size) + b"\r\nx LOGOUT\r\n" * 5
        client.say(b"a APPEND INBOX {%d+}\r\n" % len(literal) + literal + b"\r\n")
        assert client.line() == b"a OK %s\r\n" % digest(literal)
        leave(client, "imap")


def idle_by_imap(world: World) -> None:
    client = world.enter("imap")
    with client:
        client.say(b"i IDLE\r\n")
        client.hear(rb"^\+ idling\r\n\* 2 EXISTS\r\n")
        time.sleep(world.random.uniform(0, 8))
        for octet in b"DONE\r\n":
            client.say(bytes([octet]))
        client.hear(rb"^i OK [^\n]*\n")
        leave(client, "imap")


def read_by_pop3(world: World) -> None:
    client = world.enter("pop3")
    with client:
        for _ in range(world.random.randrange(1, 6)):
            size = world.size()
            client.say(b"RETR %d\r\n" % size)
            expect(client, b"+OK\r\n%s\r\n.\r\n" % mail(size))
        leave(client, "pop3")


def read_slowly(world: World) -> None:
    """A mail in small pieces, with pauses."""
    client = world.enter("imap")
    with client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.say(b"f FETCH 1000000 BODY[]\r\n")
        wanted = b"* 1 FETCH (BODY[] {1000000}\r\n%s)\r\nf OK done\r\n" % mail(1000000)
        while len(client.unheard) < len(wanted):
            more = client.receive()
            assert more, f"it ended after {len(client.unheard)} octets"
            client.unheard += more
            time.sleep(0.01)
        expect(client, wanted)
        leave(client, "imap")


def expect(client: Visitor, wanted: bytes) -> None:
    heard = [client.unheard]
    size = len(client.unheard)
    while size < len(wanted):
        more = client.receive()
        assert more, f"it ended after {size} octets of {len(wanted)}"
        heard.append(more)
        size += len(more)
    octets = b"".join(heard)
    assert octets[: len(wanted)] == wanted, "other octets came"
    client.unheard = octets[len(wanted) :]


def leave(client: Visitor, protocol: str) -> None:
    client.say(WORDS[protocol].quit)
    client.hear({"smtp": rb"^221 [^\n]*\n", "imap": rb"^q OK [^\n]*\n", "pop3": rb"^\+OK bye\r\n"}[protocol])
    assert client.rest() == b""
    assert client.ending is not Ending.RESET, "it ended with a reset"


# --- faults of clients ----------------------------------------------------------------------------------


def reset_anywhere(world: World) -> None:
    """In the handshake, before and behind the login, in a message, while reading."""
    protocol = world.protocol()
    match world.random.randrange(4):
        case 0:
            client = world.connect(protocol, world.random.choice(MODES))
            client.say(b"\x16\x03\x01\x02\x00\x01\x00")
        case 1:
            client = world.secure(protocol)
        case 2:
            client = world.enter("smtp")
            client.say(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
            client.hear(rb"^354 [^\n]*\n")
            client.say(mail(world.size()))
        case _:
            client = world.enter("imap")
            client.say(b"f FETCH 5000000 BODY[]\r\n")
            client.receive()
    client.reset()


def vanish_in_a_message(world: World) -> None:
    """A FIN without an end of data: no 250 may come."""
    with world.enter("smtp") as client:
        client.say(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n")
        client.hear(rb"^354 [^\n]*\n")
        client.say(mail(world.size()) + b"\r\n." + world.random.choice([b"", b"\r"]))
        client.finish()
        assert b"250" not in client.rest()


def stall_in_a_handshake(world: World) -> None:
    with world.connect(world.protocol(), "implicit") as client:
        client.say(world.random.choice([b"", b"\x16\x03\x01"]))
        start = time.monotonic()
        client.rest()
        assert time.monotonic() - start < 5 * HANDSHAKE + 10, "the deadline came late"


def distrust(world: World) -> None:
    """A client that does not know who issued the certificate."""
    with world.connect(world.protocol(), "implicit") as client:
        try:
            client.shake_hands(world.distrusting)
        except ssl.SSLCertVerificationError:
            return
        raise AssertionError("an unknown authority was trusted")


def inject(world: World) -> None:
    protocol = world.protocol()
    with world.connect(protocol, "starttls") as client:
        client.hear(GREETINGS[protocol])
        client.say(WORDS[protocol].starttls + WORDS[protocol].hello)
        assert client.rest() == WORDS[protocol].go_ahead


def err(world: World) -> None:
    """Bad commands until it is over."""
    protocol = world.protocol()
    with world.secure(protocol) as client:
        client.say(b"".join(b"x%d NONSENSE\r\n" % n for n in range(40)))
        assert b"235" not in client.rest()


def speak_something_else(world: World) -> None:
    mode = world.random.choice(MODES)
    with world.connect(world.protocol(), mode) as client:
        client.say(world.random.choice([WEB, b"\x16\x03\x01\x02", world.random.randbytes(200)]))
        client.finish()
        with suppress(TimeoutError):
            client.rest()


def say_a_long_line(world: World) -> None:
    with world.secure(world.protocol()) as client:
        client.say(b"x" * 200_000)
        client.rest()


# --- faults of backends ---------------------------------------------------------------------------------


def backend_fails(world: World) -> None:
    """In the middle of a session: the client hears so, or the end, and no success."""
    fault = world.random.choice(["reset", "close", "stall", "garbage"]).encode()
    match world.random.choice(("smtp", "imap")):
        case "smtp":
            with world.enter("smtp") as client:
                client.say(b"MAIL FROM:<fault-%s@x>\r\n" % fault)
                rest = client.rest()
                assert re.match(rb"421 |\Z", rest), rest[:200]
        case _:
            with world.enter("imap") as client:
                client.say(b"s SELECT fault-%s\r\n" % fault)
                assert b"s OK" not in client.rest()


def backend_with_a_wrong_certificate(world: World) -> None:
    with world.connect("wrong", "implicit") as client:
        client.shake_hands(world.trusting)
        assert client.rest() == WORDS["imap"].unavailable


def backend_that_is_not_there(world: World) -> None:
    with world.connect("dead", "implicit") as client:
        client.shake_hands(world.trusting)
        assert client.rest() == WORDS["pop3"].unavailable


assert STALL < PATIENCE

HONEST: Mapping[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        *(submit, submit_in_chunks, deliver_in_the_clear, read_by_imap, read_by_imap_behind_tls),
        *(append_by_imap, idle_by_imap, read_by_pop3, read_slowly),
    )
}
FAULTS: Mapping[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        *(reset_anywhere, vanish_in_a_message, stall_in_a_handshake, distrust, inject, err, speak_something_else),
        *(say_a_long_line, backend_fails, backend_with_a_wrong_certificate, backend_that_is_not_there),
    )
}
