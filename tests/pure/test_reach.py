"""The way to the backend over several addresses: what counts as reached, what as failed, and what the client hears.

See test_reach_tls.py for TLS on the way, test_reach_identity.py for whom the backend is told of.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.dialects.base import BackendTLS, Identity
from gateway.dialects.reach import CLOSED
from gateway.protocol.vocabulary import Dial, Expired, Greeted, Note, Patience, Side
from gateway.protocol.waiting import lateness
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    SINGLE,
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
from tests.pure.reaching import BACKEND, HERE, IMAP, POP3, SMTP, SWITCH, WAYS, Way, short

CLIENT = Side.CLIENT
GREETED = Greeted()
PLAIN = BackendTLS.NONE

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def dialled(way: Way, others: bool = True) -> Playbook:
    return way.dialled(others=others, backend_tls=PLAIN)


def greets(way: Way, play: Playbook, *then: Expected) -> Playbook:
    greeting = way.greeting.replace(b" STARTTLS LOGINDISABLED ID CLEAR", b" AUTH=PLAIN INSIDE")
    return play.backend(greeting, to_client(way.welcome), *then)


Failing = Callable[[Playbook, Expected], Playbook]

FAILURES: dict[str, tuple[str, Failing]] = {
    "closes": (CLOSED, lambda play, then: play.ended(BACKEND, True, then)),
    "resets": (CLOSED, lambda play, then: play.ended(BACKEND, False, then)),
    "closes midway": (CLOSED, lambda play, then: play.backend(b"22").ended(BACKEND, True, then)),
    "is silent": (
        "backend-greeting-timeout",
        lambda play, then: play.expire(Expired(BACKEND, Patience.GREETING), then),
    ),
    "speaks SSH": ("backend-bad-greeting", lambda play, then: play.backend(b"SSH-2.0-x\r\n", then)),
    "speaks without end": ("backend-bad-greeting", lambda play, then: play.backend(b"x" * 8193 + b"\n", then)),
}
every_failure = pytest.mark.parametrize("failure", FAILURES)


@every_way
@every_failure
def test_a_failed_address_is_followed_by_the_next(way: Way, failure: str) -> None:
    key, fail = FAILURES[failure]
    greets(way, fail(dialled(way), Dial(key)).dialled(), GREETED).run()


@every_way
@every_failure
def test_where_none_is_left_the_client_hears_so_and_the_log_knows_the_last_failure(way: Way, failure: str) -> None:
    key, fail = FAILURES[failure]
    play = fail(dialled(way), Dial(key))
    play.undialled(*way.sorry(key)).run()
    assert [note.event for note in play.notes] == [key]
    play = fail(dialled(way), Dial(key)).dialled()
    play.backend(b"nonsense\r\n", Dial("backend-bad-greeting"))
    play.undialled(*way.sorry("backend-bad-greeting"), detail="none is left").run()
    assert "nonsense" in play.detail


@every_way
def test_where_nothing_answers_at_all_the_log_knows_why(way: Way) -> None:
    play = Playbook(way.dialect, terms(), others=True).start(DIAL)
    play.undialled(*way.sorry("backend-connect-failed"), detail="10.0.0.5:25: Connection refused").run()
    assert play.detail == "10.0.0.5:25: Connection refused"
    play = Playbook(way.dialect, terms(), others=True).start(DIAL)
    late = Expired(BACKEND, Patience.CONNECT)
    play.expire(late, *way.sorry("backend-connect-failed", detail="timeout")).run()


@every_way
def test_a_next_address_that_does_not_answer_leaves_the_first_failure_to_be_told(way: Way) -> None:
    play = dialled(way).backend(b"nonsense\r\n", Dial("backend-bad-greeting"))
    play.expire(Expired(BACKEND, Patience.CONNECT), *way.sorry("backend-bad-greeting")).run()


@every_way
def test_what_the_failed_one_said_is_not_the_next_ones(way: Way) -> None:
    """Half a line, or a whole one more: it is gone with its connection."""
    stage = Stage(way.dialect, terms(), others=True)
    stage.take(stage.negotiation.start())
    stage.take(stage.negotiation.dialled())
    stage.receive(BACKEND, b"nonsense\r\n" + way.greeting + b"* OK")
    assert stage.deeds == [DIAL, Dial("backend-bad-greeting")]
    stage.take(stage.negotiation.dialled())
    stage.receive(BACKEND, way.greeting)
    assert stage.heard_by(CLIENT).endswith(b"hi\r\n" if way is not SMTP else b"ESMTP\r\n")
    assert stage.heard_by(CLIENT).count(b"\r\n") == 1


@pytest.mark.parametrize(("way", "refusal"), [(SMTP, b"554 no\r\n"), (IMAP, b"* BYE no\r\n"), (POP3, b"-ERR no\r\n")],
                         ids=short)  # fmt: skip
def test_a_backend_that_refuses_has_spoken_for_all_of_them(way: Way, refusal: bytes) -> None:
    """It is in health; who asks elsewhere what one server has refused is a nuisance (RFC 5321 5.1)."""
    ending = () if way is SMTP else (close("backend-refused"),)
    dialled(way).backend(refusal, GREETED, note("backend-refused"), to_client(refusal), *ending).run()


@every_way
def test_a_backend_is_in_health_once(way: Way) -> None:
    stage = Stage(way.dialect, terms(), SINGLE)
    stage.take(stage.negotiation.start())
    stage.take(stage.negotiation.dialled())
    stage.receive(BACKEND, way.greeting)
    stage.receive(CLIENT, b"".join(way.login))
    assert [deed for deed in stage.deeds if not isinstance(deed, Note)].count(GREETED) == 1


# --- the client meanwhile -------------------------------------------------------------------------


def between(way: Way) -> Playbook:
    """The first address has failed after it had answered a question of ours, the next one is being dialled."""
    play = way.asked(others=True).backend(way.go, SWITCH)
    return play.unsecured(Dial("backend-tls-failed"))


@every_way
@pytest.mark.parametrize("orderly", [True, False])
def test_a_client_that_leaves_while_addresses_are_tried(way: Way, orderly: bool) -> None:
    """Nobody is said goodbye to, since nobody is there."""
    lost = (ABORT_BACKEND, close("client-lost"))
    between(way).ended(CLIENT, orderly, *lost).run()
    way.dialled(others=True).ended(CLIENT, orderly, *lost).run()
    between(way).dialled().ended(CLIENT, orderly, *lost).run()


@every_way
def test_a_client_that_is_cut_off_meanwhile(way: Way) -> None:
    timeout = Expired(CLIENT, Patience.COMMAND)
    told: dict[str, tuple[Expected, ...]] = {
        "smtp": (to_client(way.unavailable),),
        "imap": (to_client(b"* BYE Autologout; idle for too long\r\n"),),
        "pop3": (),
    }
    ending = (note("client-timeout"), *told[str(way)], ABORT_BACKEND, close("client-timeout"))
    between(way).expire(timeout, *ending).run()
    way.dialled(others=True).expire(timeout, *ending).run()
    way.asked(others=True).backend(way.go, SWITCH).expire(timeout, *ending).run()


@every_way
def test_a_gateway_that_stops_meanwhile(way: Way) -> None:
    words = b"* BYE Server shutting down\r\n" if way is IMAP else way.unavailable
    between(way).stop(to_client(words), ABORT_BACKEND, close("shutdown")).run()
    way.asked().backend(way.go, SWITCH).stop(to_client(words), ABORT_BACKEND, close("shutdown")).run()


@every_way
def test_a_client_that_speaks_TLS_meanwhile(way: Way) -> None:
    ending = (note("tls-on-plaintext-port"), ABORT_BACKEND, close("tls-on-plaintext-port"))
    between(way).client(b"\x16\x03\x01", *ending).run()


@every_way
def test_lines_without_end_from_an_early_client_are_not_held_against_the_backend(way: Way) -> None:
    play = dialled(way).client(b"x" * 100).wants(CLIENT).client(b"x" * 9000).wants(CLIENT, False)
    greets(way, play, GREETED).run((0, 977))


# --- lazy -----------------------------------------------------------------------------------------


def lazy(way: Way, **changes: object) -> tuple[Playbook, bytes]:
    """Inside TLS, and the command that needs the backend."""
    agreed = terms(lazy=True, received=False, **changes)
    stage = Stage(way.dialect, agreed)
    stage.take(stage.negotiation.start())
    welcome = stage.heard_by(CLIENT)
    starttls = {"smtp": b"STARTTLS\r\n", "imap": b"b STARTTLS\r\n", "pop3": b"STLS\r\n"}[str(way)]
    stage.receive(CLIENT, starttls)
    go = stage.heard_by(CLIENT).removeprefix(welcome)
    play = Playbook(way.dialect, agreed, others=True).start(to_client(welcome))
    play.client(starttls, tls(go)).secured()
    return play, {"smtp": b"EHLO me\r\n", "imap": b"a CAPABILITY\r\n", "pop3": b"CAPA\r\n"}[str(way)]


DOWN = {
    "smtp": b"421 4.3.2 gw.example.org Service not available, closing transmission channel\r\n",
    "imap": b"a NO [UNAVAILABLE] Service temporarily unavailable\r\n"
    b"* BYE [UNAVAILABLE] Service temporarily unavailable\r\n",
    "pop3": b"-ERR [SYS/TEMP] Service temporarily unavailable\r\n",
}


@every_way
@every_failure
def test_a_lazy_session_goes_the_same_way(way: Way, failure: str) -> None:
    key, fail = FAILURES[failure]
    play, command = lazy(way)
    play = fail(play.client(command, DIAL).dialled(), Dial(key)).dialled()
    play.backend(way.greeting, GREETED, to_backend(command)).run()

    play, command = lazy(way)
    play = fail(play.client(command, DIAL).dialled(), Dial(key))
    play.undialled(note(key), to_client(DOWN[str(way)]), ABORT_BACKEND, close(key)).run()


@every_way
def test_a_lazy_session_hears_no_detail_of_TLS_or_identity(way: Way) -> None:
    play, command = lazy(way, backend_tls=BackendTLS.IMPLICIT)
    play.client(command, DIAL).dialled(SWITCH).unsecured(Dial("backend-tls-failed"), detail="expired")
    ending = (to_client(DOWN[str(way)]), ABORT_BACKEND)
    play.undialled(note("backend-tls-failed", detail="expired"), *ending, close("backend-tls-failed")).run()

    play, command = lazy(way, identity=Identity.PROXY_V1)
    refused = "backend-identity-refused"
    play.client(command, note(refused), *ending, close(refused)).run()


@pytest.mark.parametrize("way", [IMAP, POP3], ids=str)
def test_T03_a_lazy_session_with_a_backend_that_refuses(way: Way) -> None:
    play, command = lazy(way)
    refusal = b"* BYE busy\r\n" if way is IMAP else b"-ERR busy\r\n"
    told = refusal + command.split()[0] + b" NO busy\r\n" if way is IMAP else refusal
    refused = (note("backend-refused"), to_client(told), close("backend-refused"))
    play.client(command, DIAL).dialled().backend(refusal, GREETED, *refused).run()


# --- what an operator can tell apart --------------------------------------------------------------


@pytest.mark.parametrize(("way", "identity"), [(SMTP, Identity.XCLIENT), (POP3, Identity.XCLIENT), (IMAP, Identity.ID)],
                         ids=short)  # fmt: skip
def test_every_failure_on_the_way_has_an_event_of_its_own(way: Way, identity: Identity) -> None:
    """And each is of the backend's, so that it is never taken for an attack of the client's."""
    whole = (way.greeting, *(answer for _, answer in way.asks), way.go)
    troubles: list[Callable[[Stage], None]] = [
        lambda stage: stage.take(stage.negotiation.ended(BACKEND, False)),
        lambda stage: stage.receive(BACKEND, b"\0\r\n"),
        lambda stage: stage.take(stage.negotiation.expire(lateness(stage.negotiation.waiting))),
    ]
    for trouble in troubles:
        for said in range(len(whole) + 1):
            agreed = terms(backend_tls=BackendTLS.STARTTLS, identity=identity, origin=HERE)
            stage = Stage(way.dialect, agreed)
            stage.take(stage.negotiation.start())
            stage.take(stage.negotiation.dialled())
            for octets in whole[:said]:
                stage.receive(BACKEND, octets)
            if stage.switching is BACKEND:
                stage.unsecured("x")
            else:
                trouble(stage)
            assert stage.negotiation.over
            assert stage.heard_by(CLIENT) == way.unavailable
            (told,) = [deed for deed in stage.deeds if isinstance(deed, Note)]
            assert told.event.startswith("backend-")


@every_way
def test_an_address_that_failed_is_told_although_another_one_serves(way: Way) -> None:
    """An expired certificate on the first of two servers would go unnoticed for ever."""
    play = way.dialled(others=True).backend(b"nonsense\r\n", Dial("backend-bad-greeting"))
    play.dialled(note("backend-bad-greeting")).run()
    assert [dict(each.fields)["detail"] for each in play.notes] == ["b'nonsense'; another address is tried"]
