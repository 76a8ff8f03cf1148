"""The trace field's form."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from email import message_from_bytes
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dialects.mail.received import iana_name, protocol_keyword, received
from gateway.protocol.vocabulary import Secured

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

TLS13 = Secured("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "x25519", "mail.example.org")
TLS12 = Secured("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", 128)


def field(**changes: Any) -> bytes:
    usual: dict[str, Any] = {
        "name": b"client.example.com",
        "client": "192.0.2.10",
        "secured": TLS13,
        "hostname": b"gw.example.org",
        "keyword": "ESMTPSA",
        "identity": "01JD5XK3QH",
        "date": datetime(2025, 11, 21, 16, 13, 25, tzinfo=timezone.utc),
    }
    return received(**{**usual, **changes})


def test_the_sample() -> None:
    assert field() == (
        b"Received: from client.example.com ([192.0.2.10])\r\n"
        b"\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits))\r\n"
        b"\tby gw.example.org (starttls-gateway) with ESMTPSA id 01JD5XK3QH\r\n"
        b"\ttls TLS_AES_256_GCM_SHA384 group x25519;\r\n"
        b"\tFri, 21 Nov 2025 16:13:25 +0000\r\n"
    )


def test_S23_before_tls_1_3_the_registered_name_is_derived() -> None:
    assert field(secured=TLS12, keyword="ESMTPS") == (
        b"Received: from client.example.com ([192.0.2.10])\r\n"
        b"\t(using TLSv1.2 with cipher ECDHE-RSA-AES128-GCM-SHA256 (128/128 bits))\r\n"
        b"\tby gw.example.org (starttls-gateway) with ESMTPS id 01JD5XK3QH\r\n"
        b"\ttls TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256;\r\n"
        b"\tFri, 21 Nov 2025 16:13:25 +0000\r\n"
    )


def test_a_cipher_without_a_known_name_has_no_clause() -> None:
    text = field(secured=Secured("TLSv1", "DES-CBC3-SHA", 112))
    assert b"with cipher DES-CBC3-SHA (112/112 bits)" in text
    assert b"\tby gw.example.org (starttls-gateway) with ESMTPSA id 01JD5XK3QH;\r\n\tFri" in text
    assert b"tls " not in text


def test_in_the_clear_nothing_is_said_of_tls() -> None:
    assert field(secured=None, keyword="ESMTP") == (
        b"Received: from client.example.com ([192.0.2.10])\r\n"
        b"\tby gw.example.org (starttls-gateway) with ESMTP id 01JD5XK3QH;\r\n"
        b"\tFri, 21 Nov 2025 16:13:25 +0000\r\n"
    )


@pytest.mark.parametrize("group", ["", "x25519\r\nX: y", "a b", "é", None])
def test_a_group_that_is_no_atom_is_left_out(group: str | None) -> None:
    text = field(secured=Secured("TLSv1.3", "TLS_AES_128_GCM_SHA256", 128, group))
    assert b"\ttls TLS_AES_128_GCM_SHA256;\r\n" in text


@pytest.mark.parametrize(
    ("client", "shown"),
    [
        ("192.0.2.10", b" ([192.0.2.10])\r\n"),
        ("2001:db8::10", b" ([IPv6:2001:db8::10])\r\n"),
        ("", b"from client.example.com\r\n"),
    ],
)
def test_the_address_is_the_clients(client: str, shown: bytes) -> None:
    assert shown in field(client=client)


@pytest.mark.parametrize(
    "name",
    [b"client.example.com", b"localhost", b"a", b"host_1.example", b"x" * 255, b"[192.0.2.7]", b"[IPv6:2001:db8::10]"],
    ids=repr,
)
def test_a_name_that_is_a_domain_or_a_literal_is_shown(name: bytes) -> None:
    assert field(name=name).startswith(b"Received: from " + name + b" ([192.0.2.10])\r\n")


@pytest.mark.parametrize(
    "name",
    [
        b"evil)\nX: y", b"evil)\r\n\r\nbody", b"x" * 256, b"x" * 300, "münchen.example".encode(), b"", b"-a", b"a-",
        b".", b"a b", b"a\tb", b"a(b)", b"a;b", b"[evil]", b"[192.0.2.7", b"[192.0.2.7]\n", b"a\n", b"\0", b"[]",
    ],
    ids=repr,
)  # fmt: skip
def test_S24_any_other_name_is_unknown(name: bytes) -> None:
    assert field(name=name) == field(name=b"unknown")


@UNHURRIED
@given(st.binary(max_size=300))
def test_no_name_forges_a_line(name: bytes) -> None:
    text = field(name=name)
    assert text.count(b"\r\n") == 5
    assert text.count(b"\n") == text.count(b"\r") == 5
    assert text.isascii()
    assert message_from_bytes(text + b"\r\n").keys() == ["Received"]


def test_lines_are_short_and_continued_with_a_tab() -> None:
    lines = field(secured=Secured("TLSv1.2", "ECDHE-ECDSA-CHACHA20-POLY1305", 256, "prime256v1")).split(b"\r\n")
    assert lines.pop() == b""
    assert all(len(line) < 78 for line in lines)
    assert all(line.startswith(b"\t") for line in lines[1:])


def test_the_date_has_a_numeric_offset() -> None:
    east = timezone(timedelta(hours=5, minutes=30))
    assert field(date=datetime(2026, 2, 1, 3, 4, 5, tzinfo=east)).endswith(b"\tSun, 01 Feb 2026 03:04:05 +0530\r\n")


@pytest.mark.parametrize(
    ("extended", "utf8", "tls", "authenticated", "keyword"),
    [
        (False, False, False, False, "SMTP"),
        (False, False, True, True, "SMTP"),
        (True, False, False, False, "ESMTP"),
        (True, False, True, False, "ESMTPS"),
        (True, False, False, True, "ESMTPA"),
        (True, False, True, True, "ESMTPSA"),
        (True, True, False, False, "UTF8SMTP"),
        (True, True, True, False, "UTF8SMTPS"),
        (True, True, False, True, "UTF8SMTPA"),
        (True, True, True, True, "UTF8SMTPSA"),
    ],
)
def test_S23_the_keyword_tells_tls_and_authentication(
    extended: bool, utf8: bool, tls: bool, authenticated: bool, keyword: str
) -> None:
    assert protocol_keyword(extended=extended, utf8=utf8, tls=tls, authenticated=authenticated) == keyword


# `openssl ciphers -stdname`: every suite of the profiles `intermediate` and `legacy` without Camellia, ARIA and DSS.
NAMES = """
TLS_AES_256_GCM_SHA384                        TLS_AES_256_GCM_SHA384
TLS_CHACHA20_POLY1305_SHA256                  TLS_CHACHA20_POLY1305_SHA256
TLS_AES_128_GCM_SHA256                        TLS_AES_128_GCM_SHA256
ECDHE-ECDSA-AES256-GCM-SHA384                 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
ECDHE-RSA-AES256-GCM-SHA384                   TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
DHE-RSA-AES256-GCM-SHA384                     TLS_DHE_RSA_WITH_AES_256_GCM_SHA384
ECDHE-ECDSA-CHACHA20-POLY1305                 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
ECDHE-RSA-CHACHA20-POLY1305                   TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
DHE-RSA-CHACHA20-POLY1305                     TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256
ECDHE-ECDSA-AES256-CCM8                       TLS_ECDHE_ECDSA_WITH_AES_256_CCM_8
ECDHE-ECDSA-AES128-CCM                        TLS_ECDHE_ECDSA_WITH_AES_128_CCM
DHE-RSA-AES128-GCM-SHA256                     TLS_DHE_RSA_WITH_AES_128_GCM_SHA256
ECDHE-ECDSA-AES128-GCM-SHA256                 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
ECDHE-ECDSA-AES256-SHA384                     TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384
ECDHE-RSA-AES128-SHA256                       TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256
DHE-RSA-AES256-SHA256                         TLS_DHE_RSA_WITH_AES_256_CBC_SHA256
ECDHE-RSA-AES256-SHA                          TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA
DHE-RSA-AES128-SHA                            TLS_DHE_RSA_WITH_AES_128_CBC_SHA
AES256-GCM-SHA384                             TLS_RSA_WITH_AES_256_GCM_SHA384
AES128-SHA256                                 TLS_RSA_WITH_AES_128_CBC_SHA256
AES128-SHA                                    TLS_RSA_WITH_AES_128_CBC_SHA
"""


@pytest.mark.parametrize(("ours", "registered"), [line.split() for line in NAMES.strip().split("\n")])
def test_S23_suites_have_their_registered_names(ours: str, registered: str) -> None:
    assert iana_name(ours) == registered


@pytest.mark.parametrize("cipher", ["DES-CBC3-SHA", "ECDHE-RSA-CAMELLIA128-SHA256", "ECDHE-RSA-", "", "(NONE)"])
def test_other_suites_have_none(cipher: str) -> None:
    assert iana_name(cipher) is None


def test_the_registered_name_is_an_atom() -> None:
    assert all(re.fullmatch(r"TLS_[A-Z0-9_]+", line.split()[1]) for line in NAMES.strip().split("\n"))
