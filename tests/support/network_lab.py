"""A guest's network in miniature: a network namespace that plays the guest, and one that plays the host behind its
card. Needs root. Nothing of the system that runs the tests is touched: every test gets a thread of its own, in a
network and a mount namespace of its own, and all that it made ends with that thread."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import threading
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import TypeVar

import pytest

from pyboxd.database import Database
from pyboxd.errors import SystemFailure
from pyboxd.linux import mount, namespaces, netlink
from pyboxd.linux.constants import CLONE_NEWNET, CLONE_NEWNS, MS_PRIVATE, MS_REC
from pyboxd.network.model import Wishes
from pyboxd.network.namespaces import Namespaces, plug
from pyboxd.network.networks import Networks
from pyboxd.network.store import StateStore

T = TypeVar("T")
HOST = "10.0.2.2"
GUEST = "10.0.2.15"
PATIENCE = 1.0  # seconds after which silence counts as unreachable


def called(*names: str) -> Wishes:
    """A place under these names."""
    return Wishes(names=names)


def in_lab(scenario: Callable[[Lab], Awaitable[None]], folder: str) -> None:
    """Run the scenario on an event loop in a thread with namespaces of its own; its failure is raised here."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    failures: list[BaseException] = []

    def run() -> None:
        try:
            namespaces.unshare(CLONE_NEWNET | CLONE_NEWNS)
            mount.mount("none", "/", flags=MS_REC | MS_PRIVATE)
            asyncio.run(_run(scenario, folder))
        except BaseException as error:  # noqa: BLE001 (a thread's failures, assertions among them, are its caller's)
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


async def _run(scenario: Callable[[Lab], Awaitable[None]], folder: str) -> None:
    lab = Lab(folder)
    try:
        await lab.setup()
        await scenario(lab)
    finally:
        await lab.close()


class Host:
    """The host's end of the control channel: remembers what is published, refuses what `busy` names."""

    def __init__(self) -> None:
        self.forwards: dict[tuple[str, str, int], int] = {}  # (protocol, address, host port) -> guest port
        self.busy: set[int] = set()
        self._free = 49152

    async def publish(self, protocol: str, host_ip: str, host_port: int, guest_port: int) -> tuple[str, int]:
        await asyncio.sleep(0)
        bound = host_ip or "127.0.0.1"
        if not host_port:
            host_port = self._free
            self._free += 1
        if host_port in self.busy or self.forwards.get((protocol, bound, host_port), guest_port) != guest_port:
            raise SystemFailure(
                f"Ports are not available: exposing port {protocol.upper()} {host_ip}:{host_port}: "
                "bind: address already in use"
            )
        self.forwards[protocol, bound, host_port] = guest_port
        return bound, host_port

    async def release(self, protocol: str, host_ip: str, host_port: int) -> None:
        await asyncio.sleep(0)
        del self.forwards[protocol, host_ip, host_port]


class Lab:
    """The guest is the namespace of the calling thread; `host_namespace` is the host's."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self.host = Host()
        self._places = Namespaces(f"{folder}/places", spare=0)
        self.netns_folder = f"{folder}/netns"
        self.database = Database(f"{folder}/engine.db")
        self.networks = self.new_engine()
        self.host_namespace = ""

    def new_engine(self) -> Networks:
        """An engine over the same databases and kernel, as after a crash of the one before."""
        return Networks(
            self.database,
            self.host,
            state=Database(f"{self._folder}/state.db"),
            namespaces=Namespaces(self.netns_folder),
        )

    async def new_engine_under(self, server: socket.socket, client: socket.socket) -> Networks:
        """An engine that comes back while a connection is open, which goes on."""
        connection, _ = server.accept()
        with closing(connection):
            engine = self.new_engine()
            await engine.setup()
            client.sendall(b"still there?")
            assert connection.recv(64) == b"still there?"
        return engine

    def forget(self, container_id: str) -> None:
        """Lose what the engine wrote down about a container."""
        StateStore(Database(f"{self._folder}/state.db")).remove_sandbox(container_id)

    async def setup(self) -> None:
        with netlink.RouteSocket() as route:
            route.execute(netlink.set_up("lo"))
        host = await self._places.take_bare()
        self.host_namespace = host.path
        _wire("eth0", GUEST, host.path, HOST)
        host.route.close()
        await self.networks.setup()

    async def close(self) -> None:
        await self.networks.close()
        await self._places.close()


def _wire(name: str, address: str, other: str, other_address: str) -> None:
    """A cable from here to the namespace `other`."""
    with netlink.RouteSocket() as route:
        plug(route, name, other, "card")
        route.execute(netlink.add_address(route.link(name).index, address, 24))

    def there() -> None:
        with netlink.RouteSocket() as route:
            index = route.link("card").index
            route.execute(netlink.add_address(index, other_address, 24), netlink.set_up("card", mac="52:55:0a:00:02:02"))

    inside(other, there)


def inside(path: str, function: Callable[[], T]) -> T:
    """What the function returns in the network namespace of that path."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            namespaces.enter_path(path, CLONE_NEWNET)
            results.append(function())
        except BaseException as error:  # noqa: BLE001 (raised again by the caller)
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def listen(path: str, port: int, address: str = "0.0.0.0") -> socket.socket:
    """A TCP server in that namespace; "" is the guest's."""

    def make() -> socket.socket:
        return socket.create_server((address, port), family=_family(address))

    server = inside(path, make) if path else make()
    server.settimeout(PATIENCE)
    return server


def call(path: str, address: str, port: int) -> socket.socket:
    """A TCP connection from that namespace; "" is the guest's."""

    def connect() -> socket.socket:
        return socket.create_connection((address, port), timeout=PATIENCE)

    return inside(path, connect) if path else connect()


def talk(path: str, address: str, port: int, server: socket.socket) -> str:
    """Send a word each way over a connection from that namespace to the server; the address the server saw."""
    with closing(call(path, address, port)) as client:
        connection, (seen, *_) = server.accept()
        with closing(connection):
            client.sendall(b"ping")
            assert connection.recv(16) == b"ping"
            connection.sendall(b"pong")
            assert client.recv(16) == b"pong"
    assert isinstance(seen, str)
    return seen


def reaches(path: str, address: str, port: int) -> bool:
    """Whether somebody answers there."""
    try:
        call(path, address, port).close()
    except OSError:
        return False
    return True


def datagram_socket(path: str, port: int = 0, address: str = "0.0.0.0") -> socket.socket:
    """A bound UDP socket of that namespace; "" is the guest's."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        made.bind((address, port))
        return made

    made = inside(path, make) if path else make()
    made.settimeout(PATIENCE)
    return made


def pings(path: str, address: str) -> bool:
    """Whether an echo request from that namespace is answered; the socket needs no capability there."""

    family = _family(address)
    protocol, kind = (socket.IPPROTO_ICMPV6, 128) if family == socket.AF_INET6 else (socket.IPPROTO_ICMP, 8)

    def ping() -> bool:
        with socket.socket(family, socket.SOCK_DGRAM, protocol) as made:
            made.settimeout(PATIENCE)
            try:
                made.sendto(struct.pack("!BBHHH", kind, 0, 0, 0, 1) + b"pybox", (address, 0))
                return made.recv(64).endswith(b"pybox")
            except OSError:
                return False

    return inside(path, ping)


def udp_packet(source: str, target: str, port: int, data: bytes) -> bytes:
    """An IPv4 packet (RFC 791) with a UDP datagram that has no checksum."""
    length = 28 + len(data)
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    header = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    total = sum(struct.unpack("!10H", header))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    header = header[:10] + struct.pack("!H", ~total & 0xFFFF) + header[12:]
    return header + struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data
