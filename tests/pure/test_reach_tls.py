"""TLS towards the backend: rows G15, G16, I16 and B1 to B24 of docs/conformance.md.

Until the backend's TLS is there and verified, nothing that it says has another effect than that TLS begins or
that the address is given up.
"""

from __future__ import annotations

import pytest

from gateway.dialects.base import BackendTLS, Identity
from gateway.protocol.vocabulary import Greeted
from tests.pure.contract.form import Exchange
from tests.pure.contract.party import BACKEND, HERE, IMAP, POP3, SMTP, SWITCH, Party, short
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    WHOLE,
    Expected,
    Playbook,
    aborts,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

HELLO = b"EHLO gw.example.org\r\n"
GREETED = Greeted()
STARTTLS = BackendTLS.STARTTLS
LONG = (WHOLE, 977)
"""Cuts for answers that are too long to be fed octet by octet."""


def each(said: dict[Party, tuple[bytes, ...]]) -> pytest.MarkDecorator:
    """Of each party, whatever may be said on it."""
    return pytest.mark.parametrize(
        ("party", "said"), [(party, one) for party in said for one in said[party]], ids=short
    )


# --- I16, B3: what was learnt in the clear --------------------------------------------------------


def test_I16_B3_the_client_sees_the_list_of_inside() -> None:
    listed = (
        b"* CAPABILITY IMAP4rev1 SASL-IR\r\n* LIST () / x\r\n* capability AUTH=PLAIN AUTH=EXTERNAL NEW\r\nsgw2 OK\r\n"
    )
    party = IMAP.but(
        offer=b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=CRAM-MD5 OLD] Dovecot [x] ready.\r\n",
        again=((b"sgw2 CAPABILITY\r\n", listed),),
        welcome=b"* OK [CAPABILITY IMAP4rev1 SASL-IR NEW STARTTLS LOGINDISABLED] Dovecot [x] ready.\r\n",
        welcome_inside=b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN NEW] Dovecot [x] ready.\r\n",
    )
    party.secured().run()
    party.secured(implicit=True).run()


@pytest.mark.parametrize("answer", [
    b"sgw2 NO\r\n", b"sgw2 BAD what\r\n", b"sgw2 OK done\r\n", b"* CAPABILITY\r\nsgw2 OK done\r\n",
    b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nsgw2 NO\r\n",
])  # fmt: skip
def test_B3_without_a_list_of_inside_the_old_one_does_not_count(answer: bytes) -> None:
    play = IMAP.switched().secured(to_backend(b"sgw2 CAPABILITY\r\n"))
    play.backend(answer, *IMAP.sorry("backend-bad-greeting")).run()


def test_B3_what_was_not_listed_in_the_clear_need_not_be_asked_for_again() -> None:
    party = IMAP.but(offer=b"* OK hi\r\n", again=(), welcome=b"* OK hi\r\n", welcome_inside=b"* OK hi\r\n")
    party.secured().run()
    party.secured(implicit=True).run()


def test_B3_XCLIENT_must_be_offered_inside() -> None:
    play = SMTP.switched(identity=Identity.XCLIENT, origin=HERE).secured(to_backend(HELLO))
    play.backend(b"250-legacy\r\n250 SIZE\r\n", *SMTP.sorry("backend-identity-refused")).run()


def test_B3_ID_must_be_offered_inside() -> None:
    play = IMAP.switched(identity=Identity.ID, origin=HERE)
    play.secured(to_backend(b"sgw2 CAPABILITY\r\n"))
    play.backend(b"* CAPABILITY IMAP4rev1\r\nsgw2 OK\r\n", *IMAP.sorry("backend-identity-refused")).run()


def test_B3_the_clients_own_question_goes_to_the_backend_inside() -> None:
    """What our EHLO in the clear was answered is nobody's: CHUNKING there allows no chunk."""
    clear = b"250-legacy\r\n250-STARTTLS\r\n250 CHUNKING\r\n"
    party = SMTP.but(asks=((HELLO, clear),))
    play = party.secured(implicit=True).asks(b"EHLO me\r\n", b"250-legacy\r\n250 SIZE\r\n")
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
    play = SMTP.dialled(backend_tls=STARTTLS).backend(SMTP.offer, to_backend(HELLO))
    play.backend(answer, *SMTP.sorry("backend-tls-failed", detail="the backend does not offer STARTTLS")).run()


@pytest.mark.parametrize("listed", [b"IMAP4rev1 AUTH=PLAIN", b"IMAP4", b"IMAP4rev1 XSTARTTLS STARTTLS2"])
def test_G16_B4_B6_an_IMAP_server_that_does_not_offer_STARTTLS(listed: bytes) -> None:
    why = "the backend does not offer STARTTLS"
    play = IMAP.dialled(backend_tls=STARTTLS).backend(
        b"* OK [CAPABILITY %s] hi\r\n" % listed, *IMAP.sorry("backend-tls-failed", detail=why)
    )
    play.run()


def test_B4_who_lists_nothing_is_asked_for_STARTTLS_all_the_same() -> None:
    party = IMAP.but(offer=b"* OK IMAP4 hi\r\n", again=())
    party.asked().backend(b"sgw1 BAD what\r\n", *IMAP.sorry("backend-tls-failed")).run()


NONSENSE = {
    SMTP: (b"2200 go", b"220\tgo", b"22", b"", b"go", b"220_go", b"220-a\r\n250 b", b"999 x", b"120 x", b"+OK"),
    IMAP: (b"+ go", b"X OK go", b"SGW1 OK go", b"sgw1OK", b"sgw11 OK", b"sgw9 OK go", b"", b"OK", b" sgw1 OK", b"+",
           b"*OK", b"x" * 8193),
}  # fmt: skip
"""Answers that are none."""


@each(NONSENSE)
def test_B5_B8_B20_STARTTLS_answered_with_nonsense(party: Party, said: bytes) -> None:
    party.asked().backend(said + b"\r\n", *party.sorry("backend-bad-greeting")).run()


@pytest.mark.parametrize(("party", "said"), [
    (SMTP, b"220"), (SMTP, b"220 "), (SMTP, b"220 go"), (IMAP, b"sgw1 OK"), (IMAP, b"sgw1 ok go"),
    (IMAP, b"sgw1 OK [CAPABILITY X] go"), (POP3, b"+OK"), (POP3, b"+OK "),
], ids=short)  # fmt: skip
def test_B5_what_else_means_yes(party: Party, said: bytes) -> None:
    party.asked().backend(said + b"\r\n", SWITCH).unsecured(*party.sorry("backend-tls-failed")).run()


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


@pytest.mark.parametrize("said", [b"sgw2 OK done", b"sgw4 OK", b"S OK done", b"a001 OK LOGIN completed"])
def test_B8_a_tag_that_is_not_in_flight_ends_it(said: bytes) -> None:
    IMAP.dialled(backend_tls=STARTTLS).backend(
        IMAP.offer + said + b"\r\n",
        to_backend(b"sgw1 STARTTLS\r\n"),
        *IMAP.sorry("backend-bad-greeting"),
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
    play = IMAP.dialled(backend_tls=STARTTLS).backend(IMAP.offer + line + b"\r\n", to_backend(b"sgw1 STARTTLS\r\n"))
    IMAP.finished(play.backend(IMAP.go, SWITCH)).run()
    IMAP.asked().backend(line + b"\r\nsgw1 NO\r\n", *IMAP.sorry("backend-tls-failed")).run()


def test_B9_a_literal_before_TLS_is_no_line_of_ours() -> None:
    said = b"* 1 FETCH (BODY[] {28}\r\nFrom: <a@b>\r\n"
    IMAP.asked().backend(said, *IMAP.sorry("backend-bad-greeting")).run()


def test_B10_nobody_is_told_the_texts_of_the_way() -> None:
    party = SMTP.but(
        asks=((HELLO, b"250-call 0900 now\r\n250 STARTTLS call 0900\r\n"),),
        backend_starttls=Exchange(b"STARTTLS\r\n", b"220 call 0900\r\n"),
    )
    party.secured().run()
    POP3.but(backend_starttls=Exchange(b"STLS\r\n", b"+OK call 0900\r\n")).secured().run()


# --- B12: greetings -------------------------------------------------------------------------------

REFUSED = {
    SMTP: (b"421 later", b"450 x", b"500 x", b"554 no", b"554-no\r\n554 never", b"554"),
    IMAP: (b"* BYE", b"* bye [ALERT] x", b"* BYE [REFERRAL imap://attacker] x"),
    POP3: (b"-ERR", b"-ERR [SYS/TEMP] x", b"-err", b"-"),
}
every_mode = pytest.mark.parametrize("mode", [BackendTLS.NONE, STARTTLS], ids=lambda mode: mode.value)


@every_mode
@each(REFUSED)
def test_B12_G04_a_refusal_has_no_TLS_and_is_relayed(party: Party, said: bytes, mode: BackendTLS) -> None:
    """A refusal is the backend's word to this client; there is nothing left to protect."""
    ends: tuple[Expected, ...] = () if party is SMTP and said[:3] != b"421" else (close("backend-refused"),)
    told = to_client(said + b"\r\n")
    party.dialled(backend_tls=mode).backend(said + b"\r\n", GREETED, note("backend-refused"), told, *ends).run()


@pytest.mark.parametrize(("party", "ending"), [
    (SMTP, (to_client(b"421 4.3.0 gw.example.org Internal error\r\n"),)),
    (POP3, ()),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("mode", list(BackendTLS), ids=lambda mode: mode.value)
def test_B12_B15_one_greeting_and_not_two(party: Party, ending: tuple[Expected, ...], mode: BackendTLS) -> None:
    ending = (note("backend-protocol-error"), *ending, ABORT_BACKEND, close("backend-protocol-error"))
    if mode is STARTTLS:
        play = party.secured()
    elif mode is BackendTLS.IMPLICIT:
        play = Playbook(party.dialect, terms(backend_tls=mode)).start(DIAL).dialled(SWITCH).secured()
        play.backend(party.offer, to_client(party.answers.welcome))
    else:
        play = (
            Playbook(party.dialect, terms())
            .start(DIAL)
            .dialled()
            .backend(party.offer, to_client(party.answers.welcome))
        )
    play.backend(party.offer, *ending).run()


# --- B15, B25: unasked words right behind the handshake -------------------------------------------


@pytest.mark.parametrize("said", [b"250 ok", b"220 hi", b"235 2.7.0 ok", b"500 x", b"+OK", b""])
def test_B15_B25_SMTP_inside_TLS_nobody_speaks_unasked(said: bytes) -> None:
    for implicit in (False, True):
        SMTP.secured(implicit=implicit).backend(
            said + b"\r\n",
            *aborts("backend-protocol-error", b"421 4.3.0 gw.example.org Internal error\r\n"),
        ).run()


@pytest.mark.parametrize("said", [b"+OK", b"+OK logged in", b"+OK hi", b"+ ", b".", b"", b"250 ok"])
def test_B15_B25_POP3_inside_TLS_nobody_speaks_unasked(said: bytes) -> None:
    """Somebody on the path may have logged in as himself before TLS, and the backend lets it count inside."""
    for implicit in (False, True):
        POP3.secured(implicit=implicit).backend(said + b"\r\n", *aborts("backend-protocol-error")).run()


def test_a_POP3_server_may_say_that_it_is_tired_of_waiting() -> None:
    POP3.secured().returns(b"-ERR timeout\r\n").ended(BACKEND, True, *aborts("backend-closed")).run()


@pytest.mark.parametrize("said", [b"sgw2 OK done", b"sgw1 OK", b"a OK LOGIN completed", b"+ go", b"", b"250 ok"])
def test_B15_B25_IMAP_inside_TLS_only_untagged_lines_come_unasked(said: bytes) -> None:
    for implicit in (False, True):
        IMAP.secured(implicit=implicit).returns(b"* OK still here\r\n").backend(
            said + b"\r\n", *IMAP.sorry("backend-protocol-error")
        ).run()


# --- B19, B20: answers without measure ------------------------------------------------------------


@pytest.mark.parametrize("flood", [
    b"250-x\r\n" * 1001, b"250-" + b"x" * 8189 + b"\r\n", b"250-" + b"x" * 100_000,
    (b"250-" + b"x" * 8000 + b"\r\n") * 40,
], ids=len)  # fmt: skip
def test_B19_SMTP_answers_without_end(flood: bytes) -> None:
    play = SMTP.dialled(backend_tls=STARTTLS).backend(SMTP.offer, to_backend(HELLO))
    play.backend(flood, *SMTP.sorry("backend-bad-greeting")).run(LONG)
    greeting = flood.replace(b"250", b"220")
    SMTP.dialled(backend_tls=STARTTLS).backend(greeting, *SMTP.sorry("backend-bad-greeting")).run(LONG)


@pytest.mark.parametrize("flood", [
    b"* x\r\n" * 1001, b"* " + b"x" * 8191 + b"\r\n", b"* " + b"x" * 100_000, (b"* " + b"x" * 8000 + b"\r\n") * 40,
], ids=len)  # fmt: skip
def test_B19_IMAP_answers_without_end(flood: bytes) -> None:
    IMAP.asked().backend(flood, *IMAP.sorry("backend-bad-greeting")).run(LONG)


@pytest.mark.parametrize("said", [
    b"25", b"250", b"250x", b"250-a\r\n550 b", b"999 x", b"2 5 0", b"\0", b"250-a\r\n", b"\x1b[2J", b"-ERR\r",
], ids=short)  # fmt: skip
def test_B20_malformed_answers_decide_nothing(said: bytes) -> None:
    key = "backend-tls-failed" if said == b"250" else "backend-bad-greeting"
    play = SMTP.dialled(backend_tls=STARTTLS).backend(SMTP.offer, to_backend(HELLO))
    play.backend(said + b"\r\n", *SMTP.sorry(key)).run()


def test_B20_a_bare_LF_ends_a_line_of_the_backends_too() -> None:
    """The second line is then the answer to EHLO, and no command of anybody's."""
    SMTP.dialled(backend_tls=STARTTLS).backend(
        b"220 a\nSTARTTLS\n", to_backend(HELLO), *SMTP.sorry("backend-bad-greeting")
    ).run()


# --- what TLS on both legs is good for ------------------------------------------------------------


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_a_promise_of_TLS_is_made_where_both_legs_keep_it(verified: bool, implicit: bool) -> None:
    """REQUIRETLS (RFC 8689)."""
    play = SMTP.secured(implicit=implicit, backend_verified=verified).passes(b"EHLO me\r\n")
    shown = [b"250-legacy\r\n", *[b"250-REQUIRETLS\r\n"] * (verified and implicit), b"250-SIZE\r\n"]
    last = b"250 SIZE\r\n" if implicit else b"250 STARTTLS\r\n"
    told = b"".join([*shown[:-1], last] if implicit else [*shown, last])
    play.backend(b"250-legacy\r\n250-REQUIRETLS\r\n250 SIZE\r\n", to_client(told)).run()
