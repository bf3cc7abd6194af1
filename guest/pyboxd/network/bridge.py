"""The guest's side of the networks in the kernel: bridges, veth pairs and the table of packet rules.

`Fabric` holds the one rtnetlink socket and the one nftables context of the guest's own network namespace. Its
methods are short (a few milliseconds of kernel work), are called on the event loop's thread and raise OSError.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address

from pyboxd.linux import netlink
from pyboxd.linux.nftables import Nftables
from pyboxd.network import allocation, rules
from pyboxd.network.definitions import DEFAULT_DEVICE, default_pool
from pyboxd.network.model import Endpoint, Network, Pool
from pyboxd.network.namespaces import MTU, Namespace, enable_ipv6, plug, write_sysctl

UPLINK_ADDRESS = IPv4Address("10.0.2.15")
GUARDED_PORTS = (22,)  # the machine's ssh: no container reaches it
WAITS = 200  # milliseconds for the kernel to follow; one or two are usual

log = logging.getLogger(__name__)


class Fabric:
    """Bridges, links and packet rules of the guest. A context of kernel objects, none of which ends with it."""

    def __init__(self, uplink_address: IPv4Address = UPLINK_ADDRESS, guarded_ports: Sequence[int] = GUARDED_PORTS) -> None:
        self._uplink_address = uplink_address
        self._guarded_ports = tuple(guarded_ports)
        self._route = netlink.RouteSocket()
        self._nft = Nftables()
        self._bridges: dict[str, int] = {}  # the bridges whose rules are in the table: name -> index
        self._adopted = False  # the table was made by an earlier engine of this machine
        self._prepared = False

    def close(self) -> None:
        self._route.close()
        self._nft.close()

    def prepare(self) -> None:
        """All that does not depend on what is on the data disk: forwarding, the table, the default bridge. It may
        be done long before `restore`, in a machine that knows nothing of its user yet."""
        if self._prepared:
            return
        write_sysctl("net/ipv4/ip_forward", "1")
        write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")  # but for the bridges of networks that have it
        # Where `br_netfilter` is there, it would turn packets that a container sends to itself by the gateway back
        # before they are routed, and a bridge sends nothing out by the port it came in by.
        write_sysctl("net/bridge/bridge-nf-call-iptables", "0")
        self._bridges[DEFAULT_DEVICE] = self._make_bridge(_default_rules())
        self._adopted = self._has_table()
        if not self._adopted:
            self._nft.run(self._table([]))
        self._prepared = True

    def restore(self, used: Sequence[Network], links: Iterable[str], ports: Sequence[rules.PortRules]) -> None:
        """Bring the kernel to what an engine that ended without a word had: the networks in use have their bridge,
        the rules carry the ports, and links of nobody are gone. Connections that exist are not touched."""
        self.prepare()
        if not self._adopted and not used and not ports:
            return  # a machine that has just started
        self._bridges = {DEFAULT_DEVICE: self._bridges[DEFAULT_DEVICE]}
        for network in used:
            self._bridges[network.bridge] = self._make_bridge(_bridge_rules(network))
        others = [_bridge_rules(network) for network in used if network.bridge != DEFAULT_DEVICE]
        self._nft.run(self._table(others) + rules.add_ports(ports))
        self._adopted = False
        known = set(links)
        bridges = set(self._bridges.values())
        for link in self._route.links():
            if link.kind == "veth" and link.master in bridges and link.name not in known:
                _delete_link(link.name)

    def ensure_bridge(self, network: Network) -> int:
        """The index of the network's bridge, which is made if it is not there."""
        index = self._bridges.get(network.bridge)
        if index is None:
            wanted = _bridge_rules(network)
            index = self._make_bridge(wanted)
            self._nft.run(rules.add_bridge(wanted))
            self._bridges[network.bridge] = index
        return index

    async def remove_bridge(self, network: Network) -> None:
        """Undo `ensure_bridge`, this engine's or an earlier one's; no error if it was never done."""
        if self._bridges.pop(network.bridge, None) is not None:
            self._nft.run(rules.delete_bridge(_bridge_rules(network)))
        await self.unplug(network.bridge)

    def plug_spare(self, network: Network, namespace: Namespace) -> None:
        """Put the pair that a fresh namespace came with into the network."""
        self._route.execute(netlink.set_master(namespace.link, self.ensure_bridge(network)))

    def plug(self, network: Network, endpoint: Endpoint, path: str) -> None:
        """Make a pair into the namespace of that path."""
        plug(self._route, endpoint.link, path, endpoint.interface, master=self.ensure_bridge(network))

    async def wait_for_way(self, network: Network, endpoint: Endpoint) -> None:
        """Wait until the kernel has noticed that the container's end was set up, which it does a little later: till
        then the bridge drops what comes from there."""
        await _wait(lambda: all(self._route.link(name).running for name in (endpoint.link, network.bridge)))

    async def unplug(self, link: str) -> None:
        """Delete a link; no error if there is none. It takes the kernel tens of milliseconds, so a thread does it."""
        await asyncio.to_thread(_delete_link, link)

    def add_ports(self, ports: Sequence[rules.PortRules]) -> None:
        if ports:
            self._nft.run(rules.add_ports(ports))

    def delete_ports(self, ports: Sequence[rules.PortRules]) -> None:
        """No error if somebody else has taken them out of the table, or the table away: the guest is open to
        privileged containers."""
        if not ports:
            return
        try:
            self._nft.run(rules.delete_ports(ports))
        except FileNotFoundError as error:
            log.warning("%s", error)

    def _table(self, others: Iterable[rules.BridgeRules]) -> str:
        bridges = (_default_rules(), *others)
        return rules.table([self._uplink_address], self._guarded_ports) + "".join(
            rules.add_bridge(bridge) for bridge in bridges
        )

    def _has_table(self) -> bool:
        return rules.TABLE in self._nft.run(f"list tables {rules.FAMILY}")

    def _make_bridge(self, wanted: rules.BridgeRules) -> int:
        name = wanted.interface
        bridge = netlink.new_bridge(name, mac=allocation.mac_of(wanted.ipv4.gateway), mtu=MTU)
        _ignoring(errno.EEXIST, self._route, bridge)
        # Lets the guest's processes reach published ports by 127.0.0.1; the chain `raw` keeps containers out of it.
        write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
        index = self._route.link(name).index
        self._add_gateway(index, wanted.ipv4)
        if wanted.ipv6 is not None:
            write_sysctl("net/ipv6/conf/all/forwarding", "1")
            write_sysctl("net/bridge/bridge-nf-call-ip6tables", "0")  # as in `prepare`
            enable_ipv6(name)
            self._add_gateway(index, wanted.ipv6)
        return index

    def _add_gateway(self, index: int, pool: Pool) -> None:
        address = netlink.add_address(index, str(pool.gateway), pool.subnet.prefixlen)
        _ignoring(errno.EEXIST, self._route, address)


def configure(route: netlink.RouteSocket, network: Network, endpoint: Endpoint) -> None:
    """Set the container's end of the pair up and give it its IPv4 address; `route` is a socket of the container's
    namespace."""
    assert network.ipv4 is not None
    index = route.link(endpoint.interface).index
    route.execute(
        netlink.set_up(endpoint.interface, mac=endpoint.mac),
        netlink.add_address(index, str(endpoint.address), network.ipv4.subnet.prefixlen),
    )


async def configure_ipv6(route: netlink.RouteSocket, pool: Pool, endpoint: Endpoint) -> None:
    """Give the container's end, on which IPv6 was switched on, its IPv6 address, and wait until it is used. The kernel
    tells the neighbours then, so the way to them must be there."""
    index = route.link(endpoint.interface).index
    route.execute(netlink.add_address(index, str(endpoint.address6), pool.subnet.prefixlen))
    await _wait(lambda: not any(found.tentative for found in route.addresses(socket.AF_INET6) if found.index == index))


async def _wait(condition: Callable[[], bool]) -> None:
    """Look every millisecond, and go on without it in the end: nothing breaks, the first packets come late."""
    for _ in range(WAITS):
        if condition():
            return
        await asyncio.sleep(0.001)


def add_link_local(route: netlink.RouteSocket, endpoint: Endpoint, addresses: Sequence[str]) -> None:
    """Give the container's end further addresses that were asked for. InvalidArgument for others than IPv4's."""
    for text in addresses:
        allocation.check_link_local(text)
        route.execute(netlink.add_address(route.link(endpoint.interface).index, text, 16))


def set_default_route(route: netlink.RouteSocket, pool: Pool, endpoint: Endpoint) -> None:
    """Send what has no other way, and is of the pool's family, by the pool's gateway."""
    index = route.link(endpoint.interface).index
    route.execute(netlink.default_route(str(pool.gateway), index))


def _delete_link(name: str) -> None:
    with netlink.RouteSocket() as route:
        _ignoring(errno.ENODEV, route, netlink.delete_link(name))


def _default_rules() -> rules.BridgeRules:
    return rules.BridgeRules(DEFAULT_DEVICE, default_pool())


def _bridge_rules(network: Network) -> rules.BridgeRules:
    assert network.ipv4 is not None
    return rules.BridgeRules(network.bridge, network.ipv4, network.internal, network.ipv6)


def _ignoring(code: int, route: netlink.RouteSocket, request: netlink.Request) -> None:
    try:
        route.execute(request)
    except OSError as error:
        if error.errno != code:
            raise
