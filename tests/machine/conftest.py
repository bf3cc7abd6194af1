"""One machine for all tests here: built, booted and filled with a base image once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from pybox import settings
from pybox.machine.bake import boot_for_bake
from pybox.model import Arch
from pybox.paths import Paths
from tests.support.guest_vm import run_guest_tests
from tests.support.pybox_cli import Cli

BASE = "debian:trixie-slim"
# The folder server runs on the host; its tests do too, over the host's own FUSE (scripts/test runs them).
IGNORED = tuple(f"--ignore=tests/guest/test_{name}.py" for name in ("share_posix", "share_relay"))
GUEST_TESTS = "test_guest.py"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The one that waits for the guest's tests comes last."""
    items.sort(key=lambda item: item.path.name == GUEST_TESTS)


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
def guest_run(cli: Cli) -> Iterator[Future[tuple[int, str]]]:
    """tests/guest in a machine of its own, beside the tests here: its status and what it printed."""
    paths = Paths.from_environment({"PYBOX_HOME": str(cli.home)})
    boot = boot_for_bake(settings.load(paths, environ={}), Arch.AMD64)
    image, folder = paths.image_dir("amd64"), cli.home / "guest-vm"
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run_guest_tests, image, boot, folder, ["tests/guest", *IGNORED])


@pytest.fixture(scope="session", autouse=True)
def guest_tests_run_beside(request: pytest.FixtureRequest) -> None:
    """Start the guest's tests with the first test here, if they are asked for at all: most of these wait a lot."""
    if any(item.path.name == GUEST_TESTS for item in request.session.items):
        request.getfixturevalue("guest_run")


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
