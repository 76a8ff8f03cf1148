"""TLS towards the backend: rows G15, G16, I16 and B1 to B24 of docs/conformance.md.

Until the backend's TLS is there and verified, nothing that it says has another effect than that TLS begins or
that the address is given up.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import BackendTLS, Identity
from gateway.protocol.vocabulary import Dial, Expired, Greeted, Patience, Send, Side, TLSFailed
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    SINGLE,
    TLS13,
    WHOLE,
    Expected,
    Playbook,
    Stage,
    Switch,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)
from tests.pure.reaching import BACKEND, HELLO, HERE, IMAP, POP3, SMTP, SWITCH, WAYS, Way, short

CLIENT = Side.CLIENT
GREETED = Greeted()
STARTTLS = BackendTLS.STARTTLS
LONG = (WHOLE, 977)
"""Cuts for answers that are too long to be fed octet by octet."""

every_way = pytest.mark.parametrize("way", WAYS, ids=str)


def each(said: dict[Way, tuple[bytes, ...]]) -> pytest.MarkDecorator:
    """Of each way, whatever may be said on it."""
    return pytest.mark.parametrize(("way", "said"), [(way, one) for way in said for one in said[way]], ids=short)


# --- G15, B1, B2, B13: what is said behind the go-ahead -------------------------------------------

ANYTHING = (b"injected\r\n", b"x", b"\r\n", b"\n", b"\0", b"\x16\x03\x03\x00\x7a\x02")
"""The last one is a ServerHello: who says that before our ClientHello is no server."""
behind_the_go_ahead = each({
    SMTP: (*ANYTHING, b"250-legacy\r\n250 AUTH LOGIN PLAIN\r\n", b"421 bye\r\n", b"250-AUTH PLAIN\r\n250-X"),
    IMAP: (*ANYTHING, b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nsgw2 OK done\r\n", b"* BYE\r\n", b"* CAPABILITY IMAP"),
    POP3: (*ANYTHING, b"+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n", b"-ERR bye\r\n", b"+OK\r\nUS"),
})  # fmt: skip


@behind_the_go_ahead
def test_G15_B1_B2_B13_octets_behind_the_go_ahead_are_an_attack(way: Way, said: bytes) -> None:
    play = way.asked().backend(way.go + said, *way.sorry("backend-starttls-injection"))
    play.run((WHOLE,))
    assert f"{len(said)} octets" in play.detail
    way.asked(others=True).backend(way.go + said, Dial("backend-starttls-injection")).run((WHOLE,))


@behind_the_go_ahead
def test_B1_B2_octets_that_come_later_are_the_handshakes_and_nobody_elses(way: Way, said: bytes) -> None:
    why = "wrong version number"
    play = way.asked().backend(way.go + said, tls(b"", BACKEND, said))
    play.unsecured(*way.sorry("backend-tls-failed", detail=why), detail=why).run((SINGLE,))


@every_way
@given(said=st.binary(min_size=1, max_size=200), cut=st.integers(0, 40))
def test_B1_B2_however_it_is_cut_the_clear_never_gets_inside(way: Way, said: bytes, cut: int) -> None:
    stage = Stage(way.dialect, terms(backend_tls=STARTTLS), cut)
    stage.take(stage.negotiation.start())
    stage.take(stage.negotiation.dialled())
    for octets in (way.greeting, *(answer for _, answer in way.asks), way.go + said):
        stage.receive(BACKEND, octets)
    if stage.switching is None:
        assert stage.heard_by(CLIENT) == way.unavailable
        assert stage.negotiation.over
    else:
        assert stage.heard_by(CLIENT) == b""
        assert stage.deeds[-1] == Switch(BACKEND, b"", said)


# --- I16, B3: what was learnt in the clear --------------------------------------------------------


@every_way
@pytest.mark.parametrize("implicit", [False, True])
def test_the_way_to_a_backend_with_STARTTLS(way: Way, implicit: bool) -> None:
    way.secured(GREETED, implicit=implicit).phase("secure" if implicit else "plaintext").run()


def test_I16_B3_the_client_sees_the_list_of_inside() -> None:
    listed = (
        b"* CAPABILITY IMAP4rev1 SASL-IR\r\n* LIST () / x\r\n* capability AUTH=PLAIN AUTH=EXTERNAL NEW\r\nsgw2 OK\r\n"
    )
    way = replace(
        IMAP,
        greeting=b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=CRAM-MD5 OLD] Dovecot [x] ready.\r\n",
        again=((b"sgw2 CAPABILITY\r\n", listed),),
        welcome=b"* OK [CAPABILITY IMAP4rev1 SASL-IR NEW STARTTLS LOGINDISABLED] Dovecot [x] ready.\r\n",
        welcome_inside=b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN NEW] Dovecot [x] ready.\r\n",
    )
    way.secured().run()
    way.secured(implicit=True).run()


@pytest.mark.parametrize("answer", [
    b"sgw2 NO\r\n", b"sgw2 BAD what\r\n", b"sgw2 OK done\r\n", b"* CAPABILITY\r\nsgw2 OK done\r\n",
    b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nsgw2 NO\r\n",
])  # fmt: skip
def test_B3_without_a_list_of_inside_the_old_one_does_not_count(answer: bytes) -> None:
    play = IMAP.asked().backend(IMAP.go, SWITCH).secured(to_backend(b"sgw2 CAPABILITY\r\n"))
    play.backend(answer, *IMAP.sorry("backend-bad-greeting")).run()


def test_B3_what_was_not_listed_in_the_clear_need_not_be_asked_for_again() -> None:
    way = replace(IMAP, greeting=b"* OK hi\r\n", again=(), welcome=b"* OK hi\r\n", welcome_inside=b"* OK hi\r\n")
    way.secured().run()
    way.secured(implicit=True).run()


def test_B3_XCLIENT_must_be_offered_inside() -> None:
    play = SMTP.asked(identity=Identity.XCLIENT, origin=HERE).backend(SMTP.go, SWITCH).secured(to_backend(HELLO))
    play.backend(b"250-legacy\r\n250 SIZE\r\n", *SMTP.sorry("backend-identity-refused")).run()


def test_B3_ID_must_be_offered_inside() -> None:
    play = IMAP.asked(identity=Identity.ID, origin=HERE).backend(IMAP.go, SWITCH)
    play.secured(to_backend(b"sgw2 CAPABILITY\r\n"))
    play.backend(b"* CAPABILITY IMAP4rev1\r\nsgw2 OK\r\n", *IMAP.sorry("backend-identity-refused")).run()


def test_B3_the_clients_own_question_goes_to_the_backend_inside() -> None:
    """What our EHLO in the clear was answered is nobody's: CHUNKING there allows no chunk."""
    clear = b"250-legacy\r\n250-STARTTLS\r\n250 CHUNKING\r\n"
    way = replace(SMTP, asks=((HELLO, clear),))
    play = way.secured(implicit=True).client(b"EHLO me\r\n", to_backend(b"EHLO me\r\n"))
    play.backend(b"250-legacy\r\n250 SIZE\r\n", to_client(b"250-legacy\r\n250 SIZE\r\n"))
    play.client(b"BDAT 2 LAST\r\nhi", to_client(b"502 5.5.1 Command not implemented\r\n")).run()


# --- G16, B4, B5, B6: no STARTTLS -----------------------------------------------------------------


@pytest.mark.parametrize("answer", [
    b"250-legacy\r\n250-AUTH LOGIN\r\n250 XCLIENT ADDR\r\n",
    b"250 legacy\r\n",
    b"250 STARTTLS\r\n",  # its name
    b"250-legacy\r\n250-X-STARTTLS\r\n250 STARTTLSX\r\n",
    # B6: it pretends to be old; HELO would lead to a session without TLS.
    b"500 what\r\n", b"502 no\r\n", b"550 no\r\n", b"220-STARTTLS\r\n220 STARTTLS\r\n",
    b"354 STARTTLS\r\n",
])  # fmt: skip
def test_G16_B4_B6_an_SMTP_server_that_does_not_offer_STARTTLS(answer: bytes) -> None:
    play = SMTP.dialled().backend(SMTP.greeting, to_backend(HELLO))
    play.backend(answer, *SMTP.sorry("backend-tls-failed", detail="the backend does not offer STARTTLS")).run()


@pytest.mark.parametrize("listed", [b"IMAP4rev1 AUTH=PLAIN", b"IMAP4", b"IMAP4rev1 XSTARTTLS STARTTLS2"])
def test_G16_B4_B6_an_IMAP_server_that_does_not_offer_STARTTLS(listed: bytes) -> None:
    why = "the backend does not offer STARTTLS"
    play = IMAP.dialled().backend(
        b"* OK [CAPABILITY %s] hi\r\n" % listed, *IMAP.sorry("backend-tls-failed", detail=why)
    )
    play.run()


def test_B4_who_lists_nothing_is_asked_for_STARTTLS_all_the_same() -> None:
    way = replace(IMAP, greeting=b"* OK IMAP4 hi\r\n", again=())
    way.asked().backend(b"sgw1 BAD what\r\n", *IMAP.sorry("backend-tls-failed")).run()


NO = {
    SMTP: (b"454 later", b"500 what", b"501 x", b"502 x", b"530 x", b"354 do something else",
           b"250 ok", b"221 bye", b"220-a\r\n220 b", b"221-a\r\n221 b"),
    IMAP: (b"sgw1 NO x", b"sgw1 BAD x", b"sgw1 OKAY", b"sgw1 OK\tx", b"sgw1  OK", b"sgw1 PREAUTH", b"sgw1 ",
           b"* CAPABILITY STARTTLS\r\nsgw1 NO x", b"sgw1 NO [REFERRAL imap://;AUTH=*@attacker:243/] x"),
    POP3: (b"-ERR", b"-ERR x", b"+OKgo", b"+ OK", b"+ok go", b"+", b"", b"OK", b"* OK", b"+OK\0", b"x" * 8193),
}  # fmt: skip
"""Answers to STARTTLS that are answers, and not yes."""
NONSENSE = {
    SMTP: (b"2200 go", b"220\tgo", b"22", b"", b"go", b"220_go", b"220-a\r\n250 b", b"999 x", b"120 x", b"+OK"),
    IMAP: (b"+ go", b"X OK go", b"SGW1 OK go", b"sgw1OK", b"sgw11 OK", b"sgw9 OK go", b"", b"OK", b" sgw1 OK", b"+",
           b"*OK", b"x" * 8193),
}  # fmt: skip
"""Answers that are none."""


@each(NO)
def test_G16_B5_B11_STARTTLS_refused(way: Way, said: bytes) -> None:
    way.asked().backend(said + b"\r\n", *way.sorry("backend-tls-failed")).run()


@each(NONSENSE)
def test_B5_B8_B20_STARTTLS_answered_with_nonsense(way: Way, said: bytes) -> None:
    way.asked().backend(said + b"\r\n", *way.sorry("backend-bad-greeting")).run()


@pytest.mark.parametrize(("way", "said"), [
    (SMTP, b"220"), (SMTP, b"220 "), (SMTP, b"220 go"), (IMAP, b"sgw1 OK"), (IMAP, b"sgw1 ok go"),
    (IMAP, b"sgw1 OK [CAPABILITY X] go"), (POP3, b"+OK"), (POP3, b"+OK "),
], ids=short)  # fmt: skip
def test_B5_what_else_means_yes(way: Way, said: bytes) -> None:
    way.asked().backend(said + b"\r\n", SWITCH).unsecured(*way.sorry("backend-tls-failed")).run()


@every_way
@pytest.mark.parametrize("orderly", [True, False])
def test_G16_the_backend_leaves_instead_of_answering_STARTTLS(way: Way, orderly: bool) -> None:
    way.asked().ended(BACKEND, orderly, *way.sorry("backend-connect-failed")).run()


# --- B7: PREAUTH ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", list(BackendTLS))
@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("greeting", [b"* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] hi\r\n", b"* preauth\r\n"])
def test_B7_I15_PREAUTH_is_somebody_elses_mailbox(mode: BackendTLS, implicit: bool, greeting: bytes) -> None:
    agreed = terms(backend_tls=mode, implicit=implicit)
    play = Playbook(IMAP.dialect, agreed).start(*[tls(b"")] * implicit, *[DIAL] * (not implicit))
    if implicit:
        play.secured(DIAL)
    play.dialled(*[SWITCH] * (mode is BackendTLS.IMPLICIT))
    if mode is BackendTLS.IMPLICIT:
        play.secured()
    play.backend(greeting, *IMAP.sorry("backend-preauth")).run()


# --- B8, B9, B10: what is said before STARTTLS is answered ----------------------------------------


@each({
    SMTP: (b"250-x\r\n250 STARTTLS\r\n220 go\r\n",),
    IMAP: (b"sgw1 OK done\r\n",),
    POP3: (b"+OK go\r\n",),
})  # fmt: skip
def test_B8_an_answer_before_the_question_buys_no_session_without_TLS(way: Way, said: bytes) -> None:
    """It is taken for the answer, and then there is a handshake to pass; its real answer cannot be a part of one."""
    asked = b"".join(ask for ask, _ in way.asks) + way.command
    play = way.dialled().backend(way.greeting + said, to_backend(asked), SWITCH)
    play.unsecured(*way.sorry("backend-tls-failed")).run()


@pytest.mark.parametrize("said", [b"sgw2 OK done", b"sgw4 OK", b"S OK done", b"a001 OK LOGIN completed"])
def test_B8_a_tag_that_is_not_in_flight_ends_it(said: bytes) -> None:
    IMAP.dialled().backend(
        IMAP.greeting + said + b"\r\n", to_backend(IMAP.command), *IMAP.sorry("backend-bad-greeting")
    ).run()


UNTAGGED = (
    b'* LIST () "/" 7XiY', b'* LSUB () "/" x', b"* STATUS INBOX (MESSAGES 1)", b"* SEARCH 1 2", b"* FLAGS (\\Flagged)",
    b"* 54321 EXISTS", b"* 12345 RECENT", b"* 1 EXPUNGE", b"* OK [ALERT] call 0900", b"* NO [ALERT] x",
    b"* OK [BADCHARSET (x)] x", b"* OK [PARSE] x", b"* OK [REFERRAL imaps://attacker:993] x", b"* BYE [ALERT] x",
    b"* CAPABILITY IMAP4rev1 AUTH=PLAIN EVIL", b"* ID (\"name\" \"x\")",
)  # fmt: skip


@pytest.mark.parametrize("line", UNTAGGED, ids=short)
def test_B9_B10_B11_nobody_is_told_what_comes_untagged_before_TLS(line: bytes) -> None:
    IMAP.finished(IMAP.asked().backend(line + b"\r\n" + IMAP.go, SWITCH)).run()
    IMAP.finished(
        IMAP.dialled().backend(IMAP.greeting + line + b"\r\n", to_backend(IMAP.command)).backend(IMAP.go, SWITCH)
    ).run()
    IMAP.asked().backend(line + b"\r\nsgw1 NO\r\n", *IMAP.sorry("backend-tls-failed")).run()


def test_B9_a_literal_before_TLS_is_no_line_of_ours() -> None:
    said = b"* 1 FETCH (BODY[] {28}\r\nFrom: <a@b>\r\n"
    IMAP.asked().backend(said, *IMAP.sorry("backend-bad-greeting")).run()


def test_B10_nobody_is_told_the_texts_of_the_way() -> None:
    way = replace(SMTP, asks=((HELLO, b"250-call 0900 now\r\n250 STARTTLS call 0900\r\n"),), go=b"220 call 0900\r\n")
    way.secured().run()
    replace(POP3, go=b"+OK call 0900\r\n").secured().run()


# --- B12: greetings -------------------------------------------------------------------------------

REFUSED = {
    SMTP: (b"421 later", b"450 x", b"500 x", b"554 no", b"554-no\r\n554 never", b"554"),
    IMAP: (b"* BYE", b"* bye [ALERT] x", b"* BYE [REFERRAL imap://attacker] x"),
    POP3: (b"-ERR", b"-ERR [SYS/TEMP] x", b"-err", b"-"),
}
GARBAGE = {
    SMTP: (b"354 x", b"221 x", b"250 x", b"2200 x", b"220x", b"22", b"999 x", b"220-a\r\n221 b", b"220-a\r\n-ERR", b"",
           b"* OK x", b"+OK x", b"\x1b[2J220 x", b"\0", b"220\0x", b"2 2 0", b"x" * 8193),
    IMAP: (b"* NO", b"* BAD", b"1Gdo00V4 x", b"a OK x", b"*OK", b"* OKAY", b"+ OK", b"", b"* ", b"220 x", b"+OK x",
           b"\x1b[2J* OK", b" * OK", b"x" * 8193),
    POP3: (b"OK", b"* OK", b"220 x", b"", b"+", b"+ OK", b"\x1b[2J+OK", b" +OK", b"x" * 8193),
}  # fmt: skip
every_mode = pytest.mark.parametrize("mode", [BackendTLS.NONE, STARTTLS], ids=lambda mode: mode.value)


@every_mode
@each(GARBAGE)
def test_B12_B20_a_greeting_that_is_none(way: Way, said: bytes, mode: BackendTLS) -> None:
    way.dialled(backend_tls=mode).backend(said + b"\r\n", *way.sorry("backend-bad-greeting")).run()


@every_mode
@each(REFUSED)
def test_B12_G04_a_refusal_has_no_TLS_and_is_relayed(way: Way, said: bytes, mode: BackendTLS) -> None:
    """A refusal is the backend's word to this client; there is nothing left to protect."""
    ends: tuple[Expected, ...] = () if way is SMTP and said[:3] != b"421" else (close("backend-refused"),)
    told = to_client(said + b"\r\n")
    way.dialled(backend_tls=mode).backend(said + b"\r\n", GREETED, note("backend-refused"), told, *ends).run()


@every_way
def test_B12_one_octet_per_second_is_one_wait(way: Way) -> None:
    play = way.dialled().waits(Patience.GREETING)
    for octet in way.greeting[:5]:
        play.backend(bytes([octet])).waits(Patience.GREETING)
    play.expire(Expired(BACKEND, Patience.GREETING), *way.sorry("backend-greeting-timeout")).run()


@pytest.mark.parametrize(("way", "ending"), [
    (SMTP, (to_client(b"421 4.3.0 gw.example.org Internal error\r\n"),)),
    (POP3, ()),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("mode", list(BackendTLS), ids=lambda mode: mode.value)
def test_B12_B15_one_greeting_and_not_two(way: Way, ending: tuple[Expected, ...], mode: BackendTLS) -> None:
    ending = (note("backend-protocol-error"), *ending, ABORT_BACKEND, close("backend-protocol-error"))
    if mode is STARTTLS:
        play = way.secured()
    elif mode is BackendTLS.IMPLICIT:
        play = Playbook(way.dialect, terms(backend_tls=mode)).start(DIAL).dialled(SWITCH).secured()
        play.backend(way.greeting, to_client(way.welcome))
    else:
        play = Playbook(way.dialect, terms()).start(DIAL).dialled().backend(way.greeting, to_client(way.welcome))
    play.backend(way.greeting, *ending).run()


# --- B14: implicit TLS ----------------------------------------------------------------------------


@every_way
def test_B14_plaintext_on_an_implicit_port_is_for_OpenSSL_to_refuse(way: Way) -> None:
    for cut in (WHOLE, SINGLE):
        stage = Stage(way.dialect, terms(backend_tls=BackendTLS.IMPLICIT), cut)
        stage.take(stage.negotiation.start())
        stage.take(stage.negotiation.dialled())
        stage.receive(BACKEND, way.greeting)
        assert stage.deeds == [DIAL, Switch(BACKEND, b"", way.greeting)]
        stage.unsecured("wrong version number")
        assert stage.heard_by(CLIENT) == way.unavailable
        assert stage.heard_by(BACKEND) == b""


@every_way
def test_implicit_TLS_is_the_first_on_the_connection(way: Way) -> None:
    play = Playbook(way.dialect, terms(backend_tls=BackendTLS.IMPLICIT)).start(DIAL).dialled(SWITCH)
    play.phase("handshake").secured().waits(Patience.GREETING)
    greeting = way.greeting.replace(b" STARTTLS LOGINDISABLED ID CLEAR", b" INSIDE AUTH=PLAIN")
    play.backend(greeting, to_client(way.welcome), GREETED).run()


# --- B15, B25: unasked words right behind the handshake -------------------------------------------


@pytest.mark.parametrize("said", [b"250 ok", b"220 hi", b"235 2.7.0 ok", b"500 x", b"+OK", b""])
def test_B15_B25_SMTP_inside_TLS_nobody_speaks_unasked(said: bytes) -> None:
    for implicit in (False, True):
        SMTP.secured(implicit=implicit).backend(
            said + b"\r\n",
            note("backend-protocol-error"),
            to_client(b"421 4.3.0 gw.example.org Internal error\r\n"),
            ABORT_BACKEND,
            close("backend-protocol-error"),
        ).run()


@pytest.mark.parametrize("said", [b"+OK", b"+OK logged in", b"+OK hi", b"+ ", b".", b"", b"250 ok"])
def test_B15_B25_POP3_inside_TLS_nobody_speaks_unasked(said: bytes) -> None:
    """Somebody on the path may have logged in as himself before TLS, and the backend lets it count inside."""
    for implicit in (False, True):
        POP3.secured(implicit=implicit).backend(
            said + b"\r\n", note("backend-protocol-error"), ABORT_BACKEND, close("backend-protocol-error")
        ).run()


def test_a_POP3_server_may_say_that_it_is_tired_of_waiting() -> None:
    POP3.secured().backend(b"-ERR timeout\r\n", to_client(b"-ERR timeout\r\n")).ended(
        BACKEND, True, note("backend-closed"), ABORT_BACKEND, close("backend-closed")
    ).run()


@pytest.mark.parametrize("said", [b"sgw2 OK done", b"sgw1 OK", b"a OK LOGIN completed", b"+ go", b"", b"250 ok"])
def test_B15_B25_IMAP_inside_TLS_only_untagged_lines_come_unasked(said: bytes) -> None:
    for implicit in (False, True):
        IMAP.secured(implicit=implicit).backend(b"* OK still here\r\n", to_client(b"* OK still here\r\n")).backend(
            said + b"\r\n", *IMAP.sorry("backend-protocol-error")
        ).run()


# --- G16, B16, B17, B21: the handshake fails ------------------------------------------------------

COMPLAINTS = (
    "self-signed certificate, sha256:00", "certificate expired on 2020-01-01", "certificate has no subjectAltName",
    "certificate is for mail.example.net, not mail.example.org", "unknown CA: CN=x", "alert: handshake_failure",
    "pin does not match: sha256:00", "handshake timed out", "connection closed during the handshake",
)  # fmt: skip


@every_way
@pytest.mark.parametrize("why", COMPLAINTS)
def test_G16_B16_B17_a_certificate_is_the_logs_business_and_not_the_clients(way: Way, why: str) -> None:
    unsecured = way.asked().backend(way.go, SWITCH)
    unsecured.unsecured(*way.sorry("backend-tls-failed", detail=why), detail=why).run()
    implicit = Playbook(way.dialect, terms(backend_tls=BackendTLS.IMPLICIT)).start(DIAL).dialled(SWITCH)
    implicit.unsecured(*way.sorry("backend-tls-failed", detail=why), detail=why).run()
    assert implicit.detail == why


@every_way
def test_B21_who_fails_at_TLS_is_not_asked_without_it(way: Way) -> None:
    """The next address, and from the beginning."""
    play = way.asked(others=True).backend(way.go, SWITCH).unsecured(Dial("backend-tls-failed")).dialled()
    way.finished(way.begun(play).backend(way.go, SWITCH), GREETED).run()

    play = Playbook(way.dialect, terms(backend_tls=BackendTLS.IMPLICIT), others=True).start(DIAL).dialled(SWITCH)
    play.unsecured(Dial("backend-tls-failed")).dialled(SWITCH).unsecured(Dial("backend-tls-failed"))
    play.undialled(*way.sorry("backend-tls-failed")).run()


@every_way
def test_a_backend_that_leaves_within_its_handshake_has_failed_at_it(way: Way) -> None:
    for orderly in (True, False):
        play = way.asked().backend(way.go, SWITCH)
        play.ended(BACKEND, orderly, *way.sorry("backend-tls-failed")).run()


# --- G16, B22, B23: what the client says waits for the end of it all ------------------------------


def stages(way: Way) -> list[tuple[bytes, tuple[Expected, ...]]]:
    """What the backend says on the way, and our answers to it; then the handshake."""
    said = (way.greeting, *(answer for _, answer in way.asks), way.go)
    answers: list[tuple[Expected, ...]] = [*((to_backend(ask),) for ask, _ in way.asks), (to_backend(way.command),)]
    return list(zip(said, [*answers, (SWITCH,)], strict=True))


@pytest.mark.parametrize(("way", "stage"), [(way, at) for way in WAYS for at in range(len(stages(way)) + 1)], ids=str)
def test_G16_B23_an_early_client_is_heard_when_the_backend_is_secure(way: Way, stage: int) -> None:
    for failing in (False, True):
        play = way.dialled(implicit=True)
        for at, (said, answer) in enumerate(stages(way)):
            if at == stage:
                play.client(b"".join(way.login))
            play.backend(said, *answer)
        if stage == len(stages(way)):
            play.client(b"".join(way.login))
        if failing:
            play.unsecured(*way.sorry("backend-tls-failed"))
        else:
            way.finished(play, to_backend(way.login[0]), implicit=True)
        play.run()


@every_way
def test_B22_one_client_has_one_connection(way: Way) -> None:
    """Whatever else is dialled is another address for the same client, and the one before is dropped."""
    stage = Stage(way.dialect, terms(backend_tls=STARTTLS, implicit=True))
    stage.take(stage.negotiation.start())
    stage.secured(TLS13)
    stage.take(stage.negotiation.dialled())
    for said, _ in stages(way):
        stage.receive(BACKEND, said)
    stage.secured(TLS13)
    for _, answer in way.again:
        stage.receive(BACKEND, answer)
    for line in way.login:
        stage.receive(CLIENT, line)
        stage.receive(BACKEND, {"smtp": b"250 ok\r\n", "imap": b"a NO x\r\n", "pop3": b"-ERR x\r\n"}[str(way)])
    assert stage.deeds.count(DIAL) == 1
    heard = [deed.data for deed in stage.deeds if isinstance(deed, Send) and deed.side is BACKEND]
    assert heard[-len(way.login) :] == list(way.login)


# --- B18: stalls ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_B18_each_step_has_its_own_deadline(way: Way) -> None:
    for reached, (patience, key) in enumerate([
        (Patience.GREETING, "backend-greeting-timeout"),
        *[(Patience.REPLY, "backend-timeout")] * (len(stages(way)) - 1),
    ]):  # fmt: skip
        play = way.dialled()
        for said, answer in stages(way)[:reached]:
            play.backend(said, *answer)
        play.waits(patience).expire(Expired(BACKEND, patience), *way.sorry(key)).run()
    late = TLSFailed(BACKEND, "handshake timed out")
    way.asked().backend(way.go, SWITCH).expire(late, *way.sorry("backend-tls-failed")).run()


def test_B18_a_backend_that_is_silent_inside_TLS() -> None:
    play = IMAP.asked().backend(IMAP.go, SWITCH).secured(to_backend(b"sgw2 CAPABILITY\r\n")).waits(Patience.REPLY)
    play.expire(Expired(BACKEND, Patience.REPLY), *IMAP.sorry("backend-timeout")).run()


# --- B19, B20: answers without measure ------------------------------------------------------------


@pytest.mark.parametrize("flood", [
    b"250-x\r\n" * 1001, b"250-" + b"x" * 8189 + b"\r\n", b"250-" + b"x" * 100_000,
    (b"250-" + b"x" * 8000 + b"\r\n") * 40,
], ids=len)  # fmt: skip
def test_B19_SMTP_answers_without_end(flood: bytes) -> None:
    play = SMTP.dialled().backend(SMTP.greeting, to_backend(HELLO))
    play.backend(flood, *SMTP.sorry("backend-bad-greeting")).run(LONG)
    greeting = flood.replace(b"250", b"220")
    SMTP.dialled().backend(greeting, *SMTP.sorry("backend-bad-greeting")).run(LONG)


@pytest.mark.parametrize("flood", [
    b"* x\r\n" * 1001, b"* " + b"x" * 8191 + b"\r\n", b"* " + b"x" * 100_000, (b"* " + b"x" * 8000 + b"\r\n") * 40,
], ids=len)  # fmt: skip
def test_B19_IMAP_answers_without_end(flood: bytes) -> None:
    IMAP.asked().backend(flood, *IMAP.sorry("backend-bad-greeting")).run(LONG)


@every_way
def test_B19_a_line_without_end(way: Way) -> None:
    way.dialled().backend(b"x" * 100_000, *way.sorry("backend-bad-greeting")).run(LONG)


@pytest.mark.parametrize("said", [
    b"25", b"250", b"250x", b"250-a\r\n550 b", b"999 x", b"2 5 0", b"\0", b"250-a\r\n", b"\x1b[2J", b"-ERR\r",
], ids=short)  # fmt: skip
def test_B20_malformed_answers_decide_nothing(said: bytes) -> None:
    key = "backend-tls-failed" if said == b"250" else "backend-bad-greeting"
    play = SMTP.dialled().backend(SMTP.greeting, to_backend(HELLO))
    play.backend(said + b"\r\n", *SMTP.sorry(key)).run()


def test_B20_a_bare_LF_ends_a_line_of_the_backends_too() -> None:
    """The second line is then the answer to EHLO, and no command of anybody's."""
    SMTP.dialled().backend(b"220 a\nSTARTTLS\n", to_backend(HELLO), *SMTP.sorry("backend-bad-greeting")).run()


# --- what TLS on both legs is good for ------------------------------------------------------------


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_promise_of_TLS_is_made_where_both_legs_keep_it(verified: bool, implicit: bool) -> None:
    """REQUIRETLS (RFC 8689)."""
    play = SMTP.secured(implicit=implicit, backend_verified=verified).client(b"EHLO me\r\n", to_backend(b"EHLO me\r\n"))
    shown = [b"250-legacy\r\n", *[b"250-REQUIRETLS\r\n"] * (verified and implicit), b"250-SIZE\r\n"]
    last = b"250 SIZE\r\n" if implicit else b"250 STARTTLS\r\n"
    told = b"".join([*shown[:-1], last] if implicit else [*shown, last])
    play.backend(b"250-legacy\r\n250-REQUIRETLS\r\n250 SIZE\r\n", to_client(told)).run()
