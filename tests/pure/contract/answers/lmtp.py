"""LMTP: RFC 2033.  All that RFC 5321, 3207 and 4954 say of SMTP, but that a client says LHLO."""

from __future__ import annotations

from dataclasses import replace

from gateway.dialects.base import Identity
from tests.pure.contract.answers.smtp import ANSWERS as SMTP
from tests.pure.contract.answers.smtp import LISTED
from tests.pure.contract.form import Exchange, Look, Telling

HELLO = b"LHLO gw.example.org\r\n"

ANSWERS = replace(
    SMTP,
    greeting=b"220 legacy.example.org LMTP\r\n",
    lazy_greeting=b"220 gw.example.org LMTP\r\n",
    alpn=(),
    words=SMTP.words.replace(b"EHLO", b"LHLO EHLO"),
    before_tls=rb"(?i:LHLO|QUIT)[^\r\n]*\r\n",
    policies={},
    introduction=(Exchange(b"LHLO me\r\n", b"250-legacy\r\n250 AUTH PLAIN LOGIN\r\n"),),
    listing=Exchange(b"LHLO me\r\n", LISTED),
    offer=b"220 legacy.example.org LMTP\r\n",
    asks=(
        Exchange(HELLO, b"250-legacy.example.org\r\n250-STARTTLS\r\n250-AUTH LOGIN\r\n250 XCLIENT ADDR PORT\r\n"),
    ),
    welcome=b"220 legacy.example.org LMTP\r\n",
    welcome_inside=b"220 legacy.example.org LMTP\r\n",
    offer_inside=b"220 legacy.example.org LMTP\r\n",
    tells={
        Identity.XCLIENT: Telling(
            b"220 hi\r\n",
            (
                Exchange(HELLO, b"250-legacy\r\n250 XCLIENT ADDR PORT\r\n"),
                Exchange(b"XCLIENT ADDR=192.0.2.10 PORT=40000\r\n", b"220 now I know you\r\n"),
            ),
            b"220 now I know you\r\n",
            b"550 5.7.0 not you\r\n",
        )
    },
    look=Look(
        (
            Exchange(HELLO, LISTED),
            Exchange(b"MAIL FROM:<>\r\n", b"250 ok\r\n"),
            Exchange(b"RSET\r\n", b"250 ok\r\n"),
            Exchange(b"QUIT\r\n", b"221 bye\r\n"),
        ),
        [b"SIZE 10", b"STARTTLS", b"AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-1-PLUS EXTERNAL", b"XCLIENT NAME ADDR"],
        [b"SIZE 10", b"AUTH PLAIN"],
        ("PLAIN",),
    ),
)  # fmt: skip
