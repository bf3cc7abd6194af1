from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from pyboxd.database import Database
from pyboxd.frozen import replace
from pyboxd.network import definitions
from pyboxd.network.model import Endpoint, NetworkRequest, Port, Sandbox
from pyboxd.network.store import NetworkStore, StateStore

WEB = Endpoint("e1", "a", "n1", IPv4Address("172.17.0.2"), "02:42:ac:11:00:02", "veth1", "eth0", ("web", "www"), ("db:x",))
MORE = Endpoint("e2", "a", "n2", IPv4Address("172.18.0.2"), "02:42:ac:12:00:02", "veth2", "eth1")
OTHER = Endpoint("e3", "b", "n1", IPv4Address("172.17.0.3"), "02:42:ac:11:00:03", "veth3", "eth0")
PORT = Port("a", 80, "tcp", 20000, "", "127.0.0.1", 8080, reachable=True)


def filled(path: Path) -> StateStore:
    store = StateStore(Database(str(path / "state.db")))
    store.add_sandbox(Sandbox("a", "space1", ("9.9.9.9",)))
    store.add_sandbox(Sandbox("b", "space2"))
    for endpoint in (WEB, MORE, OTHER):
        store.add_endpoint(endpoint)
    store.add_ports([PORT, Port("a", 53, "udp", 20000, "127.0.0.1", "127.0.0.1", 5353, reachable=False)])
    return store


def everything(store: StateStore) -> tuple[object, ...]:
    return store.sandboxes(), store.endpoints(), store.ports()


def test_networks_are_there_when_the_database_is_opened_again(tmp_path: Path) -> None:
    store = NetworkStore(Database(str(tmp_path / "engine.db")))
    store.add_all(definitions.predefined())
    request = NetworkRequest("own", ip_range="10.5.1.0/24", subnet="10.5.0.0/16", labels={"a": "b"}, options={"c": "d"})
    store.add_all([definitions.define(replace(request, reserved={"router": "10.5.1.9"}), store.all())])
    again = NetworkStore(Database(str(tmp_path / "engine.db")))
    assert again.all() == store.all() and [network.name for network in again.all()][-1] == "own"
    own = again.by_name("own")
    assert (
        own is not None
        and own.reserved == {"router": IPv4Address("10.5.1.9")}
        and again.by_id(own.id) == own
        and again.by_id_prefix(own.id[:20]) == (own,)
    )
    again.remove(own.id)
    assert again.by_name("own") is None
    assert len(NetworkStore(Database(str(tmp_path / "engine.db"))).all()) == 3


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
    assert everything(store) == ((Sandbox("b", "space2"),), (OTHER,), ())
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
        store.add_endpoint(Endpoint("e4", "b", "n2", MORE.address, "", "veth4", "eth1"))


def test_a_published_port_is_shown_as_docker_shows_it() -> None:
    assert (PORT.published().host_ip, PORT.published().host_port) == ("0.0.0.0", 8080)
