"""Who is where: choosing a container's place in a network and telling what it has. No kernel work."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from ipaddress import IPv4Address

from pyboxd.model import PublishedPort
from pyboxd.network import allocation
from pyboxd.network.discovery import has_discovery
from pyboxd.network.model import Attachment, Endpoint, Network, Wishes
from pyboxd.network.store import NetworkStore, StateStore


class Endpoints:
    """The places of containers in networks."""

    def __init__(self, networks: NetworkStore, state: StateStore) -> None:
        self._networks = networks
        self._state = state

    def of(self, container_id: str) -> tuple[Endpoint, ...]:
        """In the order in which the container got them."""
        return self._state.endpoints(container_id=container_id)

    def network(self, endpoint: Endpoint) -> Network:
        network = self._networks.by_id(endpoint.network_id)
        assert network is not None, "a network with endpoints is not removed"
        return network

    def gate(self, container_id: str) -> Endpoint | None:
        """The one that has the container's default route and its ports: the first with a way out."""
        for endpoint in self.of(container_id):
            if not self.network(endpoint).internal:
                return endpoint
        return None

    def new(
        self, network: Network, container_id: str, wishes: Wishes, *, link: str, leaving: Collection[IPv4Address]
    ) -> Endpoint:
        """A place in the network that nobody has, nor the kernel still keeps for one who is `leaving`. `link` is the
        guest's end of the pair, "" if it is still to be made."""
        assert network.subnet is not None and network.gateway is not None
        taken = {endpoint.address for endpoint in self._state.endpoints(network_id=network.id)}
        taken |= {network.gateway, *network.reserved.values(), *leaving}
        if wishes.address:
            address = allocation.check_address(wishes.address, network.subnet, taken)
        else:
            address = allocation.free_address(network.ip_range or network.subnet, network.subnet, taken)
        used = {endpoint.interface for endpoint in self.of(container_id)}
        identity = secrets.token_hex(32)
        return Endpoint(
            id=identity,
            container_id=container_id,
            network_id=network.id,
            address=address,
            mac=allocation.check_mac(wishes.mac) if wishes.mac else allocation.mac_of(address),
            link=link or f"veth{identity[:8]}",
            interface=next(name for number in range(len(used) + 1) if (name := f"eth{number}") not in used),
            names=wishes.names,
            links=wishes.links,
        )

    def attachment(self, endpoint: Endpoint, netns_path: str) -> Attachment:
        """What a container has by that place."""
        network = self.network(endpoint)
        assert network.subnet is not None
        published: tuple[PublishedPort, ...] = ()
        if self.gate(endpoint.container_id) == endpoint:
            published = tuple(port.published() for port in self._state.ports(endpoint.container_id))
        return Attachment(
            container_id=endpoint.container_id,
            netns_path=netns_path,
            network_id=network.id,
            network_name=network.name,
            endpoint_id=endpoint.id,
            address=str(endpoint.address),
            prefix=network.subnet.prefixlen,
            gateway="" if network.internal else str(network.gateway),
            mac=endpoint.mac,
            embedded_dns=has_discovery(network),
            names=endpoint.names,
            published=published,
        )
