"""Names of containers: which container finds which others, and the DNS server that tells it.

A container on a user-defined network finds the others there by name, alias and short id, as with Docker. Containers
on the default bridge have no such server.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address

from pyboxd.frozen import frozen
from pyboxd.linux.nftables import Nftables
from pyboxd.network import files
from pyboxd.network.dns import DnsServer
from pyboxd.network.model import Address, Network
from pyboxd.network.namespaces import Namespaces
from pyboxd.network.store import NetworkStore, StateStore

# The server listens on a port of its own, so that a container may serve DNS on all its addresses itself.
_REDIRECT = """\
add table ip pybox_dns
delete table ip pybox_dns
table ip pybox_dns {{
    chain output {{
        type nat hook output priority -100; policy accept;
        ip daddr {address} udp dport 53 dnat to {address}:{datagram_port}
        ip daddr {address} tcp dport 53 dnat to {address}:{stream_port}
    }}
}}
"""


@frozen
class _Zone:
    """What one container may ask; looked up anew for every question, as containers come and go."""

    container_id: str
    state: StateStore
    networks: NetworkStore

    def addresses(self, name: str) -> tuple[Address, ...]:
        if name in files.HOST_NAMES:
            return (IPv4Address(files.HOST_ADDRESS),)
        for network in self._networks():
            bare = name.removesuffix(f".{network.name.lower()}")
            present = self.state.endpoints(network_id=network.id)
            own = [endpoint.linked(bare) for endpoint in present if endpoint.container_id == self.container_id]
            wanted = {bare, *(linked for names in own for linked in names)}
            found = tuple(
                address
                for endpoint in present
                if not wanted.isdisjoint(known.lower() for known in endpoint.names)
                for address in endpoint.addresses
            )
            if found:
                return found
        return ()

    def name_of(self, address: Address) -> str:
        for network in self._networks():
            for endpoint in self.state.endpoints(network_id=network.id):
                if address in endpoint.addresses and endpoint.names:
                    return f"{endpoint.names[0]}.{network.name}"
        return ""

    def upstream(self) -> tuple[str, ...]:
        networks = self._networks(embedded_only=False)
        if all(network.internal for network in networks):
            return ()
        sandbox = self.state.sandbox(self.container_id)
        asked = sandbox.resolvers if sandbox else ()
        return asked or files.guest_resolver().nameservers

    def _networks(self, *, embedded_only: bool = True) -> list[Network]:
        """The networks of the container, in the order of its attachments."""
        ids = [endpoint.network_id for endpoint in self.state.endpoints(container_id=self.container_id)]
        by_id = {network.id: network for network in self.networks.all()}
        found = [by_id[identity] for identity in ids if identity in by_id]
        return [network for network in found if not embedded_only or has_discovery(network)]


def has_discovery(network: Network) -> bool:
    """Whether containers find each other by name there."""
    return network.driver == "bridge" and not network.predefined


class Discovery:
    """The DNS servers of the containers that have one."""

    def __init__(self, state: StateStore, networks: NetworkStore, namespaces: Namespaces) -> None:
        self._state = state
        self._networks = networks
        self._namespaces = namespaces
        self._servers: dict[str, DnsServer] = {}

    def wants(self, container_id: str) -> bool:
        """Whether the container is on a network with names."""
        ids = {network.id for network in self._networks.all() if has_discovery(network)}
        return any(found.network_id in ids for found in self._state.endpoints(container_id=container_id))

    async def start(self, container_id: str) -> None:
        """Serve the container, if it is on a network with names and is not served yet. Raises OSError."""
        sandbox = self._state.sandbox(container_id)
        if sandbox is None or container_id in self._servers or not self.wants(container_id):
            return
        datagrams, streams = await self._namespaces.run_in(sandbox.namespace, _open_sockets)
        server = DnsServer(_Zone(container_id, self._state, self._networks), datagrams, streams)
        self._servers[container_id] = server
        await server.start()

    def stop(self, container_id: str) -> None:
        """No error if the container is not served."""
        server = self._servers.pop(container_id, None)
        if server is not None:
            server.stop()


def _open_sockets() -> tuple[socket.socket, socket.socket]:
    """Bind the server's sockets and lead port 53 to them, in the namespace of the calling thread."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    streams = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        for bound in (datagrams, streams):
            bound.setblocking(False)
            bound.bind((files.EMBEDDED_NAMESERVER, 0))
        streams.listen(16)
        redirect = _REDIRECT.format(
            address=files.EMBEDDED_NAMESERVER,
            datagram_port=datagrams.getsockname()[1],
            stream_port=streams.getsockname()[1],
        )
        with Nftables() as nft:
            nft.run(redirect)
    except OSError:
        datagrams.close()
        streams.close()
        raise
    return datagrams, streams
