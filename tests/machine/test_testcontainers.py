"""testcontainers-python, with and without its reaper: starts a service, talks to it, leaves nothing behind.

PostgreSQL is for runs by hand (`pytest -m slow tests/machine/test_testcontainers.py`): its image takes minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients import reaper_image
from tests.clients.images import base_layer
from tests.support import postgres
from tests.support.image_lab import Sample
from tests.support.pybox_cli import ROOT, Cli

PROGRAM = ROOT / "tests" / "apps" / "testcontainers" / "program.py"
KINDS = (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"), ("images", "-aq"))
PATIENCE = 120.0


@dataclass(frozen=True)
class Service:
    """What the user's program starts, and what that answers."""

    name: str
    image: str
    answer: str


@pytest.fixture(scope="module", params=["web", pytest.param("postgres", marks=pytest.mark.slow)])
def service(request: pytest.FixtureRequest, cli: Cli) -> Service:
    if request.param == "postgres":
        return Service("postgres", postgres.configured_image(cli), "5050")
    cli.ok("load", stdin=Sample.of(base_layer(cli)).saved("busybox:latest"))
    return Service("web", "busybox", "a page")


@pytest.fixture(scope="module")
def reaper(cli: Cli, debian: str, home: Path) -> dict[str, str]:
    """The settings that make testcontainers use our stand-in."""
    return {"RYUK_CONTAINER_IMAGE": reaper_image.make(cli, debian, home / "reaper"), "RYUK_RECONNECTION_TIMEOUT": "1s"}


NO_REAPER = {"TESTCONTAINERS_RYUK_DISABLED": "true"}


def listed(cli: Cli, *filters: str) -> list[set[str]]:
    """The ids of all there is, of each kind."""
    return [set(cli.ok(*kind, *filters).split()) for kind in KINDS]


@contextmanager
def program(cli: Cli, service: Service, end: str, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The user's program, killed afterwards. It has said what it saw, and that is right."""
    # Where the tests themselves run in a container, testcontainers would look for published ports on its gateway.
    environment = {**cli.docker_environment(), "TESTCONTAINERS_CONNECTION_MODE": "docker_host", **settings}
    command = [sys.executable, str(PROGRAM), service.name, service.image, end]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def session_of(process: subprocess.Popen[bytes], service: Service) -> str:
    """Read what the program saw; the label of what is its own."""
    assert process.stdout is not None
    seen = json.loads(process.stdout.readline() or "null")
    assert (seen["by_exec"], seen["by_port"], seen["by_name"]) == (service.answer,) * 3
    return f"label=org.testcontainers.session-id={seen['session']}"


@pytest.mark.parametrize("with_reaper", [False, True])
def test_a_program_that_ends_in_order(cli: Cli, service: Service, reaper: dict[str, str], with_reaper: bool) -> None:
    before = listed(cli)
    with program(cli, service, "leave", reaper if with_reaper else NO_REAPER) as process:
        session_of(process, service)
        assert process.wait(PATIENCE) == 0
    assert listed(cli) == before


def test_the_reaper_removes_what_a_killed_program_left(cli: Cli, service: Service, reaper: dict[str, str]) -> None:
    before = listed(cli)
    with program(cli, service, "stay", reaper) as process:
        session = session_of(process, service)
        assert [len(found) for found in listed(cli, "--filter", session)] == [1, 1, 1, 1]
    deadline = time.monotonic() + PATIENCE
    while (left := listed(cli)) != before:
        assert time.monotonic() < deadline, f"{left} instead of {before}"
        time.sleep(0.2)


def test_without_the_reaper_it_is_left(cli: Cli, service: Service) -> None:
    """That it is the reaper, and nothing of the engine, which cleans up."""
    before = listed(cli)
    with program(cli, service, "stay", NO_REAPER) as process:
        session = session_of(process, service)
    containers, networks, volumes, images = listed(cli, "--filter", session)
    cli.ok("rm", "-f", "-v", *containers)
    cli.ok("network", "rm", *networks)
    cli.ok("volume", "rm", *volumes)
    cli.ok("rmi", *images)
    assert listed(cli) == before
