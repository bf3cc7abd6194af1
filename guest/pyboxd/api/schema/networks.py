"""Docker's JSON of networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pyboxd.api.fields import FLAG, PAIRS, TEXT, Field, JsonObject, Table, given, read_list, read_object
from pyboxd.api.schema.config import decode_endpoint
from pyboxd.engine.model import EndpointConfig
from pyboxd.engine.timestamps import rfc3339
from pyboxd.errors import Forbidden, InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.network.model import Endpoint, Network, NetworkRequest, Pool, PoolRequest


@frozen
class Member:
    """A container's place in a network, with the container's name."""

    name: str
    endpoint: Endpoint


_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))  # Go's strconv.ParseBool
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_REQUEST = Table(
    NetworkRequest,
    "NetworkCreate",
    Field("Name", "name", TEXT),
    Field("Driver", "driver", TEXT),
    Field("Internal", "internal", FLAG),
    Field("Attachable", "attachable", FLAG),
    Field("Options", "options", PAIRS),
    Field("Labels", "labels", PAIRS),
)


def decode_create(value: object) -> NetworkRequest:
    """The body of POST /networks/create. InvalidArgument."""
    data = read_object(value if value is not None else {}, "NetworkCreate")
    found = _REQUEST.given(data)
    found["options"] = dict(found.get("options", ()))
    found["labels"] = dict(found.get("labels", ()))
    found["driver"] = found.get("driver") or "bridge"
    found.setdefault("name", "")
    ipam = read_object(given(data, "IPAM", {}), "NetworkCreate.IPAM")
    pools = [_decode_pool(pool) for pool in read_list(given(ipam, "Config", []), "IPAM.Config")]
    for key, attribute, version, default in _FAMILIES:
        # A pool of a family that the network does not have is passed over, as Docker does.
        asked = [pool for pool in pools if (":" in pool.subnet) == (version == 6)]
        found[attribute] = _only(asked) if _enabled(data, found["options"], key, version, default) else None
    return NetworkRequest(**found)


_FAMILIES = (("EnableIPv4", "ipv4", 4, True), ("EnableIPv6", "ipv6", 6, False))
_POOL = Table(
    PoolRequest,
    "IPAMConfig",
    Field("Subnet", "subnet", TEXT),
    Field("Gateway", "gateway", TEXT),
    Field("IPRange", "ip_range", TEXT),
    Field("AuxiliaryAddresses", "reserved", PAIRS),
)


def _decode_pool(value: object) -> PoolRequest:
    found: dict[str, Any] = _POOL.given(value, "IPAMConfig")
    found["reserved"] = dict(found.get("reserved", ()))
    return PoolRequest(**found)


def _only(pools: Sequence[PoolRequest]) -> PoolRequest:
    if len(pools) > 1:
        raise Forbidden("bridge driver doesn't support multiple subnets")
    return pools[0] if pools else PoolRequest()


def _enabled(data: JsonObject, options: Mapping[str, str], key: str, version: int, default: bool) -> bool:
    """Whether the network is to have a family: by its key or, without that, by the driver's option of that name."""
    if data.get(key) is not None:
        return FLAG.decode(data[key], f"NetworkCreate.{key}") is True
    option = f"com.docker.network.enable_ipv{version}"
    text = options.get(option, str(default))
    if text not in _TRUE | _FALSE:
        raise InvalidArgument(f'driver-opt "{option}" is not a valid bool')
    return text in _TRUE


def decode_connect(value: object, network: str) -> tuple[str, EndpointConfig]:
    """The body of POST …/connect: the container, and what it wants of the network. InvalidArgument."""
    data = read_object(value if value is not None else {}, "NetworkConnect")
    container = TEXT.decode(given(data, "Container", ""), "NetworkConnect.Container")
    if not container:
        raise InvalidArgument("invalid container name or ID: value is empty")
    return container, decode_endpoint(network, data.get("EndpointConfig"))


def decode_disconnect(value: object) -> tuple[str, bool]:
    """The body of POST …/disconnect: the container, and whether by force. InvalidArgument."""
    data = read_object(value if value is not None else {}, "NetworkDisconnect")
    return (
        TEXT.decode(given(data, "Container", ""), "NetworkDisconnect.Container"),
        FLAG.decode(given(data, "Force", False), "NetworkDisconnect.Force"),
    )


def network(item: Network, members: Sequence[Member]) -> JsonObject:
    """One network."""
    return {
        "Name": item.name,
        "Id": item.id,
        "Created": rfc3339(int(item.created * 10**9)),
        "Scope": "local",
        "Driver": item.driver,
        "EnableIPv4": True,
        "EnableIPv6": item.ipv6 is not None,
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [_encode_pool(pool) for pool in (item.ipv4, item.ipv6) if pool is not None],
        },
        "Internal": item.internal,
        "Attachable": item.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {member.endpoint.container_id: _member(item, member) for member in members},
        "Options": dict(item.options),
        "Labels": dict(item.labels),
    }


def _encode_pool(pool: Pool) -> JsonObject:
    value: JsonObject = {"Subnet": str(pool.subnet), "Gateway": str(pool.gateway)}
    if pool.ip_range is not None:
        value["IPRange"] = str(pool.ip_range)
    if pool.reserved:
        value["AuxiliaryAddresses"] = {name: str(address) for name, address in pool.reserved.items()}
    return value


def _member(item: Network, member: Member) -> JsonObject:
    endpoint = member.endpoint
    return {
        "Name": member.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.address}/{item.ipv4.subnet.prefixlen}" if item.ipv4 else "",
        "IPv6Address": f"{endpoint.address6}/{item.ipv6.subnet.prefixlen}" if item.ipv6 else "",
    }
