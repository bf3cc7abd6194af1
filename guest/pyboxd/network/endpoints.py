"""Who is where: choosing a container's place in a network and telling what it has. No kernel work."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from ipaddress import IPv4Address, IPv6Address

from pyboxd.errors import InvalidArgument
from pyboxd.model import PublishedPort
from pyboxd.network import allocation
from pyboxd.network.discovery import has_discovery
from pyboxd.network.model import Address, Attachment, Endpoint, Network, Pool, Wishes
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

    def routes(self, container_id: str) -> tuple[tuple[Endpoint, Pool], ...]:
        """Where the container's default routes lead: IPv4's by its gate, IPv6's by the first network that has IPv6 and
        a way out."""
        outer = [(endpoint, self.network(endpoint)) for endpoint in self.of(container_id)]
        outer = [(endpoint, network) for endpoint, network in outer if not network.internal]
        ipv4 = [(endpoint, network.ipv4) for endpoint, network in outer if network.ipv4 is not None]
        ipv6 = [(endpoint, network.ipv6) for endpoint, network in outer if network.ipv6 is not None]
        return (*ipv4[:1], *ipv6[:1])

    def new(
        self, network: Network, container_id: str, wishes: Wishes, *, link: str, leaving: Collection[Address]
    ) -> Endpoint:
        """A place in the network that nobody has, nor the kernel still keeps for one who is `leaving`. `link` is the
        guest's end of the pair, "" if it is still to be made."""
        assert network.ipv4 is not None
        others = self._state.endpoints(network_id=network.id)
        taken = {*leaving, *(address for endpoint in others for address in endpoint.addresses)}
        address = allocation.choose_address(IPv4Address, network.ipv4, wishes.address, taken)
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
            address6=_choose_address6(network, wishes.address6, taken),
        )

    def attachment(self, endpoint: Endpoint, netns_path: str) -> Attachment:
        """What a container has by that place."""
        network = self.network(endpoint)
        assert network.ipv4 is not None
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
            prefix=network.ipv4.subnet.prefixlen,
            gateway="" if network.internal else str(network.ipv4.gateway),
            mac=endpoint.mac,
            embedded_dns=has_discovery(network),
            names=endpoint.names,
            published=published,
            address6=str(endpoint.address6 or ""),
            prefix6=network.ipv6.subnet.prefixlen if network.ipv6 else 0,
            gateway6=str(network.ipv6.gateway) if network.ipv6 and not network.internal else "",
        )


def _choose_address6(network: Network, asked: str, taken: Collection[Address]) -> IPv6Address | None:
    if network.ipv6 is not None:
        return allocation.choose_address(IPv6Address, network.ipv6, asked, taken)
    if asked:
        raise InvalidArgument(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
        )
    return None
