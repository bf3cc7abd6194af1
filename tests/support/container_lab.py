"""Real containers for tests: a small root made of busybox, a spawner, and short ways to run things. Needs root."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyboxd import locations
from pyboxd.frozen import replace
from pyboxd.runtime import cgroup
from pyboxd.runtime.client import Attachment, Process, Runtime
from pyboxd.runtime.spec import ContainerSpec, ExecSpec, Exit, LogSettings, Rlimit, RootFilesystem

PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n1000:x:1234:1234::/:/bin/sh\n"
GROUP = "root:x:0:\nuser:x:1000:\nextra:x:1001:user\nmore:x:1002:someone,user\n"
_runtime: Runtime | None = None


@dataclass(frozen=True)
class Result:
    """How a process ended, and all that it said."""

    exit: Exit
    stdout: bytes
    stderr: bytes

    @property
    def code(self) -> int:
        return self.exit.code

    @property
    def text(self) -> str:
        return self.stdout.decode()


def busybox() -> str:
    """A busybox that needs no library. The test is skipped where there is none."""
    found = shutil.which("busybox", path="/bin:/usr/bin:/usr/local/bin")
    if not found or b"/ld-" in Path(found).read_bytes()[:4096]:  # the name of its dynamic linker is near the start
        pytest.skip("needs a static busybox")
    return found


def runtime() -> Runtime:
    """The one spawner of this test run."""
    global _runtime
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if _runtime is None:
        if not os.path.exists(f"{locations.CGROUP}/cgroup.controllers"):
            locations.CGROUP = "/sys/fs/cgroup/unified"  # systems that mount version 2 beside version 1
        if not os.path.exists(f"{locations.CGROUP}/cgroup.controllers"):
            pytest.skip("needs cgroup version 2")
        _runtime = Runtime.fork()
    return _runtime


def has_controllers(*names: str) -> bool:
    """Whether these controllers exist in the version 2 hierarchy."""
    return set(names) <= set(Path(locations.CGROUP, "cgroup.controllers").read_text().split())


class Lab:
    """A folder with an image and containers made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runtime = runtime()
        self.image = folder / "image"
        self._count = 0
        for name in ("bin", "etc", "root", "tmp", "var"):
            (self.image / name).mkdir(parents=True)
        shutil.copy(busybox(), self.image / "bin/busybox")
        listed = subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True).stdout.split()
        for name in listed:
            if name != "busybox":
                (self.image / "bin" / name).symlink_to("busybox")
        (self.image / "etc/passwd").write_text(PASSWD)
        (self.image / "etc/group").write_text(GROUP)

    def spec(self, *args: str, **settings: Any) -> ContainerSpec:
        """A container of the image; `settings` are fields of the spec."""
        self._count += 1
        folder = self.folder / f"c{self._count}"
        for name in ("upper", "work"):
            (folder / name).mkdir(parents=True)
        base = ContainerSpec(
            id=f"test-{os.getpid()}-{self.folder.name}-{self._count}",
            root=RootFilesystem((str(self.image),), str(folder / "upper"), str(folder / "work")),
            args=args,
            run_dir=str(folder / "run"),
            rlimits=(Rlimit("nofile", 1024, 4096),),
            log=LogSettings("json-file", str(folder / "log")),
        )
        return replace(base, **settings)

    def script(self, text: str, **settings: Any) -> ContainerSpec:
        return self.spec("sh", "-c", text, **settings)

    def exec_spec(self, container: ContainerSpec, process: Process, *args: str, **settings: Any) -> ExecSpec:
        self._count += 1
        base = ExecSpec(
            id=f"exec{self._count}",
            container_id=container.id,
            container_pid=process.pid,
            cgroup=process.cgroup,
            args=args,
            run_dir=str(self.folder / f"e{self._count}"),
            rlimits=container.rlimits,
        )
        return replace(base, **settings)

    async def run(self, spec: ContainerSpec | ExecSpec, stdin: bytes | None = None) -> Result:
        """Run a process to its end."""
        made = self.runtime.create(spec) if isinstance(spec, ContainerSpec) else self.runtime.exec(spec)
        process = await made
        attachment = await process.attach(stdin is not None, True, True)
        reading = asyncio.create_task(collect(attachment))
        await process.start()
        if stdin is not None:
            await attachment.write(stdin)
            await attachment.close_stdin()
        stdout, stderr = await reading
        ended = await process.wait()
        await attachment.close()
        await process.close()
        return Result(ended, stdout, stderr)

    async def started(self, spec: ContainerSpec) -> Process:
        """A container that runs."""
        process = await self.runtime.create(spec)
        await process.start()
        return process

    async def stop(self, process: Process) -> Exit:
        await process.kill_all()
        ended = await process.wait()
        await process.close()
        return ended


async def collect(attachment: Attachment) -> tuple[bytes, bytes]:
    """All output until its end: stdout, stderr."""
    parts: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
    async for kind, data in attachment.frames():
        parts[kind] += data
    return bytes(parts[1]), bytes(parts[2])


def in_lab(folder: Path, scenario: Callable[[Lab], Awaitable[None]]) -> None:
    """Run a scenario; no container may be left when it is over."""
    lab = Lab(folder)
    parent = Path(locations.CGROUP, "docker")

    async def whole() -> None:
        await asyncio.wait_for(scenario(lab), 120)

    try:
        asyncio.run(whole())
        left = {entry.name for entry in parent.glob(f"test-{os.getpid()}-{folder.name}-*")}
        assert left == set()
    finally:
        for entry in parent.glob(f"test-{os.getpid()}-{folder.name}-*"):
            cgroup.kill(str(entry))
            cgroup.remove(str(entry))
