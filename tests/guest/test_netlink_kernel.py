"""rtnetlink and nftables against the kernel, and the words of their errors."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from pyboxd.linux import netlink
from pyboxd.linux.nftables import Nftables
from pyboxd.network.namespaces import Namespaces, enable_ipv6
from tests.support.network_lab import Lab, in_lab, inside


def test_links_are_made_changed_listed_and_deleted(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with netlink.RouteSocket() as route:
            route.execute(netlink.new_bridge("b0", mac="02:00:00:00:00:0a", mtu=1400))
            bridge = route.link("b0")
            assert (bridge.kind, bridge.address, bridge.mtu, bridge.up, bridge.master) == (
                "bridge",
                "02:00:00:00:00:0a",
                1400,
                True,
                0,
            )
            places = Namespaces(str(tmp_path / "more"), spare=0)
            place = await places.take_bare()
            descriptor = os.open(place.path, os.O_RDONLY)
            route.execute(
                netlink.new_veth("v0", mtu=1400, peer="inner", peer_namespace=descriptor, master=bridge.index),
                netlink.set_mtu("v0", 1300),
            )
            outer = route.link("v0")
            assert (outer.kind, outer.mtu, outer.up, outer.master) == ("veth", 1300, True, bridge.index)
            inner = place.route.link("inner")
            assert (inner.kind, inner.mtu, inner.up) == ("veth", 1400, False)
            place.route.execute(netlink.set_up("inner", mac="02:00:00:00:00:0b"))
            assert place.route.link("inner").address == "02:00:00:00:00:0b" and place.route.link("inner").up
            route.execute(netlink.set_master("v0", 0), netlink.move("v0", descriptor))
            os.close(descriptor)
            moved = place.route.link("v0")
            assert (moved.master, moved.up) == (0, False)
            place.route.execute(netlink.rename(moved.index, "v1"))
            assert {link.name for link in place.route.links()} == {"lo", "v1", "inner"}
            route.execute(netlink.delete_link("b0"))
            assert "b0" not in {link.name for link in route.links()}
            place.route.close()
            places.remove(place.name)

    in_lab(scenario, str(tmp_path))


def test_addresses_and_routes(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with netlink.RouteSocket() as route:
            route.execute(netlink.new_bridge("b0", mac="02:00:00:00:00:0a", mtu=1500))
            index = route.link("b0").index
            route.execute(netlink.add_address(index, "192.168.7.1", 24), netlink.add_address(index, "192.168.8.1", 20))
            added = [(found.address, found.prefix) for found in route.addresses() if found.index == index]
            assert added == [("192.168.7.1", 24), ("192.168.8.1", 20)]
            enable_ipv6("b0")
            route.execute(netlink.add_address(index, "fd00:6::1", 64), netlink.default_route("fd00:6::9", index))
            six = [found.address for found in route.addresses(socket.AF_INET6) if found.index == index]
            assert "fd00:6::1" in six
            route.execute(netlink.default_route("192.168.7.9", index), netlink.default_route("192.168.7.8", index))
            text = Path("/proc/thread-self/net/route").read_text(encoding="ascii")
            assert [line.split()[2] for line in text.splitlines() if line.split()[1] == "00000000"] == ["0807A8C0"]

    in_lab(scenario, str(tmp_path))


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (netlink.delete_link("absent"), errno.ENODEV, "cannot delete the link absent: No such device"),
        (netlink.get_link("absent"), errno.ENODEV, "cannot find the link absent: No such device"),
        (
            netlink.new_bridge("lo", mac="02:00:00:00:00:01", mtu=1500),
            errno.EEXIST,
            "cannot create the bridge lo: File exists",
        ),
        (
            netlink.default_route("192.0.2.1", 1),
            errno.ENETUNREACH,
            "cannot set the default route by 192.0.2.1: Network is unreachable",
        ),
        (netlink.set_mtu("lo", 1 << 31), errno.EINVAL, "cannot set the mtu of the link lo to 2147483648: Invalid argument"),
    ],
)
def test_an_error_names_the_operation_and_the_object(
    tmp_path: Path, request_: netlink.Request, code: int, words: str
) -> None:
    async def scenario(lab: Lab) -> None:
        with netlink.RouteSocket() as route, pytest.raises(OSError) as raised:
            route.execute(request_)
        assert raised.value.errno == code
        assert str(raised.value.strerror).startswith(words)

    in_lab(scenario, str(tmp_path))


def test_a_socket_goes_on_after_an_error(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with netlink.RouteSocket() as route:
            for _ in range(3):
                with pytest.raises(OSError):
                    route.link("absent")
                assert "lo" in {link.name for link in route.links()}

    in_lab(scenario, str(tmp_path))


def test_hundreds_of_links_are_listed(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with netlink.RouteSocket() as route:
            for number in range(200):
                route.execute(netlink.new_bridge(f"b{number}", mac="02:00:00:00:00:0a", mtu=1500))
            assert len([link for link in route.links() if link.name.startswith("b")]) == 200

    in_lab(scenario, str(tmp_path))


def test_commands_are_one_transaction(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        with Nftables() as nft:
            nft.run("add table inet one")
            with pytest.raises(FileNotFoundError, match=r"cannot change the packet rules: .*No such file"):
                nft.run("add table inet two\ndelete table inet absent")
            assert "one" in nft.run("list tables inet") and "two" not in nft.run("list tables inet")
            with pytest.raises(OSError, match="syntax error"):
                nft.run("nonsense")

        def tables() -> str:
            with Nftables() as other:
                return other.run("list tables inet")

        assert inside(lab.host_namespace, tables) == ""

    in_lab(scenario, str(tmp_path))
