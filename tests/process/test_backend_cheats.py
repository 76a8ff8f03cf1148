"""`tls = starttls` towards servers that refuse, cannot do it, or speak on in the clear: in every protocol."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.process.recording import Backend, Connection, Script
from tests.process.running import Gateway, Identity, Service, running
from tests.process.secured import section
from tests.process.wire import Client
from tests.pure.contract.party import CALLERS, EVERYONE, Anyone

FAILED = "backend-tls-failed"
CASES = ("refuses", "injects", "goes on in the clear", "closes")
"""What a server does that has offered STARTTLS."""
EVENTS = {"injects": "backend-starttls-injection"}


def script(party: Anyone, case: str) -> Script:
    *asks, (_, go) = party.questions
    offer = getattr(party, "offer", b"")

    def serve(connection: Connection) -> None:
        if offer:
            connection.say(offer)
        for _, answer in asks:
            connection.receive()
            connection.say(answer)
        connection.receive()
        if case == "refuses":
            connection.say(party.answers.no[0])
            connection.read_on()
        elif case == "injects":
            connection.say(go + party.answers.refusal)
            connection.read_on()
        else:
            connection.say(go)
            hello = connection.receive()
            assert hello.startswith(b"\x16\x03"), hello
            if case != "closes":
                connection.say(party.answers.refusal * 3)
                connection.read_on()

    return serve


def name_of(party: Anyone, case: str) -> str:
    return f"{party}-{case.replace(' ', '-')}"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Iterator[Gateway]:
    options: dict[str, dict[str, str]] = {"gateway": {"hostname": "gw.example.org"}}
    services: list[Service] = []
    with ExitStack() as stack:
        for party in EVERYONE:
            for case in CASES:
                name = name_of(party, case)
                backend = Backend(script(party, case))
                stack.callback(backend.close)
                found = section(str(party), backend.address, tls="starttls", ca=str(identity.authority))
                options[f"backend:{name}"] = found
                services.append(Service(name, name, str(party)))
        yield stack.enter_context(running(tmp_path_factory.mktemp("gateway"), identity, services, options))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("party", EVERYONE, ids=str)
def test_the_client_hears_that_nobody_serves_it_and_the_log_knows_why(
    gateway: Gateway, trusting: ssl.SSLContext, party: Anyone, case: str
) -> None:
    service, since = name_of(party, case), gateway.log.mark()
    with Client(gateway.address(service, "implicit")) as client:
        client.shake_hands(trusting)
        if party in CALLERS:
            client.say(party.answers.login)
        heard = client.rest()
    expected = re.escape(party.regrets).replace(rb"gw1\-0001", rb"[0-9a-f]+")
    assert re.fullmatch(expected, heard, re.DOTALL), heard
    event = EVENTS.get(case, FAILED)
    assert gateway.log.wait(event, since, service=service)["detail"]
    assert gateway.log.wait("session", since, service=service)["reason"] == event
