"""What networks can be: the three that always exist, and the rules for new ones. Pure but for ids and the time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pyboxd.errors import Conflict, Forbidden, InvalidArgument, NotFound, NotImplementedHere
from pyboxd.network import allocation
from pyboxd.network.model import PREDEFINED, Network, NetworkRequest, Pool, PoolRequest, Subnet

DEFAULT_DEVICE = "docker0"
UPLINK_SUBNET = IPv4Network("10.0.2.0/24")  # of the guest's card
_DRIVER_OPTION_DEVICE = "com.docker.network.bridge.name"
_NOT_HERE = ("macvlan", "ipvlan", "overlay")
_LONGEST_DEVICE = 15  # IFNAMSIZ without its zero byte


def predefined() -> tuple[Network, ...]:
    """The networks every engine has, new ones with ids of their own."""
    now = time.time()
    return (
        Network(
            id=secrets.token_hex(32),
            name="bridge",
            driver="bridge",
            created=now,
            ipv4=default_pool(),
            bridge=DEFAULT_DEVICE,
            options={
                "com.docker.network.bridge.default_bridge": "true",
                "com.docker.network.bridge.enable_icc": "true",
                "com.docker.network.bridge.enable_ip_masquerade": "true",
                "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
                _DRIVER_OPTION_DEVICE: DEFAULT_DEVICE,
                "com.docker.network.driver.mtu": "1500",
            },
        ),
        Network(id=secrets.token_hex(32), name="host", driver="host", created=now),
        Network(id=secrets.token_hex(32), name="none", driver="null", created=now),
    )


def default_pool() -> Pool:
    """The addresses of the default bridge."""
    return Pool(allocation.DEFAULT_BRIDGE, allocation.gateway_of(allocation.DEFAULT_BRIDGE))


def define(request: NetworkRequest, existing: Sequence[Network]) -> Network:
    """A new network as asked for; an error in Docker's words when it cannot be."""
    _check_name(request.name, existing)
    _check_driver(request.driver)
    ipv4, ipv6 = _choose_pools(request, existing)
    identity = secrets.token_hex(32)
    return Network(
        id=identity,
        name=request.name,
        driver=request.driver,
        created=time.time(),
        ipv4=ipv4,
        ipv6=ipv6,
        bridge=_choose_device(request, identity, existing),
        internal=request.internal,
        attachable=request.attachable,
        labels=request.labels,
        options=request.options,
    )


def _check_name(name: str, existing: Sequence[Network]) -> None:
    if not name.strip():
        raise InvalidArgument("invalid name: name is empty")
    if name in (*PREDEFINED, "default"):
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if any(network.name == name for network in existing):
        raise Conflict(f"network with name {name} already exists")


def _check_driver(driver: str) -> None:
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver in _NOT_HERE:
        raise NotImplementedHere(f"networks of the driver {driver} are not available")
    if driver != "bridge":
        raise NotFound(f'could not find plugin {driver} in v1 plugin registry: plugin "{driver}" not found')


def _choose_pools(request: NetworkRequest, existing: Sequence[Network]) -> tuple[Pool, Pool | None]:
    if request.ipv4 is None:
        if request.ipv6 is None:
            raise InvalidArgument("IPv4 or IPv6 must be enabled")
        raise NotImplementedHere("networks without IPv4 are not available")
    taken: list[Subnet] = [UPLINK_SUBNET]
    taken += [pool.subnet for network in existing for pool in (network.ipv4, network.ipv6) if pool is not None]
    subnet = _asked_subnet(IPv4Network, request.ipv4, taken) or allocation.free_subnet(taken)
    ipv4 = _pool(IPv4Address, IPv4Network, request.ipv4, subnet)
    if request.ipv6 is None:
        return ipv4, None
    subnet6 = _asked_subnet(IPv6Network, request.ipv6, taken) or allocation.free_subnet6(_engine(existing), taken)
    return ipv4, _pool(IPv6Address, IPv6Network, request.ipv6, subnet6)


def _asked_subnet(kind: type[allocation.N], asked: PoolRequest, taken: Sequence[Subnet]) -> allocation.N | None:
    if not asked.subnet:
        if asked.ip_range or asked.gateway:
            raise InvalidArgument("a gateway or an IP range needs a subnet")
        return None
    subnet = allocation.parse_subnet(kind, asked.subnet)
    if allocation.overlapping(subnet, taken):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    return subnet


def _pool(address: type[allocation.A], network: type[allocation.N], asked: PoolRequest, subnet: Subnet) -> Pool:
    """The pool with that subnet, and all else as asked for; `address` and `network` are of the subnet's family."""
    gateway = allocation.check_address(address, asked.gateway, subnet, ()) if asked.gateway else None
    return Pool(
        subnet=subnet,
        gateway=gateway or allocation.gateway_of(subnet),
        ip_range=allocation.parse_range(network, asked.ip_range, subnet) if asked.ip_range else None,
        reserved={name: allocation.check_address(address, text, subnet, ()) for name, text in asked.reserved.items()},
    )


def _engine(existing: Sequence[Network]) -> int:
    """40 bits of this engine alone: of the id of the oldest network, which is random and as old as the data disk."""
    return int(existing[0].id[:10], 16)


def _choose_device(request: NetworkRequest, identity: str, existing: Sequence[Network]) -> str:
    """The bridge's name as an interface of the guest; `com.docker.network.bridge.name` chooses another."""
    name = request.options.get(_DRIVER_OPTION_DEVICE, f"br-{identity[:12]}")
    plain = all(character.isalnum() or character in "-_." for character in name)
    if not plain or not name.isascii() or not 0 < len(name) <= _LONGEST_DEVICE or name in (".", ".."):
        raise InvalidArgument(f'invalid bridge name "{name}"')
    if name in ("lo", "eth0") or any(network.bridge == name for network in existing):
        raise Forbidden(f'bridge name "{name}" is in use')
    return name
