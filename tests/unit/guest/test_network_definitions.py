from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest

from pyboxd.errors import Conflict, Forbidden, InvalidArgument, NotFound, NotImplementedHere, PyboxdError
from pyboxd.network import definitions
from pyboxd.network.model import Network, NetworkRequest

EXISTING = definitions.predefined()


def test_every_engine_has_dockers_three_networks() -> None:
    assert [(network.name, network.driver) for network in EXISTING] == [
        ("bridge", "bridge"),
        ("host", "host"),
        ("none", "null"),
    ]
    bridge = EXISTING[0]
    assert (bridge.bridge, str(bridge.subnet), str(bridge.gateway)) == ("docker0", "172.17.0.0/16", "172.17.0.1")
    assert all(len(network.id) == 64 and network.predefined for network in EXISTING)
    assert len({network.id for network in EXISTING}) == 3


def test_what_is_not_asked_for_is_chosen() -> None:
    network = definitions.define(NetworkRequest("own", labels={"a": "b"}), EXISTING)
    assert (str(network.subnet), str(network.gateway)) == ("172.18.0.0/16", "172.18.0.1")
    assert network.bridge == f"br-{network.id[:12]}" and not network.predefined and network.labels == {"a": "b"}
    assert definitions.define(NetworkRequest("more"), [*EXISTING, network]).subnet == IPv4Network("172.19.0.0/16")


def test_what_is_asked_for_is_given() -> None:
    network = definitions.define(
        NetworkRequest(
            "own",
            subnet="10.5.0.0/16",
            gateway="10.5.5.254",
            ip_range="10.5.5.0/24",
            internal=True,
            options={"com.docker.network.bridge.name": "mine0"},
        ),
        EXISTING,
    )
    assert (network.gateway, network.ip_range) == (IPv4Address("10.5.5.254"), IPv4Network("10.5.5.0/24"))
    assert network.internal and network.bridge == "mine0"


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
        (NetworkRequest("x", subnet="172.17.9.0/24"), Forbidden, "Pool overlaps with other one on this address space"),
        (NetworkRequest("x", subnet="10.0.0.0/8"), Forbidden, "Pool overlaps"),  # the guest's card is in it
        (NetworkRequest("x", subnet="10.5.0.1/16"), InvalidArgument, "invalid subnet"),
        (NetworkRequest("x", gateway="10.5.0.1"), InvalidArgument, "needs a subnet"),
        (NetworkRequest("x", subnet="10.5.0.0/16", gateway="10.6.0.1"), InvalidArgument, "no configured subnet"),
        (NetworkRequest("x", subnet="10.5.0.0/16", ip_range="10.6.0.0/24"), InvalidArgument, "not a part of"),
        (NetworkRequest("x", subnet="10.5.0.0/16", ip_range="x"), InvalidArgument, "invalid ip-range"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": "a/b"}), InvalidArgument, "invalid bridge name"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": "a" * 16}), InvalidArgument, "invalid bridge"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": 'a"b'}), InvalidArgument, "invalid bridge name"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": "eth0"}), Forbidden, "in use"),
        (NetworkRequest("x", options={"com.docker.network.bridge.name": "docker0"}), Forbidden, "in use"),
    ],
)
def test_what_cannot_be_is_refused_in_dockers_words(request_: NetworkRequest, error: type[PyboxdError], words: str) -> None:
    existing: list[Network] = [*EXISTING, definitions.define(NetworkRequest("own"), EXISTING)]
    with pytest.raises(error, match=words):
        definitions.define(request_, existing)
