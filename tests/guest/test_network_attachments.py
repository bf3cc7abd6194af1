"""What `Networks` makes, undoes, takes over and forgets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable
from pathlib import Path

import pytest

from pyboxd.errors import Conflict, Forbidden, InvalidArgument, NotFound, SystemFailure
from pyboxd.linux import mount, netlink
from pyboxd.linux.constants import MNT_DETACH
from pyboxd.linux.nftables import Nftables
from pyboxd.model import PortRequest
from pyboxd.network.model import NetworkRequest, PoolRequest, Wishes
from tests.support.network_lab import GUEST, HOST, Lab, called, in_lab, inside, listen, pings, reaches, talk

A, B, C = "a" * 64, "b" * 64, "c" * 64


def links() -> set[str]:
    """The bridges of this namespace and their ports; the ends of spare pairs are in no bridge."""
    with netlink.RouteSocket() as route:
        return {link.name for link in route.links() if link.master or link.kind == "bridge"}


def interfaces() -> set[str]:
    return {name for _, name in socket.if_nameindex()}


async def settled(lab: Lab, spare: int) -> None:
    """Wait until the kernel has no link of a container and no namespace but `spare` ones."""
    folder = lab.netns_folder
    for _ in range(200):
        if links() <= {"docker0"} and len(os.listdir(folder)) == spare:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"left over: {links()}, {os.listdir(folder)}")


async def refused(attempt: Awaitable[object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        await attempt


def test_a_refused_port_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.host.busy.add(8081)
        ports = [PortRequest(80, "tcp", "", 8080), PortRequest(81, "tcp", "", 8081)]
        await refused(lab.networks.attach(A, "bridge", ports), SystemFailure, "^Ports are not available: .*in use$")
        assert lab.host.forwards == {}
        assert lab.networks.attachments(A) == () and lab.networks.endpoints(lab.networks.get("bridge").id) == ()
        assert links() == {"docker0"}
        lab.host.busy.clear()
        got = await lab.networks.attach(A, "bridge", ports)
        assert [port.host_port for port in got.published] == [8080, 8081]
        await lab.networks.detach(A)
        await lab.networks.detach(A)
        await settled(lab, spare=2)

    in_lab(scenario, str(tmp_path))


def test_a_port_of_another_container_is_refused_in_dockers_words(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        again = lab.networks.attach(B, "bridge", [PortRequest(80, "tcp", "", 8080)], wishes=called("web"))
        words = (
            r"^driver failed programming external connectivity on endpoint web \([0-9a-f]{64}\): "
            r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated$"
        )
        await refused(again, SystemFailure, words)
        await lab.networks.attach(B, "bridge", [PortRequest(80, "udp", "", 8080)])

    in_lab(scenario, str(tmp_path))


def test_the_host_chooses_a_port_when_none_is_asked_for(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge", [PortRequest(80), PortRequest(80)])
        first, second = got.published
        assert first.host_ip == "0.0.0.0" and first.host_port and first.host_port != second.host_port
        assert first.guest_port != second.guest_port

    in_lab(scenario, str(tmp_path))


def test_what_is_asked_for_is_given_or_refused(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        attach = lab.networks.attach
        got = await attach(A, "bridge", wishes=Wishes(mac="02-42-C0-A8-00-05", address="172.17.5.5"))
        assert (got.address, got.mac, got.gateway, got.prefix) == ("172.17.5.5", "02:42:c0:a8:00:05", "172.17.0.1", 16)
        await refused(attach(A, "bridge"), Conflict, "is attached to a network already")
        await refused(attach(B, "bridge", wishes=Wishes(address="172.17.5.5")), Forbidden, "Address already in use")
        await refused(attach(B, "bridge", wishes=Wishes(address="172.17.0.1")), Forbidden, "Address already in use")
        await refused(attach(B, "bridge", wishes=Wishes(address="10.1.1.1")), InvalidArgument, "no configured subnet")
        await refused(attach(B, "bridge", wishes=Wishes(mac="01:00:00:00:00:00")), InvalidArgument, "invalid mac address")
        await refused(attach(B, "nowhere"), NotFound, "^network nowhere not found$")
        await refused(attach(B, "bridge", [PortRequest(1, "sctp")]), Exception, "cannot be published")
        assert lab.networks.attachments(B) == () and len(links()) == 2

    in_lab(scenario, str(tmp_path))


def test_a_container_that_starts_again_gets_the_addresses_that_it_asks_for(tmp_path: Path) -> None:
    """The kernel still has them, for a while, when the container was taken away a moment ago."""

    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own", ipv6=PoolRequest("fd00:6::/64")))
        wishes = Wishes(address="172.18.0.9", address6="fd00:6::9")
        for _ in range(3):
            got = await lab.networks.attach(A, "own", wishes=wishes)
            assert (got.address, got.address6) == ("172.18.0.9", "fd00:6::9")
            await lab.networks.detach(A)
        await lab.networks.attach(A, "bridge")
        got = await lab.networks.connect(A, "own", wishes)
        assert got.address6 == "fd00:6::9"
        await refused(lab.networks.attach(B, "own", wishes=wishes), Forbidden, "Address already in use")

    in_lab(scenario, str(tmp_path))


def test_the_networks_host_and_none(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "host", [PortRequest(80, "tcp", "", 8080)])
        assert (got.netns_path, got.address, got.published) == ("host", "", ())
        await lab.networks.detach(A)
        got = await lab.networks.attach(B, "none")
        assert got.address == "" and lab.networks.netns_path(B) == got.netns_path
        assert inside(got.netns_path, interfaces) == {"lo"}
        await lab.networks.detach(B)
        await settled(lab, spare=2)

    in_lab(scenario, str(tmp_path))


def test_many_at_once_get_addresses_of_their_own(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        names = [f"{number:064x}" for number in range(12)]
        got = await asyncio.gather(*(lab.networks.attach(name, "bridge", [PortRequest(80, "tcp", "", 0)]) for name in names))
        assert len({one.address for one in got}) == len({one.published[0].guest_port for one in got}) == 12
        assert all(pings(one.netns_path, got[0].address) for one in got)
        await asyncio.gather(*(lab.networks.detach(name) for name in names))
        await settled(lab, spare=2)

    in_lab(scenario, str(tmp_path))


def test_an_engine_that_comes_back_takes_over_and_tidies(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own"))
        kept = await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        named = await lab.networks.attach(B, "own", wishes=called("web"))
        lost = await lab.networks.attach(C, "own")
        lab.forget(C)  # as if the engine had ended before it was written down
        engine = lab.new_engine()
        await engine.setup()
        assert engine.attachments(A) == (kept,) and engine.attachments(B) == (named,)
        assert not os.path.exists(lost.netns_path)
        assert len(links() - {"docker0", engine.get("own").bridge}) == 2
        fourth = await engine.attach("d" * 64, "own")
        assert fourth.address not in (named.address, "172.18.0.1") and pings(fourth.netns_path, named.address)
        with listen(kept.netns_path, 80) as server:
            assert talk(lab.host_namespace, GUEST, kept.published[0].guest_port, server) == HOST
        await engine.detach(A)
        await engine.close()

    in_lab(scenario, str(tmp_path))


def test_what_an_engine_attached_before_it_died_goes_unless_it_is_known(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        kept = await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        lost = await lab.networks.attach(B, "bridge", [PortRequest(80, "tcp", "", 8081)])
        engine = lab.new_engine()
        await engine.setup()
        await engine.detach_others({A})
        assert engine.attachments(A) == (kept,) and engine.attachments(B) == ()
        assert [port for _, _, port in lab.host.forwards] == [8080]
        await engine.detach(A)
        await engine.close()
        assert not os.path.exists(lost.netns_path)

    in_lab(scenario, str(tmp_path))


def test_an_engine_that_comes_back_finds_what_is_left_of_the_networks(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        empty = lab.networks.create(NetworkRequest("empty"))
        lab.networks.create(NetworkRequest("own"))
        await lab.networks.attach(A, "empty")
        await lab.networks.detach(A)
        got = await lab.networks.attach(B, "own", wishes=called("web"))
        mount.umount2(got.netns_path, MNT_DETACH)  # its processes have ended, and somebody tidied up
        engine = lab.new_engine()
        await engine.setup()
        await engine.setup()
        assert empty.bridge in links()
        await engine.remove("empty")
        assert empty.bridge not in links()
        await engine.detach(B)
        await engine.attach(B, "own", wishes=called("web"))
        await engine.close()

    in_lab(scenario, str(tmp_path))


def test_a_machine_that_starts_again_knows_its_networks_only(tmp_path: Path) -> None:
    ids: list[str] = []

    async def before(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own", labels={"a": "b"}))
        await lab.networks.attach(A, "own")
        ids.extend(network.id for network in lab.networks.list())

    async def after(lab: Lab) -> None:
        networks = lab.networks.list()
        assert [network.id for network in networks] == ids
        assert [network.name for network in networks] == ["bridge", "host", "none", "own"]
        assert networks[3].labels == {"a": "b"} and lab.networks.attachments(A) == ()
        got = await lab.networks.attach(A, "own")
        assert got.address == "172.18.0.2" and pings(got.netns_path, HOST)

    in_lab(before, str(tmp_path))
    os.unlink(tmp_path / "state.db")
    in_lab(after, str(tmp_path))


def test_ports_are_asked_for_again_when_the_host_has_forgotten_them(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        got = await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080), PortRequest(81, "tcp", "", 0)])
        before = dict(lab.host.forwards)
        await lab.networks.republish()
        assert lab.host.forwards == before
        lab.host.forwards.clear()
        lab.host.busy.add(8080)
        await lab.networks.republish()
        assert list(lab.host.forwards.values()) == [got.published[1].guest_port]
        lab.host.busy.clear()
        await lab.networks.republish()
        assert lab.host.forwards == before

    in_lab(scenario, str(tmp_path))


def test_a_container_joins_and_leaves_networks(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        networks = lab.networks
        networks.create(NetworkRequest("own"))
        networks.create(NetworkRequest("inner", internal=True))
        first = await networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        await networks.connect(A, "inner")
        second = await networks.connect(A, "own", wishes=called("a"))
        other = await networks.attach(B, "own")
        assert [one.network_name for one in networks.attachments(A)] == ["bridge", "inner", "own"]
        assert second.published == () and pings(other.netns_path, second.address)
        await refused(networks.connect(A, "own"), Forbidden, "already exists in network own")
        await refused(networks.connect(A, "host"), Forbidden, "host network")
        await networks.disconnect(A, "bridge")
        # Ports and default route went to the next network with a way out.
        (_, now) = networks.attachments(A)
        assert now.published == first.published and pings(first.netns_path, HOST)
        with listen(first.netns_path, 80) as server:
            assert talk(lab.host_namespace, GUEST, first.published[0].guest_port, server) == HOST
        await refused(networks.disconnect(A, "bridge"), Forbidden, "is not connected to network bridge")
        await networks.disconnect(A, "own")
        assert lab.host.forwards == {}
        assert not pings(first.netns_path, HOST)
        back = await networks.connect(A, "bridge")
        assert pings(first.netns_path, HOST) and inside(first.netns_path, interfaces) == {"lo", "eth0", "eth1"}
        assert back.netns_path == first.netns_path

    in_lab(scenario, str(tmp_path))


def test_ports_wait_for_the_first_network_that_has_a_way_in(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        networks = lab.networks
        networks.create(NetworkRequest("inner", internal=True))
        ports = [PortRequest(80, "tcp", "", 8080)]
        first = await networks.attach(A, "inner", ports)
        assert first.published == () and lab.host.forwards == {}
        lab.host.busy.add(8080)
        await refused(networks.connect(A, "bridge", ports=ports), SystemFailure, "in use$")
        assert [one.network_name for one in networks.attachments(A)] == ["inner"]
        lab.host.busy.clear()
        second = await networks.connect(A, "bridge", ports=ports)
        assert [port.host_port for port in second.published] == [8080]
        networks.create(NetworkRequest("own"))
        assert (await networks.connect(A, "own", ports=ports)).published == () and len(lab.host.forwards) == 1
        with listen(first.netns_path, 80) as server:
            assert talk(lab.host_namespace, GUEST, second.published[0].guest_port, server) == HOST
        await networks.detach(A)
        assert lab.host.forwards == {}

    in_lab(scenario, str(tmp_path))


def test_a_network_goes_when_nobody_is_in_it(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        networks = lab.networks
        own = networks.create(NetworkRequest("own"))
        assert links() == {"docker0"}
        await networks.attach(A, "own", wishes=called("web"))
        assert own.bridge in links()
        await refused(networks.remove("own"), Forbidden, r'network own has active endpoints \(name:"web" id:"')
        await refused(networks.remove("bridge"), Forbidden, "^bridge is a pre-defined network and cannot be removed$")
        await networks.detach(A)
        assert (await networks.remove(own.id[:5])).name == "own"
        await refused(networks.remove("own"), NotFound, "^network own not found$")
        await settled(lab, spare=2)
        again = networks.create(NetworkRequest("own"))
        assert again.ipv4 == own.ipv4 and again.id != own.id

    in_lab(scenario, str(tmp_path))


def test_a_published_port_moves_with_nothing_of_the_old_container(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        ports = [PortRequest(80, "tcp", "", 8080)]
        seen = set()
        for container in (A, B, C):
            got = await lab.networks.attach(container, "bridge", ports)
            seen.add(got.published[0].guest_port)
            with listen(got.netns_path, 80) as server:
                assert talk(lab.host_namespace, GUEST, got.published[0].guest_port, server) == HOST
                await lab.networks.detach(container)
                assert not reaches(lab.host_namespace, GUEST, got.published[0].guest_port)
        assert len(seen) == 3

    in_lab(scenario, str(tmp_path))


def test_rules_that_somebody_took_away_keep_no_container(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.networks.attach(A, "bridge", [PortRequest(80, "tcp", "", 8080)])
        with Nftables() as nft:
            nft.run("flush ruleset")
        await lab.networks.detach(A)
        assert lab.host.forwards == {} and lab.networks.attachments(A) == ()

    in_lab(scenario, str(tmp_path))
