"""The page that `make interop` writes; its runs are too long for this suite, which has a few of them (T25)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from interop import others
from interop.clients import Client
from interop.jobs import WRONG_ISSUER, WRONG_NAME, Command, Job, Mode
from interop.matrix import Outcome
from interop.places import House
from interop.servers import Server
from interop.table import page
from interop.trials import Stage, Trial


@dataclass(frozen=True)
class Shelf(House):
    """Packages whose version is known without them."""

    def version(self, package: str) -> str:
        return f"{package} 1.0"

    def install(self, packages: Sequence[str]) -> None:
        raise AssertionError("nothing is installed here")

    def command(self, argv: Sequence[str], shared: Path | None = None) -> list[str]:
        raise AssertionError("nothing is run here")


def how(job: Job) -> Command:
    raise AssertionError("nothing is run here")


SHELF = Shelf("shelf")
SERVER = Server("Old", SHELF, ("old",), ("imap",), "")
CLIENTS = [
    Client("good", "imap", SHELF, ("good",), how),
    Client("bad", "imap", SHELF, ("bad",), how, lacks={"implicit": "bad has no implicit TLS"}),
    Client("blind", "imap", SHELF, ("blind",), how),
    Client("tired", "imap", SHELF, ("tired",), how, stalls="it falls asleep"),
]


def outcome(client: str, mode: Mode, against: str, detail: str = "", known: bool = False) -> Outcome:
    return Outcome("imap", client, mode, against, not detail, detail, known, "TLSv1.3", 0.1)


def rows(outcomes: list[Outcome]) -> list[str]:
    return page(CLIENTS, [SERVER], outcomes, date(2026, 11, 27)).splitlines()


def test_T25_the_page_has_a_row_for_each_client_and_a_reason_for_each_no() -> None:
    lines = rows([
        *(outcome("good", mode, against) for mode in ("starttls", "implicit")
          for against in ("Old", WRONG_ISSUER, WRONG_NAME)),
        outcome("bad", "starttls", "Old", "it said no"),
        outcome("bad", "implicit", "Old", "bad has no implicit TLS: usage", known=True),
        outcome("blind", "starttls", "Old"),
        outcome("tired", "starttls", "Old"),
        outcome("blind", "starttls", WRONG_NAME, "the mail came through"),
    ])  # fmt: skip
    assert "| Old | old 1.0 (Debian) | IMAP |" in lines
    assert "| good | good 1.0 (Debian) | ok | ok | yes |" in lines
    assert "| bad | bad 1.0 (Debian) | no | - | - |" in lines
    assert "| blind | blind 1.0 (Debian) | ok | - | no |" in lines
    assert "* bad, STARTTLS, Old: it said no" in lines
    assert "* tired: it falls asleep" in lines
    assert "* blind, STARTTLS, wrong name: the mail came through" in lines
    assert "2026-11-27" in lines[2]
    assert not any("## SMTP" in line for line in lines)


def test_T25_what_fails_alike_at_several_servers_is_told_once() -> None:
    lines = rows([
        outcome("good", "starttls", "Old", "it said no", known=True),
        outcome("good", "starttls", "Older", "it said no", known=True),
        outcome("good", "implicit", "Old", "it said something else", known=True),
    ])  # fmt: skip
    assert "* good, STARTTLS, Old, Older: it said no" in lines
    assert "* good, implicit TLS, Old: it said something else" in lines


def test_T25_a_client_that_can_what_it_is_said_to_lack_is_shown_as_it_is() -> None:
    lines = rows([outcome("good", "starttls", "Old"), outcome("bad", "implicit", "Old")])
    assert "| bad | bad 1.0 (Debian) | - | ok | - |" in lines


def test_T25_a_trial_that_failed_says_why() -> None:
    def unplayed(stage: Stage) -> str:
        raise AssertionError("nothing is played here")

    trials = [(Trial(name, SERVER, "All is well.", unplayed, {}), wrong) for name, wrong in (("a", ""), ("b", "bang"))]
    lines = page(CLIENTS, [SERVER], [], date(2026, 11, 27), trials).splitlines()
    assert "| a | Old old 1.0 | All is well. | yes |" in lines
    assert "| b | Old old 1.0 | All is well. | no: bang |" in lines


def test_the_other_protocols_have_a_section_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(others, "version", lambda package: "1.0")
    pairs = [
        others.Pair("NNTP", "tin", "tin", "INN", "inn2", {"implicit": "nntp.py::test_tin"}, "reads"),
        others.Pair("IRC", "irssi", "irssi", "ngIRCd", "ngircd", {"starttls": "a", "implicit": "b"}, "talks"),
    ]
    told = "".join(others.section({(0, "implicit"): "", (1, "starttls"): "it hung", (1, "implicit"): ""}, pairs))
    assert "| NNTP | tin 1.0 | INN 1.0 | reads | - | ok | - |\n" in told
    assert "| IRC | irssi 1.0 | ngIRCd 1.0 | talks | no | ok | - |\n" in told
    assert "* irssi, STARTTLS, ngIRCd: it hung\n" in told
    page = others.renewed("# Page\n\n## First\n", told)
    assert others.renewed(page + "\n## Last\n", told) == page + "\n## Last\n"
    assert not list(others.section({}, pairs))


def test_each_test_of_the_other_protocols_is_there() -> None:
    for pair in others.PAIRS:
        for test in pair.tests.values():
            file, _, name = test.partition("::")
            text = (others.ROOT / "tests" / "process" / f"test_{file}").read_text()
            assert f"def {name.partition('[')[0]}(" in text, test
