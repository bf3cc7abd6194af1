"""The folder server as a child of the hostagent: started, started again once, ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pybox import hostos
from pybox.hostagent import shares
from pybox.hostagent.shares import ShareServer
from pybox.model import Share

pytestmark = pytest.mark.skipif(not hostos.current().passes_sockets, reason="the test's address is a unix socket")

# A server that says who it is to the one who listens, and waits for its end.
SERVER = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[sys.argv.index("--socket") + 1])
connection.sendall(b"%d\\n" % os.getpid())
connection.recv(1)
"""


def serve(
    folder: Path, monkeypatch: pytest.MonkeyPatch, scenario: Callable[[asyncio.Queue[int], ShareServer], Awaitable[None]]
) -> None:
    (folder / "pybox_test_share_server.py").write_text(SERVER)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *sys.path]))
    monkeypatch.setattr(shares, "MODULE", "pybox_test_share_server")

    async def main() -> None:
        pids: asyncio.Queue[int] = asyncio.Queue()

        async def connected(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
            await pids.put(int(await reader.readline()))
            await reader.read()

        listener = await asyncio.start_unix_server(connected, sock=hostos.current().listen(folder / "fuse.sock"))
        server = ShareServer([Share("home", "/home/x", "/home/x", True)], folder / "share.json", folder / "log")
        await server.start(str(folder / "fuse.sock"))
        await asyncio.wait_for(scenario(pids, server), 20)
        await server.stop()
        listener.close()
        await asyncio.sleep(0.05)

    asyncio.run(main())


def test_it_is_told_what_to_serve_and_ends_with_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(pids: asyncio.Queue[int], server: ShareServer) -> None:
        pid = await pids.get()
        assert json.loads((tmp_path / "share.json").read_bytes()) == {
            "shares": [{"name": "home", "host_path": "/home/x", "guest_path": "/home/x", "readonly": True}]
        }
        await server.stop()
        while hostos.current().identify(pid):
            await asyncio.sleep(0.01)

    serve(tmp_path, monkeypatch, scenario)


def test_it_is_started_again_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(pids: asyncio.Queue[int], _server: ShareServer) -> None:
        first = await pids.get()
        os.kill(first, signal.SIGKILL)
        second = await pids.get()
        assert second != first
        os.kill(second, signal.SIGKILL)
        await asyncio.sleep(0.3)
        assert pids.empty()

    serve(tmp_path, monkeypatch, scenario)


def test_without_folders_there_is_no_server(tmp_path: Path) -> None:
    async def main() -> None:
        server = ShareServer([], tmp_path / "share.json", tmp_path / "log")
        await server.start("/nowhere")
        await server.stop()

    asyncio.run(main())
    assert list(tmp_path.iterdir()) == []
