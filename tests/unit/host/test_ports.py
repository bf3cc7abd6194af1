"""Published ports: Docker's words, and nothing left behind. The forwarder here listens with real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest

from pybox.errors import MachineError
from pybox.forward.ports import PortRefused, Ports, try_to_listen
from pybox.model import ForwardedPort

Scenario = Callable[[Ports], Awaitable[None]]


class Listening:
    """A forwarder that listens, as QEMU does."""

    def __init__(self) -> None:
        self.sockets: dict[tuple[str, str, int], socket.socket] = {}
        self.failures = 0  # how many of the next forwards QEMU refuses

    async def add_forward(self, port: ForwardedPort) -> None:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise MachineError("QEMU does not forward a port", "could not set up host forwarding rule")
        kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
        listener = socket.socket(socket.AF_INET, kind)
        listener.bind((port.host_ip, port.host_port))
        if port.protocol == "tcp":
            listener.listen()
        self.sockets[port.protocol, port.host_ip, port.host_port] = listener

    async def remove_forward(self, port: ForwardedPort) -> None:
        self.sockets.pop((port.protocol, port.host_ip, port.host_port)).close()

    def close(self) -> None:
        for listener in self.sockets.values():
            listener.close()


@pytest.fixture
def forwarder() -> Iterator[Listening]:
    made = Listening()
    yield made
    made.close()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this host has no ::1")


def run(forwarder: Listening, scenario: Scenario, default_ip: str = "127.0.0.1") -> None:
    async def main() -> None:
        ports = Ports(forwarder, default_ip)
        try:
            await scenario(ports)
        finally:
            ports.close()
            await asyncio.sleep(0)

    asyncio.run(main())


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_any_free_port_and_its_release(forwarder: Listening, protocol: str) -> None:
    async def scenario(ports: Ports) -> None:
        port = await ports.publish(protocol, "", 0, 40001)
        assert port.host_ip == "127.0.0.1" and port.host_port > 0 and ports.live() == (port,)
        with pytest.raises(PortRefused):
            try_to_listen(port)
        await ports.release(protocol, "", port.host_port)
        await ports.release(protocol, "", port.host_port)
        assert ports.live() == () and try_to_listen(port) == port.host_port

    run(forwarder, scenario)


def test_a_taken_port_is_refused_in_dockers_words(forwarder: Listening, taken: int) -> None:
    async def scenario(ports: Ports) -> None:
        with pytest.raises(PortRefused) as caught:
            await ports.publish("tcp", "127.0.0.1", taken, 40001)
        assert caught.value.brief == (
            f"Ports are not available: exposing port TCP 127.0.0.1:{taken} -> 127.0.0.1:0: "
            f"listen tcp 127.0.0.1:{taken}: bind: address already in use"
        )
        assert caught.value.resolution and ports.live() == () and not forwarder.sockets

    run(forwarder, scenario)


def test_an_address_of_somebody_else(forwarder: Listening) -> None:
    async def scenario(ports: Ports) -> None:
        with pytest.raises(PortRefused, match="bind: cannot assign requested address"):
            await ports.publish("udp", "192.0.2.1", 8080, 40001)

    run(forwarder, scenario)


@pytest.mark.parametrize(
    ("protocol", "host_ip", "host_port", "guest_port"),
    [
        ("sctp", "", 80, 80),
        ("tcp", "localhost", 80, 80),
        ("tcp", "::x", 80, 80),
        ("udp", "::1", 80, 80),
        ("tcp", "127.0.0.1,x", 80, 80),
        ("tcp", "", 70000, 80),
        ("tcp", "", -1, 80),
        ("tcp", "", 80, 0),
    ],
)
def test_what_cannot_be_published(
    forwarder: Listening, protocol: str, host_ip: str, host_port: int, guest_port: int
) -> None:
    async def scenario(ports: Ports) -> None:
        with pytest.raises(PortRefused, match="Ports are not available"):
            await ports.publish(protocol, host_ip, host_port, guest_port)

    run(forwarder, scenario)


def test_the_default_address_is_a_setting(forwarder: Listening) -> None:
    async def scenario(ports: Ports) -> None:
        assert (await ports.publish("tcp", "", 0, 40001)).host_ip == "0.0.0.0"

    run(forwarder, scenario, "0.0.0.0")


def test_the_same_once_more_changes_nothing(forwarder: Listening) -> None:
    async def scenario(ports: Ports) -> None:
        port = await ports.publish("tcp", "", 0, 40001)
        assert await ports.publish("tcp", "", port.host_port, 40001) == port
        with pytest.raises(PortRefused, match="address already in use"):
            await ports.publish("tcp", "", port.host_port, 40002)
        assert ports.live() == (port,)

    run(forwarder, scenario)


def test_two_at_once_get_one(forwarder: Listening) -> None:
    async def scenario(ports: Ports) -> None:
        number = try_to_listen(ForwardedPort("tcp", "127.0.0.1", 0, 1))
        tries = [ports.publish("tcp", "", number, guest) for guest in (40001, 40002)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sorted(type(item).__name__ for item in results) == ["ForwardedPort", "PortRefused"]

    run(forwarder, scenario)


def test_a_free_port_that_is_taken_meanwhile(forwarder: Listening) -> None:
    async def scenario(ports: Ports) -> None:
        forwarder.failures = 2
        await ports.publish("tcp", "", 0, 40001)
        forwarder.failures = 1
        with pytest.raises(PortRefused):
            await ports.publish("tcp", "", try_to_listen(ForwardedPort("tcp", "127.0.0.1", 0, 1)), 40002)
        assert len(ports.live()) == 1

    run(forwarder, scenario)


def test_a_guest_that_boots_anew_has_none(forwarder: Listening) -> None:
    async def scenario(ports: Ports) -> None:
        for protocol in ("tcp", "tcp", "udp"):
            await ports.publish(protocol, "", 0, 40001)
        await ports.release_all()
        assert ports.live() == () and not forwarder.sockets

    run(forwarder, scenario)


def test_connections_of_a_moment_ago_are_no_hindrance() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        number = int(listener.getsockname()[1])
        client = socket.create_connection(("127.0.0.1", number))
        served, _ = listener.accept()
        served.close()  # the side that closes first keeps the address for a while
        client.close()
        listener.close()
        assert try_to_listen(ForwardedPort("tcp", "127.0.0.1", number, 1)) == number


def echo_once(listener: socket.socket) -> threading.Thread:
    """Answer one connection, when its input has ended, with what it sent."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            data = b""
            while more := connection.recv(65536):
                data += more
            connection.sendall(data[::-1])

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


async def ask(address: str, port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(data)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


@needs_ipv6
def test_the_default_address_has_a_counterpart(forwarder: Listening) -> None:
    async def scenario(ports: Ports) -> None:
        port = await ports.publish("tcp", "", 0, 40001)
        (listener,) = forwarder.sockets.values()
        for address in ("::1", "127.0.0.1"):
            thread = echo_once(listener)
            assert await ask(address, port.host_port, b"abc" * 100_000) == b"cba" * 100_000
            thread.join()
        await ports.release("tcp", "", port.host_port)
        with pytest.raises(OSError):
            await ask("::1", port.host_port, b"")

    run(forwarder, scenario)


@needs_ipv6
def test_an_ipv6_address_of_its_own(forwarder: Listening) -> None:
    async def scenario(ports: Ports) -> None:
        port = await ports.publish("tcp", "::1", 0, 40001)
        assert port.host_ip == "::1" and ports.live() == (port,)
        thread = echo_once(next(iter(forwarder.sockets.values())))
        assert await ask("::1", port.host_port, b"abc") == b"cba"
        thread.join()
        with pytest.raises(PortRefused) as caught:
            await ports.publish("tcp", "::1", port.host_port, 40002)
        assert f"listen tcp [::1]:{port.host_port}: bind: address already in use" in caught.value.brief
        assert len(forwarder.sockets) == 1
        await ports.release("tcp", "::1", port.host_port)
        assert not forwarder.sockets

    run(forwarder, scenario)
