"""The admin listener for an administrator with the token: the report, and what can be done."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import pytest

from gateway.telemetry.report.facts import Times
from gateway.telemetry.report.store import Store
from tests.process.conftest import Opening
from tests.process.test_admin import ADMIN, TOKEN, Admin
from tests.process.wire import Client

BEARER = {"Authorization": f"Bearer {TOKEN}"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"admin:{TOKEN}".encode()).decode()}
JSON = {"Accept": "application/json"}


@dataclass
class House:
    front: Admin

    def do(self, command: str, headers: dict[str, str], **fields: str) -> tuple[int, str]:
        headers = {"Content-Type": "application/x-www-form-urlencoded", **headers}
        answer, body = self.front.ask(f"/act/{command}", "POST", urlencode(fields), **headers)
        return answer.status, body.decode()

    def enter(self) -> Client:
        return self.front.connect("imap", "implicit")

    @property
    def csrf(self) -> str:
        page = self.front.ask("/", **BASIC)[1].decode()
        (secret,) = set(re.findall(r'name="csrf" value="([^"]+)"', page))
        return str(secret)


@pytest.fixture(params=["1", "2"])
def house(request: pytest.FixtureRequest, tmp_path: Path, opened: Opening) -> Iterator[House]:
    (tmp_path / "token").write_text(TOKEN)
    sections = {
        "admin": {**ADMIN, "token_file": "token"},
        "gateway": {"workers": request.param},
        "report": {"file": "r.db", "keep": "3650 d"},
    }
    with opened("imap", **sections) as one:
        if request.param != "1":
            one.gateway.log.wait("worker", count=int(request.param), state="serving")
        yield House(Admin.of(one))


def test_who_has_the_token_can_cut_off_ban_and_drain(house: House) -> None:
    client = house.enter()
    status, told = house.do("kick", {**BEARER, **JSON}, whom="127.0.0.1")
    assert (status, json.loads(told)["result"]) == (200, {"sessions": 1})
    assert client.rest() == b""
    assert house.front.gateway.log.wait("control", command="kick")["user"] == "admin listener, 127.0.0.1"
    # By the forms of the page, as a browser sends them.
    place = house.front.gateway.log.wait("admin-listening")["address"]
    browser = {**BASIC, "Origin": f"http://{place}", "Sec-Fetch-Site": "same-origin"}
    status, told = house.do("ban", browser, csrf=house.csrf, client="192.0.2.7", hours="2", kick="yes")
    assert status == 200, told
    assert "is banned until" in told
    assert house.do("unban", browser, csrf=house.csrf, client="192.0.2.7")[0] == 200
    assert house.do("drain", browser, csrf=house.csrf, name="imap")[0] == 200
    with Client(house.front.gateway.address("imap")) as late:
        assert b"UNAVAILABLE" in late.rest()
    assert house.do("undrain", browser, csrf=house.csrf, name="imap")[0] == 200
    house.enter().socket.close()


def test_nobody_else_can(house: House) -> None:
    client = house.enter()
    csrf = house.csrf
    own = {"Origin": "http://127.0.0.1:1"}
    assert house.do("kick", {}, whom="127.0.0.1", csrf=csrf)[0] == 401
    assert house.do("kick", BASIC, whom="127.0.0.1")[0] == 403
    assert house.do("kick", BASIC, whom="127.0.0.1", csrf=f"{csrf}x")[0] == 403
    assert house.do("kick", {**BASIC, **own}, whom="127.0.0.1", csrf=csrf)[0] == 403
    assert house.do("kick", {**BASIC, "Sec-Fetch-Site": "cross-site"}, whom="127.0.0.1", csrf=csrf)[0] == 403
    assert house.do("kick", {**BEARER, "Host": "evil.example"}, whom="127.0.0.1")[0] == 421
    assert house.front.status(f"/act/kick?whom=127.0.0.1&csrf={csrf}", **BASIC) == 405
    assert house.do("reload", BEARER, whom="x")[0] == 400
    assert house.do("kick", BEARER, whom="203.0.113.9")[0] == 409
    assert house.do("kick", BEARER, whom="x" * 2000)[0] == 413
    client.say(b"n NOOP\r\n")
    client.hear(rb"^n OK[^\n]*\n")
    client.socket.close()


def test_the_report_over_http(house: House, tmp_path: Path) -> None:
    long_ago = Times(1_700_000_000, 1_700_000_000, 7)
    Store(tmp_path / "r.db").add({("imap", "198.51.100.0/24", "clear", "optional"): long_ago}, 0)
    answer, body = house.front.ask("/report?since=3000d", **BEARER)
    assert (answer.status, answer.getheader("Content-Type")) == (200, "text/html; charset=utf-8")
    assert "policy required on imap would have refused 1 network in 3000 days: 198.51.100.0/24" in body.decode()
    whole = json.loads(house.front.ask("/report.json?since=3000", **BEARER)[1])
    assert [line["clear"] for line in whole["networks"]] == [7]
    (row,) = csv.DictReader(io.StringIO(house.front.ask("/report.csv?since=3000d", **BEARER)[1].decode()))
    assert row["network"] == "198.51.100.0/24"
    assert json.loads(house.front.ask("/report.json", **BEARER)[1])["networks"] == []
    for wrong in ("0d", "x", "1d1", "99999"):
        assert house.front.status(f"/report?since={wrong}", **BEARER) == 400
    assert house.front.status("/report") == 401


def test_without_a_token_the_page_only_shows(opened: Opening) -> None:
    with opened("imap", admin=ADMIN, report={"file": "off"}) as front:
        one = House(Admin.of(front))
        assert b"<form" not in one.front.ask("/")[1]
        assert one.do("kick", {}, whom="127.0.0.1")[0] == 403
        answer, body = one.front.ask("/report")
        assert (answer.status, body) == (404, b"The gateway keeps no report: name a file in [report].\n")
