"""The way of an API connection: the host's socket and TLS client against the guest's TLS server, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pybox.hostagent.api import ApiServer, Engine
from pybox.hostagent.tls import client_context
from pybox.machine import keys
from pybox.machine.keys import SERVER_NAME, MachineKeys
from pyboxd.server.tls import TlsProtocol, server_context

MEGABYTE = bytes(range(256)) * 4096
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Client = Callable[[Path], Awaitable[None]]


@pytest.fixture(scope="module")
def machine_keys(tmp_path_factory: pytest.TempPathFactory) -> MachineKeys:
    return keys.ensure(tmp_path_factory.mktemp("keys"))


def connect(made: MachineKeys, folder: Path, handler: Handler, client: Client) -> None:
    """Run `client` with the path of a host socket that leads to `handler` in the guest."""

    async def main() -> None:
        context = server_context(made.ca, made.server_certificate, made.server_key)

        def protocol() -> TlsProtocol:
            return TlsProtocol(context, asyncio.StreamReaderProtocol(asyncio.StreamReader(), handler))

        server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
        engine = Engine(client_context(made.ca_file, made.client_file), SERVER_NAME, server.sockets[0].getsockname()[1])
        await engine.prove()
        api = ApiServer(engine)
        await api.open(folder / "docker.sock")
        try:
            await asyncio.wait_for(client(folder / "docker.sock"), 30)
        finally:
            await api.close()
            engine.close()
            server.close()
            await asyncio.sleep(0.05)
        assert not (folder / "docker.sock").exists()

    asyncio.run(main())


async def read_all(reader: asyncio.StreamReader) -> bytes:
    return await asyncio.wait_for(reader.read(), 30)


def test_a_client_that_ends_its_input_reads_on(machine_keys: MachineKeys, tmp_path: Path) -> None:
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

    connect(machine_keys, tmp_path, handler, client)


def test_an_engine_that_ends_its_output_reads_on(machine_keys: MachineKeys, tmp_path: Path) -> None:
    received = asyncio.Queue[bytes]()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"output")
        writer.write_eof()
        await received.put(await reader.read())
        writer.close()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        assert await read_all(reader) == b"output"
        writer.write(b"late input")
        writer.write_eof()
        assert await received.get() == b"late input"
        writer.close()

    connect(machine_keys, tmp_path, handler, client)


def test_much_data_both_ways_at_once(machine_keys: MachineKeys, tmp_path: Path) -> None:
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

    connect(machine_keys, tmp_path, handler, client)


def test_input_ends_while_much_output_is_on_its_way(machine_keys: MachineKeys, tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(MEGABYTE * 4)
        rest = await reader.read()
        writer.write(rest)
        await writer.drain()
        writer.close()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        start = await reader.readexactly(1000)
        writer.write(b"the end")
        writer.write_eof()
        assert start + await read_all(reader) == MEGABYTE * 4 + b"the end"
        writer.close()

    connect(machine_keys, tmp_path, handler, client)


@pytest.mark.parametrize("half_closed", [False, True])
def test_an_engine_learns_that_its_client_is_gone(machine_keys: MachineKeys, tmp_path: Path, half_closed: bool) -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        with suppress(ConnectionError):
            if half_closed:
                await reader.read()
            while await reader.read(100) or not writer.is_closing():
                await asyncio.sleep(0.01)
        gone.set()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        await reader.readexactly(5)
        if half_closed:
            writer.write_eof()
            await asyncio.sleep(0.1)
            assert not gone.is_set()
        writer.close()
        await asyncio.wait_for(gone.wait(), 10)

    connect(machine_keys, tmp_path, handler, client)


def test_a_cut_connection_ends_the_client(machine_keys: MachineKeys, tmp_path: Path) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(3)
        writer.transport.abort()

    async def client(path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"abc")
        assert await read_all(reader) == b""
        writer.close()

    connect(machine_keys, tmp_path, handler, client)


def test_many_clients(machine_keys: MachineKeys, tmp_path: Path) -> None:
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

    connect(machine_keys, tmp_path, handler, client)


def test_a_stranger_gets_no_word(machine_keys: MachineKeys, tmp_path: Path) -> None:
    strangers = keys.ensure(tmp_path / "strangers")
    served = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(await reader.read())

    async def main() -> None:
        context = server_context(machine_keys.ca, machine_keys.server_certificate, machine_keys.server_key)
        server = await asyncio.get_running_loop().create_server(
            lambda: TlsProtocol(context, asyncio.StreamReaderProtocol(asyncio.StreamReader(), handler)), "127.0.0.1", 0
        )
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError):
            await Engine(client_context(strangers.ca_file, strangers.client_file), SERVER_NAME, port).prove()
        # A stranger with the right CA file, but another's certificate, is turned away after its handshake.
        engine = Engine(client_context(machine_keys.ca_file, strangers.client_file), SERVER_NAME, port)
        with suppress(OSError):
            stream = await engine.take()
            with pytest.raises(OSError):
                await stream.read()
            stream.abort()
        engine.close()
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.sleep(0.1)
        server.close()

    asyncio.run(main())
    assert served == []
