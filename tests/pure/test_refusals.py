"""A backend that does not want one client says so in many forms; row T03.  And one that is greeted once, row T02."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.dialects.base import BackendTLS, Identity, Policy
from gateway.dialects.mail.smtp import DIALECT
from gateway.dialects.reach import GREETS_ONCE
from gateway.protocol.vocabulary import Greeted
from tests.pure.contract.party import BACKEND, HERE, IMAP, POP3, SMTP, Party, short
from tests.pure.playbook import (
    ABORT_BACKEND as ABORT,
)
from tests.pure.playbook import (
    DIAL,
    WHOLE,
    Playbook,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)
from tests.pure.smtp_talk import (
    CLOSED,
    DOWN_LATER,
    EHLO,
    GARBAGE,
    GO_AHEAD,
    GREETING,
    OPEN,
    REPLY,
    SECURE,
    authenticated,
    envelope,
    greeted,
    hello,
    upgraded,
)

HELLO = b"EHLO gw.example.org\r\n"
GREETED = Greeted()
BLOCKED = b"521 5.7.1 Service unavailable; client [192.0.2.9] blocked using dnsbl.example\r\n"


def turned_away(play: Playbook, words: bytes) -> Playbook:
    """What follows in SMTP is the client's QUIT, or the backend's end."""
    play.client(b"NOOP\r\n", to_client(b"503 5.5.1 Only QUIT is allowed now\r\n"))
    play.passes(b"QUIT\r\n")
    return play.returns(b"221 bye\r\n", close("quit"))


# --- T03: while the client waits for its greeting ---------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (BLOCKED, BLOCKED),
        (b"220-old.example ESMTP\r\n" + BLOCKED, BLOCKED),
        (b"220-old.example ESMTP\r\n220-please wait\r\n521-5.7.1 no\r\n521 5.7.1 never\r\n",
         b"521-5.7.1 no\r\n521 5.7.1 never\r\n"),
        (b"220-old.example ESMTP\r\n450 4.3.2 Service currently unavailable\r\n",
         b"450 4.3.2 Service currently unavailable\r\n"),
    ],
    ids=short,
)  # fmt: skip
def test_T03_a_teaser_before_an_SMTP_refusal_is_none_of_the_clients_business(said: bytes, told: bytes) -> None:
    play = SMTP.dialled().backend(said, GREETED, note("backend-refused"), to_client(told))
    turned_away(play, told).run()


def test_T03_a_421_behind_a_teaser_ends_the_session() -> None:
    told = b"421 4.7.0 too many connections\r\n"
    play = SMTP.dialled()
    play.backend(b"220-old\r\n" + told, GREETED, to_client(told), close("backend-refused")).run()


@pytest.mark.parametrize("said", [b"220-old\r\n221 bye\r\n", b"220-old\r\n354 go\r\n", b"220-old\r\nwhat\r\n"])
def test_T03_what_refuses_nothing_is_still_no_greeting(said: bytes) -> None:
    SMTP.dialled().backend(said, *SMTP.sorry("backend-bad-greeting")).run()


REFUSED_EHLO = (b"554 5.7.1 not you\r\n", b"550 5.7.1 not you\r\n", b"450 4.7.1 later\r\n", b"421 busy\r\n")


@pytest.mark.parametrize("words", REFUSED_EHLO, ids=short)
@pytest.mark.parametrize("how", [{"backend_tls": BackendTLS.STARTTLS}, {"identity": Identity.XCLIENT, "origin": HERE}],
                         ids=["starttls", "xclient"])  # fmt: skip
def test_T03_a_refusal_of_our_EHLO_is_the_clients_greeting(how: dict[str, Any], words: bytes) -> None:
    play = SMTP.dialled(**how).backend(SMTP.offer, to_backend(HELLO))
    ending = (close("backend-refused"),) if words.startswith(b"421") else ()
    play.returns(words, GREETED, note("backend-refused"), *ending).run()


def test_T03_a_refusal_in_answer_to_our_STARTTLS_is_the_clients_greeting() -> None:
    SMTP.asked().returns(BLOCKED, GREETED, note("backend-refused")).run()


def test_T03_a_421_to_our_STARTTLS_is_the_clients_greeting() -> None:
    SMTP.asked().returns(b"421 bye\r\n", GREETED, close("backend-refused")).run()


def test_T03_an_IMAP_server_that_says_bye_and_leaves_has_refused() -> None:
    bye = b"* BYE too many connections from 192.0.2.10\r\n"
    ending = (GREETED, note("backend-refused"), to_client(bye), close("backend-refused"))
    IMAP.asked().backend(b"* OK hm\r\n" + bye).ended(BACKEND, True, *ending).run()


def test_T03_an_IMAP_server_that_leaves_without_a_word_has_not() -> None:
    IMAP.asked().backend(b"* OK hm\r\n").ended(BACKEND, True, *IMAP.sorry("backend-connect-failed")).run()


@pytest.mark.parametrize("words", [b"-ERR [SYS/TEMP] busy\r\n", b"-ERR [SYS/PERM] not you\r\n"], ids=short)
def test_T03_a_POP3_server_refuses_in_answer_to_our_STLS(words: bytes) -> None:
    ending = (GREETED, note("backend-refused"), to_client(words), close("backend-refused"))
    POP3.asked().backend(words, *ending).run()


@pytest.mark.parametrize(("party", "refusal", "told"), [
    (IMAP, b"* BYE busy\r\n", b"* BYE busy\r\na NO busy\r\n"),
    (POP3, b"-ERR busy\r\n", b"-ERR busy\r\n"),
], ids=short)  # fmt: skip
def test_T03_a_lazy_session_with_a_backend_that_refuses(party: Party, refusal: bytes, told: bytes) -> None:
    refused = (note("backend-refused"), to_client(told), close("backend-refused"))
    party.lazy().client(party.answers.listing.said, DIAL).dialled().backend(refusal, GREETED, *refused).run()


# --- T03: when it has its greeting ------------------------------------------------------------------


@pytest.mark.parametrize("words", [BLOCKED, b"554-5.7.1 no\r\n554 5.7.1 never\r\n", b"450 4.3.2 later\r\n"], ids=short)
def test_T03_a_refusal_that_comes_unasked_is_told_and_ends_the_session(words: bytes) -> None:
    greeted().returns(words, note("backend-refused"), close("backend-refused")).run()


@pytest.mark.parametrize("words", [b"500 5.5.2 what\r\n", b"503 5.5.1 what\r\n", b"250 ok\r\n"], ids=short)
def test_T03_an_answer_to_what_nobody_asked_is_no_refusal(words: bytes) -> None:
    end = (to_client(GARBAGE), ABORT, close("backend-protocol-error"))
    greeted().backend(words, note("backend-protocol-error"), *end).run()


def test_T03_a_421_that_cuts_a_reply_is_told_alone() -> None:
    play = greeted().passes(EHLO)
    said = b"250-legacy.example.org\r\n421 4.3.2 shutting down\r\n"
    play.backend(said, to_client(b"421 4.3.2 shutting down\r\n"), close("backend-closed")).run()


# --- T02: a backend that takes one EHLO --------------------------------------------------------------

ALREADY = b"503 5.5.1 Invalid command: Already identified\r\n"
QUIT = to_backend(b"QUIT\r\n")


def afresh(play: Playbook) -> Playbook:
    """A new connection, over which the client's EHLO goes."""
    return play.dialled().backend(GREETING, to_backend(EHLO)).backend(REPLY, to_client(SECURE))


def test_T02_a_second_EHLO_that_is_refused_goes_to_a_fresh_connection() -> None:
    play = upgraded().passes(EHLO)
    play.backend(ALREADY, note(GREETS_ONCE, text=ALREADY.strip()), QUIT, DIAL)
    envelope(afresh(play)).run()


def test_T02_who_is_known_for_it_gets_one_at_once() -> None:
    play = upgraded(known=frozenset({GREETS_ONCE})).client(EHLO, QUIT, DIAL)
    envelope(afresh(play)).run()
    assert not play.notes


def test_T02_where_nothing_was_said_in_the_clear_nothing_is_given_up() -> None:
    known = frozenset({GREETS_ONCE})
    play = greeted(known=known).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    hello(play).run()


OLD = b"250 legacy\r\n"
SAID = {b"EHLO": (EHLO, REPLY), b"HELO": (b"HELO me\r\n", OLD)}
"""Verb -> the whole line, and the backend's reply."""


@pytest.mark.parametrize("first", SAID)
@pytest.mark.parametrize("second", SAID)
def test_T02_HELO_counts_as_well(first: bytes, second: bytes) -> None:
    line, reply = SAID[first]
    play = greeted(policy=Policy.OPTIONAL).passes(line)
    play.backend(reply, to_client(OPEN if first == b"EHLO" else OLD))
    play.client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    line, reply = SAID[second]
    play.passes(line).backend(ALREADY, QUIT, DIAL)
    told = SECURE if second == b"EHLO" else OLD
    play.dialled().backend(GREETING, to_backend(line)).backend(reply, to_client(told)).run()


@pytest.mark.parametrize("code", [b"500", b"502"])
def test_T02_other_words_for_it_count_where_the_same_was_taken_before(code: bytes) -> None:
    play = upgraded().passes(EHLO).backend(code + b" no\r\n", QUIT, DIAL)
    envelope(afresh(play)).run()


def test_T02_refused_once_more_it_is_the_clients_affair() -> None:
    play = upgraded().passes(EHLO).backend(ALREADY, QUIT, DIAL)
    play.dialled().backend(GREETING, to_backend(EHLO)).returns(ALREADY).run()


def test_T02_before_TLS_it_is_the_clients_affair() -> None:
    hello(greeted(), told=CLOSED).asks(EHLO, ALREADY).run()


def test_T02_a_fresh_connection_that_cannot_be_had_ends_the_session() -> None:
    play = upgraded().passes(EHLO).backend(ALREADY, QUIT, DIAL)
    play.undialled(note("backend-connect-failed"), to_client(DOWN_LATER), ABORT, close("backend-connect-failed")).run()


def test_T02_a_fresh_connection_that_is_refused_is_told_in_the_backends_words() -> None:
    play = upgraded().passes(EHLO).backend(ALREADY, QUIT, DIAL)
    play.dialled().backend(b"450 4.7.0 later\r\n", to_client(b"554 4.7.0 later\r\n")).run()


def test_T02_what_the_old_connection_still_says_is_nobodys() -> None:
    play = upgraded().passes(EHLO).backend(ALREADY + b"221 bye\r\n", QUIT, DIAL)
    afresh(play).run((WHOLE,))


def test_T02_a_fresh_connection_is_told_who_the_client_is_and_gets_TLS() -> None:
    agreed = terms(received=False, identity=Identity.PROXY_V1, origin=HERE, backend_tls=BackendTLS.IMPLICIT)
    header = b"PROXY TCP4 192.0.2.10 198.51.100.1 40000 143\r\n"
    inside = tls(b"", BACKEND)
    play = Playbook(DIALECT, agreed).start(DIAL).dialled(to_backend(header), inside).secured()
    play.returns(GREETING)
    hello(play, told=CLOSED).client(b"STARTTLS\r\n", tls(GO_AHEAD)).secured()
    play.passes(EHLO).backend(ALREADY, QUIT, DIAL).dialled(to_backend(header), inside).secured()
    play.backend(GREETING, to_backend(EHLO)).backend(REPLY, to_client(SECURE)).run()


def test_T02_a_third_EHLO_is_the_clients_affair() -> None:
    """A client may not lose its login, nor make connections without end, by saying EHLO again."""
    play = upgraded().passes(EHLO).backend(ALREADY, QUIT, DIAL)
    play = authenticated(afresh(play))
    play.asks(EHLO, ALREADY).asks(EHLO, ALREADY).run()


def test_T02_on_an_implicit_port_a_second_EHLO_is_the_clients_affair() -> None:
    play = Playbook(DIALECT, terms(implicit=True, received=False)).start(tls(b"")).secured(DIAL).dialled()
    play.returns(GREETING)
    hello(play).asks(EHLO, ALREADY).run()
