from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from pyboxd.network import rules
from pyboxd.network.model import Pool

BRIDGE = rules.BridgeRules("docker0", Pool(IPv4Network("172.17.0.0/16"), IPv4Address("172.17.0.1")))
INNER = rules.BridgeRules("br-1", Pool(IPv4Network("172.18.0.0/16"), IPv4Address("172.18.0.1")), internal=True)
ADDRESS = IPv4Address("172.17.0.2")
WEB = rules.PortRules("tcp", 20000, ADDRESS, 80, 8080, reachable=True)
NAMES = rules.PortRules("udp", 20001, ADDRESS, 53, 5353, reachable=False)


def test_the_table_is_replaced_as_a_whole() -> None:
    text = rules.table([IPv4Address("10.0.2.15")], [22, 2376])
    assert text.startswith("add table inet pybox\ndelete table inet pybox\ntable inet pybox {\n")
    assert "set local { type ipv4_addr; elements = { 10.0.2.15 } }" in text
    assert "set guarded { type inet_service; elements = { 22, 2376 } }" in text
    assert text.count("{") == text.count("}")


def test_a_network_adds_elements_and_no_rule() -> None:
    assert rules.add_bridge(BRIDGE).splitlines() == [
        'add element inet pybox bridges { "docker0" }',
        'add element inet pybox within { "docker0" . "docker0" }',
        "add element inet pybox local { 172.17.0.1 }",
        "add element inet pybox subnets { 172.17.0.0/16 }",
    ]
    assert rules.delete_bridge(BRIDGE) == rules.add_bridge(BRIDGE).replace("add ", "delete ")


def test_an_internal_network_is_never_masqueraded() -> None:
    text = rules.add_bridge(INNER)
    assert 'internal { "br-1" }' in text and "subnets" not in text


def test_a_network_with_ipv6_adds_its_subnet() -> None:
    pool = Pool(IPv6Network("fd00:6::/64"), IPv6Address("fd00:6::1"))
    both = rules.BridgeRules(BRIDGE.interface, BRIDGE.ipv4, ipv6=pool)
    added = "add element inet pybox subnets6 { fd00:6::/64 }\n"
    assert rules.add_bridge(both) == rules.add_bridge(BRIDGE) + added
    inner = rules.BridgeRules(INNER.interface, INNER.ipv4, internal=True, ipv6=pool)
    assert rules.add_bridge(inner) == rules.add_bridge(INNER)


def test_ports_are_elements_of_two_maps() -> None:
    assert rules.add_ports([WEB, NAMES]).splitlines() == [
        "add element inet pybox published { tcp . 20000 : 172.17.0.2 . 80, udp . 20001 : 172.17.0.2 . 53 }",
        "add element inet pybox reachable { tcp . 8080 : 172.17.0.2 . 80 }",
    ]
    assert rules.delete_ports([WEB, NAMES]).splitlines() == [
        "delete element inet pybox published { tcp . 20000, udp . 20001 }",
        "delete element inet pybox reachable { tcp . 8080 }",
    ]


def test_no_element_is_no_command() -> None:
    assert rules.add_ports([]) == rules.delete_ports([]) == ""
    assert "reachable" not in rules.add_ports([NAMES])
