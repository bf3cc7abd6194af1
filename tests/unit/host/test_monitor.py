"""The monitor against a real QEMU that has no machine: nothing boots, but QMP and the network are there."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from pybox import hostos, process
from pybox.errors import MachineError
from pybox.forward.ports import PortRefused, Ports, try_to_listen
from pybox.model import ForwardedPort
from pybox.qemu.monitor import ForwardRefused, Monitor

QEMU = shutil.which("qemu-system-x86_64") or shutil.which("qemu-system-aarch64")
pytestmark = pytest.mark.skipif(QEMU is None, reason="QEMU is not installed")


def talk(folder: Path, scenario: Callable[[Monitor], Awaitable[None]]) -> int:
    async def main() -> int:
        with hostos.current().listen(folder / "monitor.sock") as listener, socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(folder / "monitor.sock"))
            command = [
                str(QEMU), "-machine", "none", "-nodefaults", "-display", "none",
                "-chardev", f"socket,id=monitor,fd={listener.fileno()},server=on,wait=off",
                "-mon", "chardev=monitor,mode=control",
                "-netdev", "user,id=net0",
            ]  # fmt: skip
            child = process.start(command, output=folder / "log", pass_fds=[listener.fileno()])
            try:
                async with await Monitor.connect(connection.dup(), "test") as monitor:
                    await scenario(monitor)
                    await monitor.quit()
                return await asyncio.wait_for(child.wait(), 10)
            finally:
                if child.returncode is None:
                    child.kill()
                    await child.wait()

    return asyncio.run(main())


def test_quit(tmp_path: Path) -> None:
    async def scenario(monitor: Monitor) -> None:
        assert await monitor.disk_reads("root") == 0

    assert talk(tmp_path, scenario) == 0


def test_forwards(tmp_path: Path) -> None:
    port = ForwardedPort("tcp", "127.0.0.1", try_to_listen(ForwardedPort("tcp", "127.0.0.1", 0, 1)), 80)

    async def scenario(monitor: Monitor) -> None:
        await monitor.add_forward(port)
        with pytest.raises(PortRefused):
            try_to_listen(port)
        with pytest.raises(ForwardRefused) as caught:
            await monitor.add_forward(port)
        assert str(port.host_port) in caught.value.details
        await monitor.remove_forward(port)
        assert try_to_listen(port) == port.host_port
        await monitor.remove_forward(port)

    talk(tmp_path, scenario)


def test_ports_over_it(tmp_path: Path) -> None:
    async def scenario(monitor: Monitor) -> None:
        ports = Ports(monitor)
        for protocol in ("tcp", "udp"):
            await ports.publish(protocol, "", 0, 40001)
        assert len(ports.live()) == 2
        await ports.release_all()

    talk(tmp_path, scenario)


def test_what_qemu_refuses(tmp_path: Path) -> None:
    async def scenario(monitor: Monitor) -> None:
        with pytest.raises(MachineError):
            await monitor._execute("no-such-command")

    talk(tmp_path, scenario)


def test_a_qemu_that_ends(tmp_path: Path) -> None:
    async def scenario(monitor: Monitor) -> None:
        await monitor.quit()
        await asyncio.sleep(0.2)
        with pytest.raises(MachineError):
            await monitor.pause()

    talk(tmp_path, scenario)


def test_nobody_behind_the_socket() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        theirs.close()
        with pytest.raises(MachineError, match="does not answer"):
            await Monitor.connect(ours, "test")

    asyncio.run(main())
