"""What the configuration file may say of TLS towards clients: in `[tls]`, and for one service alone."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import pytest

from gateway.config import Machine
from gateway.config.values import TLS, Pair
from tests.pure.test_config import file, problems, read, the_problem

HERE = Path("/etc/gw")
SMTP = "starttls = 25\nbackend = a:25"
OLD = "profile = legacy\nlegacy_clients = 10.0.0.0/8"
ASKED = "client_certificate = require\nclient_ca = ca.pem"
NEWER_ONES = (ip_network("10.9.0.0/16"),)
OLD_ONES = (ip_network("10.0.0.0/8"),)


def pairs(*names: str) -> tuple[Pair, ...]:
    """`c.pem+c.key`, or `both.pem`."""
    both = [name.partition("+") for name in names]
    return tuple(Pair(HERE / certificate, HERE / key if key else None) for certificate, _, key in both)


def of_service(options: str, tls: str = "certificate = c.pem") -> TLS:
    """What holds for [service:smtp] with these options in a file with that [tls]."""
    return read(file(tls=tls, smtp=f"{SMTP}\n{options}")).services[0].tls


def of_all(options: str) -> TLS:
    """What holds for a service that says nothing, with these options in [tls]."""
    found = read(file(tls=f"certificate = c.pem\n{options}"))
    assert found.tls == found.services[0].tls
    return found.tls


# --- certificates and keys -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("certificate = c.pem", pairs("c.pem")),
        ("certificate = c.pem\nkey = c.key", pairs("c.pem+c.key")),
        ("certificate = a.pem b.pem", pairs("a.pem", "b.pem")),
        ("certificate = a.pem\n  b.pem\nkey = a.key\n  b.key", pairs("a.pem+a.key", "b.pem+b.key")),
        ("certificate = a.pem b.pem\nkey = one.key one.key", pairs("a.pem+one.key", "b.pem+one.key")),
        (
            "certificate = a.pem both.pem c.pem\nkey = a.key both.pem c.key",
            pairs("a.pem+a.key", "both.pem", "c.pem+c.key"),
        ),
    ],
)
def test_certificates_have_their_keys_in_order_or_in_themselves(written: str, found: tuple[Pair, ...]) -> None:
    configuration = read(file(tls=written))
    assert configuration.tls == configuration.services[0].tls == TLS(found)
    assert of_service(written) == TLS(found)


@pytest.mark.parametrize(
    ("written", "counts"),
    [
        ("certificate = a.pem b.pem\nkey = a.key", "2 certificates, but 1 key"),
        ("certificate = a.pem\nkey = a.key b.key", "1 certificate, but 2 keys"),
        ("certificate = a.pem b.pem c.pem\nkey = a.key b.key", "3 certificates, but 2 keys"),
    ],
)
def test_there_is_a_key_for_each_certificate_or_none_for_any(written: str, counts: str) -> None:
    fault = (
        f"key: there are {counts}; write one key for each certificate, in the same order; "
        "if a file contains both, name it in both options"
    )
    assert the_problem(file(tls=written)) == f"gw.ini: [tls] {fault}"
    assert the_problem(file(smtp=f"{SMTP}\n{written}")) == f"gw.ini: [service:smtp] {fault}"


def test_a_service_with_a_certificate_inherits_no_key() -> None:
    shared = "certificate = c.pem\nkey = c.key"
    assert of_service("certificate = own.pem", shared).pairs == pairs("own.pem")
    assert of_service("certificate = own.pem\nkey = own.key", shared).pairs == pairs("own.pem+own.key")
    assert of_service("", shared).pairs == pairs("c.pem+c.key")


def test_without_certificates_of_its_own_tls_may_be_missing() -> None:
    text = file(smtp=f"{SMTP}\ncertificate = own.pem").replace("[tls]\ncertificate = c.pem\n", "")
    assert "[tls]" not in text
    configuration = read(text)
    assert (configuration.tls, configuration.services[0].tls) == (TLS(()), TLS(pairs("own.pem")))


def test_what_tls_says_holds_without_a_certificate_too() -> None:
    assert of_service("certificate = own.pem", "profile = modern") == TLS(pairs("own.pem"), "modern")


TWO = "[service:imap]\nstarttls = 143\nbackend = a:143\n"

WRONG_FILES = {
    "no certificate at all": (
        file(tls="", rest=TWO),
        "[tls] certificate: is missing; name the PEM file with the certificate and its chain",
    ),
    "a service without": (
        file(tls="", smtp=f"{SMTP}\ncertificate = own.pem", rest=TWO),
        "[tls] certificate: is missing, and [service:imap] has none of its own; "
        "name the PEM file with the certificate and its chain",
    ),
    "key alone": (
        file(tls="key = c.key"),
        "[tls] certificate: is missing, and key needs it; name the PEM file with the certificate and its chain, "
        "or remove the key",
    ),
    "key alone, of a service": (
        file(smtp=f"{SMTP}\nkey = own.key"),
        "[service:smtp] certificate: is missing, and key needs it; name the PEM file with the certificate and "
        "its chain, or remove the key",
    ),
    "key alone, of a service that has no other": (
        file(tls="", smtp=f"{SMTP}\nkey = own.key"),
        "[service:smtp] certificate: is missing, and key needs it; name the PEM file with the certificate and "
        "its chain, or remove the key",
    ),
    "certificate without value": (
        file(tls="certificate ="),
        "[tls] certificate: has no value; write one, or remove the option",
    ),
    "certificate without value, but with keys": (
        file(tls="certificate =\nkey = a.key b.key"),
        "[tls] certificate: has no value; write one, or remove the option",
    ),
    "key without value": (
        file(tls="certificate = a.pem b.pem\nkey ="),
        "[tls] key: has no value; write one, or remove the option",
    ),
    "certificate that stands there twice": (
        file(tls="certificate = a.pem b.pem a.pem"),
        "[tls] certificate: /etc/gw/a.pem is there twice; write each file once",
    ),
}


@pytest.mark.parametrize(("text", "problem"), WRONG_FILES.values(), ids=WRONG_FILES)
def test_what_is_wrong_with_the_files_is_one_line(text: str, problem: str) -> None:
    assert the_problem(text) == f"gw.ini: {problem}"


def test_every_file_must_be_readable() -> None:
    machine = Machine(HERE, lambda: "gw.example.org", lambda path: "no" if path.stem.startswith("bad") else None)
    tls = "certificate = a.pem bad1.pem\nkey = bad2.key b.key\nclient_certificate = request\nclient_ca = bad3.pem"
    smtp = f"{SMTP}\ncertificate = bad4.pem\nclient_ca = bad5.pem"
    assert problems(file(tls=tls, smtp=smtp), machine) == [
        "gw.ini: [tls] certificate: /etc/gw/bad1.pem: no",
        "gw.ini: [tls] key: /etc/gw/bad2.key: no",
        "gw.ini: [tls] client_ca: /etc/gw/bad3.pem: no",
        "gw.ini: [service:smtp] certificate: /etc/gw/bad4.pem: no",
        "gw.ini: [service:smtp] client_ca: /etc/gw/bad5.pem: no",
    ]


# --- options that need each other ------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["modern", "intermediate"])
def test_a_profile_is_for_all_or_for_one(profile: str) -> None:
    assert of_all(f"profile = {profile}") == TLS(pairs("c.pem"), profile)
    assert of_service(f"profile = {profile}") == TLS(pairs("c.pem"), profile)


def test_the_legacy_profile_is_for_some_clients() -> None:
    assert of_all(OLD) == of_service(OLD) == TLS(pairs("c.pem"), "legacy", OLD_ONES)


@pytest.mark.parametrize("word", ["request", "require"])
def test_clients_may_be_asked_for_certificates(word: str) -> None:
    options = f"client_certificate = {word}\nclient_ca = ca.pem"
    asked = TLS(pairs("c.pem"), client_certificate=word, client_ca=HERE / "ca.pem")
    assert of_all(options) == of_service(options) == asked
    assert of_all("client_certificate = none") == TLS(pairs("c.pem"))


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("", TLS(pairs("c.pem"), "legacy", OLD_ONES, "require", HERE / "ca.pem")),
        ("certificate = own.pem", TLS(pairs("own.pem"), "legacy", OLD_ONES, "require", HERE / "ca.pem")),
        ("legacy_clients = 10.9.0.0/16", TLS(pairs("c.pem"), "legacy", NEWER_ONES, "require", HERE / "ca.pem")),
        ("profile = legacy", TLS(pairs("c.pem"), "legacy", OLD_ONES, "require", HERE / "ca.pem")),
        ("profile = modern", TLS(pairs("c.pem"), "modern", (), "require", HERE / "ca.pem")),
        ("client_certificate = request", TLS(pairs("c.pem"), "legacy", OLD_ONES, "request", HERE / "ca.pem")),
        ("client_ca = own.pem", TLS(pairs("c.pem"), "legacy", OLD_ONES, "require", HERE / "own.pem")),
        ("client_certificate = none", TLS(pairs("c.pem"), "legacy", OLD_ONES, "none", None)),
        ("profile = intermediate\nclient_certificate = none", TLS(pairs("c.pem"))),
    ],
)  # fmt: skip
def test_a_service_overrides_option_by_option(options: str, found: TLS) -> None:
    assert of_service(options, f"certificate = c.pem\n{OLD}\n{ASKED}") == found


def test_services_that_are_served_alike_have_equal_values() -> None:
    rest = f"{TWO}certificate = c.pem\nprofile = intermediate\nclient_certificate = none"
    smtp, imap = read(file(rest=rest)).services
    assert smtp.tls == imap.tls
    assert len({smtp.tls, imap.tls}) == 1


NO_CLIENTS = (
    "legacy_clients: is missing, and profile = legacy needs it; "
    "name the networks of the clients that need TLS 1.0 or 1.1"
)
NO_CA = "client_ca: is missing, and client_certificate = {} needs it; name the PEM file with the accepted issuers"
IDLE_CLIENTS = "legacy_clients: has no effect with profile = {}; remove it, or write profile = legacy"
IDLE_CA = (
    "client_ca: has no effect with client_certificate = none; "
    "remove it, or write client_certificate = request or require"
)

LONELY = {
    "legacy for whom": ("profile = legacy", NO_CLIENTS),
    "clients of no profile": ("legacy_clients = 10.0.0.0/8", IDLE_CLIENTS.format("intermediate")),
    "clients of another profile": (
        "profile = modern\nlegacy_clients = 10.0.0.0/8",
        IDLE_CLIENTS.format("modern"),
    ),
    "request from whom": ("client_certificate = request", NO_CA.format("request")),
    "require from whom": ("client_certificate = require", NO_CA.format("require")),
    "issuers that nobody asks for": ("client_ca = ca.pem", IDLE_CA),
    "issuers where nobody is asked": ("client_certificate = none\nclient_ca = ca.pem", IDLE_CA),
    "profile that there is not": (
        "profile = old\nlegacy_clients = 10.0.0.0/8",
        'profile: "old" is not a valid value; write modern, intermediate or legacy',
    ),
    "question that there is not": (
        "client_certificate = yes\nclient_ca = ca.pem",
        'client_certificate: "yes" is not a valid value; write none, request or require',
    ),
    "clients by name": (
        "profile = legacy\nlegacy_clients = printer.example.org",
        'legacy_clients: "printer.example.org" is not a network; '
        "write one like 10.0.0.0/8 or 2001:db8::/32, or one address",
    ),
    "clients left empty": (
        "profile = legacy\nlegacy_clients =",
        "legacy_clients: has no value; write one, or remove the option",
    ),
    "two files of issuers": (
        "client_certificate = require\nclient_ca = a.pem b.pem",
        'client_ca: "a.pem b.pem" is more than one word; write one file; its name must not contain spaces',
    ),
    "slip of the pen": ("legacy_client = 10.0.0.0/8", "legacy_client: unknown option; did you mean legacy_clients?"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "problem"), LONELY.values(), ids=LONELY)
def test_options_that_need_each_other_are_missed_where_one_stands(options: str, problem: str) -> None:
    # A service that inherits what is wrong says nothing of its own.
    assert the_problem(file(tls=f"certificate = c.pem\n{options}")) == f"gw.ini: [tls] {problem}"
    assert the_problem(file(smtp=f"{SMTP}\n{options}")) == f"gw.ini: [service:smtp] {problem}"


@pytest.mark.parametrize(
    ("tls", "smtp", "problem"),
    [
        # What is wrong in [tls] is told once, and what a service builds upon it is not doubted.
        ("profile = old", "legacy_clients = 10.0.0.0/8", "[tls] profile"),
        ("client_certificate = yes", "client_ca = ca.pem", "[tls] client_certificate"),
        ("profile = legacy\nlegacy_clients = x", "profile = legacy", "[tls] legacy_clients"),
        ("client_certificate = require\nclient_ca = a b", "client_certificate = request", "[tls] client_ca"),
        # What [tls] says fits together by itself, and with what a service adds.
        ("profile = modern", "legacy_clients = 10.0.0.0/8", "[service:smtp] legacy_clients"),
        (OLD, "profile = modern\nlegacy_clients = 10.0.0.0/8", "[service:smtp] legacy_clients"),
        ("profile = legacy", "legacy_clients = 10.0.0.0/8", "[tls] legacy_clients"),
        (ASKED, "client_certificate = none\nclient_ca = ca.pem", "[service:smtp] client_ca"),
    ],
)
def test_a_service_is_judged_by_what_it_adds(tls: str, smtp: str, problem: str) -> None:
    text = file(tls=f"certificate = c.pem\n{tls}", smtp=f"{SMTP}\n{smtp}")
    assert the_problem(text).startswith(f"gw.ini: {problem}: ")


def test_everything_that_is_wrong_with_tls_comes_at_once() -> None:
    tls = "certificate = a.pem a.pem\nkey = a.key\nprofile = old\nclient_certificate = request"
    smtp = f"{SMTP}\nkey = own.key\nprofile = legacy\nclient_ca = a b"
    assert [problem.split(": ")[1] for problem in problems(file(tls=tls, smtp=smtp))] == [
        *("[tls] profile", "[tls] certificate", "[tls] key", "[tls] client_ca"),
        *("[service:smtp] client_ca", "[service:smtp] certificate", "[service:smtp] legacy_clients"),
    ]
