"""LMTP: RFC 2033.  All that RFC 5321, 3207 and 4954 say of SMTP, but that a client says LHLO."""

from __future__ import annotations

from dataclasses import replace

from tests.pure.contract.answers.smtp import ANSWERS as SMTP
from tests.pure.contract.answers.smtp import LISTED, LOOK
from tests.pure.contract.form import Exchange


def spoken(exchanges: tuple[Exchange, ...]) -> tuple[Exchange, ...]:
    """The same with LHLO."""
    return tuple(Exchange(said.replace(b"EHLO ", b"LHLO "), answered) for said, answered in exchanges)


ANSWERS = replace(
    SMTP,
    greeting=b"220 legacy.example.org LMTP\r\n",
    lazy_greeting=b"220 gw.example.org LMTP\r\n",
    alpn=(),
    words=SMTP.words.replace(b"EHLO", b"LHLO EHLO"),
    before_tls=rb"(?i:LHLO|QUIT)[^\r\n]*\r\n",
    policies={},
    introduction=spoken(SMTP.introduction),
    listing=Exchange(b"LHLO me\r\n", LISTED),
    offer=b"220 legacy.example.org LMTP\r\n",
    asks=spoken(SMTP.asks),
    welcome=b"220 legacy.example.org LMTP\r\n",
    welcome_inside=b"220 legacy.example.org LMTP\r\n",
    offer_inside=b"220 legacy.example.org LMTP\r\n",
    tells={identity: replace(telling, exchanges=spoken(telling.exchanges)) for identity, telling in SMTP.tells.items()},
    look=replace(LOOK, exchanges=spoken(LOOK.exchanges)),
)
