"""A machine of the other architecture: its image is built here, booted, and runs a container.

Everything is emulated on an amd64 host, so it takes a minute or two: `pytest -m slow tests/machine/test_arm64.py`.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox_image import mirror, packages
from pybox_image.debian import deb
from tests.support.pybox_cli import Cli

pytestmark = pytest.mark.slow
BUSYBOX = "./usr/bin/busybox"
DOCKERFILE = """\
FROM scratch
ADD root.tar /
ENV PATH=/bin
RUN busybox uname -m >/machine
CMD ["busybox", "cat", "/machine"]
"""


@pytest.fixture(scope="module")
def machine(home: Path) -> Iterator[Cli]:
    """The running arm64 machine, its image built from nothing but the cache of downloads."""
    driver = Cli(home, "arm")
    for key, value in (("arch", "arm64"), ("cpus", "2"), ("memory", "1g"), ("shares", "[]")):
        driver.ok("config", "set", key, value)
    try:
        driver.ok("start", "--verbose", timeout=1200)
        yield driver
    finally:
        driver.run("stop", timeout=120)


@pytest.fixture(scope="module")
def image(machine: Cli, home: Path) -> str:
    """An image made in the machine: Debian's static busybox and nothing else."""
    context = home / "busybox"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    with tarfile.open(context / "root.tar", "w") as tar:
        info = tarfile.TarInfo("bin/busybox")
        program = _busybox(home)
        info.size, info.mode = len(program), 0o755
        tar.addfile(info, io.BytesIO(program))
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    machine.ok("build", "-t", "busybox", str(context))
    return "busybox"


def _busybox(home: Path) -> bytes:
    cache = Path(os.environ.get("PYBOX_TEST_CACHE") or home / "cache") / "downloads"
    (package,) = packages.resolve_and_fetch(
        ["busybox-static"],
        "trixie",
        "arm64",
        essential=False,
        dependencies=False,
        mirror=mirror.choose(),
        cache=cache,
    )
    with deb.data_archive(package) as archive:
        found = archive.extractfile(BUSYBOX)
        assert found is not None
        return found.read()


def test_the_engine_says_what_it_runs_on(machine: Cli) -> None:
    assert machine.json("version", "--format", "json")["Server"]["Arch"] == "arm64"
    assert machine.json("info", "--format", "json")["Architecture"] == "aarch64"
    assert machine.ok("ps", "-q") == ""


def test_a_build_and_its_container_run_there(machine: Cli, image: str) -> None:
    assert machine.json("inspect", image)[0]["Architecture"] == "arm64"
    assert machine.ok("run", "--rm", image) == "aarch64"


def test_what_depends_on_the_architecture_is_in_force(machine: Cli, image: str) -> None:
    """System call numbers, the device cgroup's program, the resources."""
    status = machine.ok("run", "--rm", image, "busybox", "cat", "/proc/self/status")
    assert "Seccomp:\t2" in status
    refused = machine.run("run", "--rm", image, "busybox", "unshare", "-m", "busybox", "true")
    assert refused.status != 0 and "Operation not permitted" in refused.err
    device = "busybox mknod /disk b 254 0 && busybox dd if=/disk of=/dev/null count=1"
    refused = machine.run("run", "--rm", image, "sh", "-c", device)
    assert refused.status != 0 and "Operation not permitted" in refused.err
    assert machine.ok("run", "--rm", "-m", "64m", image, "busybox", "cat", "/sys/fs/cgroup/memory.max") == str(64 << 20)


def test_it_starts_again_with_its_data(machine: Cli, image: str) -> None:
    """This time from the saved state, where the host's QEMU can do that."""
    machine.ok("stop", timeout=120)
    machine.ok("start", timeout=600)
    assert machine.ok("run", "--rm", image) == "aarch64"
