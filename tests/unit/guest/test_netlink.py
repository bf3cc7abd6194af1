"""The bytes of rtnetlink messages, written out by hand from the kernel's headers for a little-endian machine."""

from __future__ import annotations

import struct
import sys

import pytest

from pyboxd.linux import netlink

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the expected bytes are little-endian")


def encoded(request: netlink.Request) -> str:
    return netlink.encode(request, 1).hex()


def test_an_attribute_is_padded_to_four_bytes() -> None:
    assert netlink.attribute(3, b"lo\0") == b"\x07\0\x03\0lo\0" + b"\0"
    assert netlink.text(3, "eth") == b"\x08\0\x03\0eth\0"
    assert netlink.nested(18, netlink.u32(4, 1500)) == bytes.fromhex("0c00128008000400dc050000")


def test_set_up() -> None:
    assert encoded(netlink.set_up("lo")) == (
        "28000000" "1000" "0500" "01000000" "00000000"  # 40 bytes, RTM_NEWLINK, REQUEST|ACK, sequence 1
        "00000000" "00000000" "01000000" "01000000"  # AF_UNSPEC, no index, IFF_UP, of which only that changes
        "07000300" "6c6f0000"  # IFLA_IFNAME "lo"
    )  # fmt: skip


def test_new_bridge() -> None:
    assert encoded(netlink.new_bridge("b0", mac="02:42:ac:11:00:01", mtu=1500)) == (
        "4c000000" "1000" "0506" "01000000" "00000000"  # … CREATE|EXCL
        "00000000" "00000000" "01000000" "01000000"
        "07000300" "62300000"
        "0a000100" "0242ac110001" "0000"  # IFLA_ADDRESS
        "08000400" "dc050000"  # IFLA_MTU
        "10001280" "0b000100" "627269646765" "0000"  # IFLA_LINKINFO { IFLA_INFO_KIND "bridge" }
    )  # fmt: skip


def test_new_veth_puts_its_peer_into_a_namespace() -> None:
    assert encoded(netlink.new_veth("v0", mtu=1500, peer="eth0", peer_namespace=7, master=3)) == (
        "7c000000" "1000" "0506" "01000000" "00000000"
        "00000000" "00000000" "01000000" "01000000"
        "07000300" "76300000"
        "08000400" "dc050000"
        "08000a00" "03000000"  # IFLA_MASTER
        "44001280"  # IFLA_LINKINFO
        "09000100" "7665746800000000"  # IFLA_INFO_KIND "veth"
        "34000280" "30000180"  # IFLA_INFO_DATA { VETH_INFO_PEER {
        "00000000" "00000000" "00000000" "00000000"
        "09000300" "6574683000000000"
        "08000400" "dc050000"
        "08001c00" "07000000"  # IFLA_NET_NS_FD
    )  # fmt: skip


def test_add_address_with_its_broadcast_address() -> None:
    assert encoded(netlink.add_address(5, "172.17.0.2", 16)) == (
        "30000000" "1400" "0506" "01000000" "00000000"  # RTM_NEWADDR
        "02100000" "05000000"  # AF_INET, /16, index 5
        "08000200" "ac110002" "08000100" "ac110002" "08000400" "ac11ffff"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("prefix", "broadcast"), [(8, "10.255.255.255"), (24, "10.1.2.255"), (30, "10.1.2.7"), (32, "10.1.2.4")]
)
def test_broadcast_addresses(prefix: int, broadcast: str) -> None:
    payload = netlink.add_address(1, "10.1.2.4", prefix).payload
    assert payload[-4:] == bytes(int(part) for part in broadcast.split("."))


def test_add_address_of_ipv6() -> None:
    assert encoded(netlink.add_address(5, "fd00:6::2", 64)) == (
        "40000000" "1400" "0506" "01000000" "00000000"
        "0a400000" "05000000"  # AF_INET6, /64, index 5
        "14000200" "fd000006000000000000000000000002" "14000100" "fd000006000000000000000000000002"
    )  # fmt: skip


def test_default_route_of_ipv6() -> None:
    assert encoded(netlink.default_route("fd00:6::1", 5)) == (
        "38000000" "1800" "0505" "01000000" "00000000"
        "0a000000" "fe030001" "00000000"
        "14000500" "fd000006000000000000000000000001" "08000400" "05000000"
    )  # fmt: skip


def test_default_route() -> None:
    assert encoded(netlink.default_route("172.17.0.1", 5)) == (
        "2c000000" "1800" "0505" "01000000" "00000000"  # RTM_NEWROUTE, CREATE|REPLACE
        "02000000" "fe030001" "00000000"  # AF_INET, to everywhere; main table, boot, universe, unicast
        "08000500" "ac110001" "08000400" "05000000"  # RTA_GATEWAY, RTA_OIF
    )  # fmt: skip


def test_a_link_is_read() -> None:
    payload = (
        struct.pack("=BxHiII", 0, 1, 4, 0x11043, 0)
        + netlink.text(netlink.IFLA_IFNAME, "veth1a")
        + netlink.u32(netlink.IFLA_MTU, 1400)
        + netlink.u32(netlink.IFLA_MASTER, 3)
        + netlink.attribute(netlink.IFLA_ADDRESS, bytes.fromhex("0242ac110002"))
        + netlink.nested(netlink.IFLA_LINKINFO, netlink.text(netlink.IFLA_INFO_KIND, "veth"))
        + netlink.attribute(netlink.IFLA_OPERSTATE, b"\x06")
        + netlink.attribute(999, b"from a newer kernel")
    )
    assert netlink.decode_link(payload) == netlink.Link(4, "veth1a", "veth", "02:42:ac:11:00:02", 1400, True, 3, True)


def test_an_address_is_read() -> None:
    payload = bytes.fromhex("021080000500000008000100ac11000208000200ac110002080004 00ac11ffff".replace(" ", ""))
    assert netlink.decode_address(payload) == netlink.InterfaceAddress(5, "172.17.0.2", 16)
    six = bytes.fromhex("0a40c0000500000014000100fd000006000000000000000000000002")
    assert netlink.decode_address(six) == netlink.InterfaceAddress(5, "fd00:6::2", 64, tentative=True)


def test_messages_are_split_and_padded() -> None:
    first = struct.pack("=IHHII", 17, 16, 2, 7, 0) + b"x" + b"\0\0\0"
    second = struct.pack("=IHHII", 20, 3, 2, 7, 0) + b"done"
    assert list(netlink.split(first + second)) == [
        netlink.Message(16, 2, 7, b"x"),
        netlink.Message(3, 2, 7, b"done"),
    ]


@pytest.mark.parametrize("length", [0, 15, 21])
def test_a_length_that_makes_no_sense_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="netlink message"):
        list(netlink.split(struct.pack("=IHHII", length, 16, 0, 1, 0) + b"data"))


@pytest.mark.parametrize("length", [0, 3, 9])
def test_an_attribute_length_that_makes_no_sense_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="netlink attribute"):
        netlink.attributes(struct.pack("=HH", length, 1) + b"data")


def test_half_a_header_is_refused() -> None:
    with pytest.raises(ValueError, match="without a whole header"):
        list(netlink.split(b"\x10\0\0"))


def test_errors_carry_the_kernels_explanation() -> None:
    request = netlink.encode(netlink.set_up("lo"), 1)
    explanation = netlink.text(netlink.NLMSGERR_ATTR_MSG, "no such thing")
    whole = struct.pack("=i", -22) + request + explanation
    capped = struct.pack("=i", -22) + request[:16] + explanation
    plain = struct.pack("=i", -19) + request
    flags = netlink.NLM_F_ACK_TLVS
    assert netlink.failure(netlink.Message(2, flags, 1, whole)) == (22, "no such thing")
    assert netlink.failure(netlink.Message(2, flags | netlink.NLM_F_CAPPED, 1, capped)) == (22, "no such thing")
    assert netlink.failure(netlink.Message(2, 0, 1, plain)) == (19, "")
    assert netlink.failure(netlink.Message(2, netlink.NLM_F_CAPPED, 1, struct.pack("=i", 0) + request[:16])) == (0, "")
