"""Choosing addresses, subnets, hardware addresses and ports. Pure: what is taken comes in, the choice goes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeVar

from pyboxd.errors import Forbidden, InvalidArgument, SystemFailure
from pyboxd.network.model import Address, Pool, Subnet

DEFAULT_BRIDGE = IPv4Network("172.17.0.0/16")
# Docker's own pools for networks that are created without a subnet (moby: libnetwork/ipamutils).
POOLS = (
    (IPv4Network("172.16.0.0/12"), 16, 1),  # 172.16.0.0/16 is left out, as Docker does
    (IPv4Network("192.168.0.0/16"), 20, 0),
)
# The loopback address and IPv4 in other clothes, link-local addresses, groups.
NOT_OF_CONTAINERS = (IPv6Network("::/8"), IPv6Network("fe80::/10"), IPv6Network("ff00::/8"))
# Ports of the guest's card that the host forwards to. Below the kernel's own range for outgoing connections
# (32768-60999), so that no connection of the guest can hold one of them.
GUEST_PORTS = range(20000, 32768)
_HEXADECIMAL = set("0123456789abcdef")
_UNIQUE_LOCAL = 0xFD << 120  # fd00::/8, of which everyone takes a /48 by chance (RFC 4193)

A = TypeVar("A", IPv4Address, IPv6Address)
N = TypeVar("N", IPv4Network, IPv6Network)


def mac_of(address: Address) -> str:
    """The hardware address Docker derives from an address: 172.17.0.2 has 02:42:ac:11:00:02."""
    return "02:42:" + address.packed.hex(":")


def check_mac(text: str) -> str:
    """A hardware address that was asked for, in lower case with colons."""
    parts = text.lower().replace("-", ":").split(":")
    plain = len(parts) == 6 and all(len(part) == 2 and set(part) <= _HEXADECIMAL for part in parts)
    if not plain or int(parts[0], 16) & 1:  # the lowest bit marks a group address
        raise InvalidArgument(f"invalid mac address {text}")
    return ":".join(parts)


def gateway_of(subnet: Subnet) -> Address:
    """The first address of the subnet, where its bridge is unless told otherwise."""
    return subnet.network_address + 1


def choose_address(kind: type[A], pool: Pool, asked: str, taken: Collection[Address]) -> A:
    """An address of the pool, which is of that kind, for a container: the one asked for, else the lowest that can be
    a host's and that nobody has. `taken` are those of other containers."""
    taken = {pool.gateway, *pool.reserved.values(), *taken}
    if asked:
        return check_address(kind, asked, pool.subnet, taken)
    for address in _hosts(kind, pool.ip_range or pool.subnet, pool.subnet):
        if address not in taken:
            return address
    raise SystemFailure(f"no available IPv{pool.subnet.version} addresses on this network's address pools")


def _hosts(kind: type[A], part: Subnet, subnet: Subnet) -> Iterator[A]:
    ends = _ends(subnet)
    for number in range(int(part.network_address), int(part.broadcast_address) + 1):
        address = kind(number)
        if address not in ends:
            yield address


def _ends(subnet: Subnet) -> tuple[Address, ...]:
    """What no host has: the subnet's own address and, in IPv4, that of all hosts together."""
    both = (subnet.network_address, subnet.broadcast_address)
    return both if subnet.version == 4 else both[:1]


def check_address(kind: type[A], text: str, subnet: Subnet, taken: Collection[Address]) -> A:
    """An address that was asked for, of that kind; InvalidArgument or Forbidden when it cannot be given."""
    try:
        address = kind(_without_scope(text))
    except ValueError:
        raise InvalidArgument(f"invalid IPv{subnet.version} address: {text}") from None
    if address not in subnet or address in _ends(subnet):
        raise InvalidArgument(f"no configured subnet contains IP address {text}")
    if address in taken:
        raise Forbidden("Address already in use")
    return address


def _without_scope(text: str) -> str:
    """The text as it is; ValueError if it has a scope ("fd00::1%eth0"), which Python would take."""
    if "%" in text:
        raise ValueError("an interface is named")
    return text


def check_link_local(text: str) -> IPv4Address:
    """An address of 169.254.0.0/16 that was asked for. InvalidArgument."""
    try:
        address = IPv4Address(text)
    except ValueError:
        raise InvalidArgument(f"invalid link-local IP address: {text}") from None
    if not address.is_link_local:
        raise InvalidArgument(f"invalid link-local IP address: {text}")
    return address


def parse_subnet(kind: type[N], text: str) -> N:
    """A subnet in CIDR notation, given by its network address and big enough for a gateway and a container."""
    try:
        subnet = kind(_without_scope(text), strict=True)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from None
    if subnet.max_prefixlen - subnet.prefixlen < 2:
        raise InvalidArgument(f"invalid subnet {text}: it has no room for a gateway and a container")
    if overlapping(subnet, NOT_OF_CONTAINERS):
        raise InvalidArgument(f"invalid subnet {text}: its addresses cannot be those of containers")
    return subnet


def parse_range(kind: type[N], text: str, subnet: Subnet) -> N:
    """A part of the subnet, in CIDR notation. InvalidArgument."""
    try:
        found = kind(_without_scope(text), strict=False)
    except ValueError as error:
        raise InvalidArgument(f"invalid ip-range {text}: {error}") from None
    if found.network_address not in subnet or found.prefixlen < subnet.prefixlen:
        raise InvalidArgument(f"invalid ip-range {text}: it is not a part of {subnet}")
    return found


def free_subnet(taken: Collection[Subnet]) -> IPv4Network:
    """The first subnet of Docker's pools that overlaps with none of `taken`."""
    for pool, prefix, skipped in POOLS:
        for number, subnet in enumerate(pool.subnets(new_prefix=prefix)):
            if number >= skipped and not overlapping(subnet, taken):
                return subnet
    raise SystemFailure("all predefined address pools have been fully subnetted")


def free_subnet6(engine: int, taken: Collection[Subnet]) -> IPv6Network:
    """The first /64 of the engine's own addresses that overlaps with none of `taken`. `engine` is a number of 40 bits
    that no other engine is likely to have."""
    own = IPv6Network((_UNIQUE_LOCAL | engine << 80, 48))
    for subnet in own.subnets(new_prefix=64):
        if not overlapping(subnet, taken):
            return subnet
    raise SystemFailure("all predefined address pools have been fully subnetted")


def overlapping(subnet: Subnet, taken: Iterable[Subnet]) -> bool:
    """Whether one of `taken` is a part of the subnet, or the other way round."""
    return any(subnet.network_address in other or other.network_address in subnet for other in taken)


def free_port(taken: Collection[int], last: int) -> int:
    """The first guest port behind `last` that is not taken. They go round, so that a port that was just given back
    is the last to be used again: late datagrams of its old connection may still come."""
    first = last + 1 - GUEST_PORTS.start if last in GUEST_PORTS else 0
    for step in range(len(GUEST_PORTS)):
        port = GUEST_PORTS[(first + step) % len(GUEST_PORTS)]
        if port not in taken:
            return port
    raise SystemFailure("all ports between the host and the guest are in use")
