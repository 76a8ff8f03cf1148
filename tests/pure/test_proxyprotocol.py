"""Who the client is, byte by byte: what goes out (G22, G23 of docs/conformance.md) and comes in (H5 to H11)."""

from __future__ import annotations

import random
import subprocess
import sys
from ipaddress import IPv6Address, ip_address
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol.proxyprotocol import (
    LONGEST_V1,
    LONGEST_V2,
    SIGNATURE,
    Header,
    Origin,
    ProxyError,
    Told,
    canonical,
    nameless,
    v1,
    v2,
    v2_local,
)
from gateway.protocol.vocabulary import ClientCertificate, Secured

FOUR = Origin(("192.0.2.10", 40000), ("198.51.100.1", 25))
SIX = Origin(("2001:db8::10", 40000), ("2001:db8::1", 25))
FOUR_143 = Origin(("192.0.2.10", 40000), ("198.51.100.1", 143))
SIX_143 = Origin(("2001:db8::10", 40000), ("2001:db8::1", 143))
TLS13 = Secured("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
CLIENT_HELLO = bytes.fromhex("16030100a5010000a10303")


# --- an encoder of our own for what the gateway itself never sends -------------------------------


def binary(block: bytes, command: int = 0x21, family: int = 0x11, size: int | None = None) -> bytes:
    size = len(block) if size is None else size
    return bytes.fromhex("0d0a0d0a000d0a515549540a") + bytes([command, family]) + size.to_bytes(2, "big") + block


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def crc32c(octets: bytes) -> int:
    """Bit by bit, as the polynomial division that it is."""
    register = 0xFFFFFFFF
    for octet in octets:
        for bit in range(8):
            feedback = (register ^ octet >> bit) & 1
            register = register >> 1 ^ 0x82F63B78 * feedback
    return register ^ 0xFFFFFFFF


def summed(before: bytes, after: bytes = b"", family: int = 0x11, flip: int = 0) -> bytes:
    """A header whose TLVs hold its checksum, with some bits of the checksum flipped."""
    zeroed = binary(before + tlv(3, bytes(4)) + after, family=family)
    return binary(before + tlv(3, (crc32c(zeroed) ^ flip).to_bytes(4, "big")) + after, family=family)


A4 = bytes.fromhex("c000020ac63364019c400019")
A6 = bytes.fromhex("20010db8000000000000000000000010 20010db8000000000000000000000001 9c400019")


def told(octets: bytes) -> Told:
    result = Header().feed(octets)
    assert result is not None
    return result


def refusal(octets: bytes) -> str:
    with pytest.raises(ProxyError) as caught:
        Header().feed(octets)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


# --- G22, G23: what the backend is told ----------------------------------------------------------

V1_SAMPLES = {
    "v4": (FOUR, b"PROXY TCP4 192.0.2.10 198.51.100.1 40000 25\r\n"),
    "v6": (SIX, b"PROXY TCP6 2001:db8::10 2001:db8::1 40000 25\r\n"),
    "v4-mapped, both": (
        Origin(("::ffff:192.0.2.10", 40000), ("::ffff:198.51.100.1", 25)),
        b"PROXY TCP4 192.0.2.10 198.51.100.1 40000 25\r\n",
    ),
    "v4-mapped source, v4 destination": (
        Origin(("::FFFF:C000:020A", 40000), ("198.51.100.1", 25)),
        b"PROXY TCP4 192.0.2.10 198.51.100.1 40000 25\r\n",
    ),
    "v6 source, v4 destination": (
        Origin(("2001:db8::10", 1), ("198.51.100.1", 25)),
        b"PROXY TCP6 2001:db8::10 ::ffff:c633:6401 1 25\r\n",
    ),
    "v4 source, v6 destination": (
        Origin(("192.0.2.10", 65535), ("2001:DB8:0::1", 0)),
        b"PROXY TCP6 ::ffff:c000:20a 2001:db8::1 65535 0\r\n",
    ),
    "zone identifiers": (
        Origin(("fe80::1%eth0", 5), ("fe80::2%2", 25)),
        b"PROXY TCP6 fe80::1 fe80::2 5 25\r\n",
    ),
}


@pytest.mark.parametrize("name", V1_SAMPLES)
def test_g22_version_1_is_this_line(name: str) -> None:
    origin, line = V1_SAMPLES[name]
    assert v1(origin) == line


V2_SAMPLES = {
    "v4": (v2(FOUR_143), "0d0a0d0a000d0a515549540a 21 11 000c  c000020a c6336401 9c40 008f"),
    "v6": (
        v2(SIX_143),
        "0d0a0d0a000d0a515549540a 21 21 0024"
        "20010db8000000000000000000000010 20010db8000000000000000000000001 9c40 008f",
    ),
    "v4-mapped": (
        v2(Origin(("::ffff:192.0.2.10", 40000), ("::ffff:198.51.100.1", 143))),
        "0d0a0d0a000d0a515549540a 21 11 000c  c000020a c6336401 9c40 008f",
    ),
    "v6 source, v4 destination": (
        v2(Origin(("2001:db8::10", 40000), ("198.51.100.1", 143))),
        "0d0a0d0a000d0a515549540a 21 21 0024"
        "20010db8000000000000000000000010 00000000000000000000ffffc6336401 9c40 008f",
    ),
    "LOCAL": (v2_local(), "0d0a0d0a000d0a515549540a 20 00 0000"),
    "TLVs": (
        v2(FOUR_143, secured=TLS13, sni="mail.example.org", session="gw1-0001"),
        "0d0a0d0a000d0a515549540a 21 11 0055  c000020a c6336401 9c40 008f"
        "02 0010 6d61696c2e6578616d706c652e6f7267"
        "05 0008 6777312d30303031"
        "20 0028 01 00000001  21 0007 544c5376312e33  23 0016 544c535f4145535f3235365f47434d5f534841333834",
    ),
}


@pytest.mark.parametrize("name", V2_SAMPLES)
def test_g22_g23_version_2_is_these_octets(name: str) -> None:
    header, sample = V2_SAMPLES[name]
    assert header == bytes.fromhex(sample)


def test_the_samples_are_as_long_as_protocols_md_says() -> None:
    assert {name: len(header) for name, (header, _) in V2_SAMPLES.items()} == {
        "v4": 28,
        "v6": 52,
        "v4-mapped": 28,
        "v6 source, v4 destination": 52,
        "LOCAL": 16,
        "TLVs": 101,
    }


def facts(header: bytes) -> dict[int, bytes]:
    """All TLVs of a header, those inside SSL (whose own value is cut to its five octets) beside the others."""
    assert len(header) == 16 + int.from_bytes(header[14:16], "big")
    found: dict[int, bytes] = {}
    rest = header[28 if header[13] == 0x11 else 52 :]
    while rest:
        kind, size = rest[0], int.from_bytes(rest[1:3], "big")
        assert kind not in found
        assert kind > max(found, default=0)
        assert len(rest) >= 3 + size
        found[kind], rest = rest[3 : 3 + size], rest[3 + size :]
        if kind == 0x20:
            assert not rest
            found[kind], rest = found[kind][:5], found[kind][5:]
    return found


def test_what_a_plaintext_leg_has_to_tell() -> None:
    assert facts(v2(FOUR, session="s", certificate=ClientCertificate(True, "joe"))) == {5: b"s"}


def test_everything_at_once_is_in_ascending_order() -> None:
    header = v2(
        SIX, secured=TLS13, sni="a.example", alpn="imap", session="s", certificate=ClientCertificate(True, "joé")
    )
    assert facts(header) == {
        0x01: b"imap",
        0x02: b"a.example",
        0x05: b"s",
        0x20: bytes.fromhex("07 00000000"),
        0x21: b"TLSv1.3",
        0x22: "joé".encode(),
        0x23: b"TLS_AES_256_GCM_SHA384",
    }


@pytest.mark.parametrize(
    ("certificate", "ssl", "name"),
    [
        (None, "01 00000001", None),
        (ClientCertificate(False, "joe"), "07 00000001", None),
        (ClientCertificate(True), "07 00000000", None),
        (ClientCertificate(True, "joe"), "07 00000000", b"joe"),
        (ClientCertificate(True, "joe\r\nroot"), "07 00000000", None),
        (ClientCertificate(True, "joe\0"), "07 00000000", None),
        (ClientCertificate(True, "\udc80"), "07 00000000", None),
    ],
)
def test_a_client_certificate(certificate: ClientCertificate | None, ssl: str, name: bytes | None) -> None:
    found = facts(v2(FOUR, secured=TLS13, certificate=certificate))
    assert found[0x20] == bytes.fromhex(ssl)
    assert found.get(0x22) == name


LONG_NAME = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])


@pytest.mark.parametrize(
    "name", ["mail.example.org", "localhost", "xn--bcher-kva.example", "4.example", "a-1", LONG_NAME]
)
def test_a_dns_name_becomes_the_authority(name: str) -> None:
    assert facts(v2(FOUR, sni=name)) == {2: name.encode()}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        ".example.org",
        "example.org.",
        "a..b",
        "-a.example",
        "a-.example",
        "a_b.example",
        "192.0.2.1",
        "1",
        "2001:db8::1",
        "bücher.example",
        "a b.example",
        "a.example\n",
        "a\0.example",
        "\u0661.example",
        "a" * 64,
        LONG_NAME + "d",
    ],
)
def test_what_is_no_dns_name_does_not(name: str) -> None:
    assert facts(v2(FOUR, sni=name)) == {}


def test_the_authority_is_by_default_the_name_that_the_handshake_saw() -> None:
    secured = Secured("TLSv1.2", "ECDHE-RSA-AES128-GCM-SHA256", 128, sni="seen.example")
    assert facts(v2(FOUR, secured=secured))[2] == b"seen.example"
    assert facts(v2(FOUR, secured=secured, sni="said.example"))[2] == b"said.example"


def test_a_header_that_would_be_too_long_does_without_what_matters_least() -> None:
    kept: list[set[int]] = []
    for width in range(1, 500):
        # Only a version as long as none is makes room so scarce that the last of them go.
        header = v2(
            SIX,
            secured=Secured("V" * width, "C" * 30, 256),
            sni="a" * 40 + ".example",
            alpn="p" * 20,
            session="s" * 128,
            certificate=ClientCertificate(True, "n" * 60),
        )
        assert len(header) <= LONGEST_V2
        found = set(facts(header))
        if not kept or found != kept[-1]:
            kept.append(found)
        if found == {0x20, 0x21}:
            break
    always = {0x20, 0x21}
    assert kept == [
        always | {0x22, 0x01, 0x23, 0x05, 0x02},
        always | {0x01, 0x23, 0x05, 0x02},
        always | {0x23, 0x05, 0x02},
        always | {0x05, 0x02},
        always | {0x02},
        always,
    ]


@pytest.mark.parametrize(("width", "dropped"), [(56, False), (57, True)])
def test_536_octets_are_allowed_and_not_one_more(width: int, dropped: bool) -> None:
    header = v2(SIX, secured=Secured("V" * 100, "C" * 145, 1), session="s" * 128, alpn="p" * 32, sni="a" * width)
    assert len(header) == (LONGEST_V2 + 1 - 35 if dropped else LONGEST_V2)
    assert (1 not in facts(header)) is dropped


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_cannot_be_is_our_own_mistake(port: int) -> None:
    with pytest.raises(AssertionError):
        Origin(("192.0.2.10", 1), ("198.51.100.1", port))


def test_a_session_id_that_is_too_long_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        v2(FOUR, session="s" * 129)


# --- H11: one text for one address ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("::FFFF:0a00:0001", "10.0.0.1"),
        ("0:0:0:0:0:ffff:10.0.0.1%eth0", "10.0.0.1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::", "::"),
        ("::1", "::1"),
        ("::10.0.0.1", "::a00:1"),
    ],
)
def test_h11_an_address_has_one_canonical_text(written: str, meant: str) -> None:
    assert canonical(written) == meant
    assert canonical(meant) == meant


@pytest.mark.parametrize(
    "text", ["", "mail.example.org", "/run/socket", "10.0.0.01", "10.0.0.1:25", "[::1]", "%eth0", "1"]
)
def test_what_is_no_address_has_none(text: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        canonical(text)


def test_h11_an_origin_is_canonical_whatever_it_is_made_from() -> None:
    assert Origin(("::ffff:192.0.2.10", 40000), ("::ffff:198.51.100.1", 25)) == FOUR
    assert Origin(("2001:DB8::10%7", 40000), ("2001:db8:0::1", 25)) == SIX
    mixed = told(b"PROXY TCP6 ::ffff:192.0.2.10 2001:db8::1 40000 25\r\n").origin
    assert mixed == Origin(("192.0.2.10", 40000), ("2001:db8::1", 25))


# --- H6: what a load balancer tells --------------------------------------------------------------

WHOLE = {
    "v1 v4": (v1(FOUR), FOUR),
    "v1 v6": (v1(SIX), SIX),
    "v1 v6, long form": (b"PROXY TCP6 2001:0DB8:0:0:0:0:0:0010 2001:db8:0::1 40000 25\r\n", SIX),
    "v1 v6, as inet_ntop writes mapped ones": (
        b"PROXY TCP6 ::ffff:192.0.2.10 ::ffff:198.51.100.1 40000 25\r\n",
        FOUR,
    ),
    "v1 v6, as long as it can be": (
        b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        Origin((":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535)),
    ),
    "v1 extremes": (
        b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
        Origin(("0.0.0.0", 0), ("255.255.255.255", 65535)),
    ),
    "v1 UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "v1 UNKNOWN and a blank": (b"PROXY UNKNOWN \r\n", None),
    "v1 UNKNOWN, 107 octets": (
        b"PROXY UNKNOWN " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n",
        None,
    ),
    "v2 v4": (binary(A4), FOUR),
    "v2 v6": (binary(A6, family=0x21), SIX),
    "v2 v6 mapped": (
        binary(
            bytes.fromhex("00000000000000000000ffffc000020a 00000000000000000000ffffc6336401 9c400019"), family=0x21
        ),
        FOUR,
    ),
    "v2 unix": (binary(b"/a".ljust(108, b"\0") + b"/b".ljust(108, b"\0"), family=0x31), None),
    "v2 unix with a checksum": (summed(bytes(216), family=0x31), None),
    "v2 unspecified": (binary(b"", family=0x00), None),
    "v2 unspecified, with a block": (binary(b"whatever", family=0x00), None),
    "v2 LOCAL": (binary(b"", 0x20, 0x00), None),
    "v2 LOCAL with addresses": (binary(A4, 0x20), None),
    "v2 LOCAL with anything": (binary(b"\x03\xff\xff", 0x20, 0x77), None),
    "v2 all TLVs of HAProxy": (
        summed(
            A4 + tlv(1, b"imap") + tlv(2, b"mail.example.org"),
            tlv(4, b"")
            + tlv(5, b"id")
            + tlv(0x20, bytes(5) + tlv(0x21, b"TLSv1.3"))
            + tlv(0x30, b"ns")
            + tlv(0xEA, b"\x01"),
        ),
        FOUR,
    ),
    "v2 checksum, v6": (summed(A6, family=0x21), SIX),
    "v2 536 octets": (binary(A4 + tlv(4, bytes(505))), FOUR),
    "v2 ours": (v2(SIX, secured=TLS13, sni="a.example", alpn="pop3", session="s"), SIX),
}
RESTS = {
    "nothing": b"",
    "ClientHello": CLIENT_HELLO,
    "EHLO": b"EHLO client.example\r\n",
    "a second header": v1(SIX),
}


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize("name", WHOLE)
def test_h6_a_header_is_read_and_what_follows_is_kept(name: str, rest: str) -> None:
    header, origin = WHOLE[name]
    assert told(header + RESTS[rest]) == Told(origin, RESTS[rest])


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize("name", WHOLE)
def test_a_header_that_names_nobody_is_known_by_its_length(name: str, rest: str) -> None:
    header, origin = WHOLE[name]
    assert nameless(header + RESTS[rest]) == (0 if origin else len(header))
    assert nameless(header[:-1]) == nameless(b"EHLO x\r\n") == nameless(b"") == 0


@pytest.mark.parametrize("name", WHOLE)
def test_h6_a_header_may_be_cut_anywhere(name: str) -> None:
    octets = WHOLE[name][0] + CLIENT_HELLO
    whole = told(octets)
    size = len(octets) - len(CLIENT_HELLO)
    for cut in range(size):
        header = Header()
        assert header.feed(octets[:cut]) is None
        assert header.feed(octets[cut:]) == whole
    header = Header()
    for octet in octets[: size - 1]:
        assert header.feed(bytes([octet])) is None
        assert header.feed(b"") is None
    assert header.feed(octets[size - 1 :]) == whole


TCP4 = b"PROXY TCP4 "
LATEST = {
    "another protocol": (b"", b"E", "not a PROXY header"),
    "a ClientHello": (b"", b"\x16", "not a PROXY header"),
    "v1, small letters": (b"P", b"r", "not a PROXY header"),
    "v1, a tab": (b"PROXY", b"\t", "not a PROXY header"),
    "v2, a broken signature": (b"\r\n\r\n\0\r\nQUIT", b"\r", "not a PROXY header"),
    "v1, two blanks": (b"PROXY ", b" ", "v1: unknown protocol"),
    "v1, no such family": (b"PROXY TCP", b"5", "v1: unknown protocol"),
    "v1, small family": (b"PROXY ", b"t", "v1: unknown protocol"),
    "v1, datagrams": (b"PROXY ", b"D", "v1: unknown protocol"),
    "v1, TCP4 alone": (b"PROXY TCP4", b"\r", "v1: unknown protocol"),
    "v1, UNKNOWNS": (b"PROXY UNKNOWN", b"S", "v1: unknown protocol"),
    "v1, UNKNOWN and LF": (b"PROXY UNKNOWN", b"\n", "v1: unknown protocol"),
    "v1, UNKNOWN and an escape": (b"PROXY UNKNOWN x", b"\x1b", "v1: bad text behind UNKNOWN"),
    "v1, UNKNOWN and a late LF": (b"PROXY UNKNOWN x", b"\n", "v1: bad text behind UNKNOWN"),
    "v1, UNKNOWN, 108 octets": (b"PROXY UNKNOWN ".ljust(LONGEST_V1 - 2, b"x"), b"x", "v1: bad text behind UNKNOWN"),
    "v1, UNKNOWN, CR alone": (b"PROXY UNKNOWN\r", b"x", "v1: CR without LF"),
    "v1, another blank": (TCP4, b" ", "v1: no source address"),
    "v1, octet of 256": (TCP4 + b"25", b"6", "v1: bad source address"),
    "v1, 999": (TCP4 + b"99", b"9", "v1: bad source address"),
    "v1, leading zero": (TCP4 + b"10.0", b"1", "v1: bad source address"),
    "v1, five octets": (TCP4 + b"1.2.3.4", b".", "v1: bad source address"),
    "v1, three octets": (TCP4 + b"1.2.3", b" ", "v1: bad source address"),
    "v1, no last octet": (TCP4 + b"1.2.3.", b" ", "v1: bad source address"),
    "v1, v6 in TCP4": (TCP4 + b"200", b"1", "v1: bad source address"),
    "v1, a name": (TCP4, b"a", "v1: bad source address"),
    "v1, a sign": (TCP4, b"+", "v1: bad source address"),
    "v1, destination": (TCP4 + b"1.2.3.4 1.2.3.4", b"x", "v1: bad destination address"),
    "v1, no destination": (TCP4 + b"1.2.3.4", b"\r", "v1: bad source address"),
    "v1, destination missing": (TCP4 + b"1.2.3.4 ", b"\r", "v1: bad destination address"),
    "v1, v4 in TCP6": (b"PROXY TCP6 1.2.3.4", b" ", "v1: bad source address"),
    "v1, two ::": (b"PROXY TCP6 1::2::3", b" ", "v1: bad source address"),
    "v1, a zone": (b"PROXY TCP6 fe80::1", b"%", "v1: bad source address"),
    "v1, brackets": (b"PROXY TCP6 ", b"[", "v1: bad source address"),
    "v1, too long for v6": (b"PROXY TCP6 " + b"0000:" * 7 + b"0000", b"0", "v1: bad source address"),
    "v1, five digits": (b"PROXY TCP6 ::1 ::00001", b" ", "v1: bad destination address"),
    "v1, port 65536": (TCP4 + b"1.2.3.4 1.2.3.4 6553", b"6", "v1: bad source port"),
    "v1, port of six digits": (TCP4 + b"1.2.3.4 1.2.3.4 10000", b"0", "v1: bad source port"),
    "v1, port 01": (TCP4 + b"1.2.3.4 1.2.3.4 0", b"1", "v1: bad source port"),
    "v1, port -1": (TCP4 + b"1.2.3.4 1.2.3.4 ", b"-", "v1: bad source port"),
    "v1, no port": (TCP4 + b"1.2.3.4 1.2.3.4 ", b" ", "v1: no source port"),
    "v1, one port": (TCP4 + b"1.2.3.4 1.2.3.4 1", b"\r", "v1: bad source port"),
    "v1, no second port": (TCP4 + b"1.2.3.4 1.2.3.4 1 ", b"\r", "v1: no destination port"),
    "v1, a letter": (TCP4 + b"1.2.3.4 1.2.3.4 1 2", b"x", "v1: bad destination port"),
    "v1, one more word": (TCP4 + b"1.2.3.4 1.2.3.4 1 25", b" ", "v1: bad destination port"),
    "v1, LF alone": (TCP4 + b"1.2.3.4 1.2.3.4 1 25", b"\n", "v1: bad destination port"),
    "v1, CR alone": (TCP4 + b"1.2.3.4 1.2.3.4 1 25\r", b"\r", "v1: CR without LF"),
    "v2, version 1": (SIGNATURE, b"\x11", "v2: unknown version or command"),
    "v2, version 3": (SIGNATURE, b"\x31", "v2: unknown version or command"),
    "v2, command 2": (SIGNATURE, b"\x22", "v2: unknown version or command"),
    "v2, no such family": (SIGNATURE + b"\x21", b"\x41", "v2: unknown family, or not a stream"),
    "v2, datagrams": (SIGNATURE + b"\x21", b"\x12", "v2: unknown family, or not a stream"),
    "v2, unix datagrams": (SIGNATURE + b"\x21", b"\x32", "v2: unknown family, or not a stream"),
    "v2, streams of nothing": (SIGNATURE + b"\x21", b"\x01", "v2: unknown family, or not a stream"),
    "v2, length 0": (SIGNATURE + b"\x21\x11\x00", b"\x00", "v2: too short for its addresses"),
    "v2, v4 with 11": (SIGNATURE + b"\x21\x11\x00", b"\x0b", "v2: too short for its addresses"),
    "v2, v6 with v4's length": (SIGNATURE + b"\x21\x21\x00", b"\x0c", "v2: too short for its addresses"),
    "v2, unix with v6's length": (SIGNATURE + b"\x21\x31\x00", b"\x24", "v2: too short for its addresses"),
    "v2, 537 octets": (SIGNATURE + b"\x21\x11\x02", b"\x09", "v2: longer than 536 octets"),
    "v2, 65535": (SIGNATURE + b"\x21\x11\xff", b"\xff", "v2: longer than 536 octets"),
    "v2 LOCAL, 65535": (SIGNATURE + b"\x20\x00\xff", b"\xff", "v2: longer than 536 octets"),
    "v2, a rest of one octet": (binary(A4, size=13)[:-1], A4[-1:], "v2: a TLV overruns the header"),
    "v2, a rest of two": (binary(A4, size=14)[:-1], A4[-1:], "v2: a TLV overruns the header"),
    "v2, a rest behind a TLV": (binary(A4 + tlv(4, b"x"), size=18)[:-1], b"x", "v2: a TLV overruns the header"),
    "v2, TLV overrun by one": (binary(A4 + b"\x04\x00", size=16), b"\x02", "v2: a TLV overruns the header"),
    "v2, TLV of 65535": (binary(A4 + b"\x04\xff", size=500), b"\xff", "v2: a TLV overruns the header"),
    "v2, checksum of 3": (binary(A4 + b"\x03\x00", size=18), b"\x03", "v2: bad checksum"),
    "v2, checksum of 5": (binary(A4 + b"\x03\x00", size=20), b"\x05", "v2: bad checksum"),
    "v2, two checksums": (binary(A4 + tlv(3, bytes(4)) + b"\x03\x00", size=26), b"\x04", "v2: bad checksum"),
    "v2, wrong checksum": (summed(A4, flip=1)[:-1], summed(A4, flip=1)[-1:], "v2: bad checksum"),
}


@pytest.mark.parametrize("name", LATEST)
def test_h6_a_wrong_header_is_refused_at_this_octet(name: str) -> None:
    fine, fatal, reason = LATEST[name]
    header = Header()
    assert header.feed(fine) is None
    with pytest.raises(ProxyError) as caught:
        header.feed(fatal)
    assert caught.value.reason == reason
    assert refusal(fine + fatal + CLIENT_HELLO * 100) == reason


@pytest.mark.parametrize("bit", range(32))
def test_h6_no_bit_of_the_checksum_is_spare(bit: int) -> None:
    assert told(summed(A4, tlv(5, b"id"))).origin == FOUR
    assert refusal(summed(A4, tlv(5, b"id"), flip=1 << bit)) == "v2: bad checksum"


def test_the_checksum_covers_the_whole_header() -> None:
    good = summed(A4 + tlv(5, b"before"), tlv(5, b"behind"))
    for index in range(16, len(good)):
        if index not in range(12 + 16 + 9, 12 + 16 + 9 + 3):  # the checksum's own type and length
            changed = bytearray(good)
            changed[index] ^= 0x40
            with pytest.raises(ProxyError):
                Header().feed(bytes(changed))


def test_the_tests_own_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_header_that_is_over_is_never_read_again() -> None:
    wrong, right = Header(), Header()
    with pytest.raises(ProxyError):
        wrong.feed(b"GET")
    assert right.feed(v2_local()) == Told(None, b"")
    for header in (wrong, right):
        with pytest.raises(ProxyError, match="fed behind its end"):
            header.feed(v1(FOUR))


def test_reasons_repeat_nothing_that_was_sent() -> None:
    for fine, fatal, _ in LATEST.values():
        reason = refusal(fine + fatal + b"event=auth" * 60)
        assert reason.isprintable()
        assert "event" not in reason


# --- properties ----------------------------------------------------------------------------------

ADDRESSES = st.ip_addresses().map(str) | st.ip_addresses(v=4).map("::ffff:{}".format)
PORTS = st.integers(0, 65535)
ORIGINS = st.builds(Origin, st.tuples(ADDRESSES, PORTS), st.tuples(ADDRESSES, PORTS))
ASCII = st.text(st.characters(min_codepoint=33, max_codepoint=126))
NAMES = st.sampled_from(["mail.example.org", "a" * 63, LONG_NAME, "192.0.2.1", "ü", ""]) | st.text()
SECURED = st.builds(
    Secured, st.sampled_from(["TLSv1", "TLSv1.2", "TLSv1.3"]), ASCII, st.just(128), sni=st.none() | NAMES
)
BINARIES = st.builds(
    lambda origin, **told: v2(origin, **told),
    ORIGINS,
    secured=st.none() | SECURED,
    sni=st.none() | NAMES,
    alpn=st.none() | ASCII,
    session=st.none() | ASCII.map(lambda text: text[:128]),
    certificate=st.none() | st.builds(ClientCertificate, st.booleans(), st.none() | st.text()),
)
HEADERS = (
    ORIGINS.map(v1)
    | BINARIES
    | st.sampled_from([header for header, _ in WHOLE.values()])
    | st.lists(st.builds(tlv, st.integers(4, 255), st.binary(max_size=40)), max_size=8).map(
        lambda t: summed(A4, b"".join(t))
    )
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A header with one octet changed, lost or added."""
    header = draw(HEADERS)
    index = draw(st.integers(0, len(header) - 1))
    return header[:index] + draw(st.binary(max_size=1)) + header[index + draw(st.integers(0, 1)) :]


def outcome(chunks: list[bytes]) -> Told | str | None:
    """What becomes of octets that arrive so: a result and all that lies behind it, a reason, or None for more."""
    header = Header()
    for number, chunk in enumerate(chunks):
        try:
            result = header.feed(chunk)
        except ProxyError as error:
            return error.reason
        if result:
            return Told(result.origin, result.rest + b"".join(chunks[number + 1 :]))
    return None


def cut(octets: bytes, places: list[int]) -> list[bytes]:
    places = sorted({0, *places, len(octets)})
    return [octets[start:end] for start, end in pairwise(places)]


@pytest.mark.no_cover
@settings(max_examples=500, deadline=None)
@given(HEADERS | damaged(), st.binary(max_size=40), st.integers(0, 2**32))
def test_10_000_randomly_cut_headers_parse_as_when_whole(header: bytes, rest: bytes, seed: int) -> None:
    octets, chance = header + rest, random.Random(seed)
    whole = outcome([octets])
    for _ in range(20):
        places = [chance.randrange(len(octets) + 1) for _ in range(chance.choice([1, 2, 5, 20, 200]))]
        assert outcome(cut(octets, places)) == whole


@given(ORIGINS, st.binary())
def test_version_1_reads_back(origin: Origin, rest: bytes) -> None:
    line = v1(origin)
    assert len(line) <= LONGEST_V1
    assert told(line + rest) == Told(origin, rest)
    assert line.isascii()


@given(
    ORIGINS,
    st.none() | SECURED,
    st.none() | NAMES,
    st.none() | ASCII.map(lambda text: text[:128]),
    st.builds(ClientCertificate, st.booleans(), st.none() | st.text()),
    st.binary(),
)
def test_version_2_reads_back(
    origin: Origin,
    secured: Secured | None,
    sni: str | None,
    session: str | None,
    certificate: ClientCertificate,
    rest: bytes,
) -> None:
    header = v2(origin, secured=secured, sni=sni, alpn="imap", session=session, certificate=certificate)
    assert len(header) <= LONGEST_V2
    assert told(header + rest) == Told(origin, rest)
    assert (0x20 in facts(header)) is (secured is not None)


@given(ORIGINS)
def test_both_addresses_on_the_wire_are_of_one_family(origin: Origin) -> None:
    _, family, source, destination, *_ = v1(origin).decode().split()
    assert {ip_address(source).version, ip_address(destination).version} == {int(family[3])}
    mapped = [address for address in (source, destination) if ":" in address and IPv6Address(address).ipv4_mapped]
    assert len(mapped) < 2


@pytest.mark.no_cover
@settings(max_examples=1000, deadline=None)
@given(
    st.binary()
    | st.binary().map(b"PROXY ".__add__)
    | st.text("PROXYTCUNKW46 0123456789abcf.:\r\n").map(lambda text: b"PROXY TCP" + text.encode())
    | st.binary(min_size=4).map(SIGNATURE.__add__)
    | st.binary(max_size=600).map(lambda block: binary(block, family=0x11))
    | st.binary(max_size=600).map(lambda block: binary(A6 + block, family=0x21))
    | damaged(),
)
def test_garbage_never_raises_anything_else_and_is_never_waited_for_too_long(octets: bytes) -> None:
    if outcome([octets]) is None:
        assert len(octets) < (LONGEST_V1 if octets.startswith(b"P") else LONGEST_V2)


def test_the_module_is_pure() -> None:
    loaded = "any(m in sys.modules for m in ('twisted', 'OpenSSL', 'socket'))"
    code = f"import sys, gateway.protocol.proxyprotocol; sys.exit({loaded})"
    subprocess.run([sys.executable, "-c", code], check=True)
