"""XMPP: RFC 6120, and what Prosody 0.12 says."""

from __future__ import annotations

from gateway.dialects.base import Policy
from tests.pure.contract.form import ClientFirst, Exchange, Look

STREAMS = b"http://etherx.jabber.org/streams"
OFFER = b"<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
STARTTLS = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
PROCEED = b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
FAILURE = b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>"
CLOSE = b"</stream:stream>"
SASL = b" xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
AUTH = b"<auth%s mechanism='PLAIN'>AGpvZQBzZWNyZXQ=</auth>" % SASL
SUCCESS = b"<success%s/>" % SASL
DENIED = b"<failure%s><not-authorized/></failure>" % SASL
REGISTER = b"<iq type='set' id='1'><query xmlns='jabber:iq:register'><password>secret</password></query></iq>"


def begin(identity: bytes, to: bytes = b"gw.example.org") -> bytes:
    """How the gateway answers a header."""
    return (
        b"<?xml version='1.0'?><stream:stream from='%s' id='%s' version='1.0' xml:lang='en' "
        b"xmlns='jabber:client' xmlns:stream='%s'>" % (to, identity, STREAMS)
    )


def error(condition: bytes) -> bytes:
    return b"<stream:error><%s xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>" % condition


def ended(condition: bytes) -> bytes:
    """A stream that is nothing but an error."""
    return begin(b"") + error(condition)


def header(to: bytes = b"gw.example.org") -> bytes:
    """A client's, as slixmpp writes it."""
    words = (to, STREAMS)
    return b"<stream:stream to='%s' xmlns:stream='%s' xmlns='jabber:client' xml:lang='en' version='1.0'>" % words


def answer(features: bytes) -> bytes:
    """A server's, as Prosody writes it."""
    return (
        b"<?xml version='1.0'?><stream:stream xml:lang='en' version='1.0' id='3049ec03' xmlns:stream='%s' "
        b"from='gw.example.org' xmlns='jabber:client'>" % STREAMS + features
    )


def features(*mechanisms: bytes, more: bytes = b"") -> bytes:
    names = b"".join(b"<mechanism>%s</mechanism>" % name for name in mechanisms)
    return b"<stream:features>%s<mechanisms%s>%s</mechanisms></stream:features>" % (more, SASL, names)


HEADER = header()
OWN_HEADER = (
    b"<?xml version='1.0'?><stream:stream to='gw.example.org' version='1.0' xml:lang='en' xmlns='jabber:client' "
    b"xmlns:stream='%s'>" % STREAMS
)
GREETING = answer(features(b"PLAIN", b"SCRAM-SHA-1"))
FIRST = begin(b"gw1-0001") + OFFER

ANSWERS = ClientFirst(
    greeting=GREETING,
    refusal=answer(error(b"host-unknown")),
    no_greetings=(b"220 x\r\n", b"* OK\r\n", b"<html>", b"<stream:stream>", b"<!DOCTYPE html>", b"<?php x?>", b"</a>",
                  b"HTTP/1.1 400 Bad Request\r\n\r\n", answer(b"<iq/>"), answer(CLOSE)),
    unavailable=ended(b"remote-connection-failed"),
    busy=ended(b"resource-constraint"),
    alpn=(b"xmpp-client",),
    offers=frozenset({Policy.REQUIRED}),
    user=b"joe",
    idle=86400,
    first=30,
    words=b"<stream:stream <starttls <auth > /> </ = ' \" xmlns to <iq <!-- <?xml &lt; <![CDATA[ ]]>",
    before_tls=rb"[^\0-\xff]",
    starttls=Exchange(HEADER + STARTTLS, FIRST + PROCEED),
    early=HEADER + b"<iq type='get' id='1'><query xmlns='jabber:iq:auth'/></iq>",
    closed_login=FIRST + error(b"policy-violation"),
    closed_reason="tls-required",
    blanks=True,
    login=HEADER,
    credentials=AUTH,
    accepted=SUCCESS,
    rejected=DENIED,
    rejected_reason="",
    named=lambda name: b"<auth%s mechanism='%s'/>" % (SASL, name),
    logins=(HEADER,),
    farewell=b"",
    garbage=(b"SSH-2.0-x", b"USER", b"\xff\xfe<\0", b"\0\0\0\0", b"{} x"),
    too_many_logins=error(b"policy-violation"),
    limited=b"<failure%s><temporary-auth-failure/></failure>" % SASL,
    http_words=b"",
    proxy_words=b"",
    lost_words=error(b"remote-connection-failed"),
    late_words=error(b"remote-connection-failed"),
    idle_words=ended(b"connection-timeout"),
    idle_early_words=ended(b"connection-timeout"),
    stop_words=ended(b"system-shutdown"),
    stop_early_words=ended(b"system-shutdown"),
    offer=b"",
    asks=(Exchange(OWN_HEADER, answer(OFFER)),),
    backend_starttls=Exchange(STARTTLS, PROCEED),
    again=(Exchange(HEADER, GREETING),),
    welcome=GREETING,
    welcome_inside=GREETING,
    offer_inside=GREETING,
    no=(FAILURE, CLOSE, b"<proceed/>", error(b"policy-violation")),
    look=Look(
        (
            Exchange(OWN_HEADER, answer(features(b"PLAIN", b"EXTERNAL", more=STARTTLS))),
            Exchange(CLOSE, CLOSE),
        ),
        [b"starttls", b"mechanism PLAIN", b"mechanism EXTERNAL"],
        [b"mechanism PLAIN"],
        ("PLAIN",),
    ),
)  # fmt: skip
