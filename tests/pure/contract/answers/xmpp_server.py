"""XMPP between servers: as with clients, but for the namespace and dialback (XEP-0220)."""

from __future__ import annotations

from dataclasses import replace

from tests.pure.contract.answers import xmpp
from tests.pure.contract.answers.xmpp import CLOSE, PROCEED, STARTTLS, answer, error, features
from tests.pure.contract.form import Exchange, Look

KEY = b"<db:result from='peer.example' to='gw.example.org'>1e701f120f66824b</db:result>"
VALID = b"<db:result from='gw.example.org' to='peer.example' type='valid'/>"
INVALID = b"<db:result from='gw.example.org' to='peer.example' type='invalid'/>"
DIALBACK = b"<dialback xmlns='urn:xmpp:features:dialback'/>"


def servers(octets: bytes) -> bytes:
    """The same between servers."""
    return octets.replace(b"xmlns='jabber:client'", b"xmlns='jabber:server' xmlns:db='jabber:server:dialback'")


HEADER = servers(xmpp.HEADER).replace(b" to=", b" from='peer.example' to=")
OWN_HEADER = servers(xmpp.OWN_HEADER)
GREETING = servers(answer(b"<stream:features>%s</stream:features>" % DIALBACK))
FIRST = servers(xmpp.FIRST).replace(b" id=", b" to='peer.example' id=")

ANSWERS = replace(
    xmpp.ANSWERS,
    greeting=GREETING,
    refusal=servers(xmpp.ANSWERS.refusal),
    unavailable=servers(xmpp.ANSWERS.unavailable),
    busy=servers(xmpp.ANSWERS.busy),
    alpn=(b"xmpp-server",),
    starttls=Exchange(HEADER + STARTTLS, FIRST + PROCEED),
    early=HEADER + KEY,
    closed_login=FIRST + error(b"policy-violation"),
    user=b"peer.example",
    login=HEADER,
    credentials=KEY,
    accepted=VALID,
    rejected=INVALID,
    logins=(HEADER,),
    limited=error(b"policy-violation"),
    idle_words=servers(xmpp.ANSWERS.idle_words),
    idle_early_words=servers(xmpp.ANSWERS.idle_early_words),
    stop_words=servers(xmpp.ANSWERS.stop_words),
    stop_early_words=servers(xmpp.ANSWERS.stop_early_words),
    asks=(Exchange(OWN_HEADER.replace(b" to=", b" from='peer.example' to="), servers(answer(xmpp.OFFER))),),
    again=(Exchange(HEADER, GREETING),),
    welcome=GREETING,
    welcome_inside=GREETING,
    offer_inside=GREETING,
    lockstep=False,
    look=Look(
        (
            Exchange(OWN_HEADER, servers(answer(features(b"EXTERNAL", more=DIALBACK)))),
            Exchange(CLOSE, CLOSE),
        ),
        [b"dialback", b"mechanism EXTERNAL"],
        [b"dialback"],
        ("DIALBACK",),
    ),
)  # fmt: skip
