"""The embedded DNS server, asked from inside containers."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from pyboxd.network import dnswire
from pyboxd.network.model import NetworkRequest, PoolRequest, Wishes
from tests.support.network_lab import GUEST, HOST, PATIENCE, Lab, called, datagram_socket, in_lab, inside, listen

A, B, C = "a" * 64, "b" * 64, "c" * 64
SERVER = ("127.0.0.11", 53)
MX = 15


def question(name: str, kind: int = dnswire.A) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 77, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, kind, dnswire.IN)


async def ask(path: str, message: bytes, *, stream: bool = False) -> bytes:
    """The server's whole answer to a message from that namespace; the engine's loop serves meanwhile."""

    def over_datagrams() -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(3 * PATIENCE)
            client.connect(SERVER)
            client.send(message)
            return client.recv(4096)

    def over_a_stream() -> bytes:
        with socket.create_connection(SERVER, timeout=3 * PATIENCE) as client, client.makefile("rwb") as file:
            file.write(struct.pack("!H", len(message)) + message)
            file.flush()
            return file.read(struct.unpack("!H", file.read(2))[0])

    return await asyncio.to_thread(inside, path, over_a_stream if stream else over_datagrams)


async def resolve(path: str, name: str, *, kind: int = dnswire.A, stream: bool = False) -> set[str] | int:
    """The addresses of a name, or the failure code."""
    answer = await ask(path, question(name, kind), stream=stream)
    flags, _, count = struct.unpack_from("!HHH", answer, 2)
    if flags & 0xF:
        return int(flags & 0xF)
    records = answer[len(question(name)) :]
    family, size = (socket.AF_INET, 4) if kind == dnswire.A else (socket.AF_INET6, 16)
    data = [records[start + 12 : start + 12 + size] for start in range(0, len(records), 12 + size)]
    assert len(data) == count
    return {socket.inet_ntop(family, address) for address in data}


def test_containers_find_each_other_by_name_alias_and_id(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own"))
        lab.networks.create(NetworkRequest("apart"))
        first = await lab.networks.attach(A, "own", wishes=called("web", "www", A[:12]))
        second = await lab.networks.attach(B, "own", wishes=called("db", "www"))
        third = await lab.networks.attach(C, "apart", wishes=called("hidden", "db"))
        assert first.embedded_dns and third.embedded_dns
        for name in ("db", "DB", "db.own"):
            assert await resolve(first.netns_path, name) == {second.address}
        assert await resolve(second.netns_path, A[:12]) == {first.address}
        assert await resolve(first.netns_path, "web") == {first.address}
        assert await resolve(first.netns_path, "www") == {first.address, second.address}
        assert await resolve(first.netns_path, "www", stream=True) == {first.address, second.address}
        assert await resolve(third.netns_path, "db") == {third.address}
        assert await resolve(first.netns_path, "host.docker.internal") == {HOST}
        # The name is there, it only has no such record.
        mail = await ask(first.netns_path, question("db", MX))
        assert struct.unpack_from("!HHH", mail, 2) == (0x8180, 1, 0)
        reverse = await ask(first.netns_path, question("3.0.18.172.in-addr.arpa", dnswire.PTR))
        assert reverse.endswith(b"\x02db\x03own\x00")
        await lab.networks.detach(B)
        assert await resolve(first.netns_path, "www") == {first.address}

    in_lab(scenario, str(tmp_path))


def test_names_have_the_addresses_of_the_family_asked_for(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("six", ipv6=PoolRequest("fd00:6::/64")))
        lab.networks.create(NetworkRequest("four"))
        first = await lab.networks.attach(A, "six", wishes=called("web"))
        await lab.networks.connect(A, "four", wishes=called("web"))
        await lab.networks.attach(B, "six", wishes=called("db", "www"))
        await lab.networks.attach(C, "four", wishes=called("old"))
        for name in ("db", "WWW", "db.six"):
            assert await resolve(first.netns_path, name, kind=dnswire.AAAA) == {"fd00:6::3"}
            assert await resolve(first.netns_path, name) == {"172.18.0.3"}
        assert await resolve(first.netns_path, "db", kind=dnswire.AAAA, stream=True) == {"fd00:6::3"}
        # These names are there and have no such address: no failure, and nobody else is asked.
        assert await resolve(first.netns_path, "old", kind=dnswire.AAAA) == set()
        assert await resolve(first.netns_path, "host.docker.internal", kind=dnswire.AAAA) == set()
        digits = "3" + ".0" * 23 + ".6.0.0.0.0.0.d.f"
        reverse = await ask(first.netns_path, question(f"{digits}.ip6.arpa", dnswire.PTR))
        assert reverse.endswith(b"\x02db\x03six\x00")

    in_lab(scenario, str(tmp_path))


def test_a_link_is_a_name_for_one_container_only(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own", internal=True))
        first = await lab.networks.attach(A, "own", wishes=Wishes(names=("web",), links=("db:store",)))
        assert isinstance(await resolve(first.netns_path, "store"), int)
        second = await lab.networks.attach(B, "own", wishes=called("db"))
        assert await resolve(first.netns_path, "store") == {second.address}
        assert isinstance(await resolve(second.netns_path, "store"), int)

    in_lab(scenario, str(tmp_path))


def answering(server: socket.socket, reply: Callable[[bytes], bytes]) -> asyncio.Future[None]:
    def serve() -> None:
        data, client = server.recvfrom(512)
        server.sendto(reply(data), client)

    return asyncio.ensure_future(asyncio.to_thread(serve))


def test_all_else_is_asked_of_the_containers_resolvers(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own"))
        got = await lab.networks.attach(A, "own", wishes=called("web"), resolvers=[GUEST, HOST])
        with closing(datagram_socket(lab.host_namespace, 53)) as upstream:
            served = answering(upstream, lambda data: data[:2] + b"whatever " + data[12:])
            message = question("example.com", MX)
            # Nobody serves at the first address; the bytes from the second one come back untouched.
            assert await ask(got.netns_path, message) == message[:2] + b"whatever " + message[12:]
            await served

    in_lab(scenario, str(tmp_path))


def test_an_internal_network_asks_nobody_outside(tmp_path: Path) -> None:
    """CVE-2024-29018."""

    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("inner", internal=True))
        got = await lab.networks.attach(A, "inner", wishes=called("web"), resolvers=[HOST])
        with closing(datagram_socket(lab.host_namespace, 53)) as upstream:
            assert await resolve(got.netns_path, "web") == {got.address}
            assert await resolve(got.netns_path, "secret.example.com") == dnswire.SERVFAIL
            upstream.setblocking(False)
            try:
                upstream.recv(1)
                raise AssertionError("the question went outside")
            except BlockingIOError:
                pass

    in_lab(scenario, str(tmp_path))


def test_a_container_may_serve_dns_itself(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own"))
        got = await lab.networks.attach(A, "own", wishes=called("web"))
        with closing(datagram_socket(got.netns_path, 53)), listen(got.netns_path, 53):
            assert await resolve(got.netns_path, "web") == {got.address}

    in_lab(scenario, str(tmp_path))


def test_names_are_served_again_by_an_engine_that_comes_back(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own"))
        got = await lab.networks.attach(A, "own", wishes=called("web"))
        engine = lab.new_engine()
        await engine.setup()
        assert await resolve(got.netns_path, "web") == {got.address}
        await engine.close()

    in_lab(scenario, str(tmp_path))


def test_the_server_comes_and_goes_with_the_networks(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own"))
        got = await lab.networks.attach(A, "bridge")
        assert not got.embedded_dns
        joined = await lab.networks.connect(A, "own", wishes=called("web"))
        assert await resolve(got.netns_path, "web") == {joined.address}
        await lab.networks.disconnect(A, "own")
        try:
            await resolve(got.netns_path, "web")
            raise AssertionError("still served")
        except OSError:
            pass

    in_lab(scenario, str(tmp_path))


def test_garbage_is_survived(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        lab.networks.create(NetworkRequest("own"))
        got = await lab.networks.attach(A, "own", wishes=called("web"))

        def send_garbage() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                for message in (b"", b"\0", b"\xff" * 600, question("web")[:-3], question("web") + b"\0" * 900):
                    client.sendto(message, SERVER)
            with socket.create_connection(SERVER, timeout=PATIENCE) as client:
                client.sendall(b"\0\x05hello")

        await asyncio.to_thread(inside, got.netns_path, send_garbage)
        assert await resolve(got.netns_path, "web") == {got.address}
        assert await resolve(got.netns_path, "web", stream=True) == {got.address}

    in_lab(scenario, str(tmp_path))
