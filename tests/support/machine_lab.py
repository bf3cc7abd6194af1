"""One machine in a folder of its own, over a program that behaves like QEMU."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pybox.hostos.interface import native_arch
from pybox.machine import lifecycle
from pybox.machine.files import MachineFiles, Processes, ProcessRecord
from pybox.machine.image import GuestImage
from pybox.machine.status import MachineStatus
from pybox.model import Accelerator, Phase
from pybox.paths import Paths
from pybox.settings import Settings

FAKE = Path(__file__).with_name("fake_qemu.py")
CODE = b"guest code"


@contextmanager
def machine_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *, golden: bool = False) -> Iterator[Machine]:
    """A machine of the test's own, ended with it."""
    monkeypatch.setenv("PYBOX_HOME", str(folder / "home"))
    made = Machine(folder, golden)
    yield made
    made.stop(0)
    shutil.rmtree(made.files.sockets, ignore_errors=True)


class Machine:
    """One machine of a test, with everything in a folder of its own."""

    def __init__(self, root: Path, golden: bool = False) -> None:
        self.paths = Paths.from_environment()
        self.files = MachineFiles(self.paths, "default")
        self.image = GuestImage.open(_image(root / "image"))
        self.settings = Settings(
            self.paths, qemu=str(_program(root / "bin")), accelerator=Accelerator.TCG, shares=(), golden_state=golden
        )

    def start(self, progress: Callable[[Phase], None] = lambda _phase: None) -> lifecycle.Running:
        return lifecycle.start(self.settings, "default", self.image, lambda: CODE, progress)

    def stop(self, timeout: float = 5.0) -> bool:
        return lifecycle.stop(self.settings, "default", timeout)

    def suspend(self) -> bool:
        return lifecycle.suspend(self.settings, "default")

    def status(self) -> MachineStatus:
        return lifecycle.status(self.settings, "default")

    def get(self, path: str) -> Any:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(20)
            connection.connect(str(self.files.api_socket))
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            response = http.client.HTTPResponse(connection)
            response.begin()
            return json.loads(response.read())

    def kill(self, who: str) -> ProcessRecord:
        record: ProcessRecord = getattr(Processes.read(self.files), who)
        os.kill(record.pid, signal.SIGKILL)
        wait_until(lambda: not record.lives())
        return record


def _image(folder: Path) -> Path:
    folder.mkdir()
    names = ("vmlinuz", "initrd", "root.erofs")
    for name in names:
        (folder / name).write_text(name)
    sizes = {name: {"size": len(name)} for name in names}
    (folder / "manifest.json").write_text(json.dumps({"id": "1", "architecture": native_arch(), "files": sizes}))
    return folder


def _program(folder: Path) -> Path:
    folder.mkdir()
    for name in ("qemu-system-x86_64", "qemu-img"):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}" {name} "$@"\n')
        path.chmod(0o755)
    return folder / "qemu-system-x86_64"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
