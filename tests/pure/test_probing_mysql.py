"""What `probe` says to MySQL servers, and what it makes of their replies."""

from __future__ import annotations

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.access import Seen
from gateway.dialects.database.mysql import offers_tls
from gateway.dialects.talk import is_bare
from gateway.protocol.driver import Negotiation
from gateway.protocol.vocabulary import Close, Expired, Patience, Script, Send, Side, StartTLS, Violation
from tests.pure.contract.answers.mysql import NATIVE, QUIT, error, greeting
from tests.pure.playbook import TLS13
from tests.pure.probes import talk

BACKEND = Side.BACKEND
REQUEST = bytes.fromhex("20000001 008a0800 00000100 21") + bytes(23)
LOGIN = bytes.fromhex("49000002 008a0800 00000100 21") + bytes(23) + b"starttls-gateway-probe\0\0starttls_gateway\0"


def play(script: Script, hello: bytes, inside: bytes = b"", *, implicit: bool = False) -> tuple[bytes, Close]:
    """What was said before TLS, and the end.  `inside`: what the server says of itself inside TLS."""
    negotiation = Negotiation(script)
    negotiation.start()
    todo = negotiation.dialled()
    if not implicit:
        todo = negotiation.receive(BACKEND, hello)
    said = b"".join(action.data for action in todo if isinstance(action, Send))
    if StartTLS(BACKEND) in todo:
        todo = negotiation.secured(BACKEND, TLS13)
        if inside:
            todo += negotiation.receive(BACKEND, inside)
        if not any(isinstance(action, Close) for action in todo):
            todo += negotiation.expire(Expired(BACKEND, Patience.REPLY))
        assert not any(isinstance(action, Send) for action in todo)
    (end,) = (action for action in todo if isinstance(action, Close))
    return said, end


def test_the_greeting_is_all_that_is_heard_in_the_clear() -> None:
    one = talk("mysql")
    assert play(one.in_the_clear(), greeting(ssl=True)) == (b"", Close("quit"))
    assert one.greeted
    assert one.answer == one.greeting == greeting(ssl=True)


@pytest.mark.parametrize("inject", [False, True])
def test_an_honest_server_says_nothing_inside_tls(inject: bool) -> None:
    one = talk("mysql")
    assert play(one.secured(implicit=False, inject=inject), greeting(ssl=True)) == (
        REQUEST + LOGIN * inject,
        Close("quit"),
    )
    assert (one.failure, one.behind, one.inside, one.surplus) == ("", "", b"", b"")


def test_a_login_behind_the_request_that_is_answered_inside_tls_is_noticed() -> None:
    one = talk("mysql")
    play(one.secured(implicit=False, inject=True), greeting(ssl=True), NATIVE)
    assert one.surplus == NATIVE


def test_a_server_without_tls_is_not_asked_for_it() -> None:
    one = talk("mysql")
    assert play(one.secured(implicit=False), greeting()) == (b"", Close("refused"))
    assert one.failure == "the server refuses it"


def test_tls_comes_first_on_an_implicit_port() -> None:
    one = talk("mysql")
    assert play(one.secured(implicit=True), b"", greeting(), implicit=True) == (b"", Close("quit"))
    assert one.greeted


def test_a_server_that_turns_clients_away_ends_the_talk() -> None:
    with pytest.raises(Violation, match="backend-refused"):
        play(talk("mysql").in_the_clear(), error(0, 1040, b"", b"Too many connections"))


def test_the_greeting_tells_of_tls_and_of_the_login() -> None:
    question = DIALECTS["mysql"].question
    assert question is not None
    for plugin, bare in ((b"mysql_native_password", False), (b"mysql_clear_password", True), (b"dialog", True)):
        access = question.access(Seen(greeting(plugin, ssl=True), None, None, ()))
        assert access.starttls
        assert access.logins == (plugin.decode(),)
        assert [is_bare(each) for each in access.logins] == [bare]
    assert not offers_tls(greeting())
    assert not offers_tls(b"")
    assert not offers_tls(QUIT)
