"""Who the client is: told to the backend, and told by load balancers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway.dialects.base import BackendTLS, Identity, Policy
from gateway.dialects.conversation import turned_away
from gateway.protocol.vocabulary import Dial, Expired, Greeted, Identified, Patience, Side
from tests.pure.contract.party import HERE, SWITCH, Anyone, Caller, Party, every_caller, every_party, everyone, short
from tests.pure.playbook import (
    ABORT_BACKEND,
    DIAL,
    WHOLE,
    Playbook,
    aborts,
    close,
    note,
    terms,
    tls,
    to_backend,
    to_client,
)

CLIENT, BACKEND = Side.CLIENT, Side.BACKEND
GREETED = Greeted()

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
SESSION = bytes.fromhex("050008") + b"gw1-0001"
HEADERS = {
    Identity.PROXY_V1: b"PROXY TCP4 192.0.2.10 198.51.100.1 40000 143\r\n",
    Identity.PROXY_V2: SIGNATURE + bytes.fromhex("2111 0017 c000020a c6336401 9c40 008f") + SESSION,
}
"""For HERE, on a leg in the clear."""
SAMPLE = SIGNATURE + bytes.fromhex(
    "2111 0055 c000020a c6336401 9c40 008f 020010 6d61696c2e6578616d706c652e6f7267 050008 6777312d30303031"
    "200028 01 00000001 210007 544c5376312e33 230016 544c535f4145535f3235365f47434d5f534841333834"
)
"""A whole header with all that it can tell about the client's TLS."""

every_mode = pytest.mark.parametrize("mode", list(BackendTLS), ids=lambda mode: mode.value)
every_header = pytest.mark.parametrize("identity", HEADERS, ids=lambda identity: identity.value)


# --- PROXY headers of ours ---------------------------------------------------------------------------


@every_party
@every_mode
@every_header
def test_G22_H7_the_header_is_the_first_on_the_connection(party: Party, mode: BackendTLS, identity: Identity) -> None:
    """In one write, before anything else happens."""
    agreed = terms(backend_tls=mode, received=False, identity=identity, origin=HERE)
    play = Playbook(party.dialect, agreed).start(DIAL)
    play.dialled(to_backend(HEADERS[identity]), *[SWITCH] * (mode is BackendTLS.IMPLICIT))
    match mode:
        case BackendTLS.STARTTLS:
            party.begun(play).backend(party.go, SWITCH)
            party.finished(play, GREETED)
        case BackendTLS.IMPLICIT:
            play.secured().backend(party.answers.offer_inside, to_client(party.answers.welcome), GREETED)
        case BackendTLS.NONE:
            play.returns(party.answers.greeting, GREETED)
    play.run()


@every_caller
@every_mode
@every_header
def test_G22_H7_the_header_is_before_the_clients_first_words(
    party: Caller, mode: BackendTLS, identity: Identity
) -> None:
    agreed: dict[str, Any] = {"backend_tls": mode, "identity": identity, "origin": HERE}
    header = SAMPLE if identity is Identity.PROXY_V2 else HEADERS[identity]
    play = party.opened(implicit=True, **agreed)
    play.client(party.answers.login, DIAL).dialled(to_backend(header), *party.hello(mode)).run()
    if Policy.OPTIONAL in party.answers.offers:
        play = party.opened(policy=Policy.OPTIONAL, **agreed)
        play.client(party.answers.login, DIAL).dialled(to_backend(HEADERS[identity]), *party.hello(mode)).run()


@every_party
@every_mode
def test_G23_lazy_tells_the_clients_tls(party: Party, mode: BackendTLS) -> None:
    play = party.lazy_dials(identity=Identity.PROXY_V2, origin=HERE, backend_tls=mode)
    play.dialled(to_backend(SAMPLE), *[SWITCH] * (mode is BackendTLS.IMPLICIT))
    match mode:
        case BackendTLS.STARTTLS:
            party.begun(play).backend(party.go, SWITCH)
            party.answered(play, party.lazy_goes_on(party.answers.welcome_inside), GREETED)
        case BackendTLS.IMPLICIT:
            greeting = party.lazy_goes_on(party.answers.welcome_inside)
            play.secured().backend(party.answers.offer_inside, greeting, GREETED)
        case BackendTLS.NONE:
            play.backend(party.answers.greeting, party.lazy_goes_on(), GREETED)
    play.run()


@every_party
def test_G23_an_implicit_port_tells_the_clients_tls(party: Party) -> None:
    agreed = terms(identity=Identity.PROXY_V2, origin=HERE, implicit=True)
    Playbook(party.dialect, agreed).start(tls(b"")).secured(DIAL).dialled(to_backend(SAMPLE)).run()


@every_party
@every_header
def test_H7_the_next_address_is_told_as_well(party: Party, identity: Identity) -> None:
    header = to_backend(HEADERS[identity])
    play = Playbook(party.dialect, terms(identity=identity, origin=HERE), others=True).start(DIAL)
    play.dialled(header).backend(b"SSH-2.0-x\r\n", Dial("backend-bad-greeting"))
    play.dialled(header).ended(BACKEND, True, Dial("backend-connect-failed"))
    play.dialled(header).run()


# --- in commands of the protocol ---------------------------------------------------------------------


@every_party
def test_the_backend_is_told_and_then_the_client_is_greeted(party: Party) -> None:
    for identity, telling in party.answers.tells.items():
        play = party.told(telling, party.dialled(identity=identity, origin=HERE))
        play.backend(telling.exchanges[-1].answered, to_client(telling.welcome), GREETED)
        party.leaves(play).run()


@every_party
def test_a_backend_that_does_not_let_us_tell_is_not_used(party: Party) -> None:
    """With each address, and the client hears nothing of it."""
    key = "backend-identity-refused"
    for identity, telling in party.answers.tells.items():
        play = party.told(telling, party.dialled(identity=identity, origin=HERE))
        play.backend(telling.refusal, *party.sorry(key)).run()
        play = party.told(telling, party.dialled(identity=identity, origin=HERE, others=True))
        play.backend(telling.refusal, Dial(key)).run()


# --- clients without an address ----------------------------------------------------------------------


@every_party
def test_a_client_that_was_reset_at_once_does_not_pass_for_the_gateway(party: Party) -> None:
    """Its socket no longer tells where it came from, but what it had sent may still be there: with `LOCAL` the
    backend would take it for ours.  Nobody is dialled, so that nobody is blamed."""
    for identity in (*HEADERS, *party.answers.tells):
        play = Playbook(party.dialect, terms(identity=identity, origin=None), others=True)
        play.start(*party.sorry("backend-identity-refused")).run()


@every_party
def test_a_client_on_a_unix_socket(party: Party) -> None:
    for identity in (*HEADERS, *party.answers.tells):
        play = Playbook(party.dialect, terms(identity=identity, origin=None, client=""), others=True)
        if identity is Identity.PROXY_V2:
            play.start(DIAL).dialled(to_backend(SIGNATURE + bytes.fromhex("20000000"))).run()
        else:
            play.start(*party.sorry("backend-identity-refused")).run()


# --- PROXY headers of load balancers -----------------------------------------------------------------

HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.1 51000 25\r\n"
HEADER2 = SIGNATURE + bytes.fromhex("2111 000c cb007107 c6336401 c738 0019")
LOCAL = SIGNATURE + bytes.fromhex("20 00 0000")
REAL = Identified("203.0.113.7", 51000)
HELLO = b"\x16\x03\x01\x02\x00\x01\x00"
BAD = "client-bad-proxy-header"


def proxied(party: Anyone, moved: Callable[[str], str] = lambda client: "", **changes: Any) -> Playbook:
    agreed = terms(**{"proxied": True, "received": False, **changes})
    return Playbook(party.dialect, agreed, moved=moved).start()


@every_party
@pytest.mark.parametrize("header", [HEADER, HEADER2], ids=["v1", "v2"])
def test_H6_a_header_tells_who_the_client_is_however_it_is_cut(party: Party, header: bytes) -> None:
    play = proxied(party).client(header, REAL, DIAL).dialled()
    play.returns(party.answers.greeting).run()


@every_party
@pytest.mark.parametrize("header", [HEADER, HEADER2, LOCAL], ids=["v1", "v2", "LOCAL"])
def test_H6_a_client_hello_in_the_same_segment_is_kept(party: Party, header: bytes) -> None:
    proxied(party, implicit=True).client(header + HELLO, tls(b"", CLIENT, HELLO)).secured(DIAL).run()


@every_party
@every_header
def test_H6_H7_the_backend_is_told_of_the_real_client(party: Party, identity: Identity) -> None:
    """Where the balancer's connection has no address of its own, on a UNIX socket, too."""
    header = HEADER if identity is Identity.PROXY_V1 else HEADER2.replace(b"\0\x0c", b"\0\x17") + SESSION
    for origin in (HERE, None):
        proxied(party, identity=identity, origin=origin).client(HEADER2, REAL, DIAL).dialled(to_backend(header)).run()


@every_party
def test_H6_H7_a_command_tells_of_the_real_client(party: Party) -> None:
    ours = (b"192.0.2.10", b"203.0.113.7"), (b"40000", b"51000"), (b"143", b"25")
    for identity, telling in party.answers.tells.items():
        play = proxied(party, identity=identity).client(HEADER2, REAL, DIAL).dialled()
        said = telling.offer
        for question, answer in telling.exchanges:
            told = question
            for mine, theirs in ours:
                told = told.replace(mine, theirs)
            play.backend(said, to_backend(told))
            said = answer
        play.run()


@everyone
@pytest.mark.parametrize("said", [
    b"EHLO me\r\n", b"a LOGIN joe secret\r\n", b"\x16\x03\x01\x02\x00", b"PROXY TCP4 1.2.3.4\r\n", b"PROXY\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 1\r\n", SIGNATURE + bytes.fromhex("2111 ffff"),
    SIGNATURE + b"\x31", b"\r\n\r\nx", b"GET / HTTP/1.1\r\n",
], ids=short)  # fmt: skip
def test_H6_a_wrong_header_is_the_end_and_nobody_is_told(party: Anyone, said: bytes) -> None:
    for implicit in (False, True):
        proxied(party, implicit=implicit).client(said, *aborts(BAD)).run()


@every_party
def test_H6_two_headers_are_one_too_many(party: Party) -> None:
    proxied(party, implicit=True).client(HEADER + HEADER2, *aborts("starttls-injection")).run((WHOLE,))


@every_party
def test_K2_limits_are_those_of_the_client_whom_the_header_names(party: Party) -> None:
    told: list[str] = []

    def moved(client: str) -> str:
        told.append(client)
        return "sessions-per-client"

    refused = (REAL, note("refused", limit="sessions-per-client"))
    ending = (ABORT_BACKEND, close("refused"))
    proxied(party, moved=moved).client(HEADER, *refused, to_client(party.answers.busy), *ending).run()
    # Where TLS is to come nothing is said in the clear.
    proxied(party, moved=moved, implicit=True).client(HEADER, *refused, *ending).run()
    assert set(told) == {"203.0.113.7"}
    proxied(party, moved=moved).client(LOCAL, DIAL).run()


@everyone
def test_H6_who_never_sends_its_header_is_late(party: Anyone) -> None:
    late = Expired(CLIENT, Patience.PROXY)
    ending = aborts("client-timeout")
    words = [to_client(party.answers.idle_early_words)] * bool(party.answers.idle_early_words)
    proxied(party).waits(Patience.PROXY).client(HEADER[:-1]).waits(Patience.PROXY).expire(late, *words, *ending).run()
    proxied(party, implicit=True).expire(late, *ending).run()


@everyone
@pytest.mark.parametrize("orderly", [True, False])
def test_H6_a_balancer_that_looks_in_and_leaves_dials_nobody(party: Anyone, orderly: bool) -> None:
    for said in (b"", HEADER[:9]):
        proxied(party).client(said).ended(CLIENT, orderly, ABORT_BACKEND, close("client-lost")).run()


@everyone
def test_H6_a_service_that_is_closed_knows_whom_it_turns_away(party: Anyone) -> None:
    busy = party.answers.busy

    def closed() -> Playbook:
        dialect = replace(party.dialect, script=lambda agreed: turned_away(agreed, busy, "closed"))
        return Playbook(dialect, terms(proxied=True)).start()

    closed().client(HEADER, REAL, to_client(busy), close("closed")).run()
    closed().expire(Expired(CLIENT, Patience.PROXY), ABORT_BACKEND, close("client-timeout")).run()
