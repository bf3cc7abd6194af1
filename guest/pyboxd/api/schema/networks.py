"""Docker's JSON of networks."""

from __future__ import annotations

from collections.abc import Sequence

from pyboxd.api.fields import FLAG, PAIRS, TEXT, Field, JsonObject, Table, given, read_list, read_object
from pyboxd.api.schema.config import decode_endpoint
from pyboxd.engine.model import EndpointConfig
from pyboxd.engine.timestamps import rfc3339
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.network.model import Endpoint, Network, NetworkRequest


@frozen
class Member:
    """A container's place in a network, with the container's name."""

    name: str
    endpoint: Endpoint
    prefix: int


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
    pools = [read_object(pool, "IPAMConfig") for pool in read_list(given(ipam, "Config", []), "IPAM.Config")]
    pool = next((pool for pool in pools if ":" not in str(pool.get("Subnet", ""))), None)
    if pool is not None:
        for key, attribute in (("Subnet", "subnet"), ("Gateway", "gateway"), ("IPRange", "ip_range")):
            if pool.get(key):
                found[attribute] = TEXT.decode(pool[key], f"IPAMConfig.{key}")
        found["reserved"] = dict(PAIRS.decode(given(pool, "AuxiliaryAddresses", {}), "IPAMConfig.AuxiliaryAddresses"))
    return NetworkRequest(**found)


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
    pools: list[JsonObject] = []
    if item.subnet is not None:
        pool: JsonObject = {"Subnet": str(item.subnet), "Gateway": str(item.gateway)}
        if item.ip_range is not None:
            pool["IPRange"] = str(item.ip_range)
        if item.reserved:
            pool["AuxiliaryAddresses"] = {name: str(address) for name, address in item.reserved.items()}
        pools.append(pool)
    return {
        "Name": item.name,
        "Id": item.id,
        "Created": rfc3339(int(item.created * 10**9)),
        "Scope": "local",
        "Driver": item.driver,
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": pools},
        "Internal": item.internal,
        "Attachable": item.attachable,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {member.endpoint.container_id: _member(member) for member in members},
        "Options": dict(item.options),
        "Labels": dict(item.labels),
    }


def _member(member: Member) -> JsonObject:
    endpoint = member.endpoint
    return {
        "Name": member.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": f"{endpoint.address}/{member.prefix}",
        "IPv6Address": "",
    }
