"""One machine for all tests here: built, booted and filled with a base image once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pybox_cli import Cli

BASE = "debian:trixie-slim"


@pytest.fixture(scope="session")
def home() -> Iterator[Path]:
    """A short path below the real temporary folder: unix sockets live in it.

    Downloads and the guest image are kept between runs in PYBOX_TEST_CACHE when that is set.
    """
    folder = Path(tempfile.mkdtemp(prefix="pybox-", dir=os.environ.get("PYBOX_TEST_TMP")))
    if cache := os.environ.get("PYBOX_TEST_CACHE"):
        Path(cache).mkdir(parents=True, exist_ok=True)
        (folder / "cache").symlink_to(cache)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def cli(home: Path, shared: Path) -> Iterator[Cli]:
    """The running machine's command line."""
    driver = Cli(home)
    for key, value in (("cpus", "2"), ("memory", "2g"), ("shares", str(shared))):
        driver.ok("config", "set", key, value)
    driver.ok("start", "--verbose", timeout=900)
    yield driver
    driver.run("stop", timeout=120)


@pytest.fixture(scope="session")
def other(home: Path, cli: Cli) -> Iterator[Cli]:
    """A second machine of this installation, which may be killed and filled; image and settings are the first one's."""
    driver = Cli(home, "other")
    driver.ok("config", "set", "disk-size", "2g")
    driver.ok("start")
    yield driver
    driver.run("delete", "--force")


@pytest.fixture(scope="session")
def shared(home: Path) -> Path:
    """A folder of the host that the machine shares."""
    folder = home / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def debian(cli: Cli) -> str:
    """A base image made from Debian packages in this machine (or loaded from PYBOX_TEST_BASE, to save the time)."""
    if archive := os.environ.get("PYBOX_TEST_BASE"):
        cli.ok("load", "-i", archive)
    else:
        cli.ok("image", "bootstrap", "-t", BASE, timeout=1800)
    return BASE


@pytest.fixture(scope="session")
def trixie_docker(cli: Cli) -> str:
    """Debian's docker CLI, unpacked by the project's own downloader."""
    into = cli.home / "docker-cli"
    subprocess.run(
        [sys.executable, "-m", "pybox_image", "unpack", "docker-cli", "--suite", "trixie", "--into", str(into)],
        check=True,
        env=cli.environment,
    )
    return str(into / "usr/bin/docker")


@pytest.fixture
def name(request: pytest.FixtureRequest, cli: Cli) -> Iterator[str]:
    """A container name of this test's own, removed afterwards."""
    text = request.node.name.replace("[", "-").replace("]", "").replace("/", "-")[:60]
    yield text
    cli.run("rm", "-f", "-v", text)
