"""The pages of the admin listener in a real browser, as their readers see them.

Screenshots are left in the directory ARTEFACTS, if that is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.telemetry.report.facts import Times, of_user
from gateway.telemetry.report.store import Store
from tests.process.browsing import Browser, Page, browser
from tests.process.conftest import Opening
from tests.process.programs import missing, need
from tests.process.running import ROOT
from tests.process.test_admin import ADMIN, HOSTILE, TOKEN, Admin, Crowd, total
from tests.process.test_admin_acting import BASIC, House
from tests.process.words import WORDS

VIEWS = {"light": (1200, False), "dark": (1200, True), "phone": (390, False)}
"""Width, and whether it is dark."""
HOSTILE_NAME = HOSTILE.decode()
CLIENT_NAME = "mail.example.test"


@pytest.fixture(scope="module")
def axe() -> str:
    """The program that knows what people cannot use."""
    found = next(ROOT.glob(".venv-tools/lib/python*/site-packages/axe_playwright_python/axe.min.js"), None)
    if found is None:
        missing("this test needs axe-core: make .venv-tools/installed")
    return found.read_text("utf-8")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser(need("chromium", debian="chromium")) as made:
        yield made


@pytest.fixture
def house(tmp_path: Path, opened: Opening) -> Iterator[House]:
    """A gateway that has seen something, with a token and a report; one session is open."""
    (tmp_path / "token").write_text(TOKEN)
    sections = {
        "admin": {**ADMIN, "token_file": "token"},
        "gateway": {"log_users": "yes"},
        "report": {"file": "r.db", "keep": "3650 d"},
    }
    long_ago = Times(1_700_000_000, 1_700_000_000, 7)
    facts = {("imap", f"198.51.{number}.0/24", "clear", "optional"): long_ago for number in range(30)}
    facts |= {("imap", f"203.0.{number}.0/24", "tls", "TLSv1"): long_ago for number in range(30)}
    facts["imap", of_user(HOSTILE_NAME), "clear", "optional"] = long_ago
    Store(tmp_path / "r.db").add(facts, 0)
    with opened(*WORDS, **sections) as front:
        one = House(Admin.of(front))
        crowd = Crowd(one.front)
        for deed in (crowd.login, crowd.injection, crowd.garbage, crowd.plaintext):
            deed("smtp")
        yield one


def url(house: House, path: str = "/") -> str:
    return f"http://{house.front.gateway.log.wait('admin-listening')['address']}{path}"


def inspect(page: Page, axe: str, name: str) -> None:
    """Nothing to complain of: for the browser, for axe, for a narrow screen."""
    directory = os.environ.get("ARTEFACTS")
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        page.shoot(Path(directory) / f"{name}.png")
    # The page's policy allows no script tag: axe is evaluated.
    page.run(f"{axe};0")
    found = page.run(
        "axe.run().then(told => told.violations.map(one => one.id + ': ' + one.nodes.map(node => node.html).join(' ')))"
    )
    assert found == []
    assert not page.run("document.documentElement.scrollWidth > window.innerWidth"), "it scrolls sideways"
    assert page.complaints == []


@pytest.mark.parametrize("view", VIEWS)
def test_the_status_page_can_be_used_by_everybody(house: House, chromium: Browser, axe: str, view: str) -> None:
    client = house.enter()
    found = house.front.fresh(lambda found: total(found, "sessions") == 1, **BASIC)
    page = Page(chromium, url(house), *VIEWS[view], headers=BASIC)
    inspect(page, axe, f"status-{view}")
    # The figures are those of the metrics.
    figures = page.run("Array.from(document.querySelectorAll('#sessions figcaption'), one => one.textContent)")
    assert figures == [
        "1 open sessions",
        f"{total(found, 'sessions_total', tls='none'):.0f} ended in plaintext",
        f"{total(found, 'logins_total', result='failed'):.0f} failed logins",
        f"{total(found, 'attacks_total'):.0f} attacks refused",
    ]
    client.socket.close()


def test_the_status_page_renews_itself_and_leaves_what_is_being_written(house: House, chromium: Browser) -> None:
    page = Page(chromium, url(house), headers=BASIC)
    page.run("document.querySelector('[name=whom]').focus()")
    page.ask("Input.insertText", text="192.0.2.7")
    client = house.enter()
    open_ones = "document.querySelector('#sessions figcaption b').textContent"
    assert page.run(open_ones) == "0"
    shown = page.run(f"new Promise(done => setInterval(() => {open_ones} === '1' && done({open_ones}), 50))")
    assert shown == "1"
    assert page.run("document.activeElement.name + ' ' + document.activeElement.value") == "whom 192.0.2.7"
    assert page.complaints == []
    client.socket.close()


def test_a_form_of_the_page_cuts_off_a_session(house: House, chromium: Browser, axe: str) -> None:
    """The browser has the password of Basic, as a person would type it: the form's own secret lets it act."""
    client = house.enter()
    page = Page(chromium, url(house), headers=BASIC)
    page.run("document.querySelector('[name=whom]').focus()")
    page.ask("Input.insertText", text="127.0.0.1")
    page.run("document.querySelector('form[action=\"/act/kick\"] button').click()")
    assert client.rest() == b""
    page.run("new Promise(done => setInterval(() => document.querySelector('#acted') && done(0), 50))")
    assert page.run("document.querySelector('#acted p').textContent") == "1 session cut off."
    inspect(page, axe, "acted")


def test_another_page_cannot_act(house: House, chromium: Browser) -> None:
    """One that even knows the form's secret: it comes from elsewhere."""
    client = house.enter()
    form = (
        f'<form method="post" action="{url(house, "/act/kick")}"><input name="whom" value="127.0.0.1">'
        f'<input name="csrf" value="{house.csrf}"></form>'
    )
    page = Page(chromium, f"data:text/html,{form}", headers=BASIC)
    page.run("document.forms[0].submit()")
    told = page.wait("Network.responseReceived", lambda params: params["response"]["url"] == url(house, "/act/kick"))
    assert told["response"]["status"] == 403
    client.say(b"n NOOP\r\n")
    client.hear(rb"^n OK[^\n]*\n")
    client.socket.close()


@pytest.mark.parametrize("view", VIEWS)
def test_the_report_can_be_used_by_everybody(house: House, chromium: Browser, axe: str, view: str) -> None:
    page = Page(chromium, url(house, "/report?since=3000d"), *VIEWS[view], headers=BASIC)
    inspect(page, axe, f"report-{view}")
    assert page.run("document.querySelectorAll('#networks tbody tr').length") >= 60
    assert page.run("document.querySelector('#users tbody tr td:nth-child(2)').textContent") == HOSTILE_NAME
