"""Packets through the kernel: what containers, the guest and the host reach of each other, and what they do not."""

from __future__ import annotations

import errno
import socket
from contextlib import closing
from pathlib import Path

import pytest

from pyboxd.linux import netlink
from pyboxd.model import PortRequest
from pyboxd.network.model import NetworkRequest
from tests.support.network_lab import (
    GUEST,
    HOST,
    Lab,
    call,
    datagram_socket,
    in_lab,
    inside,
    listen,
    pings,
    reaches,
    talk,
    udp_packet,
)

A, B, C = "a" * 64, "b" * 64, "c" * 64


def test_containers_of_one_network_reach_each_other(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        first = await lab.networks.attach(A, "bridge")
        second = await lab.networks.attach(B, "bridge")
        assert (first.address, second.address) == ("172.17.0.2", "172.17.0.3")
        assert pings(first.netns_path, second.address)
        assert pings(first.netns_path, "172.17.0.1")
        with listen(second.netns_path, 80) as server:
            assert talk(first.netns_path, second.address, 80, server) == first.address

    in_lab(scenario, str(tmp_path))


def test_the_host_reaches_a_published_port_and_no_other(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        (port,) = got.published
        assert lab.host.forwards == {("tcp", "127.0.0.1", 8080): port.guest_port}
        with listen(got.netns_path, 80) as server:
            assert talk(lab.host_namespace, GUEST, port.guest_port, server) == HOST
            assert not reaches(lab.host_namespace, GUEST, 80)
            assert not reaches(lab.host_namespace, GUEST, 8080)
            await lab.networks.detach(A)
            assert not reaches(lab.host_namespace, GUEST, port.guest_port)
        assert lab.host.forwards == {}

    in_lab(scenario, str(tmp_path))


def test_a_way_through_the_guest_leads_to_no_container(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])

        def by_the_guest() -> None:
            with netlink.RouteSocket() as route:
                route.execute(netlink.default_route(GUEST, route.link("card").index))

        inside(lab.host_namespace, by_the_guest)
        with listen(got.netns_path, 80):
            assert not reaches(lab.host_namespace, got.address, 80)
        assert not pings(lab.host_namespace, got.address)

    in_lab(scenario, str(tmp_path))


def test_a_published_udp_port_answers_from_where_it_was_asked(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge", [PortRequest(53, "udp", "", 5353)])
        (port,) = got.published
        server = datagram_socket(got.netns_path, 53)
        client = datagram_socket(lab.host_namespace)
        with closing(server), closing(client):
            client.sendto(b"question", (GUEST, port.guest_port))
            data, sender = server.recvfrom(64)
            assert (data, sender[0]) == (b"question", HOST)
            server.sendto(b"answer", sender)
            assert client.recvfrom(64) == (b"answer", (GUEST, port.guest_port))

    in_lab(scenario, str(tmp_path))


def test_what_leaves_by_the_card_has_the_cards_address(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge")
        with listen(lab.host_namespace, 443) as server:
            assert talk(got.netns_path, HOST, 443, server) == GUEST

    in_lab(scenario, str(tmp_path))


def test_a_published_port_is_reached_from_inside_by_the_guests_addresses(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        server_side = await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        neighbour = await lab.networks.attach(B, "bridge")
        lab.networks.create(NetworkRequest("other"))
        stranger = await lab.networks.attach(C, "other")
        with listen(server_side.netns_path, 80) as server:
            for address in ("172.17.0.1", "172.18.0.1", GUEST):
                # On its own bridge the answer must come back by the guest, so the gateway is what is seen.
                assert talk(neighbour.netns_path, address, 8080, server) == "172.17.0.1"
                assert talk(server_side.netns_path, address, 8080, server) == "172.17.0.1"
                assert talk(stranger.netns_path, address, 8080, server) == "172.17.0.1"
                assert talk("", address, 8080, server)
            assert talk("", "127.0.0.1", 8080, server) == "172.17.0.1"
            # The ports that only the host forwards to are nobody else's.
            assert not reaches(neighbour.netns_path, GUEST, server_side.published[0].guest_port)

    in_lab(scenario, str(tmp_path))


def test_a_port_of_the_hosts_loopback_is_not_reached_from_inside(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "127.0.0.1", 8080)])
        other = await lab.networks.attach(B, "bridge")
        with listen(got.netns_path, 80) as server:
            assert not reaches(other.netns_path, "172.17.0.1", 8080)
            assert talk(lab.host_namespace, GUEST, got.published[0].guest_port, server) == HOST

    in_lab(scenario, str(tmp_path))


def test_no_container_reaches_the_machines_ssh(tmp_path: Path) -> None:
    """CVE-2025-9074 and its like."""

    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("other"))
        lab.networks.create(NetworkRequest("inner", internal=True))
        places = [
            await lab.networks.attach(A, "bridge"),
            await lab.networks.attach(B, "other"),
            await lab.networks.attach(C, "inner"),
        ]
        with listen("", 22), listen("", 5000):
            for place in places:
                for address in ("172.17.0.1", "172.18.0.1", "172.19.0.1", GUEST):
                    assert not reaches(place.netns_path, address, 22)
            assert reaches(places[0].netns_path, "172.17.0.1", 5000)  # what a container in the guest's network serves
            assert reaches(lab.host_namespace, GUEST, 22)
            assert reaches("", "127.0.0.1", 22)

    in_lab(scenario, str(tmp_path))


def test_no_container_reaches_the_guests_loopback(tmp_path: Path) -> None:
    """CVE-2020-8558: the bridge routes 127.0.0.0/8 for the guest's own processes."""

    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge")

        def send_frame() -> None:
            """What a container may do by default (CAP_NET_RAW): any packet to the gateway's hardware address."""
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
                raw.bind(("eth0", 0))
                gateway, own = bytes.fromhex("0242ac110001"), bytes.fromhex(got.mac.replace(":", ""))
                raw.send(gateway + own + b"\x08\x00" + udp_packet(got.address, "127.0.0.1", 5000, b"intruder"))

        with (
            closing(datagram_socket("", 5000, "127.0.0.1")) as server,
            closing(datagram_socket("")) as friend,
        ):
            inside(got.netns_path, send_frame)
            friend.sendto(b"friend", ("127.0.0.1", 5000))
            assert server.recv(64) == b"friend"
            with pytest.raises(TimeoutError):
                server.recv(64)

    in_lab(scenario, str(tmp_path))


def test_there_is_no_ipv6_way_around(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge")

        def interfaces_with_ipv6() -> set[str]:
            if not Path("/proc/net/if_inet6").exists():
                return set()
            lines = Path("/proc/thread-self/net/if_inet6").read_text(encoding="ascii").splitlines()
            return {line.split()[-1] for line in lines}

        assert interfaces_with_ipv6() <= {"lo", "eth0"}
        assert inside(got.netns_path, interfaces_with_ipv6) <= {"lo"}

    in_lab(scenario, str(tmp_path))


def test_networks_are_apart(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("other"))
        first = await lab.networks.attach(A, "bridge")
        second = await lab.networks.attach(B, "other")
        with listen(second.netns_path, 80):
            with pytest.raises(OSError) as refused:
                call(first.netns_path, second.address, 80)
            assert refused.value.errno == errno.EHOSTUNREACH  # told at once, not after a time of silence
            assert not pings(first.netns_path, second.address)
        assert pings(first.netns_path, HOST) and pings(second.netns_path, HOST)

    in_lab(scenario, str(tmp_path))


def test_an_internal_network_has_no_way_out_and_none_in(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("inner", internal=True))
        first = await lab.networks.attach(A, "inner", [PortRequest(80, "tcp", "", 8080)])
        second = await lab.networks.attach(B, "inner")
        outer = await lab.networks.attach(C, "bridge", [PortRequest(80, "tcp", "", 8081)])
        assert first.published == () and first.gateway == ""
        assert pings(first.netns_path, second.address)

        def force_a_way_out() -> None:
            with netlink.RouteSocket() as route:
                route.execute(netlink.default_route("172.18.0.1", route.link("eth0").index))

        inside(first.netns_path, force_a_way_out)
        assert not pings(first.netns_path, HOST)
        assert not pings(outer.netns_path, first.address)
        with listen(outer.netns_path, 80):
            assert not reaches(first.netns_path, "172.18.0.1", 8081)

    in_lab(scenario, str(tmp_path))


def test_an_open_connection_survives_a_new_engine(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        guest_port = got.published[0].guest_port
        with (
            listen(got.netns_path, 80) as server,
            closing(call(lab.host_namespace, GUEST, guest_port)) as client,
        ):
            engine = await lab.new_engine_under(server, client)
            assert talk(lab.host_namespace, GUEST, guest_port, server) == HOST
            assert engine.attachments(A) == (got,)
            await engine.detach(A)
            assert not reaches(lab.host_namespace, GUEST, guest_port)
            await engine.close()

    in_lab(scenario, str(tmp_path))


def test_a_container_may_use_low_ports_and_ping_without_capabilities(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "none")

        def settings() -> list[list[str]]:
            names = ("ping_group_range", "ip_unprivileged_port_start")
            return [Path(f"/proc/sys/net/ipv4/{name}").read_text(encoding="ascii").split() for name in names]

        assert inside(got.netns_path, settings) == [["0", "2147483647"], ["0"]]
        assert pings(got.netns_path, "127.0.0.1")
        assert inside(got.netns_path, lambda: [name for _, name in socket.if_nameindex()]) == ["lo"]

    in_lab(scenario, str(tmp_path))
