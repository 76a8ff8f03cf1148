"""What `probe` says to XMPP servers, and what it makes of their replies."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.access import Seen
from gateway.dialects.chat.xmpp import words
from gateway.protocol.vocabulary import Close, Violation
from tests.pure.contract.answers.xmpp import CLOSE, OFFER, PROCEED, SASL, STARTTLS, answer, error, features
from tests.pure.probes import Server, play, talk

HEADER = words.header(words.CLIENTS, to=b"probe.example.net")
AUTH = b"<auth%s mechanism='PLAIN'/>" % SASL
ABORT = b"<abort%s/>" % SASL
TLS_FIRST = b"<failure%s><encryption-required/></failure>" % SASL
CLEAR = answer(OFFER)


class Streams(Server):
    """Its features inside TLS are others than before."""

    def secured(self) -> bytes:
        self.answers = {**self.answers, HEADER: answer(features(b"PLAIN"))}
        return super().secured()


def server(answers: Mapping[bytes, bytes] | None = None) -> Server:
    known = {HEADER: CLEAR, AUTH: TLS_FIRST, STARTTLS: PROCEED, CLOSE: CLOSE, ABORT: b"<failure%s/>" % SASL}
    return Streams({**known, **(answers or {})}, STARTTLS)


def test_a_login_is_tried_in_the_clear_and_no_secret_is_said() -> None:
    there, one = server(), talk("xmpp")
    assert play(one.in_the_clear(), there) == Close("quit")
    assert there.heard == [HEADER, AUTH, CLOSE]
    assert one.greeted
    assert one.first == one.answer == CLEAR
    assert [attempt.taken(reply) for attempt, reply in one.tried] == [False]


@pytest.mark.parametrize("reply", [b"<challenge%s/>" % SASL, b"<success%s></success>" % SASL])
def test_a_login_that_is_taken_is_cancelled(reply: bytes) -> None:
    there, one = server({AUTH: reply}), talk("xmpp")
    play(one.in_the_clear(), there)
    assert there.heard == [HEADER, AUTH, ABORT, CLOSE]
    assert [attempt.taken(reply) for attempt, reply in one.tried] == [True]


def test_servers_are_not_asked_for_a_login_of_clients() -> None:
    header = words.header(words.SERVERS, to=b"probe.example.net")
    there, one = server({header: CLEAR}), talk("xmpp-server")
    play(one.in_the_clear(), there)
    assert there.heard == [header, CLOSE]


def test_logins_in_the_clear_are_seen() -> None:
    question = DIALECTS["xmpp"].question
    assert question is not None
    listed = question.listed(answer(features(b"PLAIN", b"SCRAM-SHA-1", more=STARTTLS)))
    access = question.access(Seen(b"", listed, listed, ()))
    assert (access.logins, access.starttls) == (("PLAIN", "SCRAM-SHA-1"), True)
    assert listed == [b"starttls", b"mechanism PLAIN", b"mechanism SCRAM-SHA-1"]
    assert question.listed(CLEAR) == [b"starttls required"]
    assert question.access(Seen(b"", [b"starttls required"], [b"starttls required"], ())).starttls


@pytest.mark.parametrize("inject", [False, True])
def test_an_honest_server_says_nothing_more_than_it_is_asked(inject: bool) -> None:
    there, one = server(), talk("xmpp")
    assert play(one.secured(implicit=False, inject=inject), there) == Close("quit")
    assert (one.go_ahead, one.failure, one.behind, one.surplus) == (PROCEED, "", "", b"")
    assert one.inside == answer(features(b"PLAIN"))
    assert there.heard == [HEADER, STARTTLS, HEADER, CLOSE]


def test_tls_comes_first_on_an_implicit_port() -> None:
    there, one = server(), talk("xmpp")
    assert play(one.secured(implicit=True), there) == Close("quit")
    assert there.heard == [HEADER, CLOSE]
    assert one.inside == one.first == answer(features(b"PLAIN"))


def test_a_header_behind_starttls_that_is_answered_inside_tls_is_noticed() -> None:
    there, one = server(), talk("xmpp")
    there.executes = True
    assert play(one.secured(implicit=False, inject=True), there) == Close("quit")
    assert one.surplus.startswith(b"restricted-xml: ")
    there, one = (
        server({CLOSE: error(b"not-well-formed")}),
        talk("xmpp"),
    )  # one that takes the second header for an error
    assert play(one.secured(implicit=False, inject=True), there) == Close("quit")
    assert one.surplus == CLOSE


def test_nonsense_inside_tls_is_no_sign_where_nothing_was_injected() -> None:
    with pytest.raises(Violation, match="backend-protocol-error"):
        play(talk("xmpp").secured(implicit=False), server({CLOSE: b"<!DOCTYPE x>"}))


def test_a_server_that_does_not_know_the_domain_ends_the_talk() -> None:
    there, one = server({HEADER: answer(error(b"host-unknown"))}), talk("xmpp")
    with pytest.raises(Violation, match="backend-refused"):
        play(one.in_the_clear(), there)
    assert not one.greeted
