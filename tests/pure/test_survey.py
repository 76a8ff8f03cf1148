"""A look at a backend: what it is asked, and what is seen of it with a client's eyes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.access import Access
from gateway.dialects.base import Dialect, Identity, Policy, Terms
from gateway.dialects.mail.imap import capabilities
from gateway.dialects.mail.pop3 import words
from gateway.dialects.mail.smtp import replies
from gateway.dialects.scripted import INSIDE, ScriptedClient
from gateway.dialects.survey import unreached
from gateway.protocol.framing import Lines
from gateway.protocol.proxyprotocol import SIGNATURE, Origin, v2
from gateway.protocol.vocabulary import (
    Await,
    Close,
    Dial,
    Expired,
    Lost,
    Patience,
    Script,
    Send,
    Side,
    StartTLS,
)
from tests.pure.contract.party import HERE
from tests.pure.looking import Looking
from tests.pure.playbook import ABORT_BACKEND, DIAL, Playbook, close, terms, to_backend

BACKEND, CLIENT = Side.BACKEND, Side.CLIENT
IMAP, POP3, SMTP = (DIALECTS[name] for name in ("imap", "pop3", "smtp"))


EHLO = b"EHLO gw.example.org\r\n"
MAIL = to_backend(b"MAIL FROM:<>\r\n")
RSET = to_backend(b"RSET\r\n")
USER = to_backend(b"USER starttls-gateway-check\r\n")
OK = b"250 ok\r\n"
REPLY = b"250-legacy\r\n250-SIZE 10\r\n250-STARTTLS\r\n250-XCLIENT NAME ADDR\r\n250 AUTH PLAIN EXTERNAL\r\n"


def test_an_SMTP_server_from_before_ESMTP_lists_nothing() -> None:
    looking = Looking(SMTP)
    looking.play.dialled().backend(b"220 legacy\r\n", to_backend(EHLO))
    looking.play.backend(b"502 what\r\n", to_backend(b"HELO gw.example.org\r\n"))
    looking.play.backend(b"250 legacy\r\n", MAIL).backend(OK, RSET).backend(OK, to_backend(b"QUIT\r\n"))
    looking.play.backend(b"221 bye\r\n", close("quit"))
    survey = looking.found()
    assert survey.offered is None
    assert survey.shown == []


def test_an_IMAP_servers_literal_is_nobodys() -> None:
    looking = Looking(IMAP)
    looking.play.dialled().backend(b"* OK hi\r\n", to_backend(b"sgw7 CAPABILITY\r\n"))
    looking.play.backend(b"* X {5}\r\nab\r\nc\r\nsgw7 BAD no\r\n", to_backend(b"sgw8 LOGOUT\r\n"))
    looking.play.backend(b"sgw8 OK bye\r\n", close("quit"))
    assert looking.found().offered is None


@pytest.mark.parametrize(("listed", "reply"), [
    (replies.listed, b""), (replies.listed, b"502 what\r\n"), (capabilities.listed, b""),
    (capabilities.listed, b"sgw7 BAD what\r\n"),
    (words.listed, b""), (words.listed, b"-ERR what\r\n"),
])  # fmt: skip
def test_what_is_no_list_is_none(listed: Any, reply: bytes) -> None:
    assert listed(reply) is None


# --- who is there ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("identity", "origin", "header"), [
    (Identity.NONE, HERE, b""),
    (Identity.PROXY_V1, HERE, b"PROXY TCP4 192.0.2.10 198.51.100.1 40000 143\r\n"),
    (Identity.PROXY_V1, None, b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n"),
    (Identity.PROXY_V2, HERE, v2(HERE, secured=INSIDE, session="gw1-0001")),
    (Identity.PROXY_V2, None, SIGNATURE + b"\x20\0\0\0"),
])  # fmt: skip
def test_a_backend_is_told_of_the_gateway_itself(identity: Identity, origin: Origin | None, header: bytes) -> None:
    looking = Looking(POP3, origin, identity=identity)
    looking.play.dialled(*[to_backend(header)] * bool(header)).backend(b"+OK hi\r\n", to_backend(b"CAPA\r\n"))
    looking.play.backend(b"-ERR what\r\n", USER).backend(b"+OK\r\n", to_backend(b"QUIT\r\n"))
    looking.play.backend(b"+OK\r\n", close("quit"))
    assert looking.found().greeted


def test_XCLIENT_tells_the_gateways_own_address() -> None:
    looking = Looking(SMTP, identity=Identity.XCLIENT)
    looking.play.dialled().backend(b"220 legacy\r\n", to_backend(EHLO))
    looking.play.backend(
        b"250-legacy\r\n250 XCLIENT ADDR PORT\r\n", to_backend(b"XCLIENT ADDR=192.0.2.10 PORT=40000\r\n")
    )
    looking.play.backend(b"550 no\r\n", ABORT_BACKEND, close("backend-identity-refused"))
    survey = looking.found()
    assert not survey.greeted
    assert survey.offered is None


# --- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", [Identity.PROXY_V1, Identity.PROXY_V2, Identity.XCLIENT])
def test_a_backend_that_is_not_there_has_refused_nobody(identity: Identity) -> None:
    looking = Looking(SMTP, None, identity=identity)
    looking.play.undialled(ABORT_BACKEND, close("backend-connect-failed")).run()


def test_what_lasts_too_long_while_dialling_is_no_different() -> None:
    looking = Looking(IMAP)
    looking.play.expire(Expired(BACKEND, Patience.CONNECT), ABORT_BACKEND, close("backend-connect-failed")).run()


def test_the_next_address_begins_anew() -> None:
    looking = Looking(SMTP, others=True)
    looking.play.dialled().backend(b"SSH-2.0\r\n", Dial("backend-bad-greeting")).dialled()
    looking.play.backend(b"220 second\r\n", to_backend(EHLO)).backend(b"250 second\r\n", MAIL)
    looking.play.backend(OK, RSET).backend(OK, to_backend(b"QUIT\r\n"))
    looking.play.backend(b"221 bye\r\n", close("quit"))
    survey = looking.found()
    assert survey.greeting == b"220 second\r\n"
    assert survey.exchanges[0].heard == b"220 second\r\n"


def test_a_refusal_is_seen_as_clients_see_it() -> None:
    looking = Looking(SMTP)
    looking.play.dialled().backend(b"554 go away\r\n", to_backend(b"QUIT\r\n")).backend(b"221 bye\r\n", close("quit"))
    survey = looking.found()
    assert survey.welcome == b"554 go away\r\n"
    assert survey.offered is None


def test_a_word_that_never_comes_is_a_client_that_left() -> None:
    visits = []

    def script(agreed: Terms) -> Script:
        visits.append(ScriptedClient(POP3, agreed, ()))
        return visits[-1].script()

    play = Playbook(replace(POP3, script=script), terms()).start(DIAL).dialled()
    play.backend(b"+OK hi\r\n", to_backend(b"QUIT\r\n"), close("client-closed")).run()
    assert visits[-1].end == Close("client-closed")


def test_a_dialogue_that_is_through_is_the_end_of_the_visit() -> None:
    def dialogue(agreed: Terms) -> Script:
        yield StartTLS(CLIENT)
        yield Dial()
        heard = yield Await((CLIENT, BACKEND), Patience.COMMAND, Lines(512))
        yield Send(CLIENT, b"to nobody")
        yield Send(BACKEND, heard.text)
        try:
            yield Await((CLIENT,), Patience.COMMAND, Lines(512))
        except Lost:
            return

    visit = ScriptedClient(replace(POP3, script=dialogue), terms(), [b"word"])
    requests: list[object] = list(visit.script())
    assert requests == [Dial(), Send(BACKEND, b"word"), Close("quit")]
    assert visit.exchanges[1].told == b"to nobody"


# --- T17, T18: whether a client is served, and what it sees first ------------------------------------


def test_T17_what_was_tried_tells_whether_a_client_is_served() -> None:
    looking = Looking(SMTP)
    looking.play.dialled().backend(b"220 legacy ESMTP\r\n", to_backend(EHLO))
    looking.play.backend(b"250-legacy\r\n250 STARTTLS\r\n", MAIL)
    looking.play.backend(b"530 5.7.0 Must issue a STARTTLS command first\r\n", RSET).backend(
        b"530 5.7.0 Must issue a STARTTLS command first\r\n", to_backend(b"QUIT\r\n")
    )
    looking.play.backend(b"221 bye\r\n", close("quit"))
    access = looking.found().access
    assert (access.logins, access.starttls) == ((), True)
    assert access.mail is not None
    assert access.mail.taken is False


def test_T17_a_backend_that_leaves_before_it_was_tried_is_known_as_far_as_it_went() -> None:
    looking = Looking(POP3)
    looking.play.dialled().backend(b"+OK hi\r\n", to_backend(b"CAPA\r\n"))
    looking.play.backend(b"+OK\r\nUSER\r\n.\r\n", USER)
    looking.play.ended(BACKEND, True, ABORT_BACKEND, close("backend-lost"))
    assert looking.found().access.logins == ("USER",)


def test_T17_of_a_backend_that_is_not_there_nothing_is_known() -> None:
    looking = Looking(POP3)
    looking.play.undialled(ABORT_BACKEND, close("backend-connect-failed"))
    assert looking.found().access == Access()


def test_T18_without_a_question_the_greeting_is_all() -> None:
    looking = Looking(replace(IMAP, question=None))
    looking.play.dialled().backend(b"* OK hi\r\n", to_backend(b"sgw9 LOGOUT\r\n"), close("client-closed"))
    survey = looking.found()
    assert (survey.welcome, survey.greeted) == (b"* OK hi\r\n", True)
    assert survey.offered is None
    assert survey.access == Access()


@pytest.mark.parametrize(("dialect", "policy", "greeting", "listed"), [
    (SMTP, Policy.AUTH_ONLY, b"220 gw.example.org ESMTP\r\n", [b"ENHANCEDSTATUSCODES", b"STARTTLS"]),
    (IMAP, Policy.REQUIRED, b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] gw.example.org ready\r\n",
     [b"IMAP4rev1", b"STARTTLS", b"LOGINDISABLED"]),
    (IMAP, Policy.OPTIONAL, b"* OK [CAPABILITY IMAP4rev1 STARTTLS] gw.example.org ready\r\n",
     [b"IMAP4rev1", b"STARTTLS"]),
    (POP3, Policy.REQUIRED, b"+OK gw.example.org ready\r\n", [b"STLS"]),
])  # fmt: skip
def test_T18_a_lazy_listener_is_seen_as_its_policy_has_it(
    dialect: Dialect, policy: Policy, greeting: bytes, listed: list[bytes]
) -> None:
    question = dialect.question
    assert question is not None
    seen = unreached(dialect, terms(lazy=True, policy=policy), [question.ask(b"gw.example.org")])
    assert seen[0].told == greeting
    assert question.listed(seen[1].told) == listed


def test_T18_a_script_that_ends_by_itself_is_the_end() -> None:
    def short(agreed: Terms) -> Script:
        yield Send(CLIENT, b"hello")

    assert [exchange.told for exchange in unreached(replace(POP3, script=short), terms(), [])] == [b"hello"]
