"""Who is banned, against a model that looks at each network."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.guard.bans import MOST, Bans, written

Network = IPv4Network | IPv6Network


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bans(clock: Clock) -> Bans:
    return Bans(clock)


def net(text: str) -> Network:
    return ip_network(text)


ADDRESSES = st.builds(lambda last: ip_address(f"192.0.2.{last}"), st.integers(0, 15)) | st.builds(
    lambda last: ip_address(f"2001:db8::{last:x}"), st.integers(0, 15)
)
NETWORKS = st.builds(
    lambda address, bits: ip_network((address, address.max_prefixlen - bits), strict=False),
    ADDRESSES,
    st.sampled_from([0, 1, 2, 3, 8, 24]),
)


@given(st.lists(st.tuples(NETWORKS, st.integers(1, 40), st.booleans()), max_size=12), st.integers(0, 50), ADDRESSES)
def test_a_client_is_banned_while_a_network_of_its_is(
    steps: list[tuple[Network, int, bool]], passed: int, client: object
) -> None:
    clock = Clock()
    bans, model = Bans(clock), dict[Network, float]()
    for network, seconds, lifts in steps:
        if lifts:
            inside = {one for one in model if one.version == network.version and one.subnet_of(network)}  # type: ignore[arg-type]
            assert set(bans.lift(network)) == inside
            model = {one: until for one, until in model.items() if one not in inside}
        else:
            bans.add(network, clock.now + seconds)
            model[network] = clock.now + seconds
    clock.now += passed
    running = {one for one, until in model.items() if until > clock.now}
    found = bans.of(str(client))
    assert (found is not None) == any(client in one for one in running)
    assert found is None or (found in running and client in found)
    assert bans.keeps_out(str(client)) == (found is not None)
    assert set(bans.expire()) == model.keys() - running
    assert len(bans) == len(running)
    assert [one for one, _ in bans.all()] == sorted(running, key=lambda one: (model[one], written(one)))
    other = Bans(clock)
    other.add(net("192.0.2.0/24"), 5000.0)
    other.learn(json.loads(json.dumps(bans.told())))
    assert other.all() == bans.all()


def test_who_has_no_address_is_not_banned(bans: Bans) -> None:
    bans.add(net("0.0.0.0/0"), 2000.0)
    assert bans.of("") is None
    assert bans.of("::1") is None


def test_there_is_room_for_so_many_and_a_ban_can_be_renewed(bans: Bans, clock: Clock) -> None:
    for number in range(MOST):
        bans.add(net(f"10.0.{number >> 8}.{number & 255}"), 2000.0)
    with pytest.raises(ValueError, match="there are 4096 bans already"):
        bans.add(net("192.0.2.1"), 2000.0)
    bans.add(net("10.0.0.0"), 3000.0)
    assert (bans.until(net("10.0.0.0")), bans.until(net("192.0.2.1"))) == (3000.0, None)
    clock.now = 2000.0
    assert len(bans.expire()) == MOST - 1
    assert bans.told() == [("10.0.0.0", 3000.0)]


@pytest.mark.parametrize("text", ["192.0.2.1", "192.0.2.0/24", "2001:db8::/64", "2001:db8::1/128"])
def test_networks_are_written_as_they_are_typed(text: str) -> None:
    assert written(net(text)) == text
