"""The way of an API connection: the host's socket and pool against the guest's dialer, with real sockets."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pybox.hostagent.api import ApiServer
from pybox.hostagent.pool import Pool
from pyboxd.boot.configuration import ApiWay
from pyboxd.server import dial
from pyboxd.server.dial import Dialer
from pyboxd.server.http import StreamProtocol

MEGABYTE = bytes(range(256)) * 4096
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Client = Callable[[Path], Awaitable[None]]


def connect(folder: Path, handler: Handler, client: Client) -> None:
    """Run `client` with the path of a host socket that leads to `handler` in the guest."""

    async def main() -> None:
        pool, dialer = pair(handler)
        await pool.open()
        dialer.open(ApiWay("127.0.0.1", pool.port, pool.key))
        await pool.prove()
        api = ApiServer(pool.take)
        await api.open(folder / "docker.sock")
        try:
            await asyncio.wait_for(client(folder / "docker.sock"), 30)
        finally:
            await api.close()
            dialer.close()
            pool.close()
            await asyncio.sleep(0.05)
        assert not (folder / "docker.sock").exists()

    asyncio.run(main())


def pair(handler: Handler) -> tuple[Pool, Dialer]:
    """The host's and the guest's end of the way, with the control channel's one word between them."""

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, _lost: asyncio.Event) -> None:
        task = asyncio.ensure_future(handler(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    tasks: set[asyncio.Future[None]] = set()
    dialer = Dialer()
    dialer.serve(lambda: StreamProtocol(accept))
    return Pool(dialer.want), dialer


async def read_all(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 30)


def test_a_client_that_ends_its_input_reads_on(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()
        await asyncio.sleep(0.05)
        writer.write(data[::-1])
        await writer.drain()
        writer.close()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"abc")
        writer.write_eof()
        assert await read_all(reader) == b"cba"
        writer.close()

    connect(tmp_path, handler, client)


def test_an_engine_that_ends_its_output_reads_on(tmp_path: Path) -> None:
    received = asyncio.Queue[bytes]()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"output")
        writer.write_eof()
        await received.put(await reader.read())
        writer.close()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"?")
        assert await read_all(reader) == b"output"
        writer.write(b"late input")
        writer.write_eof()
        assert await received.get() == b"late input"
        writer.close()

    connect(tmp_path, handler, client)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the host does not know what a client has read")
def test_a_slow_client_reads_the_header_of_a_stream_alone(tmp_path: Path) -> None:
    """docker-py loses what it reads together with the 101."""
    header = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readexactly(1)
            writer.write(header + b"first")
        await reader.read()
        writer.close()

    async def client(path: Path) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, str(path))
            for _ in range(2):  # on a connection that was used before, too
                await loop.sock_sendall(connection, b"?")
                await asyncio.sleep(0.2)
                assert await loop.sock_recv(connection, 65536) == header
                assert await loop.sock_recv(connection, 65536) == b"first"

    connect(tmp_path, handler, client)


def test_much_data_both_ways_at_once(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        writer.close()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)

        async def send() -> None:
            for _ in range(20):
                writer.write(MEGABYTE)
                await writer.drain()
            writer.write_eof()

        sending = asyncio.create_task(send())
        assert await read_all(reader) == MEGABYTE * 20
        await sending
        writer.close()

    connect(tmp_path, handler, client)


def test_input_ends_while_much_output_is_on_its_way(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(MEGABYTE * 4)
        rest = await reader.read()
        writer.write(rest)
        await writer.drain()
        writer.close()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"?")
        start = await reader.readexactly(1000)
        writer.write(b"the end")
        writer.write_eof()
        assert start + await read_all(reader) == MEGABYTE * 4 + b"the end"
        writer.close()

    connect(tmp_path, handler, client)


@pytest.mark.parametrize("half_closed", [False, True])
def test_an_engine_learns_that_its_client_is_gone(tmp_path: Path, half_closed: bool) -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(b"hello")
        with suppress(ConnectionError):
            if half_closed:
                await reader.read()
            while await reader.read(100) or not writer.is_closing():
                await asyncio.sleep(0.01)
        gone.set()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"?")
        await reader.readexactly(5)
        if half_closed:
            writer.write_eof()
            await asyncio.sleep(0.1)
            assert not gone.is_set()
        writer.close()
        await asyncio.wait_for(gone.wait(), 10)

    connect(tmp_path, handler, client)


def test_a_cut_connection_ends_the_client(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(3)
        writer.transport.abort()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"abc")
        assert await read_all(reader) == b""
        writer.close()

    connect(tmp_path, handler, client)


def test_many_clients(tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    async def client(path: Path) -> None:
        async def one(number: int) -> bytes:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"%d" % number)
            data = await read_all(reader)
            writer.close()
            return data

        assert await asyncio.gather(*map(one, range(50))) == [b"%d" % number for number in range(50)]

    connect(tmp_path, handler, client)


async def never(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    raise AssertionError("nobody was to be served")


async def talk(port: int, *answers: bytes) -> bytes:
    """Connect to the pool and say something after each of its words; all that it said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    for answer in answers:
        writer.write(answer)
        with suppress(ConnectionError):
            await writer.drain()
            said += await reader.read(1000)
    with suppress(ConnectionError):
        said += await reader.read()
    writer.close()
    return said


def test_a_stranger_at_the_hosts_port_gets_no_word() -> None:
    """Other users of the host and containers reach the port; without the key nothing of theirs becomes a client's."""

    async def main() -> None:
        pool, dialer = pair(never)
        await pool.open()
        taking = asyncio.create_task(pool.take())
        assert len(await talk(pool.port, b"GET / HTTP/1.1\r\n\r\n", bytes(32))) == 48
        assert await talk(pool.port, bytes(16), dial.proof(bytes(32), b"guest", bytes(16), bytes(16)))
        await asyncio.sleep(0.05)
        assert not taking.done()
        taking.cancel()
        pool.close()
        dialer.close()

    asyncio.run(main())


def test_a_proof_holds_for_one_conversation() -> None:
    """What the host proves to one is no proof of the guest's, and not of another conversation."""

    async def main() -> None:
        pool, _ = pair(never)
        await pool.open()
        taking = asyncio.create_task(pool.take())
        reader, writer = await asyncio.open_connection("127.0.0.1", pool.port)
        writer.write(bytes(16))
        said = await reader.readexactly(48)
        writer.close()
        await talk(pool.port, bytes(16), said[16:48])
        reader, writer = await asyncio.open_connection("127.0.0.1", pool.port)
        writer.write(bytes(16))
        hosts = (await reader.readexactly(48))[:16]
        other = bytes(byte ^ 1 for byte in hosts)
        writer.write(dial.proof(pool.key, b"guest", bytes(16), other))
        with suppress(ConnectionError):
            assert await reader.read() == b""
        await asyncio.sleep(0.05)
        assert not taking.done()
        taking.cancel()
        pool.close()

    asyncio.run(main())


def test_somebody_else_in_the_hosts_place() -> None:
    """A guest whose host is gone shows nothing to whoever took its port, and serves nobody there."""
    seen = []

    async def impostor(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(16))
        writer.write(bytes(48) + b"GET /containers/json HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):
            seen.append(await reader.read())

    async def main() -> None:
        server = await asyncio.start_server(impostor, "127.0.0.1", 0)
        dialer = Dialer()
        dialer.serve(lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), never))
        dialer.open(ApiWay("127.0.0.1", server.sockets[0].getsockname()[1], bytes(range(32))))
        await asyncio.sleep(0.3)
        dialer.close()
        server.close()

    asyncio.run(main())
    assert all(word == b"" or len(word) == 16 for word in seen) and len(seen) >= 3


def test_another_host_after_a_restore(tmp_path: Path) -> None:
    """Connections that wait for a host that is gone are given up when the next one is named."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        writer.close()

    async def main() -> None:
        first, dialer = pair(handler)
        second = Pool(dialer.want)
        for pool in (first, second):
            await pool.open()
            dialer.open(ApiWay("127.0.0.1", pool.port, pool.key))
            line = await pool.take()
            line.writer.write(b"x")
            assert await line.reader.read() == b"x"
            line.abort()
            pool.close()
        dialer.close()

    asyncio.run(main())


def test_clients_of_a_host_that_is_gone_are_cut(tmp_path: Path) -> None:
    """After a suspension nobody is behind a connection of the old host, and nothing in the network says so."""
    ended = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        with suppress(ConnectionError):
            await reader.read()
        ended.set()

    async def main() -> None:
        first, dialer = pair(handler)
        second = Pool(dialer.want)
        await first.open()
        await second.open()
        way = ApiWay("127.0.0.1", first.port, first.key)
        dialer.open(way)
        line = await first.take()
        line.writer.write(b"x")
        assert await line.reader.read(1) == b"x"
        dialer.open(way)  # the same host says the same again
        await asyncio.sleep(0.05)
        assert not ended.is_set()
        dialer.open(ApiWay("127.0.0.1", second.port, second.key))
        await asyncio.wait_for(ended.wait(), 5)
        await second.prove()
        dialer.close()
        for pool in (first, second):
            pool.close()

    asyncio.run(main())


def test_a_host_that_is_not_there_yet() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        pool, dialer = pair(handler)
        dialer.open(ApiWay("127.0.0.1", port, pool.key))
        await asyncio.sleep(0.15)
        pool._server = await asyncio.start_server(pool._connected, "127.0.0.1", port)
        await asyncio.wait_for(pool.prove(), 10)
        dialer.close()
        pool.close()

    asyncio.run(main())
