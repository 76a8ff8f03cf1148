"""Who the client is, told to the backend and by load balancers: rows G23, S25, S26, I14 and P08 of
docs/conformance.md, B24 and H1 to H7."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import BackendTLS, Dialect, Identity, Policy
from gateway.dialects.mail import xclient
from gateway.protocol.proxyprotocol import Origin
from gateway.protocol.vocabulary import Dial, Greeted, Identified, Secured, Side
from tests.pure.contract.party import BACKEND, HERE, IMAP, POP3, SMTP, SWITCH, Party, every_party, short
from tests.pure.playbook import (
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
HERE6 = Origin(("2001:db8::10", 40000), ("2001:db8::1", 143))
STARTTLS = BackendTLS.STARTTLS
CLIENT = Side.CLIENT
GREETED = Greeted()
MAPPED = Origin(("::ffff:192.0.2.10", 40000), ("::ffff:198.51.100.1", 143))
MIXED = Origin(("192.0.2.10", 40000), ("2001:db8::1", 143))

every_mode = pytest.mark.parametrize("mode", list(BackendTLS), ids=lambda mode: mode.value)


# --- G23: PROXY headers ----------------------------------------------------------------------------

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
SESSION = bytes.fromhex("050008") + b"gw1-0001"
"""The header on a leg in the clear."""


def test_G23_the_header_tells_what_was_agreed_on_with_this_client() -> None:
    facts = Secured("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", 128)
    agreed = terms(identity=Identity.PROXY_V2, origin=HERE, implicit=True)
    header = (
        SIGNATURE + bytes.fromhex("2111 0047 c000020a c6336401 9c40 008f") + SESSION
        + bytes.fromhex("20 002d 01 00000001 21 0007") + b"TLSv1.2" + bytes.fromhex("23 001b") + facts.cipher.encode()
    )  # fmt: skip
    Playbook(POP3.dialect, agreed).start(tls(b"")).secured(DIAL, facts=facts).dialled(to_backend(header)).run()


# --- S25, S26, H2: XCLIENT for SMTP ---------------------------------------------------------------

OFFER = b"NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
DOVECOT = b"ADDR PORT LOGIN HELO PROTO SESSION TTL TIMEOUT DESTADDR DESTPORT DESTNAME CLIENT-TRANSPORT FORWARD"
POSTFIX_V4 = b"NAME=[UNAVAILABLE] ADDR=192.0.2.10 PORT=40000 DESTADDR=198.51.100.1 DESTPORT=143"


def offers(listed: bytes) -> bytes:
    return b"250-legacy\r\n250-xclient %s\r\n250 SIZE\r\n" % listed


def asked(origin: Origin = HERE, offer: bytes = OFFER, *then: Expected, **changes: Any) -> Playbook:
    play = SMTP.dialled(identity=Identity.XCLIENT, origin=origin, **changes)
    return play.backend(SMTP.offer, to_backend(HELLO)).backend(offers(offer), *then)


@pytest.mark.parametrize(("origin", "offer", "told"), [
    (HERE, OFFER, POSTFIX_V4),
    (MAPPED, OFFER, POSTFIX_V4),
    (HERE6, OFFER, b"NAME=[UNAVAILABLE] ADDR=IPV6:2001:db8::10 PORT=40000 DESTADDR=IPV6:2001:db8::1 DESTPORT=143"),
    (MIXED, OFFER, b"NAME=[UNAVAILABLE] ADDR=192.0.2.10 PORT=40000 DESTADDR=IPV6:2001:db8::1 DESTPORT=143"),
    (HERE, b"ADDR", b"ADDR=192.0.2.10"),
    (HERE, b"addr  port", b"ADDR=192.0.2.10 PORT=40000"),
    (HERE, b"PORT NAME ADDR LOGIN HELO PROTO", b"NAME=[UNAVAILABLE] ADDR=192.0.2.10 PORT=40000"),
    (HERE, b"ADDR DESTPORT X-NEW", b"ADDR=192.0.2.10 DESTPORT=143"),
    (HERE, DOVECOT, b"ADDR=192.0.2.10 PORT=40000 DESTADDR=198.51.100.1 DESTPORT=143 SESSION=gw1-0001 TTL=4"),
], ids=short)  # fmt: skip
def test_S25_H2_what_the_backend_takes_is_told(origin: Origin, offer: bytes, told: bytes) -> None:
    greeting = b"220-now I know\r\n220 who you are\r\n"
    play = asked(origin, offer, to_backend(b"XCLIENT %s\r\n" % told))
    play.returns(greeting, GREETED).passes(b"EHLO me\r\n").run()


def test_S25_on_an_implicit_port_Dovecot_learns_that_there_is_TLS() -> None:
    told = b"XCLIENT ADDR=192.0.2.10 SESSION=gw1-0001 TTL=4 CLIENT-TRANSPORT=TLS\r\n"
    asked(HERE, b"ADDR SESSION TTL CLIENT-TRANSPORT", to_backend(told), implicit=True).run()


def test_S25_H2_behind_TLS_it_is_asked_again() -> None:
    play = SMTP.switched(identity=Identity.XCLIENT, origin=HERE).secured(to_backend(HELLO))
    play.backend(offers(b"ADDR"), to_backend(b"XCLIENT ADDR=192.0.2.10\r\n"))
    play.returns(b"220 inside\r\n", GREETED).run()

    agreed = terms(identity=Identity.XCLIENT, origin=HERE, backend_tls=BackendTLS.IMPLICIT)
    play = Playbook(SMTP.dialect, agreed).start(DIAL).dialled(SWITCH).secured()
    play.backend(SMTP.offer, to_backend(HELLO))
    play.backend(offers(b"ADDR"), to_backend(b"XCLIENT ADDR=192.0.2.10\r\n"))
    play.returns(b"220 inside\r\n", GREETED).run()


LONG = "x" * 490


@pytest.mark.parametrize("reply", [b"220 two\r\n", b"421 no\r\n", b"550 no\r\n"])
def test_S25_H2_a_command_that_would_be_too_long_is_two_and_ADDR_comes_last(reply: bytes) -> None:
    first = to_backend(b"XCLIENT PORT=40000 SESSION=%s\r\n" % LONG.encode())
    play = asked(HERE, b"ADDR PORT SESSION", first, session=LONG)
    play.backend(b"220 one\r\n", to_backend(b"XCLIENT ADDR=192.0.2.10\r\n"))
    match reply[:3]:
        case b"220":
            play.returns(reply, GREETED)
        case b"421":
            play.returns(reply, GREETED, close("backend-refused"))
        case _:
            play.backend(reply, *SMTP.sorry("backend-identity-refused"))
    play.run()


def test_S26_a_first_half_that_is_refused_is_the_answer() -> None:
    play = asked(
        HERE, b"ADDR PORT SESSION", to_backend(b"XCLIENT PORT=40000 SESSION=%s\r\n" % LONG.encode()), session=LONG
    )
    play.returns(b"554 no\r\n", GREETED).run()


@given(st.integers(1, 600))
def test_S25_no_command_is_longer_than_512_octets_unless_one_value_is(length: int) -> None:
    commands = xclient.commands(terms(origin=HERE6, session="x" * length), [*OFFER.split(), b"SESSION"])
    assert len(commands[0]) + 2 <= 512 or len(commands) == 2
    assert b"ADDR=IPV6:2001:db8::10" in commands[-1].split()
    assert sum(command.count(b" ADDR=") for command in commands) == 1


def told(**changes: Any) -> Playbook:
    return asked(HERE, b"ADDR", to_backend(b"XCLIENT ADDR=192.0.2.10\r\n"), **changes)


def test_S26_550_is_our_own_mistake_and_the_client_hears_none_of_it() -> None:
    told().backend(b"550 5.7.0 not you\r\n", *SMTP.sorry("backend-identity-refused")).run()
    told(others=True).backend(b"550 5.7.0 not you\r\n", Dial("backend-identity-refused")).run()


def test_S26_another_refusal_is_this_clients() -> None:
    refused = note("backend-refused")
    told().backend(b"421 busy\r\n", GREETED, refused, to_client(b"421 busy\r\n"), close("backend-refused")).run()
    play = told().backend(b"554 5.7.1 listed\r\n", GREETED, refused, to_client(b"554 5.7.1 listed\r\n"))
    play.client(b"EHLO me\r\n", to_client(b"503 5.5.1 Only QUIT is allowed now\r\n"))
    play.asks(b"QUIT\r\n", b"221 bye\r\n", close("quit"))
    play.run()


@pytest.mark.parametrize("reply", [b"250 ok\r\n", b"354 go\r\n", b"221 x\r\n", b"nonsense\r\n", b"\r\n"])
def test_S26_an_answer_that_means_nothing(reply: bytes) -> None:
    told().backend(reply, *SMTP.sorry("backend-bad-greeting")).run()


@pytest.mark.parametrize(
    "reply", [b"250 legacy\r\n", b"250-legacy\r\n250 XFORWARD ADDR\r\n", b"502 what\r\n", b"550 what\r\n"]
)
def test_S26_who_does_not_offer_it_is_not_told(reply: bytes) -> None:
    play = SMTP.dialled(identity=Identity.XCLIENT, origin=HERE)
    play.backend(SMTP.offer, to_backend(HELLO)).backend(reply, *SMTP.sorry("backend-identity-refused")).run()


@pytest.mark.parametrize("offer", [b"NAME PORT", b"ADDRESS", b""])
def test_S26_without_ADDR_it_is_worth_nothing(offer: bytes) -> None:
    asked(HERE, offer, *SMTP.sorry("backend-identity-refused")).run()


def test_S26_a_greeting_that_refuses_needs_no_name() -> None:
    play = SMTP.dialled(identity=Identity.XCLIENT, origin=HERE)
    play.returns(b"554 no\r\n").run()


# --- B24: what we put into commands ---------------------------------------------------------------


@given(st.text(st.characters(codec="utf-8"), max_size=60))
def test_B24_no_value_leaves_its_place(text: str) -> None:
    """RFC 3461 4: one word, whatever it stands for, and readable again."""
    encoded = xclient.xtext(text)
    assert all(0x21 <= octet <= 0x7E and octet != ord("=") for octet in encoded)
    decoded, rest = b"", encoded
    while rest:
        if rest[:1] == b"+":
            assert rest[1:3] == rest[1:3].upper()
            decoded, rest = decoded + bytes.fromhex(rest[1:3].decode("ascii")), rest[3:]
        else:
            decoded, rest = decoded + rest[:1], rest[1:]
    assert decoded.decode() == text


@pytest.mark.parametrize("address", [
    "192.0.2.1\r\nXCLIENT ADDR=127.0.0.1", "192.0.2.1 ", "192.0.2.1 LOGIN=root", "mail.example.org", "", '1"',
])  # fmt: skip
def test_B24_an_origin_holds_addresses_and_nothing_else(address: str) -> None:
    with pytest.raises(ValueError, match="address"):
        Origin((address, 1), ("192.0.2.1", 1))


def test_B24_a_zone_is_the_machines_own_and_is_told_to_nobody() -> None:
    assert Origin(("fe80::1%eth0\r\n", 1), ("::1", 1)).source == ("fe80::1", 1)


@every_party
def test_B24_what_the_backend_calls_itself_is_never_said_to_it(party: Party) -> None:
    """Nor is anything else of its greeting; our own name is the one in the file."""
    evil = {
        "smtp": b"220 x.example\rSTARTTLS\0\x1b[2J\r\n",
        "lmtp": b"220 x.example\rSTARTTLS\0\x1b[2J\r\n",
        "nntp": b"200 x.example\rSTARTTLS\0\x1b[2J\r\n",
        "ftp": b"220 x.example\rAUTH TLS\0\x1b[2J\r\n",
        "imap": b"* OK [CAPABILITY IMAP4rev1 STARTTLS] \rsgw9\0\x1b[2J\r\n",
        "pop3": b"+OK <1@evil\rQUIT>\r\n",
        "acap": b'* ACAP (IMPLEMENTATION "\rx LOGOUT\0") (STARTTLS)\r\n',
        "managesieve": b'"IMPLEMENTATION" "\rLOGOUT\0"\r\n"STARTTLS"\r\nOK "\rLOGOUT\x1b[2J"\r\n',
    }[str(party)]
    first = party.answers.asks[0][0] if party.answers.asks else party.questions[-1].said
    party.dialled(backend_tls=STARTTLS).backend(evil, to_backend(first)).run()


# --- I14: ID for IMAP -----------------------------------------------------------------------------

V4_FIELDS = (
    b'"x-originating-ip" "192.0.2.10" "x-originating-port" "40000" "x-connected-ip" "198.51.100.1"'
    b' "x-connected-port" "143" "x-session-id" "gw1-0001" "x-proxy-ttl" "4"'
)
V6_FIELDS = V4_FIELDS.replace(b"192.0.2.10", b"2001:db8::10").replace(b"198.51.100.1", b"2001:db8::1")
LISTED = b"* OK [CAPABILITY IMAP4rev1 ID AUTH=PLAIN] hi\r\n"
SHOWN = b"* OK [CAPABILITY IMAP4rev1 ID STARTTLS LOGINDISABLED] hi\r\n"


def id_told(origin: Origin = HERE, fields: bytes = V4_FIELDS, **changes: Any) -> Playbook:
    play = IMAP.dialled(identity=Identity.ID, origin=origin, **changes)
    return play.backend(LISTED, to_backend(b"sgw4 ID (%s)\r\n" % fields))


@pytest.mark.parametrize(("origin", "fields"), [(HERE, V4_FIELDS), (MAPPED, V4_FIELDS), (HERE6, V6_FIELDS)], ids=short)
def test_I14_the_exact_line_and_no_tag_of_the_clients_is_touched(origin: Origin, fields: bytes) -> None:
    play = (
        id_told(origin, fields).backend(b'* ID ("name" "Dovecot")\r\n').backend(b"sgw4 OK done\r\n", to_client(SHOWN))
    )
    play.asks(b"sgw4 CAPABILITY\r\n", b"sgw4 OK done\r\n").run()


def test_I14_inside_TLS_that_is_told_too() -> None:
    fields = V4_FIELDS + b' "x-client-transport" "TLS"'
    play = id_told(HERE, fields, implicit=True)
    play.backend(b"sgw4 OK\r\n", GREETED, to_client(LISTED)).run()


def test_I14_who_lists_nothing_is_asked() -> None:
    for said, known in ((b"* CAPABILITY IMAP4rev1\r\n* CAPABILITY id\r\n", True), (b"* CAPABILITY IMAP4\r\n", False)):
        play = IMAP.dialled(identity=Identity.ID, origin=HERE)
        play.backend(b"* OK hi\r\n", to_backend(b"sgw3 CAPABILITY\r\n"))
        if known:
            play.backend(said + b"sgw3 OK\r\n", to_backend(b"sgw4 ID (%s)\r\n" % V4_FIELDS))
            play.backend(b"sgw4 OK\r\n", to_client(b"* OK hi\r\n"), GREETED).run()
        else:
            play.backend(said + b"sgw3 OK\r\n", *IMAP.sorry("backend-identity-refused")).run()


def test_I14_behind_STARTTLS() -> None:
    listed = b"* CAPABILITY IMAP4rev1 ID NEW\r\nsgw2 OK\r\n"
    play = IMAP.switched(identity=Identity.ID, origin=HERE)
    play.secured(to_backend(b"sgw2 CAPABILITY\r\n")).backend(listed, to_backend(b"sgw4 ID (%s)\r\n" % V4_FIELDS))
    told = b"* OK [CAPABILITY IMAP4rev1 ID NEW STARTTLS LOGINDISABLED] hi\r\n"
    play.backend(b"sgw4 OK\r\n", to_client(told), GREETED).run()


@pytest.mark.parametrize("verdict", [b"NO [SERVERBUG] x", b"NO", b"BAD what", b"OKAY", b"", b"PREAUTH"])
def test_I14_a_refusal_fails_closed(verdict: bytes) -> None:
    id_told().backend(b"sgw4 %s\r\n" % verdict, *IMAP.sorry("backend-identity-refused")).run()
    id_told(others=True).backend(b"sgw4 %s\r\n" % verdict, Dial("backend-identity-refused")).run()


def test_I14_a_backend_that_does_not_offer_it() -> None:
    play = IMAP.dialled(identity=Identity.ID, origin=HERE)
    play.backend(b"* OK [CAPABILITY IMAP4rev1 IDLE XID] hi\r\n", *IMAP.sorry("backend-identity-refused")).run()


def test_I14_T03_a_goodbye_in_its_place_is_the_backends() -> None:
    play = id_told().backend(b"* BYE too many\r\n")
    play.ended(
        BACKEND, True, GREETED, note("backend-refused"), to_client(b"* BYE too many\r\n"), close("backend-refused")
    ).run()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"* BYE too many\r\nsgw4 NO\r\n", b"* BYE too many\r\n"),
        (b"sgw4 NO [UNAVAILABLE] not you\r\n", b"* BYE [UNAVAILABLE] not you\r\n"),
    ],
)
def test_T03_a_refusal_of_ID_that_is_one_of_the_client(said: bytes, told: bytes) -> None:
    id_told().backend(said, GREETED, note("backend-refused"), to_client(told), close("backend-refused")).run()


def test_T03_a_refusal_of_XCLIENT_that_is_one_of_the_client() -> None:
    said = b"-ERR [SYS/PERM] client 192.0.2.10 blocked\r\n"
    pop_told().returns(said, GREETED, note("backend-refused"), close("backend-refused")).run()


@pytest.mark.parametrize("how", ["closed", "lost"])
def test_T03_a_handshake_that_is_cut_short_may_be_one_clients(how: str) -> None:
    agreed = terms(backend_tls=BackendTLS.IMPLICIT, identity=Identity.PROXY_V1, origin=HERE)
    header = to_backend(b"PROXY TCP4 192.0.2.10 198.51.100.1 40000 143\r\n")
    play = Playbook(POP3.dialect, agreed, others=True).start(DIAL).dialled(header, SWITCH)
    play.unsecured(Dial("backend-connect-failed"), detail=f"connection {how} during the handshake").run()


# --- P08, H3: XCLIENT for POP3 --------------------------------------------------------------------

TRUSTING = b"+OK [XCLIENT] Dovecot ready.\r\n"
P_V4 = b"ADDR=192.0.2.10 PORT=40000 DESTADDR=198.51.100.1 DESTPORT=143 SESSION=gw1-0001 TTL=4"
P_V6 = b"ADDR=2001:db8::10 PORT=40000 DESTADDR=2001:db8::1 DESTPORT=143 SESSION=gw1-0001 TTL=4"


def pop_told(origin: Origin = HERE, told: bytes = P_V4, **changes: Any) -> Playbook:
    play = POP3.dialled(identity=Identity.XCLIENT, origin=origin, **changes)
    return play.backend(TRUSTING, to_backend(b"XCLIENT %s\r\n" % told))


@pytest.mark.parametrize(("origin", "line"), [(HERE, P_V4), (MAPPED, P_V4), (HERE6, P_V6)], ids=short)
def test_P08_POP3_has_no_prefixes_and_the_client_gets_the_first_greeting(origin: Origin, line: bytes) -> None:
    play = pop_told(origin, line).backend(b"+OK Updated\r\n", to_client(b"+OK Dovecot ready.\r\n"), GREETED)
    play.passes(b"CAPA\r\n").run()


def test_P08_on_an_implicit_port_it_learns_that_there_is_TLS() -> None:
    play = pop_told(HERE, P_V4 + b" CLIENT-TRANSPORT=TLS", implicit=True)
    play.backend(b"+OK Updated\r\n", to_client(b"+OK Dovecot ready.\r\n")).run()


def test_P08_behind_STLS() -> None:
    play = POP3.dialled(identity=Identity.XCLIENT, origin=HERE, backend_tls=STARTTLS).backend(
        TRUSTING, to_backend(b"STLS\r\n")
    )
    play.backend(b"+OK go\r\n", SWITCH).secured(to_backend(b"XCLIENT %s\r\n" % P_V4))
    play.backend(b"+OK Updated\r\n", to_client(b"+OK Dovecot ready.\r\n"), GREETED).run()


@pytest.mark.parametrize("reply", [
    b"-ERR no\r\n", b"+OK You are not from trusted IP - ignoring\r\n", b"+OKAY\r\n", b"+ \r\n", b"what\r\n", b"\r\n",
])  # fmt: skip
def test_P08_whoever_does_not_believe_us_is_not_used(reply: bytes) -> None:
    pop_told().backend(reply, *POP3.sorry("backend-identity-refused")).run()


@pytest.mark.parametrize("greeting", [b"+OK hi\r\n", b"+OK [XCLIENTS] hi\r\n", b"+OK x[XCLIENT]\r\n"])
def test_P08_nor_whoever_does_not_offer_it(greeting: bytes) -> None:
    play = POP3.dialled(identity=Identity.XCLIENT, origin=HERE)
    play.backend(greeting, *POP3.sorry("backend-identity-refused")).run()


# --- H1, H3, H4: a client that wants to speak for others ------------------------------------------

WORDS = {
    "smtp": (
        b"XCLIENT ADDR=127.0.0.1 NAME=localhost LOGIN=root", b"xclient ADDR=1.2.3.4", b"XCLIENT\tADDR=1.2.3.4",
        b"XCLIENT", b"XFORWARD NAME=x ADDR=y", b"xforward", b"XPROXY 4 1.2.3.4 1 1.2.3.4 25", b"XRCPTFORWARD x",
    ),
    "pop3": (b"XCLIENT ADDR=127.0.0.1 LOGIN=root", b"xclient ADDR=1", b"XOIP 1.2.3.4", b"xoip", b"XCLIENT"),
}  # fmt: skip
REFUSAL = {"smtp": b"502 5.5.1 Command not implemented\r\n", "pop3": b"-ERR Unknown command\r\n"}
GO = {"smtp": b"220 2.0.0 Ready to start TLS\r\n", "pop3": b"+OK Begin TLS negotiation now\r\n"}


def greeted(party: Party, policy: Policy = Policy.OPTIONAL, **changes: Any) -> Playbook:
    play = party.dialled(policy=policy, **changes)
    return play.returns(b"+OK hi\r\n" if party is POP3 else b"220 hi\r\n")


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize(
    ("party", "word"), [(party, word) for party in (SMTP, POP3) for word in WORDS[str(party)]], ids=short
)
def test_P08_H1_H3_nobody_speaks_for_others(party: Party, word: bytes, policy: Policy) -> None:
    refusal = to_client(REFUSAL[str(party)])
    before = greeted(party, policy).client(word + b"\r\n", refusal)
    before.client(b"STARTTLS\r\n" if party is SMTP else b"STLS\r\n", tls(GO[str(party)])).secured()
    before.client(word + b"\n", refusal).run()
    greeted(party, implicit=True).client(word + b"\r\n" + word + b"\r\n", refusal, refusal).run()


def test_H1_nor_is_it_offered_where_the_gateway_uses_it() -> None:
    listed = b"250-legacy\r\n250-XCLIENT NAME ADDR\r\n250-xforward NAME\r\n250 SIZE\r\n"
    play = told().returns(b"220 hi\r\n").passes(b"EHLO me\r\n")
    play.backend(listed, to_client(b"250-legacy\r\n250-SIZE\r\n250 STARTTLS\r\n")).run()


@pytest.mark.parametrize(("party", "line", "heard"), [
    (SMTP, b" XCLIENT ADDR=1.2.3.4\r\n", b"500 5.5.2 Syntax error\r\n"),
    (SMTP, b"\tXFORWARD ADDR=1.2.3.4\r\n", b"500 5.5.2 Syntax error\r\n"),
    (POP3, b" XCLIENT ADDR=1.2.3.4\r\n", b"-ERR Unknown command\r\n"),
    (POP3, b"XCLIENT\tADDR=1.2.3.4\r\n", b"-ERR Unknown command\r\n"),
], ids=short)  # fmt: skip
def test_H1_H3_nor_in_disguise_inside_TLS(party: Party, line: bytes, heard: bytes) -> None:
    greeted(party, implicit=True).client(line, to_client(heard)).run()


FORGED = (
    b'("x-originating-ip" "10.0.0.1" "x-session-id" "x" "x-proxy-ttl" "99" "x-forward-mail" "root")',
    b'("X-Originating-IP" "10.0.0.1")',
    b'("x-connected-ip" "10.0.0.1" "x-session-ext-id" "x" "x-client-transport" "TLS")',
    b'("\\x-originating-ip" "10.0.0.1")',
    b'(" x-originating-ip" "10.0.0.1")',
)


@pytest.mark.parametrize("identity", [Identity.NONE, Identity.ID])
@pytest.mark.parametrize("forged", FORGED)
def test_H4_fields_of_ours_in_a_clients_ID_never_arrive(forged: bytes, identity: Identity) -> None:
    if identity is Identity.ID:
        play = id_told(fields=V4_FIELDS + b' "x-client-transport" "TLS"', implicit=True)
        play.backend(b"sgw4 OK\r\n", to_client(LISTED))
    else:
        play = IMAP.dialled(implicit=True).returns(LISTED)
    if b"\\x" in forged:
        play.client(b"a ID %s\r\n" % forged, to_client(b"a BAD Invalid arguments\r\n")).run()
        return
    play.client(b"a ID %s\r\n" % forged, to_backend(b"a ID NIL\r\n"))
    play.returns(b"a OK done\r\n")
    mixed = b'b ID (%s "name" "x")\r\n' % forged[1:-1]
    play.client(mixed, to_backend(b'b ID ("name" "x")\r\n')).returns(b"b OK\r\n").run()


# --- H5, H6: PROXY headers of clients -------------------------------------------------------------

HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.1 51000 25\r\n"
HEADER2 = SIGNATURE + bytes.fromhex("2111 000c cb007107 c6336401 c738 0019")
LOCAL = SIGNATURE + bytes.fromhex("20 00 0000")
REAL = Identified("203.0.113.7", 51000)


def proxied(dialect: Dialect, **changes: Any) -> Playbook:
    return Playbook(dialect, terms(**{"proxied": True, "received": False, **changes})).start()


@pytest.mark.parametrize("header", [HEADER, HEADER2], ids=["v1", "v2"])
def test_H6_what_comes_along_with_it_is_the_clients(header: bytes) -> None:
    play = proxied(SMTP.dialect).client(header + b"EHLO me\r\n", REAL, DIAL).dialled()
    play.returns(b"220 hi\r\n", to_backend(b"EHLO me\r\n")).run()


def test_H6_a_client_behind_a_balancer_may_not_begin_with_TLS_either() -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00"
    ending: tuple[Expected, ...] = aborts("tls-on-plaintext-port")
    proxied(SMTP.dialect).client(HEADER, REAL, DIAL).client(hello, *ending).run()
    # In one segment it is noticed when the client would be heard.
    ending = (note("tls-on-plaintext-port"), to_backend(b"QUIT\r\n"), close("tls-on-plaintext-port"))
    play = proxied(SMTP.dialect).client(HEADER + hello, REAL, DIAL).dialled()
    play.returns(b"220 hi\r\n", *ending).run((WHOLE,))


@pytest.mark.parametrize("header", [
    LOCAL, b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN x y z\r\n", SIGNATURE + bytes.fromhex("21 00 0000"),
], ids=short)  # fmt: skip
def test_H6_a_header_without_an_origin_leaves_the_connections_own(header: bytes) -> None:
    play = proxied(SMTP.dialect, identity=Identity.PROXY_V1, origin=HERE).client(header, DIAL)
    play.dialled(to_backend(b"PROXY TCP4 192.0.2.10 198.51.100.1 40000 143\r\n")).run()
