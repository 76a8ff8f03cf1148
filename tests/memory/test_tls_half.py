"""TLS as a function: octets in, octets out, against the standard library's own TLS."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

from gateway.wire.tls.context import accepting
from gateway.wire.tls.half import MOST, RECORD, ROOM, SLICE, TLSError, TLSHalf, opened, sealed
from gateway.wire.tls.private import octets_of
from tests.memory.tls_peer import Authority, Peer, server_context

Cut = Callable[[bytes], list[bytes]]


def whole(octets: bytes) -> list[bytes]:
    return [octets]


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[at : at + 1] for at in range(len(octets))]


def in_sevens(octets: bytes) -> list[bytes]:
    return [octets[at : at + 7] for at in range(0, len(octets), 7)]


def server_half(authority: Authority) -> TLSHalf:
    return TLSHalf(accepting(server_context(authority.certificate, authority.key)))


def shake(half: TLSHalf, peer: Peer, cut: Cut = whole) -> bytes:
    """Carry octets to and fro until both are done; what the half heard meanwhile."""
    half.start()
    heard = b""
    wire = peer.hello()
    for _ in range(10):
        for piece in cut(wire):
            heard += half.feed(piece)
        back = half.outgoing()
        wire = peer.feed(back)
        if not wire and not back:
            break
    assert half.secured is not None
    assert peer.shaken
    return heard


def pair(authority: Authority, context: ssl.SSLContext | None = None, cut: Cut = whole) -> tuple[TLSHalf, Peer]:
    half, peer = server_half(authority), Peer(context or authority.client())
    shake(half, peer, cut)
    return half, peer


@pytest.mark.parametrize("cut", [whole, octet_by_octet, in_sevens])
def test_a_handshake_does_not_care_how_the_network_cuts_it(authority: Authority, cut: Cut) -> None:
    half, peer = pair(authority, cut=cut)
    heard = b"".join(half.feed(piece) for piece in cut(peer.say(b"EHLO a\r\n") + peer.say(b"NOOP\r\n")))
    assert heard == b"EHLO a\r\nNOOP\r\n"
    peer.feed(half.encrypt(b"250 ok\r\n"))
    assert peer.heard == b"250 ok\r\n"


def test_what_was_agreed_on_is_told_in_openssls_names(authority: Authority) -> None:
    half, peer = pair(authority)
    facts = half.secured
    assert facts is not None
    assert facts.version == "TLSv1.3" == peer.tls.version()
    assert facts.cipher.startswith("TLS_")
    assert facts.bits in (128, 256)
    assert facts.group
    assert facts.sni == "mail.example.test"


def test_tls_1_2_is_spoken_with_forward_secrecy(authority: Authority) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    half, peer = pair(authority, context)
    assert half.secured is not None
    assert half.secured.version == "TLSv1.2"
    assert half.secured.cipher.startswith("ECDHE-")
    assert half.feed(peer.say(b"x" * 100_000)) == b"x" * 100_000


def test_tickets_are_said_with_the_last_words_of_the_handshake(authority: Authority) -> None:
    half, peer = server_half(authority), Peer(authority.client())
    half.feed(peer.hello())
    finished = peer.feed(half.outgoing())
    assert half.secured is None
    half.feed(finished)
    tickets = half.outgoing()
    assert tickets
    peer.feed(tickets)
    assert half.outgoing() == b""
    assert peer.tls.session is not None


def test_plaintext_that_comes_with_the_last_flight_is_not_lost(authority: Authority) -> None:
    half, peer = server_half(authority), Peer(authority.client())
    half.feed(peer.hello())
    finished = peer.feed(half.outgoing())
    assert half.feed(finished + peer.say(b"EHLO a\r\n")) == b"EHLO a\r\n"
    assert half.secured is not None


def test_all_records_of_one_read_are_one_object(authority: Authority) -> None:
    half, peer = pair(authority)
    data = bytes(range(256)) * 1024
    wire = peer.say(data)
    assert len(wire) > 16 * SLICE
    assert half.feed(wire) == data


@pytest.mark.parametrize("size", [1, RECORD - 1, RECORD, RECORD + 1, 2 * RECORD, 2 * RECORD + 1, 300_000])
def test_every_size_arrives_whole(authority: Authority, size: int) -> None:
    half, peer = pair(authority)
    data = b"0123456789abcdef" * (size // 16 + 1)
    peer.feed(half.encrypt(data[:size]))
    assert peer.heard == data[:size]


def test_nothing_to_encrypt_is_nothing_to_send(authority: Authority) -> None:
    half, _ = pair(authority)
    assert half.encrypt(b"") == b""


def test_one_write_is_no_more_records_than_it_needs(authority: Authority) -> None:
    half, _ = pair(authority)
    assert len(half.encrypt(b"x" * 4 * RECORD)) == 4 * (RECORD + 22)


def test_nothing_behind_close_notify_is_input(authority: Authority) -> None:
    half, client, _server = by_hand(authority)
    wire = client.seal(DATA, b"BDAT 100\r\nabc") + client.seal(ALERT, CLOSE_NOTIFY) + b"NOOP\r\n"
    assert half.feed(wire) == b"BDAT 100\r\nabc"
    assert half.ended
    assert half.feed(b"x") == b""
    assert half.feed(client.seal(DATA, b"sealed all the same")) == b""


def test_who_said_close_notify_still_hears(authority: Authority) -> None:
    half, peer = pair(authority)
    half.feed(peer.goodbye())
    assert half.ended
    wire = half.encrypt(b"250 queued\r\n") + half.close_notify()
    assert len(wire) > len(b"250 queued\r\n")


def test_close_notify_is_said_once_and_input_goes_on(authority: Authority) -> None:
    half, peer = pair(authority)
    more = peer.say(b"more")
    peer.feed(half.close_notify())
    assert peer.ended
    assert half.feed(more) == b"more"


def test_there_is_no_close_notify_before_the_handshake_is_done(authority: Authority) -> None:
    half = server_half(authority)
    assert half.close_notify() == b""


@pytest.mark.parametrize("cut", [whole, octet_by_octet])
def test_empty_and_tiny_records_are_read(authority: Authority, cut: Cut) -> None:
    half, peer = pair(authority)
    wire = b"".join(peer.say(b"%d" % (n % 10)) for n in range(50))
    heard = b"".join(half.feed(piece) for piece in cut(wire))
    assert heard == b"0123456789" * 5


def test_a_truncated_stream_is_not_ended(authority: Authority) -> None:
    half, peer = pair(authority)
    wire = peer.say(b"BDAT 100\r\n")
    assert half.feed(wire[:-1]) == b""
    assert not half.ended


# --- failures, in words that can be searched for ---------------------------------------------------


def refused(half: TLSHalf, wire: bytes) -> str:
    with pytest.raises(TLSError) as caught:
        half.feed(wire)
    assert half.secured is None
    return caught.value.reason


@pytest.mark.parametrize(
    ("talk", "reason"),
    [
        (b"EHLO a\r\nMAIL FROM:<>\r\n", "wrong version number"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "http request"),
        (b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00", "unexpected message"),
    ],
)
def test_no_tls_at_all_is_called_what_it_is(authority: Authority, talk: bytes, reason: str) -> None:
    half = server_half(authority)
    assert refused(half, talk) == reason
    assert half.feed(b"more") == b""


def test_an_old_version_is_refused_with_an_alert(authority: Authority) -> None:
    context = authority.client()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    half, peer = server_half(authority), Peer(context)
    assert refused(half, peer.hello()) == "unsupported protocol"
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        peer.feed(half.outgoing())


@pytest.mark.parametrize("ciphers", ["AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "AES128-GCM-SHA256"])
def test_cbc_and_static_rsa_are_refused(authority: Authority, ciphers: str) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    half, peer = server_half(authority), Peer(context)
    assert refused(half, peer.hello()) == "no shared cipher"
    assert half.outgoing()


def test_a_client_that_distrusts_us_is_quoted(authority: Authority) -> None:
    half, peer = server_half(authority), Peer(authority.client(trusting=False))
    half.feed(peer.hello())
    with pytest.raises(ssl.SSLCertVerificationError):
        peer.feed(half.outgoing())
    assert refused(half, peer.last_words()) == "alert: unknown_ca"


def test_a_forged_record_ends_it_but_not_what_came_before(authority: Authority) -> None:
    half, peer = pair(authority)
    good, bad = peer.say(b"good"), bytearray(peer.say(b"bad"))
    bad[-1] ^= 1
    with pytest.raises(TLSError) as caught:
        half.feed(good + bytes(bad))
    assert caught.value.plaintext == b"good"
    assert "bad record mac" in caught.value.reason
    assert half.outgoing(), "the alert"
    assert half.close_notify() == b""


@pytest.mark.parametrize("junk", [b"NOOP\r\n", b"\x17\x03\x03\xff\xff", b"\x80\x00\x00\x00\x00"])
def test_what_is_no_record_fails_at_once(authority: Authority, junk: bytes) -> None:
    half, peer = pair(authority)
    with pytest.raises(TLSError) as caught:
        half.feed(peer.say(b"good") + junk)
    assert caught.value.plaintext == b"good"


def test_a_forged_record_does_not_take_along_what_came_before_it(authority: Authority) -> None:
    half, peer = pair(authority)
    data = b"z" * (MOST + 1)
    with pytest.raises(TLSError) as caught:
        half.feed(peer.say(data) + b"\x17\x03\x03\0\x20" + b"j" * 32)
    assert caught.value.plaintext == data


def test_there_is_room_for_one_read_and_the_rest_of_a_record(authority: Authority) -> None:
    """Also in records of 512 octets, with the largest MAC there is (RFC 6066 4)."""
    half, peer = pair(authority)
    record = b"0123456789abcdef" * (RECORD // 16)
    wire = b"".join(peer.say(record) for _ in range(6))
    first = RECORD + 16
    assert half.feed(wire[:first]) == b""
    assert half.feed(wire[first : first + MOST]) == record * 4
    assert half.feed(wire[first + MOST :]) == record * 2
    assert ROOM >= (MOST + RECORD) * (512 + 5 + 16 + 48 + 16) // 512
    opened.view[: MOST + RECORD] = record * 5
    peer.feed(octets_of(sealed.memory, half.seal(opened.memory, MOST + RECORD)))
    assert peer.heard == record * 5


def test_an_alert_is_not_held_back(authority: Authority) -> None:
    half, peer = pair(authority)
    half.holds_tickets = True
    with pytest.raises(TLSError):
        half.feed(b"\x17\x03\x03\0\x20" + b"j" * 32)
    with pytest.raises(ssl.SSLError, match="BAD_RECORD_MAC"):
        peer.feed(half.outgoing())


def test_renegotiation_is_refused(authority: Authority) -> None:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    half = server_half(authority)
    peer = TLSHalf(connection)
    peer.start()
    for _ in range(4):
        half.feed(peer.outgoing())
        peer.feed(half.outgoing())
    assert peer.secured is not None
    connection.renegotiate()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    assert half.feed(connection.bio_read(4096)) == b""
    with pytest.raises(TLSError, match="no renegotiation"):
        peer.feed(half.outgoing())


# --- what OpenSSL says by itself: KeyUpdate, which the standard library cannot be made to ask for -------


class Keys:
    """One direction of TLS 1.3 (RFC 8446 5.2, 7.2, 7.3), to say what no library will say for us."""

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.number = 0

    def _expand(self, label: bytes, length: int) -> bytes:
        label = b"tls13 " + label
        info = length.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0"
        return HKDFExpand(hashes.SHA256(), length, info).derive(self.secret)

    def _nonce(self) -> bytes:
        vector = int.from_bytes(self._expand(b"iv", 12), "big") ^ self.number
        self.number += 1
        return vector.to_bytes(12, "big")

    def seal(self, kind: int, content: bytes) -> bytes:
        header = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
        return header + AESGCM(self._expand(b"key", 16)).encrypt(self._nonce(), content + bytes([kind]), header)

    def open(self, record: bytes) -> tuple[int, bytes]:
        inner = AESGCM(self._expand(b"key", 16)).decrypt(self._nonce(), record[5:], record[:5])
        return inner[-1], inner[:-1]

    def update(self) -> None:
        self.secret, self.number = self._expand(b"traffic upd", 32), 0


ALERT, HANDSHAKE, DATA = 21, 22, 23
CLOSE_NOTIFY = b"\1\0"
KEY_UPDATE_REQUESTED, KEY_UPDATE = b"\x18\0\0\1\1", b"\x18\0\0\1\0"


def by_hand(authority: Authority) -> tuple[TLSHalf, Keys, Keys]:
    """A half in a session whose other end is sealed by hand: the client's keys, and the server's."""
    context = server_context(authority.certificate, authority.key)
    secrets: dict[bytes, bytes] = {}

    def log(connection: SSL.Connection, line: bytes) -> None:
        label, _, secret = line.split()
        secrets[label] = bytes.fromhex(secret.decode())

    client_context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    client_context.set_keylog_callback(log)
    client_context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
    connection = SSL.Connection(client_context, None)
    connection.set_connect_state()
    half, peer = TLSHalf(accepting(context)), TLSHalf(connection)
    peer.start()
    tickets = 0
    for _ in range(3):
        half.feed(peer.outgoing())
        said = half.outgoing()
        peer.feed(said)
        if half.secured is not None and said:
            tickets = len(records(said))
    client, server = Keys(secrets[b"CLIENT_TRAFFIC_SECRET_0"]), Keys(secrets[b"SERVER_TRAFFIC_SECRET_0"])
    server.number = tickets
    return half, client, server


def records(wire: bytes) -> list[bytes]:
    found = []
    while wire:
        length = 5 + int.from_bytes(wire[3:5], "big")
        found.append(wire[:length])
        wire = wire[length:]
    return found


def test_a_request_for_new_keys_is_answered_before_the_next_octets(authority: Authority) -> None:
    half, client, server = by_hand(authority)
    update = client.seal(HANDSHAKE, KEY_UPDATE_REQUESTED)
    client.update()
    assert half.feed(update + client.seal(DATA, b"under new keys")) == b"under new keys"
    answer, reply = records(half.outgoing() + half.encrypt(b"250 ok"))
    assert server.open(answer) == (HANDSHAKE, KEY_UPDATE)
    server.update()
    assert server.open(reply) == (DATA, b"250 ok")


def test_a_flood_of_key_updates_never_gathers_answers_in_openssl(authority: Authority) -> None:
    half, client, _server = by_hand(authority)
    for _ in range(100):
        wire = client.seal(HANDSHAKE, KEY_UPDATE_REQUESTED)
        client.update()
        assert half.feed(wire) == b""
        assert len(records(half.outgoing())) <= 1
    assert len(records(half.encrypt(b"250 ok"))) == 2


def test_empty_records_are_nothing(authority: Authority) -> None:
    half, client, _server = by_hand(authority)
    assert half.feed(client.seal(DATA, b"") + client.seal(DATA, b"a") + client.seal(DATA, b"")) == b"a"
    assert half.feed(client.seal(DATA, b"b")) == b"b"
