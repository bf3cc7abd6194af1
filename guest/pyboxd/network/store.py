"""What the network room remembers, in two SQLite databases.

Networks are on the data disk and outlive the machine. Namespaces, endpoints and ports end with it, as the kernel's
objects do, so their database is on a tmpfs: a machine that starts finds none, an engine that comes back in a living
machine finds all, and no container's start waits for a disk.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from pyboxd.database import Database, Row
from pyboxd.frozen import replace
from pyboxd.network.model import NOBODY, Address, Endpoint, Network, Pool, Port, Sandbox

_NETWORKS = """
CREATE TABLE IF NOT EXISTS networks (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, driver TEXT NOT NULL, created REAL NOT NULL,
    subnet TEXT NOT NULL, gateway TEXT NOT NULL, ip_range TEXT NOT NULL, bridge TEXT NOT NULL,
    internal INTEGER NOT NULL, attachable INTEGER NOT NULL, labels TEXT NOT NULL, options TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS network_reserved (
    network_id TEXT NOT NULL REFERENCES networks ON DELETE CASCADE, name TEXT NOT NULL, address TEXT NOT NULL,
    PRIMARY KEY (network_id, name)
) STRICT;
CREATE TABLE IF NOT EXISTS network_ipv6 (
    network_id TEXT PRIMARY KEY REFERENCES networks ON DELETE CASCADE,
    subnet TEXT NOT NULL, gateway TEXT NOT NULL, ip_range TEXT NOT NULL, reserved TEXT NOT NULL
) STRICT;
"""
_STATE = """
CREATE TABLE IF NOT EXISTS network_sandboxes (
    container_id TEXT PRIMARY KEY, namespace TEXT NOT NULL UNIQUE, resolvers TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS network_endpoints (
    id TEXT PRIMARY KEY, container_id TEXT NOT NULL REFERENCES network_sandboxes ON DELETE CASCADE,
    network_id TEXT NOT NULL, address INTEGER NOT NULL, mac TEXT NOT NULL, link TEXT NOT NULL UNIQUE,
    interface TEXT NOT NULL, names TEXT NOT NULL, links TEXT NOT NULL, address6 TEXT,
    UNIQUE (network_id, address), UNIQUE (network_id, address6), UNIQUE (container_id, network_id)
) STRICT;
CREATE TABLE IF NOT EXISTS network_ports (
    protocol TEXT NOT NULL, guest_port INTEGER NOT NULL,
    container_id TEXT NOT NULL REFERENCES network_sandboxes ON DELETE CASCADE,
    container_port INTEGER NOT NULL, asked_ip TEXT NOT NULL, bound_ip TEXT NOT NULL,
    host_port INTEGER NOT NULL, reachable INTEGER NOT NULL,
    PRIMARY KEY (protocol, guest_port)
) STRICT;
"""
_NETWORK = (
    "SELECT id, name, driver, created, subnet, gateway, ip_range, bridge, internal, attachable, labels, options "
    "FROM networks "
)
_SANDBOX = "SELECT container_id, namespace, resolvers FROM network_sandboxes "
_IPV6 = "SELECT network_id, subnet, gateway, ip_range, reserved FROM network_ipv6"
_ENDPOINT = (
    "SELECT id, container_id, network_id, address, mac, link, interface, names, links, address6 FROM network_endpoints "
)
_PORT = (
    "SELECT container_id, container_port, protocol, guest_port, asked_ip, bound_ip, host_port, reachable FROM network_ports "
)


class NetworkStore:
    """The networks there are, all of them in memory too. `database` is the engine's, on the data disk."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define(_NETWORKS)
        rows = database.rows(_NETWORK + "ORDER BY created, rowid")
        self._by_id = {network.id: network for network in map(_network, rows)}
        for network_id, name, address in database.rows("SELECT network_id, name, address FROM network_reserved"):
            network = self._by_id[network_id]
            assert network.ipv4 is not None
            reserved = {**network.ipv4.reserved, name: ip_address(address)}
            self._by_id[network_id] = replace(network, ipv4=replace(network.ipv4, reserved=reserved))
        for network_id, subnet, gateway, ip_range, kept in database.rows(_IPV6):
            reserved = {name: ip_address(address) for name, address in json.loads(kept).items()}
            ipv6 = _pool(subnet, gateway, ip_range, reserved)
            self._by_id[network_id] = replace(self._by_id[network_id], ipv6=ipv6)

    def all(self) -> tuple[Network, ...]:
        """The oldest first."""
        return tuple(self._by_id.values())

    def by_id(self, network_id: str) -> Network | None:
        return self._by_id.get(network_id)

    def by_name(self, name: str) -> Network | None:
        return next((network for network in self._by_id.values() if network.name == name), None)

    def by_id_prefix(self, prefix: str) -> tuple[Network, ...]:
        return tuple(network for network in self._by_id.values() if network.id.startswith(prefix))

    def add_all(self, networks: Collection[Network]) -> None:
        with self._database.transaction():
            for network in networks:
                self._add(network)
        self._by_id.update((network.id, network) for network in networks)

    def _add(self, network: Network) -> None:
        self._database.execute(
            "INSERT INTO networks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                network.id,
                network.name,
                network.driver,
                network.created,
                *(_pool_row(network.ipv4) if network.ipv4 is not None else ("", "", "")),
                network.bridge,
                int(network.internal),
                int(network.attachable),
                json.dumps(dict(network.labels)),
                json.dumps(dict(network.options)),
            ),
        )
        for name, address in network.ipv4.reserved.items() if network.ipv4 is not None else ():
            self._database.execute("INSERT INTO network_reserved VALUES (?, ?, ?)", (network.id, name, str(address)))
        if network.ipv6 is not None:
            reserved = json.dumps({name: str(address) for name, address in network.ipv6.reserved.items()})
            row = (network.id, *_pool_row(network.ipv6), reserved)
            self._database.execute("INSERT INTO network_ipv6 VALUES (?, ?, ?, ?, ?)", row)

    def remove(self, network_id: str) -> None:
        self._database.execute("DELETE FROM networks WHERE id = ?", (network_id,))
        del self._by_id[network_id]


class StateStore:
    """Namespaces, endpoints and ports of the containers that run, all of them in memory too. `database` is on a
    tmpfs. Reading gives them in the order in which they were added."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.define(_STATE)
        self._sandboxes = {one.container_id: one for one in map(_sandbox, database.rows(_SANDBOX + "ORDER BY rowid"))}
        self._endpoints = {one.id: one for one in map(_endpoint, database.rows(_ENDPOINT + "ORDER BY rowid"))}
        self._ports = {_key(one): one for one in map(_port, database.rows(_PORT + "ORDER BY rowid"))}

    # sandboxes

    def add_sandbox(self, sandbox: Sandbox) -> None:
        self._database.execute(
            "INSERT INTO network_sandboxes VALUES (?, ?, ?)",
            (sandbox.container_id, sandbox.namespace, " ".join(sandbox.resolvers)),
        )
        self._sandboxes[sandbox.container_id] = sandbox

    def sandbox(self, container_id: str) -> Sandbox | None:
        return self._sandboxes.get(container_id)

    def sandboxes(self) -> tuple[Sandbox, ...]:
        return tuple(self._sandboxes.values())

    def remove_sandbox(self, container_id: str) -> None:
        """With its endpoints and ports."""
        self._database.execute("DELETE FROM network_sandboxes WHERE container_id = ?", (container_id,))
        del self._sandboxes[container_id]
        for endpoint in self.endpoints(container_id=container_id):
            del self._endpoints[endpoint.id]
        for port in self.ports(container_id):
            del self._ports[_key(port)]

    # endpoints

    def add_endpoint(self, endpoint: Endpoint) -> None:
        self._database.execute(
            "INSERT INTO network_endpoints VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                endpoint.id,
                endpoint.container_id,
                endpoint.network_id,
                int(endpoint.address),
                endpoint.mac,
                endpoint.link,
                endpoint.interface,
                " ".join(endpoint.names),
                " ".join(endpoint.links),
                str(endpoint.address6) if endpoint.address6 is not None else None,
            ),
        )
        self._endpoints[endpoint.id] = endpoint

    def endpoints(self, *, container_id: str = "", network_id: str = "") -> tuple[Endpoint, ...]:
        """All endpoints, or those of one container or network."""
        return tuple(
            endpoint
            for endpoint in self._endpoints.values()
            if container_id in ("", endpoint.container_id) and network_id in ("", endpoint.network_id)
        )

    def remove_endpoint(self, endpoint_id: str) -> None:
        self._database.execute("DELETE FROM network_endpoints WHERE id = ?", (endpoint_id,))
        del self._endpoints[endpoint_id]

    # ports

    def add_ports(self, ports: Sequence[Port]) -> None:
        """Add all or none."""
        with self._database.transaction():
            for port in ports:
                self._database.execute(
                    "INSERT INTO network_ports VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        port.protocol,
                        port.guest_port,
                        port.container_id,
                        port.container_port,
                        port.asked_ip,
                        port.bound_ip,
                        port.host_port,
                        int(port.reachable),
                    ),
                )
        self._ports.update((_key(port), port) for port in ports)

    def ports(self, container_id: str = "") -> tuple[Port, ...]:
        """All ports, or those of one container."""
        return tuple(port for port in self._ports.values() if container_id in ("", port.container_id))

    def set_bound_ip(self, port: Port, bound_ip: str) -> None:
        """Keep what the host said when it was asked again."""
        self._database.execute(
            "UPDATE network_ports SET bound_ip = ? WHERE protocol = ? AND guest_port = ?", (bound_ip, *_key(port))
        )
        self._ports[_key(port)] = replace(port, bound_ip=bound_ip)

    def remove_ports(self, container_id: str) -> None:
        if ports := self.ports(container_id):
            self._database.execute("DELETE FROM network_ports WHERE container_id = ?", (container_id,))
            for port in ports:
                del self._ports[_key(port)]


def _key(port: Port) -> tuple[str, int]:
    return port.protocol, port.guest_port


def _network(row: Row) -> Network:
    identity, name, driver, created, subnet, gateway, ip_range, bridge, internal, attachable, labels, options = row
    return Network(
        id=identity,
        name=name,
        driver=driver,
        created=created,
        ipv4=_pool(subnet, gateway, ip_range) if subnet else None,
        bridge=bridge,
        internal=bool(internal),
        attachable=bool(attachable),
        labels=json.loads(labels),
        options=json.loads(options),
    )


def _pool_row(pool: Pool) -> tuple[str, str, str]:
    return str(pool.subnet), str(pool.gateway), str(pool.ip_range or "")


def _pool(subnet: str, gateway: str, ip_range: str, reserved: Mapping[str, Address] = NOBODY) -> Pool:
    return Pool(ip_network(subnet), ip_address(gateway), ip_network(ip_range) if ip_range else None, reserved)


def _sandbox(row: Row) -> Sandbox:
    container_id, namespace, resolvers = row
    return Sandbox(container_id, namespace, tuple(resolvers.split()))


def _endpoint(row: Row) -> Endpoint:
    identity, container_id, network_id, address, mac, link, interface, names, links, address6 = row
    return Endpoint(
        id=identity,
        container_id=container_id,
        network_id=network_id,
        address=IPv4Address(address),
        mac=mac,
        link=link,
        interface=interface,
        names=tuple(names.split()),
        links=tuple(links.split()),
        address6=IPv6Address(address6) if address6 else None,
    )


def _port(row: Row) -> Port:
    container_id, container_port, protocol, guest_port, asked_ip, bound_ip, host_port, reachable = row
    return Port(
        container_id=container_id,
        container_port=container_port,
        protocol=protocol,
        guest_port=guest_port,
        asked_ip=asked_ip,
        bound_ip=bound_ip,
        host_port=host_port,
        reachable=bool(reachable),
    )
