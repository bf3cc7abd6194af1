from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyboxd.errors import Forbidden, InvalidArgument, SystemFailure
from pyboxd.network import allocation

SUBNET = IPv4Network("172.17.0.0/16")
SMALL = IPv4Network("10.9.0.0/29")


def test_the_hardware_address_is_dockers() -> None:
    assert allocation.mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"


def test_the_lowest_free_address_is_chosen() -> None:
    taken = {IPv4Address("172.17.0.1"), IPv4Address("172.17.0.2"), IPv4Address("172.17.0.4")}
    assert allocation.free_address(SUBNET, SUBNET, taken) == IPv4Address("172.17.0.3")


def test_a_range_within_the_subnet_is_kept_to() -> None:
    pool = IPv4Network("172.17.8.0/30")
    chosen: set[IPv4Address] = set()
    for _ in range(4):
        chosen.add(allocation.free_address(pool, SUBNET, chosen))
    assert chosen == set(pool)  # the range's ends are ordinary addresses of the subnet
    with pytest.raises(SystemFailure, match="no available IPv4 addresses"):
        allocation.free_address(pool, SUBNET, chosen)


@given(st.sets(st.integers(0, 7)))
def test_no_address_is_given_twice_nor_the_subnets_ends(numbers: set[int]) -> None:
    taken = {SMALL.network_address + number for number in numbers}
    try:
        chosen = allocation.free_address(SMALL, SMALL, taken)
    except SystemFailure:
        assert taken >= set(SMALL.hosts())
    else:
        assert chosen in set(SMALL.hosts()) - taken


@pytest.mark.parametrize("text", ["172.17.0.0", "172.17.255.255", "172.18.0.2", "nonsense", "::1"])
def test_an_address_that_cannot_be_given_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        allocation.check_address(text, SUBNET, ())


def test_an_address_in_use_is_refused() -> None:
    address = IPv4Address("172.17.0.9")
    assert allocation.check_address("172.17.0.9", SUBNET, ()) == address
    with pytest.raises(Forbidden, match=r"^Address already in use$"):
        allocation.check_address("172.17.0.9", SUBNET, {address})


@pytest.mark.parametrize(
    ("text", "found"),
    [("02:42:AC:11:00:02", "02:42:ac:11:00:02"), ("02-42-ac-11-00-02", "02:42:ac:11:00:02")],
)
def test_a_hardware_address_is_normalised(text: str, found: str) -> None:
    assert allocation.check_mac(text) == found


@pytest.mark.parametrize("text", ["", "02:42", "zz:42:ac:11:00:02", "01:42:ac:11:00:02", "2:42:ac:11:00:02", "0242ac110002"])
def test_a_wrong_hardware_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid mac address"):
        allocation.check_mac(text)


def test_link_local_addresses() -> None:
    assert str(allocation.check_link_local("169.254.8.8")) == "169.254.8.8"
    for wrong in ("10.0.0.1", "fe80::1", "x"):
        with pytest.raises(InvalidArgument, match="invalid link-local"):
            allocation.check_link_local(wrong)


def test_subnets_come_from_dockers_pools_in_order() -> None:
    taken = [SUBNET]
    chosen = [allocation.free_subnet(taken)]
    assert chosen == [IPv4Network("172.18.0.0/16")]
    taken += [IPv4Network(f"172.{number}.0.0/16") for number in range(18, 32)]
    assert allocation.free_subnet(taken) == IPv4Network("192.168.0.0/20")
    assert allocation.free_subnet([*taken, IPv4Network("192.168.3.0/24")]) == IPv4Network("192.168.16.0/20")
    with pytest.raises(SystemFailure, match="all predefined address pools have been fully subnetted"):
        allocation.free_subnet([*taken, IPv4Network("192.168.0.0/16")])


@pytest.mark.parametrize("text", ["10.0.0.1/24", "10.0.0.0/31", "10.0.0.0/32", "10.0.0.0/99", "fe80::/64", ""])
def test_a_wrong_subnet_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid subnet"):
        allocation.parse_subnet(text)


def test_guest_ports_go_round() -> None:
    first, last = allocation.GUEST_PORTS[0], allocation.GUEST_PORTS[-1]
    assert allocation.free_port((), 0) == first
    assert allocation.free_port((), first) == first + 1
    assert allocation.free_port({first + 1, first + 2}, first) == first + 3
    assert allocation.free_port({first}, last) == first + 1
    with pytest.raises(SystemFailure, match="in use"):
        allocation.free_port(set(allocation.GUEST_PORTS), first)


def test_guest_ports_are_none_that_the_guest_itself_takes() -> None:
    assert max(allocation.GUEST_PORTS) < 32768  # net.ipv4.ip_local_port_range begins there
    assert not set(allocation.GUEST_PORTS) & {22, 53, 2376}
