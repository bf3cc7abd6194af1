"""Values of the network room: what it hands out, and the door it needs to the host."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from types import MappingProxyType
from typing import Protocol

from pyboxd.frozen import frozen
from pyboxd.model import EMPTY, PublishedPort


class PortPublisher(Protocol):
    """The host's side of a published port, over the control channel."""

    async def publish(self, protocol: str, host_ip: str, host_port: int, guest_port: int) -> tuple[str, int]:
        """Listen on the host (`host_ip` "" is the configured default, `host_port` 0 any free one) and forward to
        the guest's card. The (address, port) that listens now; an error in Docker's words when it cannot.
        Asking again for a forward that is there already is no error."""
        ...

    async def release(self, protocol: str, host_ip: str, host_port: int) -> None:
        """Stop listening; `host_ip` and `host_port` as `publish` returned them."""
        ...


Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network
NOBODY: Mapping[str, Address] = MappingProxyType({})


@frozen
class PoolRequest:
    """Addresses that a new network is to have, of one family; what is "" is chosen."""

    subnet: str = ""
    gateway: str = ""
    ip_range: str = ""
    reserved: Mapping[str, str] = EMPTY


ANY_POOL = PoolRequest()


@frozen
class NetworkRequest:
    """A network to create. Without `ipv6` it has IPv4 only; without `ipv4` there is no such network here."""

    name: str
    driver: str = "bridge"
    ipv4: PoolRequest | None = ANY_POOL
    ipv6: PoolRequest | None = None
    internal: bool = False
    attachable: bool = False
    labels: Mapping[str, str] = EMPTY
    options: Mapping[str, str] = EMPTY


@frozen
class Pool:
    """The addresses of one family in a network, all of them of that family."""

    subnet: Subnet
    gateway: Address  # of the bridge
    ip_range: Subnet | None = None  # the part of the subnet that containers get addresses of
    reserved: Mapping[str, Address] = NOBODY  # by name: what no container gets, as somebody else has it


@frozen
class Network:
    """A network. `ipv4` and `bridge` are only there for the driver `bridge`, `ipv6` only where it was asked for."""

    id: str
    name: str
    driver: str  # bridge | host | null
    created: float  # seconds since the epoch
    ipv4: Pool | None = None
    ipv6: Pool | None = None
    bridge: str = ""  # name of its device in the guest
    internal: bool = False
    attachable: bool = False
    labels: Mapping[str, str] = EMPTY
    options: Mapping[str, str] = EMPTY

    @property
    def predefined(self) -> bool:
        return self.name in PREDEFINED


PREDEFINED = ("bridge", "host", "none")


@frozen
class Wishes:
    """What a container wants of its place in a network; "" is chosen.

    `names` (the container's name first, aliases, its short id) is what other containers of a user-defined network find
    it by, `links` ("name:alias") are what it alone calls others there.
    """

    mac: str = ""
    address: str = ""
    link_local: tuple[str, ...] = ()  # more addresses, of 169.254.0.0/16
    names: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    address6: str = ""


NO_WISHES = Wishes()


@frozen
class Endpoint:
    """A container's place in a network, as the store keeps it."""

    id: str  # 64 hexadecimal digits
    container_id: str
    network_id: str
    address: IPv4Address
    mac: str
    link: str  # the guest's end of the veth pair
    interface: str  # the container's end: "eth0", …
    names: tuple[str, ...] = ()  # answered by the network's DNS; the first one to reverse queries
    links: tuple[str, ...] = ()  # "name:alias": what this container alone calls another one
    address6: IPv6Address | None = None  # in a network with IPv6

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (self.address,) if self.address6 is None else (self.address, self.address6)

    def linked(self, alias: str) -> tuple[str, ...]:
        """The names of the containers that this one calls `alias` (in lower case)."""
        pairs = (text.partition(":") for text in self.links)
        return tuple(name.lower() for name, _, called in pairs if called.lower() == alias)

    @property
    def owner(self) -> str:
        """The container as a person knows it."""
        return self.names[0] if self.names else self.container_id[:12]


@frozen
class Sandbox:
    """A container's network namespace, as the store keeps it."""

    container_id: str
    namespace: str  # name under locations.NETNS
    resolvers: tuple[str, ...] = ()  # `--dns`: asked by the embedded DNS instead of the guest's


@frozen
class Port:
    """A published port, as the store keeps it."""

    container_id: str
    container_port: int
    protocol: str
    guest_port: int
    asked_ip: str  # "" is the default
    bound_ip: str  # as the host said
    host_port: int
    reachable: bool  # by other containers, under the guest's addresses

    def published(self) -> PublishedPort:
        """As Docker shows it."""
        return PublishedPort(
            container_port=self.container_port,
            protocol=self.protocol,
            host_ip=self.asked_ip or "0.0.0.0",
            host_port=self.host_port,
            guest_port=self.guest_port,
        )


@frozen
class Attachment:
    """What a container got from one network."""

    container_id: str
    netns_path: str  # of its network namespace; "host" is the guest's own
    network_id: str
    network_name: str
    endpoint_id: str
    address: str = ""  # "" in the networks host and none
    prefix: int = 0
    gateway: str = ""
    mac: str = ""
    embedded_dns: bool = False  # its resolv.conf names the engine's own DNS
    names: tuple[str, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    address6: str = ""  # "" in networks without IPv6
    prefix6: int = 0
    gateway6: str = ""
