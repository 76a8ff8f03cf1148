"""What a configuration asks for, and how one gets from one configuration to the next."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from gateway.app.plan import Moves, Opening, Reload, changes, moves, named, openings, setup_of, terms_at
from gateway.config.reader import parse
from gateway.config.values import Configuration, Pair
from gateway.dialects import DIALECTS
from gateway.dialects.base import Policy
from gateway.sessions.agreed import backend_alpn

FILE = """
[gateway]
hostname = gw.example.org
[tls]
certificate = own.pem
[backend:store]
address = 10.0.0.5:143
[service:smtp]
starttls = 127.0.0.1:25
implicit = 127.0.0.1:465
backend = 10.0.0.5:25
[service:imap]
starttls = 127.0.0.1:143
backend = store
"""


def configured(*changed: tuple[str, str], text: str = FILE) -> Configuration:
    """The file with some words of it replaced by others."""
    for old, new in changed:
        assert old in text
        text = text.replace(old, new)
    return parse(text, "gw.ini", DIALECTS)


def shown(one: Opening) -> tuple[str, str, str | None]:
    return str(one.address), one.service.name, one.policy


def test_each_listening_address_is_an_opening() -> None:
    assert [shown(one) for one in openings(configured())] == [
        ("127.0.0.1:25", "smtp", "auth-only"),
        ("127.0.0.1:465", "smtp", None),
        ("127.0.0.1:143", "imap", "required"),
    ]


def test_the_terms_say_what_holds_at_an_address() -> None:
    configuration = configured(("address = 10.0.0.5:143", "address = 10.0.0.5:143\nconnect = lazy"))
    clear, implicit, imap = [terms_at(one, configuration) for one in openings(configuration)]
    assert (clear.implicit, clear.policy, clear.lazy) == (False, Policy.AUTH_ONLY, False)
    assert (implicit.implicit, implicit.policy, implicit.submission) == (True, Policy.REQUIRED, True)
    assert (imap.policy, imap.lazy, imap.hostname) == (Policy.REQUIRED, True, b"gw.example.org")
    assert clear.now().tzinfo is not None


def test_advice_knows_policies_and_legacy_clients() -> None:
    setup = setup_of(configured())
    assert (setup.legacy_clients, setup.policies) == (False, {"smtp": ("auth-only",), "imap": ("required",)})
    old = configured(("certificate = own.pem", "certificate = own.pem\nprofile = legacy\nlegacy_clients = 10.0.0.0/8"))
    assert setup_of(old).legacy_clients


def test_a_backend_whose_tls_comes_first_is_told_the_protocol() -> None:
    text = "[gateway]\nhostname = gw.example.org\n[tls]\ncertificate = own.pem\n"
    text += "[service:postgresql]\nstarttls = 5432\nbackend = db\n[backend:db]\naddress = db.example.org:5432\n"
    for tls, names in (("none", ()), ("starttls", ()), ("implicit", (b"postgresql",))):
        configuration = configured(text=f"{text}tls = {tls}\n")
        assert backend_alpn(configuration, configuration.services[0].backend) == names


def moved(old: Configuration, new: Configuration) -> Moves:
    return moves(openings(old), openings(new))


def test_what_did_not_change_keeps_its_sockets() -> None:
    assert moved(configured(), configured()) == Moves({0: 0, 1: 1, 2: 2}, ())


def test_an_address_that_another_service_has_now_keeps_its_sockets() -> None:
    own = ("[service:imap]\nstarttls = 127.0.0.1:143", "[service:imap]\nstarttls = 127.0.0.1:993")
    new = configured(("127.0.0.1:465", "127.0.0.1:143"), own)
    assert moved(configured(), new) == Moves({0: 0, 1: 2}, (1,))


def test_what_is_new_is_bound_and_what_is_gone_is_closed() -> None:
    assert moved(configured(), configured(("127.0.0.1:25", "127.0.0.1:2525"))) == Moves({1: 1, 2: 2}, (0,))


def test_each_service_keeps_its_own_port_of_the_kernels_choice() -> None:
    ports = [(f"127.0.0.1:{port}", "127.0.0.1:0") for port in (25, 465, 143)]
    every = configured(*ports)
    fewer = configured(*ports, ("implicit = 127.0.0.1:0\n", ""))
    assert moved(every, fewer) == Moves({0: 0, 1: 2}, (1,))
    assert moved(fewer, every) == Moves({0: 0, 2: 1}, ())


@pytest.mark.parametrize(("old", "new", "words"), [
    ("gw.example.org", "mx.example.org", ("[gateway] changed",)),
    ("own.pem", "other.pem", ("[tls] changed",)),
    ("[service:smtp]", "[limits]\nbad_commands = 3\n[service:smtp]", ("[limits] changed",)),
    ("[service:smtp]", "[limits]\nsessions = 3\n[service:smtp]", ("[limits] changed",)),
    ("[service:smtp]", "[timeouts]\nlinger = 1 s\n[service:smtp]", ("[timeouts] changed",)),
    ("[service:smtp]", "[report]\nfile = r.db\n[service:smtp]", ("[report] changed",)),
    ("[service:smtp]", "[report]\nkeep = 30 d\n[service:smtp]", ("[report] changed",)),
    ("10.0.0.5:143", "10.0.0.6:143", ("[backend:store] changed",)),
    ("127.0.0.1:143", "127.0.0.1:144", ("[service:imap] changed",)),
    ("backend = 10.0.0.5:25", "backend = 10.0.0.6:25",
     ("[service:smtp] changed", "[backend:10.0.0.5:25] removed", "[backend:10.0.0.6:25] added")),
    ("[service:imap]", "[service:imaps]\nprotocol = imap", ("[service:imap] removed", "[service:imaps] added")),
    ("backend = store", "backend = store\ncertificate = imap.pem", ("[service:imap] changed",)),
])  # fmt: skip
def test_the_sections_that_differ_are_named(old: str, new: str, words: tuple[str, ...]) -> None:
    assert changes(configured(), configured((old, new))) == words


def test_nothing_differs_from_itself() -> None:
    assert changes(configured(), configured()) == ()
    same = configured()
    own = replace(same.services[0], tls=replace(same.tls, pairs=(Pair(Path("mine.pem")),)))
    assert changes(same, replace(same, services=(own, same.services[1]))) == ("[service:smtp] changed",)


# --- what an administrator means -------------------------------------------------------------------

TWINS = FILE.replace("[backend:store]", "[backend:imap]").replace("backend = store", "backend = imap")


@pytest.mark.parametrize(("name", "meant"), [
    ("imap", ("service", {"imap"})),
    ("service:imap", ("service", {"imap"})),
    ("store", ("backend", {"10.0.0.5:143"})),
    ("backend:store", ("backend", {"10.0.0.5:143"})),
    ("10.0.0.5:25", ("backend", {"10.0.0.5:25"})),
    ("backend:10.0.0.5:143", ("backend", {"10.0.0.5:143"})),
])  # fmt: skip
def test_a_service_a_backend_or_one_of_its_addresses_is_meant(name: str, meant: tuple[str, set[str]]) -> None:
    what, names = named(name, configured())
    assert (what, set(names)) == meant


def test_a_name_of_both_needs_a_word_in_front() -> None:
    configuration = configured(text=TWINS)
    with pytest.raises(ValueError, match="imap is a service and a backend; write service:imap or backend:imap"):
        named("imap", configuration)
    assert named("service:imap", configuration) == ("service", frozenset({"imap"}))
    assert named("backend:imap", configuration) == ("backend", frozenset({"10.0.0.5:143"}))


@pytest.mark.parametrize("name", ["pop3", "service:store", "backend:smtp", "10.0.0.9:25"])
def test_a_name_of_neither_is_told_with_those_that_there_are(name: str) -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.5:143, 10\.0\.0\.5:25, imap, smtp, store") as caught:
        named(name, configured())
    assert str(caught.value).startswith(f"there is no service and no backend {name}; there are ")


def test_a_reload_is_good_without_a_problem() -> None:
    now = datetime.now(timezone.utc)
    assert Reload(now).good
    assert not Reload(now, problems=("no",)).good
