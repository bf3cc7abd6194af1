from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from pyboxd.errors import Conflict, Forbidden, InvalidArgument, NotFound, NotImplementedHere, PyboxdError
from pyboxd.network import definitions
from pyboxd.network.model import Network, NetworkRequest, Pool, PoolRequest

EXISTING = definitions.predefined()


def test_every_engine_has_dockers_three_networks() -> None:
    assert [(network.name, network.driver) for network in EXISTING] == [
        ("bridge", "bridge"),
        ("host", "host"),
        ("none", "null"),
    ]
    bridge = EXISTING[0]
    assert bridge.ipv4 is not None and bridge.ipv6 is None
    assert (bridge.bridge, str(bridge.ipv4.subnet), str(bridge.ipv4.gateway)) == ("docker0", "172.17.0.0/16", "172.17.0.1")
    assert all(len(network.id) == 64 and network.predefined for network in EXISTING)
    assert len({network.id for network in EXISTING}) == 3


def test_what_is_not_asked_for_is_chosen() -> None:
    network = definitions.define(NetworkRequest("own", labels={"a": "b"}), EXISTING)
    assert network.ipv4 is not None and network.ipv6 is None
    assert (str(network.ipv4.subnet), str(network.ipv4.gateway)) == ("172.18.0.0/16", "172.18.0.1")
    assert network.bridge == f"br-{network.id[:12]}" and not network.predefined and network.labels == {"a": "b"}
    more = definitions.define(NetworkRequest("more"), [*EXISTING, network]).ipv4
    assert more is not None and more.subnet == IPv4Network("172.19.0.0/16")


def test_what_is_asked_for_is_given() -> None:
    network = definitions.define(
        NetworkRequest(
            "own",
            ipv4=PoolRequest("10.5.0.0/16", "10.5.5.254", "10.5.5.0/24", {"router": "10.5.5.9"}),
            internal=True,
            options={"com.docker.network.bridge.name": "mine0"},
        ),
        EXISTING,
    )
    assert network.ipv4 == Pool(
        IPv4Network("10.5.0.0/16"),
        IPv4Address("10.5.5.254"),
        IPv4Network("10.5.5.0/24"),
        {"router": IPv4Address("10.5.5.9")},
    )
    assert network.internal and network.bridge == "mine0"


def test_a_network_with_ipv6() -> None:
    network = definitions.define(NetworkRequest("own", ipv6=PoolRequest()), EXISTING)
    assert network.ipv6 is not None and network.ipv4 is not None
    assert network.ipv6.subnet.prefixlen == 64 and network.ipv6.subnet.subnet_of(IPv6Network("fd00::/8"))  # type: ignore[arg-type]
    assert network.ipv6.gateway == network.ipv6.subnet.network_address + 1
    more = definitions.define(NetworkRequest("more", ipv6=PoolRequest()), [*EXISTING, network])
    assert more.ipv6 is not None and more.ipv6.subnet != network.ipv6.subnet
    assert more.ipv6.subnet.network_address in network.ipv6.subnet.supernet(new_prefix=48)
    asked = PoolRequest("2001:389::/64", "2001:389::ffff", "2001:389::/96", {"router": "2001:389::9"})
    assert definitions.define(NetworkRequest("own", ipv6=asked), EXISTING).ipv6 == Pool(
        IPv6Network("2001:389::/64"),
        IPv6Address("2001:389::ffff"),
        IPv6Network("2001:389::/96"),
        {"router": IPv6Address("2001:389::9")},
    )


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (NetworkRequest(" "), InvalidArgument, "invalid name"),
        (NetworkRequest("host"), Forbidden, "operation is not permitted on predefined host network"),
        (NetworkRequest("default"), Forbidden, "predefined"),
        (NetworkRequest("own"), Conflict, "network with name own already exists"),
        (NetworkRequest("x", driver="host"), Forbidden, 'only one instance of "host" network is allowed'),
        (NetworkRequest("x", driver="macvlan"), NotImplementedHere, "macvlan"),
        (NetworkRequest("x", driver="weave"), NotFound, 'could not find plugin weave .*plugin "weave" not found'),
        (
            NetworkRequest("x", ipv4=PoolRequest(subnet="172.17.9.0/24")),
            Forbidden,
            "Pool overlaps with other one on this address space",
        ),
        (
            NetworkRequest("x", ipv4=PoolRequest(subnet="10.0.0.0/8")),
            Forbidden,
            "Pool overlaps",
        ),  # the guest's card is in it
        (NetworkRequest("x", ipv4=PoolRequest(subnet="10.5.0.1/16")), InvalidArgument, "invalid subnet"),
        (NetworkRequest("x", ipv4=PoolRequest(gateway="10.5.0.1")), InvalidArgument, "needs a subnet"),
        (
            NetworkRequest("x", ipv4=PoolRequest(subnet="10.5.0.0/16", gateway="10.6.0.1")),
            InvalidArgument,
            "no configured subnet",
        ),
        (
            NetworkRequest("x", ipv4=PoolRequest(subnet="10.5.0.0/16", ip_range="10.6.0.0/24")),
            InvalidArgument,
            "not a part of",
        ),
        (NetworkRequest("x", ipv4=PoolRequest(subnet="10.5.0.0/16", ip_range="x")), InvalidArgument, "invalid ip-range"),
        (NetworkRequest("x", ipv6=PoolRequest("fd00:6::/65")), Forbidden, "Pool overlaps"),
        (NetworkRequest("x", ipv6=PoolRequest("fd00::/8")), Forbidden, "Pool overlaps"),
        (NetworkRequest("x", ipv6=PoolRequest("10.5.0.0/16")), InvalidArgument, "invalid subnet"),
        (NetworkRequest("x", ipv6=PoolRequest("", "fd00::1")), InvalidArgument, "needs a subnet"),
        (NetworkRequest("x", ipv6=PoolRequest("fd00:7::/64", "fd00:8::1")), InvalidArgument, "no configured subnet"),
        (NetworkRequest("x", ipv6=PoolRequest("fd00:7::/64", "", "fd00:8::/96")), InvalidArgument, "not a part of"),
        (
            NetworkRequest("x", ipv6=PoolRequest("fd00:7::/64", reserved={"a": "fd00:8::1"})),
            InvalidArgument,
            "no configured",
        ),
        (NetworkRequest("x", ipv4=None, ipv6=PoolRequest()), NotImplementedHere, "networks without IPv4"),
        (NetworkRequest("x", ipv4=None), InvalidArgument, "IPv4 or IPv6 must be enabled"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": "a/b"}), InvalidArgument, "invalid bridge name"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": "a" * 16}), InvalidArgument, "invalid bridge"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": 'a"b'}), InvalidArgument, "invalid bridge name"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": "eth0"}), Forbidden, "in use"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": "docker0"}), Forbidden, "in use"),
    ],
)
def test_what_cannot_be_is_refused_in_dockers_words(request_: NetworkRequest, error: type[PyboxdError], words: str) -> None:
    existing: list[Network] = [
        *EXISTING,
        definitions.define(NetworkRequest("own", ipv6=PoolRequest("fd00:6::/64")), EXISTING),
    ]
    with pytest.raises(error, match=words):
        definitions.define(request_, existing)
