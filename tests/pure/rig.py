"""A negotiation that is looked at one step at a time: what the client was told, what the backend heard."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.dialects.base import Dialect, Terms
from gateway.protocol.vocabulary import Abort, Close, Dial, Note, Send, Side
from tests.pure.playbook import TLS13, WHOLE, Stage, Switch


@dataclass(frozen=True)
class Happening:
    """All that followed from one step."""

    told: bytes
    """To the client, a go-ahead included."""
    heard: bytes
    """By the backend."""
    switched: bool
    """A handshake with the client begins."""
    dialled: bool
    aborted: bool
    """The backend's leg was dropped rather than closed."""
    over: str
    """The reason of the close, or nothing."""
    notes: tuple[Note, ...]


class Rig:
    """One session of a dialect; each of its methods is something that happens to it."""

    def __init__(self, dialect: Dialect, agreed: Terms, cut: int = WHOLE) -> None:
        self.stage = Stage(dialect, agreed, cut)
        self.transcript: list[str] = []
        self._seen = 0

    @property
    def spliced(self) -> bool:
        return self.stage.spliced

    @property
    def over(self) -> bool:
        return self.stage.negotiation.over and not self.stage.spliced

    def start(self) -> Happening:
        self.stage.take(self.stage.negotiation.start())
        return self._look("starts")

    def dialled(self) -> Happening:
        self.stage.take(self.stage.negotiation.dialled())
        return self._look("dialled")

    def secured(self) -> Happening:
        self.stage.secured(TLS13)
        return self._look("secured")

    def unsecured(self, detail: str) -> Happening:
        self.stage.unsecured(detail)
        return self._look("handshake fails")

    def client(self, octets: bytes) -> Happening:
        self.stage.receive(Side.CLIENT, octets)
        return self._look(f"C> {octets!r}")

    def backend(self, octets: bytes) -> Happening:
        self.stage.receive(Side.BACKEND, octets)
        return self._look(f"b> {octets!r}")

    def ended(self, side: Side, orderly: bool) -> Happening:
        if not self.stage.negotiation.over:
            self.stage.take(self.stage.negotiation.ended(side, orderly))
        return self._look(f"{side.value} {'closes' if orderly else 'is reset'}")

    def _look(self, says: str) -> Happening:
        deeds, self._seen = self.stage.deeds[self._seen :], len(self.stage.deeds)
        told = heard = b""
        for deed in deeds:
            match deed:
                case Send(Side.CLIENT, octets) | Switch(Side.CLIENT, octets):
                    told += octets
                case Send(Side.BACKEND, octets):
                    heard += octets
        happening = Happening(
            told,
            heard,
            switched=any(isinstance(deed, Switch) for deed in deeds),
            dialled=any(isinstance(deed, Dial) for deed in deeds),
            aborted=any(isinstance(deed, Abort) for deed in deeds),
            over="".join(deed.reason for deed in deeds if isinstance(deed, Close)),
            notes=tuple(deed for deed in deeds if isinstance(deed, Note)),
        )
        self.transcript.append(says)
        self.transcript += [f"  S: {told!r}"] * bool(told) + [f"  g> {heard!r}"] * bool(heard)
        self.transcript += [f"  {deed}" for deed in deeds if not isinstance(deed, Send | Switch)]
        return happening
