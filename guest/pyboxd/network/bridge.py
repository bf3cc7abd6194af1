"""The guest's side of the networks in the kernel: bridges, veth pairs and the table of packet rules.

`Fabric` holds the one rtnetlink socket and the one nftables context of the guest's own network namespace. Its
methods are short (a few milliseconds of kernel work), are called on the event loop's thread and raise OSError.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from pyboxd.linux import netlink
from pyboxd.linux.nftables import Nftables
from pyboxd.network import allocation, rules
from pyboxd.network.definitions import DEFAULT_DEVICE
from pyboxd.network.model import Endpoint, Network
from pyboxd.network.namespaces import MTU, Namespace, plug, write_sysctl

UPLINK_ADDRESS = IPv4Address("10.0.2.15")
GUARDED_PORTS = (22,)  # the machine's ssh: no container reaches it

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
        write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")  # no bridge and no link gets an IPv6 address
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

    def plug_spare(self, network: Network, endpoint: Endpoint, namespace: Namespace) -> None:
        """Put the pair that a fresh namespace came with into the network."""
        self._route.execute(netlink.set_master(namespace.link, self.ensure_bridge(network)))
        configure(namespace.route, network, endpoint)

    def plug(self, network: Network, endpoint: Endpoint, path: str, route: netlink.RouteSocket) -> None:
        """Make a pair into the namespace of that path, `route` being a socket of it."""
        plug(self._route, endpoint.link, path, endpoint.interface, master=self.ensure_bridge(network))
        configure(route, network, endpoint)

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
        name, gateway = wanted.interface, wanted.gateway
        bridge = netlink.new_bridge(name, mac=allocation.mac_of(gateway), mtu=MTU)
        _ignoring(errno.EEXIST, self._route, bridge)
        # Lets the guest's processes reach published ports by 127.0.0.1; the chain `raw` keeps containers out of it.
        write_sysctl(f"net/ipv4/conf/{name}/route_localnet", "1")
        index = self._route.link(name).index
        address = netlink.add_address(index, str(gateway), wanted.subnet.prefixlen)
        _ignoring(errno.EEXIST, self._route, address)
        return index


def configure(route: netlink.RouteSocket, network: Network, endpoint: Endpoint) -> None:
    """Give the container's end of the pair its addresses; `route` is a socket of the container's namespace."""
    assert network.subnet is not None
    index = route.link(endpoint.interface).index
    route.execute(
        netlink.set_up(endpoint.interface, mac=endpoint.mac),
        netlink.add_address(index, str(endpoint.address), network.subnet.prefixlen),
    )


def add_link_local(route: netlink.RouteSocket, endpoint: Endpoint, addresses: Sequence[str]) -> None:
    """Give the container's end further addresses that were asked for. InvalidArgument for others than IPv4's."""
    for text in addresses:
        allocation.check_link_local(text)
        route.execute(netlink.add_address(route.link(endpoint.interface).index, text, 16))


def set_default_route(route: netlink.RouteSocket, network: Network, endpoint: Endpoint) -> None:
    """Send what has no other way by that network."""
    index = route.link(endpoint.interface).index
    route.execute(netlink.default_route(str(network.gateway), index))


def _delete_link(name: str) -> None:
    with netlink.RouteSocket() as route:
        _ignoring(errno.ENODEV, route, netlink.delete_link(name))


def _default_rules() -> rules.BridgeRules:
    subnet = allocation.DEFAULT_BRIDGE
    return rules.BridgeRules(DEFAULT_DEVICE, subnet, allocation.gateway_of(subnet))


def _bridge_rules(network: Network) -> rules.BridgeRules:
    assert network.subnet is not None and network.gateway is not None
    return rules.BridgeRules(network.bridge, network.subnet, network.gateway, network.internal)


def _ignoring(code: int, route: netlink.RouteSocket, request: netlink.Request) -> None:
    try:
        route.execute(request)
    except OSError as error:
        if error.errno != code:
            raise
