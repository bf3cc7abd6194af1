"""Networks with IPv6: what containers reach of each other by it, and what they do not; addresses and routes."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import closing
from pathlib import Path

import pytest

from pyboxd.errors import Forbidden, InvalidArgument
from pyboxd.linux import netlink
from pyboxd.model import PortRequest
from pyboxd.network.model import Attachment, NetworkRequest, PoolRequest, Wishes
from pyboxd.network.namespaces import enable_ipv6
from tests.support.network_lab import GUEST, HOST, Lab, call, called, in_lab, inside, listen, pings, reaches, talk

A, B, C = "a" * 64, "b" * 64, "c" * 64
GUEST6, HOST6 = "fd00:10::15", "fd00:10::2"
SIX = NetworkRequest("six", ipv6=PoolRequest("fd00:6::/64"))
SEVEN = NetworkRequest("seven", ipv6=PoolRequest("fd00:7::/64"))
INNER = NetworkRequest("inner", ipv6=PoolRequest("fd00:8::/64"), internal=True)


def addresses() -> set[tuple[str, str]]:
    """(interface, address) of all IPv6 addresses of the namespace that are no link-local ones."""
    lines = Path("/proc/thread-self/net/if_inet6").read_text(encoding="ascii").splitlines()
    found = [(line.split()[-1], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0]))) for line in lines]
    return {(name, address) for name, address in found if not address.startswith("fe80:") and name != "lo"}


def routes() -> set[tuple[str, str]]:
    """(interface, gateway) of the default routes of IPv6."""
    lines = Path("/proc/thread-self/net/ipv6_route").read_text(encoding="ascii").splitlines()
    parts = [line.split() for line in lines]
    return {
        (part[-1], socket.inet_ntop(socket.AF_INET6, bytes.fromhex(part[4])))
        for part in parts
        if part[1] == "00" and part[-1] != "lo"
    }


def give_the_card_ipv6(lab: Lab) -> None:
    """An IPv6 network between guest and host, as a machine's card may have one day."""

    def give(interface: str, address: str) -> None:
        enable_ipv6(interface)
        with netlink.RouteSocket() as route:
            route.execute(netlink.add_address(route.link(interface).index, address, 64))

    give("eth0", GUEST6)
    inside(lab.host_namespace, lambda: give("card", HOST6))


def test_containers_of_one_network_reach_each_other_at_once(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(SIX)
        first = await lab.networks.attach(A, "six")
        second = await lab.networks.attach(B, "six")
        assert (first.address6, first.prefix6, first.gateway6) == ("fd00:6::2", 64, "fd00:6::1")
        assert second.address6 == "fd00:6::3" and second.address == "172.18.0.3"
        assert pings(first.netns_path, second.address6) and pings(second.netns_path, "fd00:6::1")
        with listen(second.netns_path, 80, "::") as server:
            assert talk(first.netns_path, second.address6, 80, server) == first.address6
            assert talk("", second.address6, 80, server) == "fd00:6::1"
        assert pings(first.netns_path, second.address) and pings(first.netns_path, HOST)

    in_lab(scenario, str(tmp_path))


def test_networks_without_it_have_none(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(SIX)
        lab.networks.create(NetworkRequest("four"))
        first = await lab.networks.attach(A, "four")
        await lab.networks.connect(A, "six")
        assert first.address6 == first.gateway6 == ""
        assert inside(first.netns_path, addresses) == {("eth1", "fd00:6::2")}
        lines = Path("/proc/thread-self/net/if_inet6").read_text(encoding="ascii").splitlines()
        four, six = lab.networks.get("four"), lab.networks.get("six")
        assert {line.split()[-1] for line in lines} - {"lo", "eth0"} == {six.bridge} != {four.bridge}

    in_lab(scenario, str(tmp_path))


def test_a_subnet_of_the_engines_own(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        first = lab.networks.create(NetworkRequest("first", ipv6=PoolRequest()))
        second = lab.networks.create(NetworkRequest("second", ipv6=PoolRequest()))
        assert first.ipv6 is not None and second.ipv6 is not None
        assert first.ipv6.subnet.supernet(new_prefix=48) == second.ipv6.subnet.supernet(new_prefix=48)
        assert first.ipv6.subnet != second.ipv6.subnet and str(first.ipv6.subnet).startswith("fd")
        places = [await lab.networks.attach(A, "first"), await lab.networks.attach(B, "second")]
        assert all(pings(place.netns_path, place.gateway6) for place in places)

    in_lab(scenario, str(tmp_path))


def test_networks_are_apart(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        for request in (SIX, SEVEN):
            lab.networks.create(request)
        first = await lab.networks.attach(A, "six")
        second = await lab.networks.attach(B, "seven")
        with listen(second.netns_path, 80, "::") as server:
            # Told, not left in silence. The refusal of a connection's first packet comes while the kernel still sends
            # that packet, and then only the second one's is heard, a second later.
            with pytest.raises(PermissionError):
                inside(first.netns_path, lambda: socket.create_connection((second.address6, 80), timeout=30))
            assert not pings(first.netns_path, second.address6)
            await lab.networks.connect(A, "seven")
            assert talk(first.netns_path, second.address6, 80, server) == "fd00:7::3"

    in_lab(scenario, str(tmp_path))


def test_what_leaves_has_the_guests_address(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        give_the_card_ipv6(lab)
        lab.networks.create(SIX)
        got = await lab.networks.attach(A, "six")
        with listen(lab.host_namespace, 80, "::") as server:
            assert talk(got.netns_path, HOST6, 80, server) == GUEST6
        assert pings(got.netns_path, HOST)

    in_lab(scenario, str(tmp_path))


def test_an_internal_network_has_no_way_out_and_none_in(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        give_the_card_ipv6(lab)
        for request in (INNER, SIX):
            lab.networks.create(request)
        first = await lab.networks.attach(A, "inner")
        second = await lab.networks.attach(B, "inner")
        outer = await lab.networks.attach(C, "six")
        assert first.gateway6 == "" and inside(first.netns_path, routes) == set()
        assert pings(first.netns_path, second.address6)

        def force_a_way_out() -> None:
            with netlink.RouteSocket() as route:
                route.execute(netlink.default_route("fd00:8::1", route.link("eth0").index))

        inside(first.netns_path, force_a_way_out)
        assert not pings(first.netns_path, HOST6) and not pings(first.netns_path, outer.address6)
        assert not pings(outer.netns_path, first.address6)
        assert pings(outer.netns_path, HOST6)

    in_lab(scenario, str(tmp_path))


def test_no_container_reaches_the_machines_ssh(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        give_the_card_ipv6(lab)
        for request in (SIX, SEVEN, INNER):
            lab.networks.create(request)
        places = [await lab.networks.attach(name, network) for name, network in ((A, "six"), (B, "seven"), (C, "inner"))]
        with listen("", 22, "::"):
            for place in places:
                for address in ("fd00:6::1", "fd00:7::1", "fd00:8::1", GUEST6):
                    assert not reaches(place.netns_path, address, 22)
            assert reaches(lab.host_namespace, GUEST6, 22)

    in_lab(scenario, str(tmp_path))


def test_what_is_asked_for_is_given_or_refused(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(SIX)
        attach = lab.networks.attach
        got = await attach(A, "six", wishes=Wishes(address6="fd00:6::f00d"))
        assert got.address6 == "fd00:6::f00d"
        with listen(got.netns_path, 80, "::") as server:
            assert talk("", got.address6, 80, server) == "fd00:6::1"
        for error, words, network, address in (
            (Forbidden, "Address already in use", "six", "fd00:6::f00d"),
            (Forbidden, "Address already in use", "six", "fd00:6::1"),
            (InvalidArgument, "no configured subnet contains IP address fd00:7::2", "six", "fd00:7::2"),
            (InvalidArgument, "invalid IPv6 address: 172.18.0.9", "six", "172.18.0.9"),
            (InvalidArgument, "only when connecting to networks with user configured subnets", "bridge", "fd00:6::9"),
        ):
            with pytest.raises(error, match=words):
                await attach(B, network, wishes=Wishes(address6=address))
        assert lab.networks.attachments(B) == ()

    in_lab(scenario, str(tmp_path))


def test_an_address_that_changes_hands_is_reached_at_once(tmp_path: Path) -> None:
    """Neighbours remember the hardware address of whoever had it before."""

    async def scenario(lab: Lab) -> None:
        lab.networks.create(SIX)
        asking = await lab.networks.attach(A, "six")

        def check(place: Attachment) -> None:
            assert pings(asking.netns_path, "fd00:6::f00d")
            with listen(place.netns_path, 80, "::") as server:
                assert talk("", "fd00:6::f00d", 80, server) == "fd00:6::1"

        before = await lab.networks.attach(B, "six", wishes=Wishes(address6="fd00:6::f00d"))
        check(before)
        await lab.networks.disconnect(B, "six")
        after = await lab.networks.attach(C, "six", wishes=Wishes(address6="fd00:6::f00d", address="172.18.0.99"))
        assert before.mac != after.mac
        check(after)

    in_lab(scenario, str(tmp_path))


def test_the_default_routes_of_both_families_go_their_own_ways(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        give_the_card_ipv6(lab)
        networks = lab.networks
        for request in (SIX, SEVEN, INNER):
            networks.create(request)
        first = await networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        path = first.netns_path
        assert inside(path, routes) == set()
        await networks.connect(A, "inner")
        await networks.connect(A, "seven")
        await networks.connect(A, "six")
        assert inside(path, routes) == {("eth2", "fd00:7::1")} and pings(path, HOST6) and pings(path, HOST)
        await networks.disconnect(A, "seven")
        assert inside(path, routes) == {("eth3", "fd00:6::1")} and pings(path, HOST6) and pings(path, HOST)
        await networks.disconnect(A, "six")
        assert inside(path, routes) == set() and not pings(path, HOST6) and pings(path, HOST)
        again = await networks.connect(A, "six", Wishes(address6="fd00:6::f00d"))
        assert again.address6 == "fd00:6::f00d" and pings(path, HOST6)
        await networks.disconnect(A, "bridge")
        (_, now) = networks.attachments(A)
        assert inside(path, routes) == {("eth2", "fd00:6::1")} and pings(path, HOST) and now.published == first.published
        with listen(path, 80) as server:
            assert talk(lab.host_namespace, GUEST, first.published[0].guest_port, server) == HOST

    in_lab(scenario, str(tmp_path))


def test_nobody_but_the_engine_gives_addresses_and_routes(tmp_path: Path) -> None:
    """CVE-2020-13401: a container that plays the router."""

    async def scenario(lab: Lab) -> None:
        lab.networks.create(SIX)
        first = await lab.networks.attach(A, "six")
        second = await lab.networks.attach(B, "six")

        def advertise() -> None:
            with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
                raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
                router = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
                prefix = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0)
                prefix += socket.inet_pton(socket.AF_INET6, "fd00:bad::")
                raw.sendto(router + prefix, ("ff02::1", 0, 0, socket.if_nametoindex("eth0")))

        inside(first.netns_path, advertise)
        # What was sent afterwards has come: so has the advertisement.
        assert pings(first.netns_path, second.address6) and pings(first.netns_path, first.gateway6)
        assert inside(second.netns_path, addresses) == {("eth0", second.address6)}
        assert inside(second.netns_path, routes) == {("eth0", "fd00:6::1")}
        assert addresses() == {(lab.networks.get("six").bridge, "fd00:6::1")} and routes() == set()

    in_lab(scenario, str(tmp_path))


def test_an_engine_that_comes_back_takes_over(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(SIX)
        lab.networks.create(INNER)
        first = await lab.networks.attach(A, "six", wishes=called("web"))
        await lab.networks.attach(B, "inner")
        with listen(first.netns_path, 80, "::") as server, closing(call("", first.address6, 80)) as client:
            engine = await lab.new_engine_under(server, client)
        assert engine.attachments(A) == (first,)
        second = await engine.attach(C, "six")
        assert second.address6 == "fd00:6::3" and pings(second.netns_path, first.address6)
        await engine.detach(C)
        await engine.detach(A)
        await engine.remove("six")
        await engine.close()

    in_lab(scenario, str(tmp_path))


def test_a_machine_that_starts_again_knows_its_addresses(tmp_path: Path) -> None:
    subnets: list[object] = []

    async def before(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own", ipv6=PoolRequest()))
        subnets.append(lab.networks.get("own").ipv6)
        got = await lab.networks.attach(A, "own")
        assert pings(got.netns_path, got.gateway6)

    async def after(lab: Lab) -> None:
        more = lab.networks.create(NetworkRequest("more", ipv6=PoolRequest()))
        assert lab.networks.get("own").ipv6 == subnets[0] != more.ipv6
        got = await lab.networks.attach(A, "own")
        assert got.address6.endswith("::2") and pings(got.netns_path, got.gateway6)

    in_lab(before, str(tmp_path))
    os.unlink(tmp_path / "state.db")
    in_lab(after, str(tmp_path))
