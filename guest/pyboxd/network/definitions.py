"""What networks can be: the three that always exist, and the rules for new ones. Pure but for ids and the time."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network

from pyboxd.errors import Conflict, Forbidden, InvalidArgument, NotFound, NotImplementedHere
from pyboxd.network import allocation
from pyboxd.network.model import PREDEFINED, Network, NetworkRequest

DEFAULT_DEVICE = "docker0"
UPLINK_SUBNET = IPv4Network("10.0.2.0/24")  # of the guest's card
_DRIVER_OPTION_DEVICE = "com.docker.network.bridge.name"
_NOT_HERE = ("macvlan", "ipvlan", "overlay")
_LONGEST_DEVICE = 15  # IFNAMSIZ without its zero byte


def predefined() -> tuple[Network, ...]:
    """The networks every engine has, new ones with ids of their own."""
    now = time.time()
    subnet = allocation.DEFAULT_BRIDGE
    return (
        Network(
            id=secrets.token_hex(32),
            name="bridge",
            driver="bridge",
            created=now,
            subnet=subnet,
            gateway=allocation.gateway_of(subnet),
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


def define(request: NetworkRequest, existing: Sequence[Network]) -> Network:
    """A new network as asked for; an error in Docker's words when it cannot be."""
    _check_name(request.name, existing)
    _check_driver(request.driver)
    subnet = _choose_subnet(request, existing)
    identity = secrets.token_hex(32)
    return Network(
        id=identity,
        name=request.name,
        driver=request.driver,
        created=time.time(),
        subnet=subnet,
        gateway=_choose_gateway(request, subnet),
        ip_range=_choose_range(request, subnet),
        reserved={name: allocation.check_address(text, subnet, ()) for name, text in request.reserved.items()},
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


def _choose_subnet(request: NetworkRequest, existing: Sequence[Network]) -> IPv4Network:
    taken = [network.subnet for network in existing if network.subnet is not None]
    taken.append(UPLINK_SUBNET)
    if not request.subnet:
        if request.ip_range or request.gateway:
            raise InvalidArgument("a gateway or an IP range needs a subnet")
        return allocation.free_subnet(taken)
    subnet = allocation.parse_subnet(request.subnet)
    if allocation.overlapping(subnet, taken):
        raise Forbidden("invalid pool request: Pool overlaps with other one on this address space")
    return subnet


def _choose_gateway(request: NetworkRequest, subnet: IPv4Network) -> IPv4Address:
    if not request.gateway:
        return allocation.gateway_of(subnet)
    return allocation.check_address(request.gateway, subnet, ())


def _choose_range(request: NetworkRequest, subnet: IPv4Network) -> IPv4Network | None:
    if not request.ip_range:
        return None
    try:
        chosen = IPv4Network(request.ip_range, strict=False)
    except ValueError as error:
        raise InvalidArgument(f"invalid ip-range {request.ip_range}: {error}") from None
    if not chosen.subnet_of(subnet):
        raise InvalidArgument(f"invalid ip-range {request.ip_range}: it is not a part of {subnet}")
    return chosen


def _choose_device(request: NetworkRequest, identity: str, existing: Sequence[Network]) -> str:
    """The bridge's name as an interface of the guest; `com.docker.network.bridge.name` chooses another."""
    name = request.options.get(_DRIVER_OPTION_DEVICE, f"br-{identity[:12]}")
    plain = all(character.isalnum() or character in "-_." for character in name)
    if not plain or not name.isascii() or not 0 < len(name) <= _LONGEST_DEVICE or name in (".", ".."):
        raise InvalidArgument(f'invalid bridge name "{name}"')
    if name in ("lo", "eth0") or any(network.bridge == name for network in existing):
        raise Forbidden(f'bridge name "{name}" is in use')
    return name
