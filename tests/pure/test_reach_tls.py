"""TLS towards the backend: rows G15, G16, I16 of protocols.md 15 and B1 to B24 of attacks.md.

Until the backend's TLS is there and verified, what it says decides nothing but whether TLS begins.  (attacks.md B10
would also hide the greeting's own text; protocols.md 2.6, 3.6 and 4.6 relay it, and count.)
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.base import BackendTLS, Identity
from gateway.negotiation.vocabulary import Dial, Expired, Greeted, Patience, Send, Side, TLSFailed
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    SINGLE,
    WHOLE,
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
from tests.pure.reaching import BACKEND, HELLO, HERE, IMAP, POP3, SMTP, SWITCH, WAYS, Way

CLIENT = Side.CLIENT
GREETED = Greeted()

every_way = pytest.mark.parametrize("way", WAYS, ids=str)

INJECTED = {
    "smtp": (
        b"250-legacy\r\n250 AUTH LOGIN PLAIN\r\n",
        b"220 again\r\n",
        b"421 go away\r\n",
        b"250-AUTH PLAIN\r\n250-X",
    ),
    "imap": (
        b"* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\nsgw2 OK done\r\n",
        b"* BYE\r\n",
        b"* OK hi\r\n",
        b"* CAPABILITY IMAP4re",
    ),
    "pop3": (b"+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n", b"-ERR bye\r\n", b"+"),
}
ANYTHING = (b"injected\r\n", b"x", b"\r\n", b"\n", b"\0", b"\x16\x03\x03\x00\x7a\x02")
"""A server that speaks first inside TLS has not heard our ClientHello: that is no server (protocols.md 1.11)."""

behind_the_go_ahead = pytest.mark.parametrize(
    ("way", "injected"),
    [(way, injected) for way in WAYS for injected in (*INJECTED[str(way)], *ANYTHING)],
    ids=lambda value: value.dialect.name if isinstance(value, Way) else ascii(value[:24])[2:-1],
)


# --- G15, B1, B2, B13: what is said behind the go-ahead -------------------------------------------


@behind_the_go_ahead
def test_G15_B1_B2_B13_octets_behind_the_go_ahead_are_an_attack(way: Way, injected: bytes) -> None:
    play = way.asked().backend(way.go + injected, *way.sorry("backend-starttls-injection"))
    play.run((WHOLE,))
    assert way.command not in play.notes[-1].fields  # the note tells of what was injected, and of nothing else
    assert f"{len(injected)} octets" in play.detail


@behind_the_go_ahead
def test_B1_B2_octets_that_come_later_are_the_handshakes_and_nobody_elses(way: Way, injected: bytes) -> None:
    play = way.asked().backend(way.go + injected, tls(b"", BACKEND, injected))
    play.unsecured(*way.sorry("backend-tls-failed", detail="wrong version number"), detail="wrong version number")
    play.run((SINGLE,))


@every_way
@given(injected=st.binary(min_size=1, max_size=200), cut=st.integers(0, 40))
def test_B1_B2_no_octet_of_the_clear_is_read_inside_tls(way: Way, injected: bytes, cut: int) -> None:
    """However the network cuts it: either it is noticed or OpenSSL gets it, and the client hears no octet."""
    stage = Stage(way.dialect, terms(backend_tls=BackendTLS.STARTTLS), cut)
    stage.take(stage.negotiation.start())
    stage.take(stage.negotiation.dialled())
    for octets in (way.greeting, *(answer for _, answer in way.asks), way.go + injected):
        stage.receive(BACKEND, octets)
    if stage.switching:
        assert stage.heard_by(CLIENT) == b""
        switch = stage.deeds[-1]
        assert isinstance(switch, Switch)
        assert switch.side is BACKEND
        assert injected.endswith(switch.early)
        assert len(switch.early) == len(injected)
    else:
        assert stage.heard_by(CLIENT) == way.unavailable
        assert stage.negotiation.over


# --- B3, I16: what was learnt in the clear --------------------------------------------------------


def test_I16_B3_the_client_sees_the_list_of_inside() -> None:
    way = replace(
        IMAP,
        greeting=b"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED AUTH=CRAM-MD5 CLEAR] Dovecot ready.\r\n",
        again=(
            (
                b"sgw2 CAPABILITY\r\n",
                b"* CAPABILITY IMAP4rev1 SASL-IR\r\n* CAPABILITY AUTH=PLAIN AUTH=EXTERNAL INSIDE\r\nsgw2 OK\r\n",
            ),
        ),
        welcome=b"* OK [CAPABILITY IMAP4rev1 SASL-IR INSIDE STARTTLS LOGINDISABLED] Dovecot ready.\r\n",
    )
    way.secured().run()
    play = way.dialled(implicit=True).run
    del play
    implicit = replace(
        way, welcome=b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN INSIDE] Dovecot ready.\r\n"
    )
    begun = Playbook(way.dialect, terms(backend_tls=BackendTLS.STARTTLS, implicit=True)).start(tls(b"")).secured(DIAL)
    implicit.finished(implicit.begun(begun.dialled()).backend(implicit.go, SWITCH)).run()
