"""The packet rules as text: one nftables table, whose sets and maps get elements; a port or a network adds no rule.

Pure: values in, commands for `linux/nftables.py` out.

What the table does, in the order in which a packet meets it:

* the host's forward to a port of the guest's card goes on to the container that published it (`published`);
* a container, or a process of the guest, that calls an address of the guest under the *host's* port of a published
  port reaches the container too, as with Docker (`reachable`: without the ports bound to a loopback address);
* a container reaches the guest's own services by any of the guest's addresses, but never a guarded port
  (the engine's API, ssh);
* containers of different networks do not reach each other, except by a published port;
* an internal network has no way out and none in;
* what leaves by the guest's card gets the card's address.

Packets between two ports of one bridge come by here too when `br_netfilter` is loaded; `within` lets them pass.
The family is `inet` so that the guarded ports are guarded for IPv6 too. Whether an address is the guest's is asked
of the set `local` instead of `fib`, which would need four more kernel modules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address

from pyboxd.frozen import frozen
from pyboxd.network.model import Pool

FAMILY = "inet"
TABLE = f"{FAMILY} pybox"
UPLINK = "eth0"  # the guest's only network card


@frozen
class BridgeRules:
    """A network as the packet rules see it."""

    interface: str
    ipv4: Pool
    internal: bool = False
    ipv6: Pool | None = None


@frozen
class PortRules:
    """A published port as the packet rules see it."""

    protocol: str  # tcp | udp
    guest_port: int
    address: IPv4Address  # the container's
    container_port: int
    host_port: int
    reachable: bool  # by containers, under `host_port` of the guest's addresses


def table(uplink_addresses: Iterable[IPv4Address], guarded_ports: Iterable[int]) -> str:
    """Make the table anew, empty of networks and ports, whether or not there was one; as one transaction with
    the elements that the caller adds behind it, no packet sees a gap."""
    local = _elements(str(address) for address in uplink_addresses)
    guarded = _elements(str(port) for port in guarded_ports)
    return f"""\
add table {TABLE}
delete table {TABLE}
table {TABLE} {{
    set bridges {{ type ifname; }}
    set within {{ type ifname . ifname; }}
    set internal {{ type ifname; }}
    set subnets {{ type ipv4_addr; flags interval; }}
    set subnets6 {{ type ipv6_addr; flags interval; }}
    set local {{ type ipv4_addr; {local} }}
    set guarded {{ type inet_service; {guarded} }}
    map published {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
    map reachable {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}

    chain raw {{
        type filter hook prerouting priority raw; policy accept;
        iifname @bridges ip daddr 127.0.0.0/8 drop
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        iifname "{UPLINK}" dnat ip to meta l4proto . th dport map @published
        iifname @bridges ip daddr @local dnat ip to meta l4proto . th dport map @reachable
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
        ip daddr @local dnat ip to meta l4proto . th dport map @reachable
        ip daddr 127.0.0.0/8 dnat ip to meta l4proto . th dport map @reachable
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname @bridges tcp dport @guarded reject with tcp reset
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        iifname . oifname @within accept
        iifname @internal reject with icmpx admin-prohibited
        ct status dnat accept
        iifname @bridges oifname "{UPLINK}" accept
        iifname @bridges reject with icmpx admin-prohibited
        oifname @bridges drop
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname "{UPLINK}" ip saddr @subnets masquerade
        oifname "{UPLINK}" ip6 saddr @subnets6 masquerade
        oifname @bridges ip saddr 127.0.0.0/8 masquerade
        oifname @bridges ip saddr @subnets ct status dnat masquerade
    }}
}}
"""


def add_bridge(bridge: BridgeRules) -> str:
    return _bridge("add", bridge)


def delete_bridge(bridge: BridgeRules) -> str:
    return _bridge("delete", bridge)


def add_ports(ports: Sequence[PortRules]) -> str:
    return _ports("add", ports, with_target=True)


def delete_ports(ports: Sequence[PortRules]) -> str:
    return _ports("delete", ports, with_target=False)


def delete_table() -> str:
    return f"add table {TABLE}\ndelete table {TABLE}\n"


def _bridge(verb: str, bridge: BridgeRules) -> str:
    name = f'"{bridge.interface}"'
    kept = [("bridges", name), ("within", f"{name} . {name}"), ("local", str(bridge.ipv4.gateway))]
    # An internal network's subnet has no business on the card; without masquerade an answer would find no way back.
    kept.append(("internal", name) if bridge.internal else ("subnets", str(bridge.ipv4.subnet)))
    if bridge.ipv6 is not None and not bridge.internal:
        kept.append(("subnets6", str(bridge.ipv6.subnet)))
    return "".join(f"{verb} element {TABLE} {name} {{ {element} }}\n" for name, element in kept)


def _ports(verb: str, ports: Sequence[PortRules], *, with_target: bool) -> str:
    def element(port: PortRules, number: int) -> str:
        target = f" : {port.address} . {port.container_port}" if with_target else ""
        return f"{port.protocol} . {number}{target}"

    published = [element(port, port.guest_port) for port in ports]
    reachable = [element(port, port.host_port) for port in ports if port.reachable]
    return "".join(
        f"{verb} element {TABLE} {name} {{ {', '.join(found)} }}\n"
        for name, found in (("published", published), ("reachable", reachable))
        if found
    )


def _elements(values: Iterable[str]) -> str:
    joined = ", ".join(values)
    return f"elements = {{ {joined} }}" if joined else ""
