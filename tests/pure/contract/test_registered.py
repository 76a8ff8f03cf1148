"""Every registered protocol has its answers, its documentation and its place in the configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import Configuration, ConfigurationError, Machine, parse
from gateway.dialects import DIALECTS
from gateway.dialects.base import Identity, Policy
from gateway.protocol.vocabulary import Patience, Side
from tests.pure.contract import form
from tests.pure.contract.party import Caller, Party, Registered, answers_of, every_party, every_registered

ROOT = Path(__file__).parents[3]
HOST = b"gw.example.org"


@pytest.mark.parametrize("name", DIALECTS)
def test_every_registered_protocol_has_answers(name: str) -> None:
    form_of = form.Answers if DIALECTS.get(name, DIALECTS["smtp"]).first is Side.BACKEND else form.ClientFirst
    fields = ", ".join(form_of.__dataclass_fields__)
    assert answers_of(name) is not None, (
        f"The protocol {name!r} is registered in gateway/dialects/__init__.py, and the contract cannot speak it yet.\n"
        f"Write tests/pure/contract/answers/{name}.py with ANSWERS = {form_of.__name__}(...).\n"
        f"tests/pure/contract/form.py says what goes in; answers/pop3.py is a short example.\nFields: {fields}"
    )


def test_no_answers_are_left_of_a_protocol_that_is_gone() -> None:
    assert {path.stem.replace("_", "-") for path in Path(__file__).parent.glob("answers/*.py")} <= DIALECTS.keys()


@every_registered
def test_the_value_says_what_the_protocol_is(party: Registered) -> None:
    dialect, answers = party.dialect, party.answers
    assert DIALECTS[dialect.name] is dialect
    assert re.fullmatch(r"[a-z][a-z0-9-]*", dialect.name)
    assert dialect.unavailable(HOST) == answers.unavailable
    assert dialect.busy(HOST) == answers.busy
    assert dialect.alpn == answers.alpn
    assert dialect.policies == answers.policies
    assert Policy.REQUIRED not in dialect.policies.values()
    assert dialect.offers == answers.offers
    assert dialect.options.keys() == answers.options
    first = answers.first if isinstance(answers, form.ClientFirst | form.Apart) else answers.idle
    assert (dialect.first is Side.CLIENT) == isinstance(party, Caller)
    assert (dialect.patience[Patience.COMMAND], dialect.patience[Patience.SPLICE]) == (first, answers.idle)
    assert {Patience.COMMAND, Patience.REPLY, Patience.SPLICE} <= dialect.patience.keys()
    assert all(seconds > 0 for seconds in dialect.patience.values())


@every_registered
def test_every_way_to_tell_the_client_has_an_answer(party: Registered) -> None:
    tells = {identity.value for identity in party.answers.tells}
    headers = {"proxy-v1", "proxy-v2"} if party.answers.proxied else set()
    assert party.dialect.identities == headers | tells
    assert (party.answers.look is None) == (party.dialect.question is None)


@every_party
def test_what_a_look_says_is_one_command_each(party: Party) -> None:
    question = party.dialect.question
    for line in (question.ask(HOST), *question.tries, question.leave) if question else ():
        assert line
        assert not {*line} & {*b"\r\n\0"}


# --- configuration and documentation ---------------------------------------------------------------

MACHINE = Machine(Path("/etc/gw"), lambda: "gw.example.org", content=lambda path: "hook")
SECRETS = {Identity.WEBIRC: ("webirc_password_file = secret",)}
"""What an identity needs besides."""


def configured(party: Registered, *options: str, name: str = "one") -> Configuration:
    lines = ["[tls]", "certificate = c.pem", f"[service:{name}]", "starttls = 127.0.0.1:2525", "backend = store"]
    lines += [f"protocol = {party}"] * (name != str(party))
    return parse("\n".join([*lines, "[backend:store]", "address = a:25", *options]), "gw.ini", DIALECTS, MACHINE)


@every_registered
def test_a_service_is_named_after_the_protocol_or_names_it(party: Registered) -> None:
    for name in ("one", str(party)):
        (service,) = configured(party, name=name).services
        assert (service.name, service.protocol) == (name, str(party))


@every_registered
@pytest.mark.parametrize("identity", Identity)
def test_an_identity_can_be_configured_where_the_protocol_has_it(party: Registered, identity: Identity) -> None:
    options = f"identity = {identity.value}", *SECRETS.get(identity, ())
    if identity is Identity.NONE or identity.value in party.dialect.identities:
        (service,) = configured(party, *options).services
        assert service.backend.identity == identity.value
    else:
        with pytest.raises(ConfigurationError, match=identity.value):
            configured(party, *options)


@every_registered
def test_the_example_file_and_the_page_about_tls_name_the_protocol(party: Registered) -> None:
    file = (ROOT / "config" / "gateway.ini").read_text("utf-8")
    (named,) = re.findall(r"((?:\n# [^\n]*)*)  Default: the NAME in \[service:NAME\]", file)
    assert re.search(rf"\b{party}\b", named)
    for identity in party.answers.tells:
        assert re.search(rf"\n#   {identity.value} .*\(.*\b{party}\b.*\)", file), f"identity = {identity.value}"
    for option in party.dialect.options:
        assert re.search(rf"\n(# )?{option} *=", file), option
    (names,) = re.findall(r"(?s)\n\* ALPN: (.*?)\.\s", (ROOT / "docs" / "tls.md").read_text("utf-8"))
    assert {name.decode() for name in party.answers.alpn} <= set(re.findall(r"`([^`]*)`", names))


def test_the_failure_for_a_new_protocol_says_what_to_write() -> None:
    with pytest.raises(AssertionError, match=r"Write tests/pure/contract/answers/toy\.py with ANSWERS = Answers"):
        test_every_registered_protocol_has_answers("toy")
