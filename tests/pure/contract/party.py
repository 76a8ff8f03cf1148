"""Every registered dialect with its answers, and conversations up to the point at which a test begins."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import BackendTLS, Dialect
from gateway.protocol.proxyprotocol import Origin
from gateway.protocol.vocabulary import Side
from tests.pure.contract.form import Answers, Apart, ClientFirst, Exchange, Named, Shared, Telling
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    SPLICE,
    TLS13,
    Expected,
    Playbook,
    Stage,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

if TYPE_CHECKING:
    from typing_extensions import Self

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
SWITCH = tls(b"", BACKEND)
"""The handshake with the backend begins; our last words before it were the STARTTLS command, long ago."""
HERE = Origin(("192.0.2.10", 40000), ("198.51.100.1", 143))
"""The client and the address that it came to."""


@dataclass(frozen=True, eq=False)
class Registered:
    """A dialect, and what it is called."""

    dialect: Dialect
    answers: Named

    def __str__(self) -> str:
        return self.dialect.name


@dataclass(frozen=True, eq=False)
class Anyone(Registered):
    """A dialect, and how it is spoken, whoever speaks first."""

    answers: Shared

    def but(self, **answers: Any) -> Self:
        """The same with other answers."""
        return replace(self, answers=replace(self.answers, **answers))

    # --- with the client ---

    def dialled(self, *, others: bool = False, **changes: Any) -> Playbook:
        """A backend that has not greeted yet, for a client that is inside TLS where that comes first."""
        raise NotImplementedError

    def opened(self, **changes: Any) -> Playbook:
        """The client may speak: on a plaintext port unless told otherwise."""
        raise NotImplementedError

    def alive(self, play: Playbook) -> Playbook:
        """The session goes on, behind `opened` or `inside`."""
        raise NotImplementedError

    @property
    def parting(self) -> Expected:
        """What becomes of the backend when a session ends that has not logged in, behind `opened` or `inside`."""
        raise NotImplementedError

    @property
    def phase_inside(self) -> str:
        """Behind `entered`."""
        return "secure"

    def logs_in(self, play: Playbook) -> Playbook:
        """From `ready` up to the backend's verdict."""
        raise NotImplementedError

    def may_log_in(self) -> Playbook:
        """Inside TLS; the backend is there, and waits for credentials."""
        return self.ready()

    def refuses_login(self, play: Playbook, *then: Expected) -> Playbook:
        """A login before TLS."""
        raise NotImplementedError

    def greets(self, play: Playbook, *then: Expected) -> Playbook:
        """The backend greets."""
        return play.returns(self.answers.greeting, *then)

    def inside(self, **changes: Any) -> Playbook:
        """Inside TLS after STARTTLS."""
        said, told = self.answers.starttls
        return self.entered(self.opened(**changes).client(said, tls(told)))

    def entered(self, play: Playbook) -> Playbook:
        """The client's handshake succeeds, and the client hears what the server says first inside TLS."""
        if self.answers.reissue is None:
            return play.secured()
        said, answered = self.answers.reissue
        if not said:
            return play.secured(to_client(answered))
        return play.secured(to_backend(said)).returns(answered)

    def enter(self, stage: Stage) -> None:
        """The same on a stage."""
        stage.secured(TLS13)
        if self.answers.reissue is not None and self.answers.reissue.said:
            stage.receive(BACKEND, self.answers.reissue.answered)

    def ready(self, **changes: Any) -> Playbook:
        """Inside TLS, and as far as a client must be to log in."""
        play = self.inside(**changes)
        for said, answered in self.answers.introduction:
            play.asks(said, answered)
        return play

    def opening(self, cut: int = 0, **changes: Any) -> Stage:
        """As `opened`, for tests that look at every deed themselves."""
        raise NotImplementedError

    # --- with the backend, under `tls = starttls` ---

    @property
    def go(self) -> bytes:
        """Its yes to STARTTLS."""
        return self.answers.backend_starttls.answered

    @property
    def questions(self) -> tuple[Exchange, ...]:
        return (*self.answers.asks, self.answers.backend_starttls)

    @property
    def clear(self) -> tuple[bytes, ...]:
        """What the backend says in the clear."""
        raise NotImplementedError

    def hello(self, mode: BackendTLS = BackendTLS.NONE) -> tuple[Expected, ...]:
        """What the gateway does as soon as a backend is connected, apart from a PROXY header."""
        return (SWITCH,) if mode is BackendTLS.IMPLICIT else ()

    def owed(self) -> Playbook:
        """The backend owes an answer."""
        raise NotImplementedError

    def begun(self, play: Playbook) -> Playbook:
        """From a connection to our STARTTLS."""
        raise NotImplementedError

    def asked(self, **changes: Any) -> Playbook:
        """Up to our STARTTLS."""
        return self.begun(self.dialled(**{"backend_tls": BackendTLS.STARTTLS, **changes}))

    def switched(self, **changes: Any) -> Playbook:
        """Up to the handshake."""
        return self.asked(**changes).backend(self.go, SWITCH)

    def finished(self, play: Playbook, *then: Expected, implicit: bool = False) -> Playbook:
        """From the handshake's success to the client's greeting, and what follows it at once."""
        welcome = self.answers.welcome_inside if implicit else self.answers.welcome
        return self.answered(play, to_client(welcome), *then)

    def answered(self, play: Playbook, *then: Expected) -> Playbook:
        """From the handshake's success to the last answer that we wait for."""
        said = [(to_backend(question),) if question else () for question, _ in self.answers.again]
        first, *others = [*said, then]
        play.secured(*first)
        for (_, answer), step in zip(self.answers.again, others, strict=True):
            play.backend(answer, *step)
        return play

    def sorry(self, key: str, **fields: object) -> tuple[Expected, ...]:
        """What follows where no address is left: the log knows why, the client does not."""
        return note(key, **fields), to_client(self.regrets), ABORT_BACKEND, close(key)

    @property
    def regrets(self) -> bytes:
        """What the client hears where no address is left."""
        return self.answers.unavailable


@dataclass(frozen=True, eq=False)
class Party(Anyone):
    """... whose server greets, and that has commands."""

    answers: Answers

    def dialled(self, *, others: bool = False, **changes: Any) -> Playbook:
        """A backend that has not greeted yet, for a client that is inside TLS where that comes first."""
        limits = {name: changes.pop(name) for name in ("may_log_in", "moved") if name in changes}
        agreed = terms(**{"received": False, **changes})
        play = Playbook(self.dialect, agreed, others=others, **limits)
        if agreed.implicit:
            return play.start(tls(b"")).secured(DIAL).dialled(*self.hello(agreed.backend_tls))
        return play.start(DIAL).dialled(*self.hello(agreed.backend_tls))

    def greeted(self, **changes: Any) -> Playbook:
        """... that has greeted: on a plaintext port unless told otherwise."""
        told = self.greeting_inside if changes.get("implicit") else self.answers.greeting
        return self.dialled(**changes).backend(self.answers.greeting, to_client(told))

    def opened(self, **changes: Any) -> Playbook:
        return self.greeted(**changes)

    def alive(self, play: Playbook) -> Playbook:
        return self.leaves(play)

    @property
    def parting(self) -> Expected:
        return to_backend(self.answers.farewell)

    def owed(self) -> Playbook:
        return self.inside().passes(self.answers.command.said)

    def logs_in(self, play: Playbook) -> Playbook:
        return play.passes(self.answers.login)

    def refuses_login(self, play: Playbook, *then: Expected) -> Playbook:
        return play.client(self.answers.login, *then, to_client(self.answers.closed_login))

    def opening(self, cut: int = 0, **changes: Any) -> Stage:
        stage = self.stage(cut, **changes)
        stage.receive(BACKEND, self.answers.greeting)
        return stage

    def lazy(self, **changes: Any) -> Playbook:
        """Inside TLS; the backend is dialled only where the server speaks first again."""
        if self.answers.reissue is None:
            return self._lazy(**changes).secured()
        play = self.lazy_dials(**changes).dialled()
        return play.backend(self.answers.greeting, to_client(self.greeting_inside))

    def lazy_dials(self, *then: Expected, **changes: Any) -> Playbook:
        """Inside TLS; the backend is needed now, since it is asked, or since the server speaks first again.

        `then` is what follows where it is not dialled.
        """
        expected = then or (DIAL,)
        if self.answers.reissue is None:
            return self._lazy(**changes).secured().client(self.answers.listing.said, *expected)
        return self._lazy(**changes).secured(*expected)

    def lazy_goes_on(self, greeting: bytes | None = None) -> Expected:
        """... and what follows the backend's greeting then; `greeting` is what a client inside TLS gets of it."""
        if self.answers.reissue is None:
            return to_backend(self.answers.listing.said)
        return to_client(self.greeting_inside if greeting is None else greeting)

    def _lazy(self, **changes: Any) -> Playbook:
        """Up to the client's handshake."""
        said, told = self.answers.starttls
        agreed = terms(**{"received": False, "lazy": True, **changes})
        play = Playbook(self.dialect, agreed, others=True).start(to_client(self.answers.lazy_greeting))
        return play.client(said, tls(told))

    @property
    def greeting_inside(self) -> bytes:
        """What a client inside TLS gets of the backend's greeting."""
        inside = self.answers.greeting_inside
        return self.answers.greeting if inside is None else inside

    def stage(self, cut: int = 0, others: bool = False, **changes: Any) -> Stage:
        """Dialled, for tests that look at every deed themselves."""
        stage = Stage(self.dialect, terms(**{"received": False, **changes}), cut, others)
        stage.take(stage.negotiation.start())
        if stage.switching is CLIENT:
            stage.secured(TLS13)
        stage.take(stage.negotiation.dialled())
        return stage

    def leaves(self, play: Playbook) -> Playbook:
        """The session is alive: the client says goodbye and the backend answers."""
        said, answered = self.answers.leave
        return play.asks(said, answered, close("quit"))

    @property
    def offer(self) -> bytes:
        """The backend's greeting."""
        return self.answers.offer

    @property
    def clear(self) -> tuple[bytes, ...]:
        """What the backend says in the clear."""
        return (self.offer, *(answer for _, answer in self.questions))

    def begun(self, play: Playbook) -> Playbook:
        """From the greeting to our STARTTLS."""
        said = self.offer
        for question, answer in self.questions:
            play.backend(said, to_backend(question))
            said = answer
        return play

    def secured(self, *then: Expected, implicit: bool = False, **changes: Any) -> Playbook:
        """Up to the client's greeting."""
        return self.finished(self.switched(implicit=implicit, **changes), *then, implicit=implicit)

    def told(self, telling: Telling, play: Playbook) -> Playbook:
        """Up to the last thing that we say of the client."""
        said = telling.offer
        for question, answer in telling.exchanges:
            play.backend(said, to_backend(question))
            said = answer
        return play


@dataclass(frozen=True, eq=False)
class Caller(Anyone):
    """... whose client speaks first, and whose first words are its login."""

    answers: ClientFirst

    def opened(self, **changes: Any) -> Playbook:
        limits = {name: changes.pop(name) for name in ("may_log_in", "moved", "others") if name in changes}
        agreed = terms(**{"received": False, **changes})
        play = Playbook(self.dialect, agreed, **limits)
        return play.start(tls(b"")).secured() if agreed.implicit else play.start()

    def opening(self, cut: int = 0, **changes: Any) -> Stage:
        stage = Stage(self.dialect, terms(**{"received": False, **changes}), cut)
        stage.take(stage.negotiation.start())
        if stage.switching is CLIENT:
            stage.secured(TLS13)
        return stage

    def dialled(self, *, others: bool = False, **changes: Any) -> Playbook:
        """Of a client that may log in: inside TLS."""
        play = self.opened(others=others, **{"implicit": True, **changes})
        if not changes.get("implicit", True):
            said, told = self.answers.starttls
            play.client(said, tls(told)).secured()
        return play.client(self.answers.login, DIAL).dialled(*self.hello(changes.get("backend_tls", BackendTLS.NONE)))

    def hello(self, mode: BackendTLS = BackendTLS.NONE) -> tuple[Expected, ...]:
        match mode:
            case BackendTLS.NONE:
                return (to_backend(self.answers.knock or self.answers.login),)
            case BackendTLS.STARTTLS:
                return (to_backend(self.questions[0].said),)
        return super().hello(mode)

    def alive(self, play: Playbook) -> Playbook:
        if not self.answers.judges:
            return play.dialled(to_backend(self.answers.login))
        return play.client(self.answers.login, DIAL)

    @property
    def parting(self) -> Expected:
        return ABORT_BACKEND

    def owed(self) -> Playbook:
        return self.logs_in(self.ready())

    def may_log_in(self) -> Playbook:
        return self.greets(self.ready().client(self.answers.login, DIAL).dialled(*self.hello()))

    def logs_in(self, play: Playbook) -> Playbook:
        """The backend is dialled, asks for the credentials, and gets them."""
        answers = self.answers
        self.greets(play.client(answers.login, DIAL).dialled(*self.hello()))
        if not answers.judges:
            return play
        return play.passes(answers.credentials)

    @property
    def phase_inside(self) -> str:
        return "secure" if self.answers.judges else "dialling"

    def inside(self, **changes: Any) -> Playbook:
        return super().inside(**changes) if self.answers.judges else self.opened(**{**changes, "implicit": True})

    def entered(self, play: Playbook) -> Playbook:
        return super().entered(play) if self.answers.judges else play.secured(DIAL)

    def greets(self, play: Playbook, *then: Expected) -> Playbook:
        if not self.answers.judges:
            return super().greets(play, SPLICE, *then)
        if not self.answers.knock:
            return super().greets(play, *then)
        return play.backend(self.answers.greeting, to_backend(self.answers.login), *then)

    def finished(self, play: Playbook, *then: Expected, implicit: bool = False) -> Playbook:
        if not self.answers.judges:
            return super().finished(play, SPLICE, *then, implicit=implicit)
        if not self.answers.knock:
            return super().finished(play, *then, implicit=implicit)
        return self.answered(play, to_backend(self.answers.login), *then)

    def refuses_login(self, play: Playbook, *then: Expected) -> Playbook:
        reason = self.answers.closed_reason
        ending = [close(reason)] * bool(reason)
        said = self.answers.early or self.answers.login
        return play.client(said, *then, to_client(self.answers.closed_login), *ending)

    @property
    def regrets(self) -> bytes:
        return self.answers.owed + self.answers.unavailable

    @property
    def clear(self) -> tuple[bytes, ...]:
        return tuple(answer for _, answer in self.questions)

    def begun(self, play: Playbook) -> Playbook:
        """Its first question is said already."""
        for (_, said), (question, _) in pairwise(self.questions):
            play.backend(said, to_backend(question))
        return play


def answers_of(name: str) -> Named | None:
    """None where there are none yet."""
    module = f"tests.pure.contract.answers.{name.replace('-', '_')}"
    try:
        found: Named = importlib.import_module(module).ANSWERS
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None
    return found


FOUND = [(dialect, found) for dialect in DIALECTS.values() if (found := answers_of(dialect.name))]
PARTIES = tuple(Party(dialect, found) for dialect, found in FOUND if isinstance(found, Answers))
CALLERS = tuple(Caller(dialect, found) for dialect, found in FOUND if isinstance(found, ClientFirst))
EVERYONE: tuple[Anyone, ...] = (*PARTIES, *CALLERS)
REGISTERED = (*EVERYONE, *(Registered(dialect, found) for dialect, found in FOUND if isinstance(found, Apart)))

ANSWERS = {str(party): party.answers for party in PARTIES}

every_registered = pytest.mark.parametrize("party", REGISTERED, ids=str)
"""What is about names and configuration."""
everyone = pytest.mark.parametrize("party", EVERYONE, ids=str)
"""What holds for every protocol."""
every_judged = pytest.mark.parametrize(
    "party", [party for party in EVERYONE if not isinstance(party, Caller) or party.answers.judges], ids=str
)
"""What is about the backend's verdict on a login."""
every_stranger_to_http = pytest.mark.parametrize("party", [one for one in EVERYONE if not one.answers.web], ids=str)
"""What is about HTTP as another protocol."""
every_waiting = pytest.mark.parametrize(
    "party", [party for party in EVERYONE if not isinstance(party, Caller) or party.answers.lockstep], ids=str
)
"""What is about an answer that is waited for."""
every_party = pytest.mark.parametrize("party", PARTIES, ids=str)
"""What is about a greeting, a command or a listing."""
every_dialogue = pytest.mark.parametrize("party", [one for one in PARTIES if one.answers.taken_back], ids=str)
"""What is about a login whose credentials are asked for."""
every_sasl = pytest.mark.parametrize("party", [one for one in EVERYONE if one.answers.named is not None], ids=str)
"""What is about the names of mechanisms."""
every_caller = pytest.mark.parametrize("party", CALLERS, ids=str)
"""What is about a client that speaks first."""


SMTP, IMAP, POP3 = (next(party for party in PARTIES if str(party) == name) for name in ("smtp", "imap", "pop3"))
"""For what is about one protocol only."""


def short(value: object) -> str:
    """A test's name for a value."""
    return ascii(value[:30])[2:-1] if isinstance(value, bytes) else str(getattr(value, "value", value))[:30]
