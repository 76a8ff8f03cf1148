"""S30: would the backend relay for anybody who comes through the gateway?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.dialects import DIALECTS
from gateway.dialects.base import BackendTLS, Dialect, Identity, Terms
from gateway.dialects.conversation import turned_away
from gateway.dialects.openrelay import CURE, Probe, Verdict
from gateway.protocol.vocabulary import Close, Script, Send, Side
from tests.pure.playbook import ABORT_BACKEND, DIAL, Playbook, close, terms, tls, to_backend, to_client

BACKEND, CLIENT = Side.BACKEND, Side.CLIENT
SMTP = DIALECTS["smtp"]
OPEN, CLOSED, UNDECIDED = Verdict.OPEN, Verdict.CLOSED, Verdict.UNDECIDED

GREETING = b"220 legacy ESMTP\r\n"
EHLO = to_backend(b"EHLO gw.example.org\r\n")
HELO = to_backend(b"HELO gw.example.org\r\n")
MAIL = to_backend(b"MAIL FROM:<>\r\n")
FIRST = to_backend(b"RCPT TO:<relay-probe@example.com>\r\n")
SECOND = to_backend(b"RCPT TO:<relay-probe@[192.0.2.1]>\r\n")
RSET, QUIT = to_backend(b"RSET\r\n"), to_backend(b"QUIT\r\n")
OK, BYE = b"250 ok\r\n", b"221 bye\r\n"


class Probing:
    """A probe as a playbook plays it."""

    def __init__(self, agreed: Terms | None = None) -> None:
        self.probes: list[Probe] = []

        def script(terms: Terms) -> Script:
            self.probes.append(Probe(SMTP, terms))
            return self.probes[-1].script()

        self.play = Playbook(replace(SMTP, script=script), agreed or terms()).start(DIAL)

    def asked(self) -> Playbook:
        """Up to the first RCPT."""
        play = self.play.dialled().backend(GREETING, EHLO)
        return play.backend(b"250-legacy\r\n250 SIZE\r\n", MAIL).backend(OK, FIRST)

    def verdict(self) -> tuple[Verdict | None, bytes]:
        self.play.run()
        one, other = self.probes
        assert (one.verdict, one.text) == (other.verdict, other.text)
        return other.verdict, other.text


@pytest.mark.parametrize(("first", "second", "verdict", "text"), [
    (b"554 5.7.1 no", b"554 5.7.1 never", CLOSED, b"554 5.7.1 no"),
    (b"250 ok", b"554 no", OPEN, b"250 ok"),
    (b"554 no", b"250-indeed\r\n250 ok", OPEN, b"250-indeed"),
    (b"251 forwarded", b"251 forwarded", OPEN, b"251 forwarded"),
    (b"450 later", b"252 trying", OPEN, b"252 trying"),
    (b"450 later", b"451 later", UNDECIDED, b"450 later"),
    (b"450 later", b"550 no", CLOSED, b"550 no"),
    (b"550 no", b"450 later", CLOSED, b"550 no"),
    (b"503 what", b"503 what", CLOSED, b"503 what"),
])  # fmt: skip
def test_S30_the_answers_to_two_strangers_addresses_are_the_verdict(
    first: bytes, second: bytes, verdict: Verdict, text: bytes
) -> None:
    probing = Probing()
    probing.asked().backend(first + b"\r\n", SECOND).backend(second + b"\r\n", RSET)
    probing.play.backend(OK, QUIT).backend(BYE, close("quit"))
    assert probing.verdict() == (verdict, text)


def test_S30_a_server_without_EHLO_is_asked_with_HELO() -> None:
    probing = Probing()
    play = probing.play.dialled().backend(GREETING, EHLO).backend(b"500 what\r\n", HELO).backend(OK, MAIL)
    play.backend(OK, FIRST).backend(OK, SECOND).backend(OK, RSET).backend(OK, QUIT).backend(BYE, close("quit"))
    assert probing.verdict() == (OPEN, b"250 ok")


def test_S30_behind_TLS_it_is_the_same() -> None:
    probing = Probing(terms(backend_tls=BackendTLS.IMPLICIT))
    probing.play.dialled(tls(b"", BACKEND)).secured().backend(GREETING, EHLO).backend(OK, MAIL).backend(OK, FIRST)
    probing.play.backend(OK, SECOND).backend(OK, RSET).backend(OK, QUIT).backend(BYE, close("quit"))
    assert probing.verdict() == (OPEN, b"250 ok")


def test_S30_no_octet_of_a_message_is_ever_sent() -> None:
    probing = Probing()
    probing.asked().run()
    assert not [word for word in probing.probes[0]._words if word[:4].upper() in (b"DATA", b"BDAT", b"BURL")]


@pytest.mark.parametrize(("greeting", "text"), [
    (b"554 no\r\n", b"554 no"), (b"450 later\r\n", b"450 later"),
])  # fmt: skip
def test_whom_the_server_does_not_let_in_it_may_let_in_later(greeting: bytes, text: bytes) -> None:
    probing = Probing()
    probing.play.dialled().backend(greeting, QUIT).backend(BYE, close("quit"))
    assert probing.verdict() == (UNDECIDED, text)


def test_a_server_that_is_busy_says_nothing_about_relaying() -> None:
    probing = Probing()
    probing.play.dialled().backend(b"421 busy\r\n", close("backend-refused"))
    assert probing.verdict() == (UNDECIDED, b"421 busy")


@pytest.mark.parametrize(("answer", "verdict", "text"), [
    (b"503 first EHLO\r\n", UNDECIDED, b"451 later"), (b"250 ok\r\n", OPEN, b"250 ok"),
])  # fmt: skip
def test_EHLO_refused_is_no_verdict_but_what_follows_may_be_one(answer: bytes, verdict: Verdict, text: bytes) -> None:
    probing = Probing()
    probing.play.dialled().backend(GREETING, EHLO).backend(b"451 later\r\n", MAIL).backend(answer, FIRST)
    probing.play.backend(answer, SECOND).backend(answer, RSET).backend(OK, QUIT).backend(BYE, close("quit"))
    assert probing.verdict() == (verdict, text)


@pytest.mark.parametrize(("mail", "verdict"), [(b"451 later", UNDECIDED), (b"530 authenticate first", CLOSED)])
def test_MAIL_refused_is_a_verdict_if_it_is_for_good(mail: bytes, verdict: Verdict) -> None:
    probing = Probing()
    probing.play.dialled().backend(GREETING, EHLO).backend(OK, MAIL).backend(mail + b"\r\n", FIRST)
    probing.play.backend(b"503 first MAIL\r\n", SECOND).backend(b"503 first MAIL\r\n", RSET).backend(OK, QUIT)
    probing.play.backend(BYE, close("quit"))
    assert probing.verdict() == (verdict, mail)


def test_a_server_that_leaves_without_an_answer_gave_none() -> None:
    probing = Probing()
    probing.asked().ended(BACKEND, True, ABORT_BACKEND, close("backend-lost"))
    # What a client hears then is ours, and a refusal for now.
    assert probing.verdict()[0] is UNDECIDED


def test_a_server_that_leaves_after_its_refusal_has_answered() -> None:
    probing = Probing()
    probing.asked().backend(b"554 no\r\n", SECOND).ended(BACKEND, True, ABORT_BACKEND, close("backend-lost"))
    assert probing.verdict() == (CLOSED, b"554 no")


def test_where_nobody_is_there_is_no_verdict() -> None:
    probing = Probing()
    probing.play.undialled(ABORT_BACKEND, close("backend-connect-failed"))
    assert probing.verdict()[0] is None


def test_a_backend_that_is_told_the_client_is_not_asked() -> None:
    with pytest.raises(AssertionError):
        Probe(SMTP, terms(identity=Identity.PROXY_V2))


def test_only_SMTP_relays() -> None:
    assert [dialect.name for dialect in DIALECTS.values() if dialect.relays] == ["smtp"]


# --- the client that is not served meanwhile -------------------------------------------------------


def closed_shop(dialect: Dialect, agreed: Terms) -> Playbook:
    def script(terms: Terms) -> Script:
        return turned_away(terms, dialect.unavailable(terms.hostname), "open-relay")

    return Playbook(replace(dialect, script=script), agreed)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_S30_a_client_is_turned_away_in_its_protocols_words(dialect: Dialect) -> None:
    words = dialect.unavailable(b"gw.example.org")
    closed_shop(dialect, terms()).start(to_client(words), close("open-relay")).run()
    inside = closed_shop(dialect, terms(implicit=True)).start(tls(b""))
    inside.secured(to_client(words), close("open-relay")).run()


def test_a_client_beyond_its_limit_hears_nothing_where_nobody_is_served() -> None:
    dialect = replace(SMTP, script=lambda agreed: turned_away(agreed, b"go away\r\n", "open-relay"))
    play = Playbook(dialect, terms(proxied=True), moved=lambda client: "sessions-per-client").start()
    play.client(b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n", ABORT_BACKEND, close("refused")).run()


def test_a_client_that_is_turned_away_is_first_known_and_may_leave() -> None:
    proxied = closed_shop(SMTP, terms(proxied=True, implicit=True)).start()
    proxied.client(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", tls(b""))
    proxied.unsecured(ABORT_BACKEND, close("tls-failed")).run()


def test_nothing_is_left_to_say_to_a_client_that_was_turned_away() -> None:
    script = turned_away(terms(), b"no", "open-relay")
    assert list(script) == [Send(CLIENT, b"no"), Close("open-relay")]


# --- T17: nobody can send, so nothing is known -------------------------------------------------------

TLS_FIRST = b"530 5.7.0 Must issue a STARTTLS command first"


def test_T17_a_server_that_wants_TLS_first_is_not_closed_but_undecided() -> None:
    probing = Probing()
    play = probing.play.dialled().backend(b"220 legacy ESMTP Postfix\r\n", EHLO).backend(b"250 legacy\r\n", MAIL)
    for expected in (FIRST, SECOND, RSET, QUIT):
        play.backend(TLS_FIRST + b"\r\n", expected)
    play.backend(BYE, close("quit"))
    assert probing.verdict() == (UNDECIDED, TLS_FIRST)
    cure = probing.probes[1].cure("192.0.2.7")
    assert "smtpd_tls_security_level = may" in cure
    assert "tls = starttls" in cure


@pytest.mark.parametrize(("first", "second", "verdict"), [
    (TLS_FIRST, TLS_FIRST, UNDECIDED),
    (b"554 5.7.1 Relay access denied", b"550 5.7.10 Encryption needed", CLOSED),
    (TLS_FIRST, b"250 ok", OPEN),
])  # fmt: skip
def test_T17_what_is_said_of_the_recipients_counts_unless_all_of_it_is_about_TLS(
    first: bytes, second: bytes, verdict: Verdict
) -> None:
    probing = Probing()
    probing.asked().backend(first + b"\r\n", SECOND).backend(second + b"\r\n", RSET)
    probing.play.backend(OK, QUIT).backend(BYE, close("quit"))
    assert probing.verdict()[0] is verdict


def test_T17_there_is_a_cure_for_what_is_wrong_and_none_for_the_rest() -> None:
    opened = Probing()
    opened.asked().backend(OK, SECOND).backend(OK, RSET).backend(OK, QUIT).backend(BYE, close("quit"))
    assert opened.verdict()[0] is OPEN
    assert opened.probes[1].cure() == CURE
    closed = Probing()
    closed.asked().backend(b"554 no\r\n", SECOND).backend(b"554 no\r\n", RSET).backend(OK, QUIT)
    closed.play.backend(BYE, close("quit"))
    assert closed.verdict()[0] is CLOSED
    assert closed.probes[1].cure() == ""
