"""docker-py's own integration tests against a machine: `scripts/test-dockerpy CHECKOUT`.

CHECKOUT is a checkout of docker/docker-py at the version that pyproject.toml names; nothing of it is kept here. What
needs a swarm or plugins is left out by `dockerpy_excluded.txt`, which was written before the first run.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.clients import images
from tests.support.pybox_cli import Cli
from tests.support.registry import running_registry
from tests.support.relay import tcp_relay

EXCLUDED = Path(__file__).with_name("dockerpy_excluded.txt")
API_VERSION = "1.45"  # what docker-py 7.2 speaks unless it is told to ask
LEAST = 98.0  # per cent of those that ran
# docker-py has no WebSocket over a unix socket. All else goes the direct way: what a relay puts into one packet with
# the answer's header, docker-py loses.
OVER_TCP = ("tests/integration/api_container_test.py::AttachContainerTest::test_run_container_reading_socket_ws",)


@dataclass(frozen=True)
class Case:
    """One test's end: `passed`, `failed` or `skipped`, and why."""

    name: str
    outcome: str
    reason: str = ""


def excluded() -> list[str]:
    """pytest's options that leave out what needs a swarm, plugins, or programs that are not the engine's."""
    options = []
    for line in EXCLUDED.read_text(encoding="utf-8").splitlines():
        words = line.partition("#")[0].split()
        if words:
            options.append(f"--{'deselect' if '::' in words[0] else 'ignore'}={words[0]}")
    return options


def results(report: Path) -> list[Case]:
    """What a JUnit report says."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('tests.integration.')}::{case.get('name')}"
        bad = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        if bad is not None:
            found.append(Case(name, "failed", (bad.get("message") or "").splitlines()[0] if bad.get("message") else ""))
        elif skipped is not None:
            found.append(Case(name, "skipped", skipped.get("message") or ""))
        else:
            found.append(Case(name, "passed"))
    return found


def run(checkout: Path, address: str, folder: Path, tests: Sequence[str], without: Sequence[str] = ()) -> list[Case]:
    """These tests, one after the other; a test that hangs ends after two minutes. The machine must share `folder`."""
    (folder / "tmp").mkdir(parents=True)
    (folder / ".docker").mkdir()
    (folder / ".docker/config.json").write_text("{}")  # without one docker-py keeps contexts in the current folder
    report = folder / "report.xml"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "PYTHON"))}
    environment |= {"DOCKER_HOST": address, "DOCKER_TEST_API_VERSION": API_VERSION}
    environment |= {"HOME": str(folder), "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "pytest", "-q", "--timeout=120", "--timeout-method=signal", "-p", "no:cacheprovider"]
    command += [f"--junitxml={report}", *excluded(), *(f"--deselect={name}" for name in without), *tests]
    subprocess.run(command, cwd=checkout, env=environment, stdin=subprocess.DEVNULL, check=False)
    return results(report)


def show(cases: list[Case]) -> float:
    """Print what failed and was skipped; the share that passed, in per cent."""
    count = Counter(case.outcome for case in cases)
    for outcome in ("failed", "skipped"):
        for case in cases:
            if case.outcome == outcome:
                print(f"{outcome}: {case.name}: {case.reason}")
    ran = count["passed"] + count["failed"]
    share = 100 * count["passed"] / ran if ran else 0.0
    print(f"{count['passed']} of {ran} passed ({share:.1f} %), {count['skipped']} skipped by the tests themselves")
    return share


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkout", type=Path, help="a checkout of docker/docker-py")
    parser.add_argument("tests", nargs="*", help="what to run instead of all: pytest's arguments")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="pybox-"))
    if cache := os.environ.get("PYBOX_TEST_CACHE"):
        (home / "cache").symlink_to(cache)
    cli = Cli(home)
    try:
        with running_registry(home / "hub") as hub:
            settings = {"cpus": "2", "memory": "2g", "shares": str(home), "registry-mirror": hub.address}
            for key, value in settings.items():
                cli.ok("config", "set", key, value)
            cli.ok("start", timeout=900)
            images.fill(cli, hub, home)
            for name in images.NAMES:
                cli.ok("pull", name)
            address = cli.ok("shellinit", "--shell", "bash").splitlines()[0].partition("=")[2].strip("'\"")
            checkout, all_tests = arguments.checkout.resolve(), not arguments.tests
            cases = run(checkout, address, home / "1", arguments.tests or ["tests/integration"], without=OVER_TCP)
            if all_tests:
                with tcp_relay(Path(address.removeprefix("unix://"))) as port:
                    cases += run(checkout, f"tcp://127.0.0.1:{port}", home / "2", list(OVER_TCP))
            return 0 if show(cases) >= LEAST else 1
    finally:
        cli.run("delete", "--force")
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
