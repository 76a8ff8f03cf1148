"""Play what `probe` says against a server in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.dialects import DIALECTS
from gateway.dialects.talk import Talk
from gateway.protocol.driver import Negotiation
from gateway.protocol.vocabulary import Action, Close, Dial, Expired, Patience, Script, Send, Side, StartTLS
from tests.pure.playbook import TLS13

BACKEND = Side.BACKEND


class Served(Protocol):
    """A server in memory."""

    greeting: bytes
    """Nothing, where the client speaks first."""
    hangs_up: bool
    """Where it has nothing to say; else it keeps silent."""
    tls_fails: str

    def hear(self, data: bytes) -> bytes:
        """What it answers."""

    def secured(self) -> bytes:
        """What it says first inside TLS."""


@dataclass
class Server:
    """Answers whole units, one after the other."""

    answers: Mapping[bytes, bytes]
    starttls: bytes
    executes: bool = False
    hangs_up: bool = True
    tls_fails: str = ""
    heard: list[bytes] = field(default_factory=list)
    late: bytes = b""
    greeting: bytes = b""

    def hear(self, data: bytes) -> bytes:
        said = b""
        while data:
            known = next((each for each in self.answers if data.startswith(each)), data)
            self.heard.append(known)
            said += self.answers.get(known, b"")
            data = data[len(known) :]
            if known == self.starttls:
                self.late, data = data, b""
        return said

    def secured(self) -> bytes:
        return self.hear(self.late) if self.executes else b""


def talk(protocol: str) -> Talk:
    dialect = DIALECTS[protocol]
    assert dialect.probing is not None
    assert dialect.question is not None
    return Talk(dialect.probing, dialect.question, b"probe.example.net")


def play(script: Script, server: Served) -> Close:
    """The end; raises the Trouble that the script lets through."""
    negotiation = Negotiation(script)
    todo: list[Action] = negotiation.start()
    while True:
        said = b""
        for action in todo:
            match action:
                case Dial():
                    todo = negotiation.dialled()
                    todo += negotiation.receive(BACKEND, server.greeting) if server.greeting else []
                    break
                case StartTLS(side=side):
                    if server.tls_fails:
                        todo = negotiation.unsecured(side, server.tls_fails)
                    else:
                        todo = negotiation.secured(side, TLS13)
                        todo += negotiation.receive(BACKEND, late) if (late := server.secured()) else []
                    break
                case Send(data=data):
                    said += data
                case Close():
                    server.hear(said)
                    return action
        else:
            if answer := server.hear(said) if said else b"":
                todo = negotiation.receive(BACKEND, answer)
            elif server.hangs_up:
                todo = negotiation.ended(BACKEND, True)
            else:
                todo = negotiation.expire(Expired(BACKEND, Patience.REPLY))
            continue
        if said:
            todo += negotiation.receive(BACKEND, server.hear(said))
