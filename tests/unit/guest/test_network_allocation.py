from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyboxd.errors import Forbidden, InvalidArgument, SystemFailure
from pyboxd.network import allocation
from pyboxd.network.model import Pool

SUBNET = IPv4Network("172.17.0.0/16")
SMALL = IPv4Network("10.9.0.0/29")
SIX = IPv6Network("fd00:6::/64")
POOL = Pool(SUBNET, IPv4Address("172.17.0.1"))
POOL6 = Pool(SIX, IPv6Address("fd00:6::1"), reserved={"router": IPv6Address("fd00:6::3")})


def test_the_hardware_address_is_dockers() -> None:
    assert allocation.mac_of(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"


def test_the_lowest_free_address_is_chosen() -> None:
    taken = {IPv4Address("172.17.0.2"), IPv4Address("172.17.0.4")}
    assert allocation.choose_address(IPv4Address, POOL, "", taken) == IPv4Address("172.17.0.3")
    assert allocation.choose_address(IPv6Address, POOL6, "", taken) == IPv6Address("fd00:6::2")
    assert allocation.choose_address(IPv6Address, POOL6, "", {IPv6Address("fd00:6::2")}) == IPv6Address("fd00:6::4")


def test_a_range_within_the_subnet_is_kept_to() -> None:
    part = IPv4Network("172.17.8.0/30")
    pool = Pool(SUBNET, POOL.gateway, part)
    chosen: set[IPv4Address] = set()
    for _ in range(4):
        chosen.add(allocation.choose_address(IPv4Address, pool, "", chosen))
    assert chosen == set(part)  # the range's ends are ordinary addresses of the subnet
    with pytest.raises(SystemFailure, match="no available IPv4 addresses"):
        allocation.choose_address(IPv4Address, pool, "", chosen)
    # One that is asked for may be of all the subnet.
    assert allocation.choose_address(IPv4Address, pool, "172.17.9.9", chosen) == IPv4Address("172.17.9.9")


def test_a_subnet_of_ipv6_has_no_broadcast_address() -> None:
    pool = Pool(IPv6Network("fd00::/126"), IPv6Address("fd00::1"))
    chosen: list[IPv6Address] = []
    for _ in range(2):
        chosen.append(allocation.choose_address(IPv6Address, pool, "", chosen))
    assert chosen == [IPv6Address("fd00::2"), IPv6Address("fd00::3")]
    with pytest.raises(SystemFailure, match="no available IPv6 addresses"):
        allocation.choose_address(IPv6Address, pool, "", chosen)


@given(st.sets(st.integers(0, 7)))
def test_no_address_is_given_twice_nor_the_subnets_ends(numbers: set[int]) -> None:
    taken = {SMALL.network_address + number for number in numbers}
    try:
        chosen = allocation.choose_address(IPv4Address, Pool(SMALL, SMALL.network_address + 1), "", taken)
    except SystemFailure:
        assert taken >= set(SMALL.hosts()) - {SMALL.network_address + 1}
    else:
        assert chosen in set(SMALL.hosts()) - taken - {SMALL.network_address + 1}


@pytest.mark.parametrize("text", ["172.17.0.0", "172.17.255.255", "172.18.0.2", "nonsense", "::1"])
def test_an_address_that_cannot_be_given_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        allocation.check_address(IPv4Address, text, SUBNET, ())


@pytest.mark.parametrize("text", ["fd00:6::", "fd00:7::2", "172.17.0.2", "nonsense", "::ffff:172.17.0.2", "fd00:6::2%eth0"])
def test_an_address_of_ipv6_that_cannot_be_given_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        allocation.check_address(IPv6Address, text, SIX, ())


def test_an_address_in_use_is_refused() -> None:
    with pytest.raises(Forbidden, match=r"^Address already in use$"):
        allocation.choose_address(IPv6Address, POOL6, "fd00:6::3", ())
    address = IPv4Address("172.17.0.9")
    assert allocation.check_address(IPv4Address, "172.17.0.9", SUBNET, ()) == address
    with pytest.raises(Forbidden, match=r"^Address already in use$"):
        allocation.check_address(IPv4Address, "172.17.0.9", SUBNET, {address})


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
        allocation.parse_subnet(IPv4Network, text)


@pytest.mark.parametrize(
    "text",
    [
        "fd00::1/64",
        "fd00::/127",
        "fd00::/128",
        "fe80::/64",
        "ff02::/64",
        "::/0",
        "::/64",
        "10.0.0.0/8",
        "fd00::%e/64",
        "x",
        "",
    ],
)
def test_a_wrong_subnet_of_ipv6_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid subnet"):
        allocation.parse_subnet(IPv6Network, text)


def test_a_part_of_a_subnet() -> None:
    assert allocation.parse_range(IPv6Network, "fd00:6::/96", SIX) == IPv6Network("fd00:6::/96")
    for wrong in ("fd00:7::/96", "fd00:6::/63", "fd00:6::%e/96", "10.0.0.0/8", "x"):
        with pytest.raises(InvalidArgument, match="invalid ip-range"):
            allocation.parse_range(IPv6Network, wrong, SIX)


def test_an_engine_has_subnets_of_its_own() -> None:
    taken: list[IPv6Network] = []
    for _ in range(3):
        taken.append(allocation.free_subnet6(0x123456789A, taken))
    assert [str(subnet) for subnet in taken] == ["fd12:3456:789a::/64", "fd12:3456:789a:1::/64", "fd12:3456:789a:2::/64"]
    assert str(allocation.free_subnet6(1, [IPv6Network("fd00:0:1::/49")])) == "fd00:0:1:8000::/64"
    with pytest.raises(SystemFailure, match="all predefined address pools have been fully subnetted"):
        allocation.free_subnet6(1, [IPv6Network("fd00::/16")])


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
