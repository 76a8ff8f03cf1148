"""Certificates that renew themselves, as certbot, lego and hurried administrators write them."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.task import Clock

from gateway.config.values import TLS, Pair
from gateway.wire.tls.certificates import CertificateError
from gateway.wire.tls.renewal import INTERVAL, Renewal
from gateway.wire.tls.server import ServerTLS
from tests.memory.issuing import DAY, NOW, RSA, Client, Office, client_context, serial, shown, talk, visit

Event = dict[str, Any]


class House:
    """A renewal with its clock, and what it told."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.told: list[Event] = []
        self.office = Office(directory)
        self.renewal = Renewal(self._emit, lambda: NOW + datetime.timedelta(seconds=self.clock.seconds()))

    def _emit(self, event: str, **fields: Any) -> None:
        assert event == "certificate"
        self.told.append(fields)

    def serve(self, *pairs: Pair, **values: Any) -> ServerTLS:
        return self.renewal.serve(TLS(pairs, **values), (b"imap",))

    def wait(self, seconds: float) -> list[Event]:
        """What is told meanwhile."""
        self.told.clear()
        for _ in range(round(seconds / INTERVAL)):
            self.clock.advance(INTERVAL)
            self.renewal.look()
        return list(self.told)

    def states(self) -> list[str]:
        return [event["state"] for event in self.told]


@pytest.fixture
def house(directory: Path) -> House:
    house = House(directory)
    house.renewal.tell_together()
    return house


def test_what_is_loaded_is_told(house: House) -> None:
    pair = house.office.pair("mail.example.test", "www.example.test", ends=NOW + 60 * DAY)
    house.serve(pair)
    (event,) = house.told
    assert event["state"] == "loaded"
    assert event["certificate"] == str(pair.certificate)
    assert event["names"] == "mail.example.test www.example.test"
    assert event["key"] == "ECDSA P-256"
    assert event["not_after"] == (NOW + 60 * DAY).isoformat()
    assert event["days"] == 60
    assert event["tlsa"].startswith("3 1 1 ")


def test_nothing_is_read_or_told_while_nothing_changes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.serve(house.office.pair("mail.example.test"))

    def fail(path: Path) -> bytes:
        raise AssertionError(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert house.wait(600) == []


def test_a_renewed_pair_is_served_within_ten_seconds(house: House) -> None:
    pair = house.office.pair("mail.example.test")
    server, other = house.serve(pair), house.serve(pair)
    old = shown(server)
    half, client = server.accept(""), Client(client_context())
    assert talk(half, client) == ""
    house.office.pair("mail.example.test")
    (event,) = house.wait(10)
    assert event["state"] == "renewed"
    assert shown(server) == shown(other) == serial(pair) != old
    # Who was there before goes on.
    client.connection.send(b"NOOP")
    assert half.feed(client.connection.bio_read(65536)) == b"NOOP"
    assert client.certificate.serial_number == old


def test_symlinks_as_certbot_keeps_them(house: House, directory: Path) -> None:
    live, archive = directory / "live", directory / "archive"
    live.mkdir()
    archive.mkdir()

    def point(number: int) -> None:
        house.office.directory = archive
        house.office.pair("mail.example.test", file=f"mail{number}")
        for kind in ("pem", "key"):
            (live / f"next.{kind}").symlink_to(f"../archive/mail{number}.{kind}")
            os.replace(live / f"next.{kind}", live / f"mail.{kind}")

    point(1)
    server = house.serve(Pair(live / "mail.pem", live / "mail.key"))
    old = shown(server)
    point(2)
    assert [event["state"] for event in house.wait(10)] == ["renewed"]
    assert shown(server) != old


def test_a_link_to_the_directory_may_be_switched(house: House, directory: Path) -> None:
    """As Kubernetes does it with what it mounts."""
    for number in (1, 2):
        (directory / f"v{number}").mkdir()
        house.office.directory = directory / f"v{number}"
        house.office.pair("mail.example.test")
    (directory / "data").symlink_to("v1")
    server = house.serve(Pair(directory / "data" / "mail.pem", directory / "data" / "mail.key"))
    old = shown(server)
    (directory / "next").symlink_to("v2")
    os.replace(directory / "next", directory / "data")
    assert [event["state"] for event in house.wait(10)] == ["renewed"]
    assert shown(server) != old


def test_only_touched_is_not_renewed(house: House) -> None:
    pair = house.office.pair("mail.example.test")
    server = house.serve(pair)
    context = client_context()
    first = visit(server, context)
    session = first.connection.get_session()
    assert session is not None
    os.utime(pair.certificate)
    os.chmod(pair.certificate, 0o600)
    assert house.wait(60) == []
    again = Client(context)
    again.connection.set_session(session)
    talk(server.accept(""), again)
    assert again.resumed


# --- what goes wrong -----------------------------------------------------------------------------


def foreign_key(house: House, pair: Pair) -> None:
    assert pair.key is not None
    kept = pair.key.read_bytes()
    house.office.pair("mail.example.test")
    pair.key.write_bytes(kept)


def truncated(house: House, pair: Pair) -> None:
    house.office.pair("mail.example.test")
    pair.certificate.write_bytes(pair.certificate.read_bytes()[:200])


def truncated_key(house: House, pair: Pair) -> None:
    assert pair.key is not None
    pair.key.write_bytes(pair.key.read_bytes()[:100])


def empty(house: House, pair: Pair) -> None:
    pair.certificate.write_bytes(b"")


def expired(house: House, pair: Pair) -> None:
    house.office.pair("mail.example.test", begins=NOW - 9 * DAY, ends=NOW - DAY)


def directory_gone(house: House, pair: Pair) -> None:
    shutil.rmtree(pair.certificate.parent)


def file_gone(house: House, pair: Pair) -> None:
    pair.certificate.unlink()


def garbage(house: House, pair: Pair) -> None:
    pair.certificate.write_bytes(os.urandom(3000))


def foreign_chain(house: House, pair: Pair) -> None:
    house.office.pair("mail.example.test")
    other = Office(pair.certificate.parent).ca.cert_pem.bytes()
    pair.certificate.write_bytes(pair.certificate.read_bytes() + other)


def a_directory(house: House, pair: Pair) -> None:
    pair.certificate.unlink()
    pair.certificate.mkdir()


BROKEN: list[tuple[Callable[[House, Pair], None], str]] = [
    (foreign_key, "does not belong"),
    (truncated, "damaged"),
    (truncated_key, "damaged"),
    (empty, "empty"),
    (expired, "expired"),
    (directory_gone, "no such file"),
    (file_gone, "no such file"),
    (garbage, "no certificate"),
    (foreign_chain, "does not belong to the chain"),
    (a_directory, "directory"),
]


@pytest.mark.parametrize(("spoil", "words"), BROKEN)
def test_a_broken_renewal_keeps_the_old_one_and_is_told_once(
    house: House, directory: Path, spoil: Callable[[House, Pair], None], words: str
) -> None:
    house.office.directory = directory / "live"
    house.office.directory.mkdir()
    pair = house.office.pair("mail.example.test", ends=NOW + 90 * DAY)
    server, other = house.serve(pair), house.serve(pair, profile="modern")
    old = shown(server)
    spoil(house, pair)
    (event,) = house.wait(10)
    assert event["state"] == "refused"
    assert words in event["detail"]
    assert "\n" not in event["detail"]
    assert event["days"] == 89  # of what is served
    assert house.wait(3600) == []
    assert shown(server) == shown(other) == old
    # And once it is mended, it is served.
    if pair.certificate.is_dir():
        pair.certificate.rmdir()
    house.office.directory.mkdir(exist_ok=True)
    house.office.pair("mail.example.test")
    assert [event["state"] for event in house.wait(10)] == ["renewed"]
    assert shown(server) == shown(other) == serial(pair) != old


def test_what_may_not_be_read_keeps_the_old_one(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = house.office.pair("mail.example.test")
    server = house.serve(pair)
    old = shown(server)
    house.office.pair("mail.example.test")
    with monkeypatch.context() as patched:

        def refuse(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        patched.setattr(Path, "read_bytes", refuse)
        (event,) = house.wait(10)
        assert "chgrp" in event["detail"]
        assert shown(server) == old
    os.chmod(pair.certificate, 0o640)  # which changes the ctime alone
    assert [event["state"] for event in house.wait(10)] == ["renewed"]


def test_a_pair_is_written_one_file_after_the_other(house: House) -> None:
    """Nobody is told of what is over before the next look."""
    pair = house.office.pair("mail.example.test")
    assert pair.key is not None
    server = house.serve(pair)
    old_key = pair.key.read_bytes()
    house.office.pair("mail.example.test")
    new_key = pair.key.read_bytes()
    pair.key.write_bytes(old_key)
    assert house.wait(INTERVAL) == []
    pair.key.write_bytes(new_key)
    assert [event["state"] for event in house.wait(INTERVAL)] == ["renewed"]
    assert shown(server) == serial(pair)


def test_another_reason_is_told_again(house: House) -> None:
    pair = house.office.pair("mail.example.test")
    house.serve(pair)
    empty(house, pair)
    assert "empty" in house.wait(10)[0]["detail"]
    file_gone(house, pair)
    assert "no such file" in house.wait(10)[0]["detail"]
    assert house.wait(300) == []


def test_what_was_put_back_was_never_away(house: House) -> None:
    pair = house.office.pair("mail.example.test")
    server = house.serve(pair)
    kept, old = pair.certificate.read_bytes(), shown(server)
    empty(house, pair)
    assert len(house.wait(10)) == 1
    pair.certificate.write_bytes(kept)
    assert house.wait(60) == []
    assert shown(server) == old
    empty(house, pair)
    assert len(house.wait(60)) == 1


def test_a_certificate_of_tomorrow_is_served_tomorrow(house: House) -> None:
    pair = house.office.pair("mail.example.test")
    server = house.serve(pair)
    house.office.pair("mail.example.test", begins=NOW + datetime.timedelta(hours=1), ends=NOW + 90 * DAY)
    (event,) = house.wait(60)
    assert "not valid before" in event["detail"]
    assert [event["state"] for event in house.wait(3600)] == ["renewed"]
    assert shown(server) == serial(pair)


def test_a_fault_in_reading_is_a_refusal_and_not_the_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = house.office.pair("mail.example.test")
    house.serve(pair)
    house.office.pair("mail.example.test")
    with monkeypatch.context() as patched:
        patched.setattr("gateway.wire.tls.renewal.load", lambda *_: 1 / 0)
        (event,) = house.wait(10)
        assert event["detail"].endswith("cannot be understood (ZeroDivisionError)")
    assert [event["state"] for event in house.wait(60)] == ["renewed"]


def test_one_of_two_is_renewed_while_the_other_is_broken(house: House) -> None:
    good, bad = house.office.pair("a.example.test", file="a"), house.office.pair("b.example.test", file="b", kind=RSA)
    server = house.serve(good, bad)
    old = shown(server, "b.example.test")
    empty(house, bad)
    house.office.pair("a.example.test", file="a")
    house.wait(10)
    assert sorted(house.states()) == ["refused", "renewed"]
    assert shown(server, "a.example.test") == serial(good)
    assert shown(server, "b.example.test") == old


def test_what_one_service_cannot_use_no_service_gets(house: House, directory: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa

    from tests.memory.issuing import by_hand, dns

    key = rsa.generate_private_key(65537, 2048)
    pair = by_hand(directory / "one.pem", key, dns("mail.example.test"))
    server = house.serve(pair)
    by_hand(directory / "one.pem", rsa.generate_private_key(65537, 1024), dns("mail.example.test"))
    (event,) = house.wait(10)
    assert "2048" in event["detail"]
    assert visit(server, client_context()).certificate.public_key() == key.public_key()


def test_a_first_load_that_fails_changes_nothing(house: House, directory: Path) -> None:
    with pytest.raises(CertificateError, match="no such file"):
        house.serve(house.office.pair("mail.example.test"), Pair(directory / "gone.pem"))
    assert house.told == []
    empty(house, house.office.pair("mail.example.test"))
    assert house.wait(60) == []


def test_a_file_of_two_services_is_told_once(house: House) -> None:
    pair = house.office.pair("mail.example.test")
    house.serve(pair)
    house.serve(pair, profile="modern")
    assert house.states() == ["loaded"]
    house.office.pair("mail.example.test")
    assert len(house.wait(60)) == 1
    empty(house, pair)
    assert len(house.wait(60)) == 1


def test_issuers_of_clients_are_renewed_too(house: House, directory: Path) -> None:
    authorities = house.office.authority()
    server = house.serve(house.office.pair("mail.example.test"), client_certificate="require", client_ca=authorities)
    (directory / "people").mkdir()
    people = Office(directory / "people")
    context = client_context()
    issued = people.ca.issue_cert("alice@example.test")
    issued.private_key_and_cert_chain_pem.write_to_path(str(directory / "alice.pem"))
    context.use_certificate_chain_file(str(directory / "alice.pem"))
    context.use_privatekey_file(str(directory / "alice.pem"))
    assert "unknown CA" in talk(server.accept(""), Client(context))
    authorities.write_bytes(b"")
    (event,) = house.wait(10)
    assert event["state"] == "refused"
    authorities.write_bytes(people.ca.cert_pem.bytes())
    (event,) = house.wait(10)
    assert event["state"] == "renewed"
    assert event["certificate"] == str(authorities)
    assert talk(server.accept(""), Client(context)) == ""


# --- the passage of time -------------------------------------------------------------------------


def test_the_end_is_told_three_weeks_a_week_and_a_day_before_it_and_when_it_is_there(house: House) -> None:
    pair = house.office.pair("mail.example.test", ends=NOW + 30 * DAY)
    house.serve(pair)
    hours, told = 0, []
    while hours < 24 * 32:
        house.told.clear()
        house.clock.advance(3600)
        house.renewal.look()
        hours += 1
        told += [(event["state"], hours // 24) for event in house.told]
    assert told == [("expiring", 9), ("expiring", 23), ("expiring", 29), ("expired", 30)]


def test_a_renewal_begins_the_count_again(house: House) -> None:
    house.office.pair("mail.example.test", ends=NOW + 5 * DAY)
    house.serve(house.office.pair("mail.example.test", ends=NOW + 5 * DAY))
    house.wait(60)
    assert house.states() == ["expiring"]
    house.office.pair("mail.example.test", ends=NOW + 3 * DAY)
    house.wait(60)
    assert house.states() == ["renewed", "expiring"]
    house.office.pair("mail.example.test", ends=NOW + 90 * DAY)
    house.wait(60)
    assert house.states() == ["renewed"]


def test_a_warning_says_why_there_is_no_renewal(house: House) -> None:
    pair = house.office.pair("mail.example.test", ends=NOW + 21 * DAY + datetime.timedelta(minutes=5))
    house.serve(pair)
    empty(house, pair)
    house.wait(900)
    assert house.states() == ["refused", "expiring"]
    assert "empty" in house.told[-1]["detail"]


def test_the_keys_of_tickets_live_for_a_day(house: House) -> None:
    server = house.serve(house.office.pair("mail.example.test", ends=NOW + 90 * DAY))
    context = client_context(maximum=SSL.TLS1_2_VERSION)
    first = visit(server, context)
    session = first.connection.get_session()
    assert session is not None

    def resumed() -> bool:
        again = Client(context)
        again.connection.set_session(session)
        assert talk(server.accept(""), again) == ""
        return again.resumed

    house.wait(3600)
    assert resumed()
    assert house.wait(24 * 3600) == []
    assert not resumed()


def test_without_a_clock_it_is_the_time_of_day(house: House) -> None:
    told: list[str] = []
    renewal = Renewal(lambda event, **fields: told.append(fields["state"]))
    renewal.serve(TLS((house.office.pair("mail.example.test", ends=NOW + 90 * DAY),)), ())
    renewal.look()
    assert told == ["loaded"]


# --- after privileges were dropped ---------------------------------------------------------------


def test_what_can_be_read_is_not_spoken_of(house: House) -> None:
    house.serve(house.office.pair("mail.example.test"))
    assert house.renewal.still_readable() == []


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("locked", ["key", "directory", "archive"])
def test_what_cannot_be_read_any_more_is_told_with_its_cure(house: House, directory: Path, locked: str) -> None:
    for parent in (directory, *directory.parents):
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    live, archive = directory / "live", directory / "archive"
    live.mkdir()
    archive.mkdir()
    house.office.directory = archive
    made = house.office.pair("mail.example.test", ends=NOW + 21 * DAY)
    assert made.key is not None
    pair = Pair(live / "mail.pem", live / "mail.key")
    for kind in ("pem", "key"):
        (archive / f"mail.{kind}").chmod(0o644)
        (live / f"mail.{kind}").symlink_to(f"../archive/mail.{kind}")
    server = house.serve(pair)
    old = shown(server)
    match locked:
        case "key":
            made.key.chmod(0o600)
        case "directory":
            live.chmod(0o700)
        case "archive":
            archive.chmod(0o700)
    culprit = {"key": made.key, "directory": live, "archive": archive}[locked]
    os.seteuid(65534)
    try:
        lines = house.renewal.still_readable()
        told = [event["state"] for event in house.wait(60)]
    finally:
        os.seteuid(0)
    assert len(lines) == (1 if locked == "key" else 2)
    for line in lines:
        assert f"{culprit} is in the way" in line
        assert "nobody" in line
        assert "chgrp" in line
        assert "only after its next start" in line
    # Nothing was renewed: this is no refusal.
    assert told == ["expiring"]
    assert "is in the way" in house.told[0]["detail"]
    assert shown(server) == old
    # Once it can be read, it is.
    house.office.pair("mail.example.test", ends=NOW + 90 * DAY)
    assert [event["state"] for event in house.wait(60)] == ["renewed"]


@pytest.mark.usefixtures("root")
def test_a_renewed_key_that_cannot_be_read_is_a_refusal(house: House, directory: Path) -> None:
    for parent in (directory, *directory.parents):
        if parent != Path("/") and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    pair = house.office.pair("mail.example.test", ends=NOW + 90 * DAY)
    assert pair.key is not None
    pair.key.chmod(0o600)
    pair.certificate.chmod(0o644)
    house.serve(pair)
    os.seteuid(65534)
    try:
        assert len(house.renewal.still_readable()) == 1
        assert house.wait(60) == []
        os.seteuid(0)
        house.office.pair("mail.example.test", ends=NOW + 90 * DAY)
        pair.key.chmod(0o600)
        os.seteuid(65534)
        (event,) = house.wait(60)
    finally:
        os.seteuid(0)
    assert event["state"] == "refused"
    assert f"{pair.key}: the gateway cannot read this file" in event["detail"]
