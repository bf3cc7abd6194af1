from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from pyboxd.database import Database
from pyboxd.frozen import replace
from pyboxd.network import definitions
from pyboxd.network.model import Endpoint, NetworkRequest, PoolRequest, Port, Sandbox
from pyboxd.network.store import NetworkStore, StateStore

WEB = Endpoint("e1", "a", "n1", IPv4Address("172.17.0.2"), "02:42:ac:11:00:02", "veth1", "eth0", ("web", "www"), ("db:x",))
MORE = Endpoint("e2", "a", "n2", IPv4Address("172.18.0.2"), "02:42:ac:12:00:02", "veth2", "eth1")
SIX = Endpoint("e4", "b", "n3", IPv4Address("172.19.0.2"), "", "veth4", "eth1", address6=IPv6Address("fd00:6::2"))
OTHER = Endpoint("e3", "b", "n1", IPv4Address("172.17.0.3"), "02:42:ac:11:00:03", "veth3", "eth0")
PORT = Port("a", 80, "tcp", 20000, "", "127.0.0.1", 8080, reachable=True)


def filled(path: Path) -> StateStore:
    store = StateStore(Database(str(path / "state.db")))
    store.add_sandbox(Sandbox("a", "space1", ("9.9.9.9",)))
    store.add_sandbox(Sandbox("b", "space2"))
    for endpoint in (WEB, MORE, OTHER, SIX):
        store.add_endpoint(endpoint)
    store.add_ports([PORT, Port("a", 53, "udp", 20000, "127.0.0.1", "127.0.0.1", 5353, reachable=False)])
    return store


def everything(store: StateStore) -> tuple[object, ...]:
    return store.sandboxes(), store.endpoints(), store.ports()


def test_networks_are_there_when_the_database_is_opened_again(tmp_path: Path) -> None:
    store = NetworkStore(Database(str(tmp_path / "engine.db")))
    store.add_all(definitions.predefined())
    request = NetworkRequest(
        "own", ipv4=PoolRequest("10.5.0.0/16", "", "10.5.1.0/24", {"router": "10.5.1.9"}), labels={"a": "b"}
    )
    store.add_all([definitions.define(replace(request, options={"c": "d"}), store.all())])
    again = NetworkStore(Database(str(tmp_path / "engine.db")))
    assert again.all() == store.all() and [network.name for network in again.all()][-1] == "own"
    own = again.by_name("own")
    assert (
        own is not None
        and own.ipv4 is not None
        and own.ipv4.reserved == {"router": IPv4Address("10.5.1.9")}
        and again.by_id(own.id) == own
        and again.by_id_prefix(own.id[:20]) == (own,)
    )
    again.remove(own.id)
    assert again.by_name("own") is None
    assert len(NetworkStore(Database(str(tmp_path / "engine.db"))).all()) == 3


def test_a_network_with_ipv6_is_there_when_the_database_is_opened_again(tmp_path: Path) -> None:
    store = NetworkStore(Database(str(tmp_path / "engine.db")))
    store.add_all(definitions.predefined())
    # The same name may stand for an address of each family.
    ipv4 = PoolRequest("10.5.0.0/16", reserved={"router": "10.5.1.9"})
    ipv6 = PoolRequest("fd00:6::/64", "fd00:6::ffff", "fd00:6::/96", {"router": "fd00:6::9"})
    store.add_all([definitions.define(NetworkRequest("own", ipv4=ipv4, ipv6=ipv6), store.all())])
    again = NetworkStore(Database(str(tmp_path / "engine.db")))
    own = again.by_name("own")
    assert own is not None and own.ipv6 is not None and again.all() == store.all()
    again.remove(own.id)
    assert again.all() == NetworkStore(Database(str(tmp_path / "engine.db"))).all() == store.all()[:3]


def test_networks_of_an_engine_that_knew_no_ipv6(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "engine.db")
    with database:
        database.executescript(
            """
            CREATE TABLE networks (
                id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, created REAL NOT NULL,
                subnet TEXT NOT NULL, gateway TEXT NOT NULL, ip_range TEXT NOT NULL, bridge TEXT NOT NULL,
                internal INTEGER NOT NULL, attachable INTEGER NOT NULL, labels TEXT NOT NULL, options TEXT NOT NULL
            ) STRICT;
            INSERT INTO networks VALUES
                ('aa00000000bb', 'bridge', 'bridge', 1.0, '172.17.0.0/16', '172.17.0.1', '', 'docker0', 0, 0, '{}', '{}'),
                ('cc', 'own', 'bridge', 2.0, '10.5.0.0/16', '10.5.0.1', '', 'br-cc', 0, 0, '{}', '{}');
            """
        )
    database.close()
    store = NetworkStore(Database(str(tmp_path / "engine.db")))
    assert [(network.name, network.ipv6) for network in store.all()] == [("bridge", None), ("own", None)]
    store.add_all([definitions.define(NetworkRequest("six", ipv6=PoolRequest()), store.all())])
    six = NetworkStore(Database(str(tmp_path / "engine.db"))).by_name("six")
    assert six is not None and six.ipv6 is not None and str(six.ipv6.subnet) == "fdaa::/64"


def test_a_name_is_given_once(tmp_path: Path) -> None:
    store = NetworkStore(Database(":memory:"))
    store.add_all(definitions.predefined())
    with pytest.raises(sqlite3.IntegrityError):
        store.add_all([definitions.define(NetworkRequest("own"), []), *definitions.predefined()])
    assert [network.name for network in store.all()] == ["bridge", "host", "none"]


def test_state_is_there_when_the_database_is_opened_again(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert everything(StateStore(Database(str(tmp_path / "state.db")))) == everything(store)
    store.set_bound_ip(PORT, "0.0.0.0")
    store.remove_endpoint("e2")
    again = StateStore(Database(str(tmp_path / "state.db")))
    assert everything(again) == everything(store)
    assert again.ports("a")[0].bound_ip == "0.0.0.0"


def test_state_is_asked_by_container_and_by_network(tmp_path: Path) -> None:
    store = filled(tmp_path)
    assert store.endpoints(container_id="a") == (WEB, MORE)
    assert store.endpoints(network_id="n1") == (WEB, OTHER)
    assert [port.protocol for port in store.ports("a")] == ["tcp", "udp"] and store.ports("b") == ()


def test_all_of_a_container_goes_with_its_sandbox(tmp_path: Path) -> None:
    store = filled(tmp_path)
    store.remove_sandbox("a")
    assert everything(store) == ((Sandbox("b", "space2"),), (OTHER, SIX), ())
    assert everything(StateStore(Database(str(tmp_path / "state.db")))) == everything(store)


def test_ports_are_added_all_or_none(tmp_path: Path) -> None:
    store = filled(tmp_path)
    before = everything(store)
    free = Port("b", 1, "tcp", 20001, "", "127.0.0.1", 1, reachable=True)
    with pytest.raises(sqlite3.IntegrityError):
        store.add_ports([free, Port("b", 2, "tcp", 20000, "", "127.0.0.1", 2, reachable=True)])
    assert everything(store) == before
    assert everything(StateStore(Database(str(tmp_path / "state.db")))) == before


def test_an_address_is_given_once(tmp_path: Path) -> None:
    store = filled(tmp_path)
    with pytest.raises(sqlite3.IntegrityError):
        store.add_endpoint(Endpoint("e5", "b", "n2", MORE.address, "", "veth5", "eth2"))
    with pytest.raises(sqlite3.IntegrityError):
        store.add_endpoint(replace(SIX, id="e5", container_id="a", address=IPv4Address("172.19.0.3"), link="veth5"))


def test_a_published_port_is_shown_as_docker_shows_it() -> None:
    assert (PORT.published().host_ip, PORT.published().host_port) == ("0.0.0.0", 8080)
