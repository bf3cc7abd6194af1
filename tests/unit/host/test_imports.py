"""What the programs of the host import: a command must not wait for what it does not use."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox import hostos
from pybox.paths import Paths

ROOT = Path(__file__).parents[3]
# Nobody needs these on the way to an answer, or to QEMU.
HEAVY = {
    "asyncio",
    "cryptography",
    "dataclasses",
    "email",
    "http",
    "importlib.metadata",
    "logging.handlers",
    "multiprocessing",
    "paramiko",
    "pickle",
    "platformdirs",
    "pybox_image",
    "qemu",
    "random",
    "requests",
    "shutil",
    "ssl",
    "tarfile",
    "tempfile",
    "tomllib",
}
# What belongs to the machine, or to other commands.
FOREIGN = {
    "hashlib",
    "logging",
    "pybox.app.containers",
    "pybox.app.logins",
    "pybox.app.machines",
    "pybox.app.options",
    "pybox.cli.facts",
    "pybox.cli.groups",
    "pybox.cli.run",
    "pybox.cli.run_flags",
    "pybox.cli.template",
    "pybox.hostagent",
    "pybox.hostos.interface",
    "pybox.machine",
    "pybox.model",
    "pybox.process",
    "pybox.settings",
    "subprocess",
}
CONTAINER = {"Id": "0" * 64, "Image": "debian", "Command": "sleep 1", "Created": 1, "Status": "Up", "Names": ["/web"]}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Path]:
    """A home folder with the socket of a machine whose engine has one container."""
    paths = Paths.from_environment({"PYBOX_HOME": str(tmp_path)})
    paths.make_socket_dir("default")
    path = hostos.api_address(paths, "default")
    body = json.dumps([{**CONTAINER, "State": "running"}]).encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                assert connection.recv(4096).startswith(b"GET /v1.51/containers/json?all=0&size=0 HTTP/1.1\r\n")
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))

        threading.Thread(target=serve, daemon=True).start()
        yield tmp_path


def run(home: Path, *arguments: str) -> tuple[str, set[str]]:
    """Run Python with these arguments; what it printed, and the modules that it imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        env={**os.environ, "PYBOX_HOME": str(home), "PYTHONPATH": str(ROOT / "host")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if "|" in line}


def found(modules: set[str], wanted: set[str]) -> set[str]:
    """Those of `modules` that are, or are inside of, one of the wanted."""
    return {name for name in modules if any(name == other or name.startswith(f"{other}.") for other in wanted)}


def test_ps_imports_little(engine: Path) -> None:
    # The site's own modules, which differ from one installation to the next, are not pybox's doing.
    _, before = run(engine, "-c", "import click")
    said, modules = run(engine, "-m", "pybox", "ps")
    assert "web" in said
    assert found(modules - before, HEAVY | FOREIGN) == set()


def test_qemu_waits_for_little(tmp_path: Path) -> None:
    _, before = run(tmp_path, "-c", "pass")
    _, modules = run(tmp_path, "-c", "import pybox.hostagent.main")
    assert "pybox.hostagent.headstart" in modules
    unused = {"click", "inspect", "pybox.app", "pybox.cli", "pybox.engine", "pybox.forward", "pybox.share"}
    assert found(modules - before, HEAVY | unused) == set()


def test_the_hostagent_imports_no_command_line(tmp_path: Path) -> None:
    _, before = run(tmp_path, "-c", "import asyncio, qemu.qmp")
    code = "import pybox.hostagent.keeping, pybox.hostagent.guest, pybox.hostagent.clock, pybox.forward.ports"
    _, modules = run(tmp_path, "-c", code)
    unused = {"click", "pybox.app", "pybox.cli", "pybox.engine", "pybox.share"}
    assert found(modules - before, HEAVY - {"asyncio", "qemu"} | unused) == set()
