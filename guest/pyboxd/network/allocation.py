"""Choosing addresses, subnets, hardware addresses and ports. Pure: what is taken comes in, the choice goes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network

from pyboxd.errors import Forbidden, InvalidArgument, SystemFailure

DEFAULT_BRIDGE = IPv4Network("172.17.0.0/16")
# Docker's own pools for networks that are created without a subnet (moby: libnetwork/ipamutils).
POOLS = (
    (IPv4Network("172.16.0.0/12"), 16, 1),  # 172.16.0.0/16 is left out, as Docker does
    (IPv4Network("192.168.0.0/16"), 20, 0),
)
# Ports of the guest's card that the host forwards to. Below the kernel's own range for outgoing connections
# (32768-60999), so that no connection of the guest can hold one of them.
GUEST_PORTS = range(20000, 32768)
_HEXADECIMAL = set("0123456789abcdef")


def mac_of(address: IPv4Address) -> str:
    """The hardware address Docker derives from an address: 172.17.0.2 has 02:42:ac:11:00:02."""
    return "02:42:" + address.packed.hex(":")


def check_mac(text: str) -> str:
    """A hardware address that was asked for, in lower case with colons."""
    parts = text.lower().replace("-", ":").split(":")
    plain = len(parts) == 6 and all(len(part) == 2 and set(part) <= _HEXADECIMAL for part in parts)
    if not plain or int(parts[0], 16) & 1:  # the lowest bit marks a group address
        raise InvalidArgument(f"invalid mac address {text}")
    return ":".join(parts)


def gateway_of(subnet: IPv4Network) -> IPv4Address:
    """The first address of the subnet, where its bridge is unless told otherwise."""
    return subnet.network_address + 1


def free_address(pool: IPv4Network, subnet: IPv4Network, taken: Collection[IPv4Address]) -> IPv4Address:
    """The lowest address of `pool` (a part of `subnet`) that can be a host's and is not taken."""
    for address in _hosts(pool, subnet):
        if address not in taken:
            return address
    raise SystemFailure("no available IPv4 addresses on this network's address pools")


def _hosts(pool: IPv4Network, subnet: IPv4Network) -> Iterator[IPv4Address]:
    for number in range(int(pool.network_address), int(pool.broadcast_address) + 1):
        address = IPv4Address(number)
        if address not in (subnet.network_address, subnet.broadcast_address):
            yield address


def check_address(text: str, subnet: IPv4Network, taken: Collection[IPv4Address]) -> IPv4Address:
    """An address that was asked for; InvalidArgument or Forbidden when it cannot be given."""
    try:
        address = IPv4Address(text)
    except ValueError:
        raise InvalidArgument(f"invalid IPv4 address: {text}") from None
    if address not in subnet or address in (subnet.network_address, subnet.broadcast_address):
        raise InvalidArgument(f"no configured subnet contains IP address {text}")
    if address in taken:
        raise Forbidden("Address already in use")
    return address


def check_link_local(text: str) -> IPv4Address:
    """An address of 169.254.0.0/16 that was asked for. InvalidArgument."""
    try:
        address = IPv4Address(text)
    except ValueError:
        raise InvalidArgument(f"invalid link-local IP address: {text}") from None
    if not address.is_link_local:
        raise InvalidArgument(f"invalid link-local IP address: {text}")
    return address


def parse_subnet(text: str) -> IPv4Network:
    """A subnet in CIDR notation, given by its network address and big enough for a gateway and a container."""
    try:
        subnet = IPv4Network(text, strict=True)
    except ValueError as error:
        raise InvalidArgument(f"invalid subnet {text}: {error}") from None
    if subnet.prefixlen > 30:
        raise InvalidArgument(f"invalid subnet {text}: it has no room for a gateway and a container")
    return subnet


def free_subnet(taken: Collection[IPv4Network]) -> IPv4Network:
    """The first subnet of Docker's pools that overlaps with none of `taken`."""
    for pool, prefix, skipped in POOLS:
        for number, subnet in enumerate(pool.subnets(new_prefix=prefix)):
            if number >= skipped and not overlapping(subnet, taken):
                return subnet
    raise SystemFailure("all predefined address pools have been fully subnetted")


def overlapping(subnet: IPv4Network, taken: Iterable[IPv4Network]) -> bool:
    return any(subnet.overlaps(other) for other in taken)


def free_port(taken: Collection[int], last: int) -> int:
    """The first guest port behind `last` that is not taken. They go round, so that a port that was just given back
    is the last to be used again: late datagrams of its old connection may still come."""
    first = last + 1 - GUEST_PORTS.start if last in GUEST_PORTS else 0
    for step in range(len(GUEST_PORTS)):
        port = GUEST_PORTS[(first + step) % len(GUEST_PORTS)]
        if port not in taken:
            return port
    raise SystemFailure("all ports between the host and the guest are in use")
