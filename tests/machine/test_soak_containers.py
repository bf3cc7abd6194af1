"""A thousand containers one after the other, two hundred at once: nothing is left of them, counted on both sides.

By hand: `pytest -m slow tests/machine/test_soak_containers.py`. PYBOX_SOAK_RUNS and PYBOX_SOAK_AT_ONCE say how many,
PYBOX_SOAK_ROUNDS how often those at once are made, and PYBOX_SOAK_TABLE names a file that gets the numbers.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.clients.images import base_layer
from tests.support.image_lab import Sample
from tests.support.leftovers import Holdings, look, look_until, look_until_quiet, table
from tests.support.pybox_cli import Cli

pytestmark = pytest.mark.slow
IMAGE = "busybox:latest"
RUNS = int(os.environ.get("PYBOX_SOAK_RUNS", "1000"))
AT_ONCE = int(os.environ.get("PYBOX_SOAK_AT_ONCE", "200"))
ROUNDS = max(2, int(os.environ.get("PYBOX_SOAK_ROUNDS", "2")))
WARM_UP = 40  # runs until caches, pools and allocators have their size
PATIENCE = 60.0  # seconds for what is done behind the answer to the client


@pytest.fixture(scope="module")
def machine(home: Path, shared: Path) -> Iterator[Cli]:
    """A machine of its own, so that nobody else's containers are counted."""
    made = Cli(home, "soak")
    for key, value in (("cpus", "2"), ("memory", "3g"), ("shares", str(shared))):
        made.ok("config", "set", key, value)
    try:
        made.ok("start", timeout=900)
        made.ok("load", stdin=Sample.of(base_layer(made)).saved(IMAGE))
        made.ok("network", "create", "soaked")
        made.ok("run", "--rm", "--network", "soaked", IMAGE, "true")  # what is made once: mounts of layers, a bridge
        yield made
    finally:
        made.run("delete", "--force")


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Callable[[str, str], None]:
    """Print a table for a person, and keep it where PYBOX_SOAK_TABLE says."""

    def told(title: str, text: str) -> None:
        if path := os.environ.get("PYBOX_SOAK_TABLE"):
            with Path(path).open("a") as file:
                file.write(f"## {title}\n\n{text}\n")
        with capsys.disabled():
            print(f"\n{title}\n{text}")

    return told


def run_one(machine: Cli, turn: int) -> None:
    """One of eight kinds of container, each of which uses something that must be given back."""
    kind = turn % 8
    if kind == 0:
        assert machine.ok("run", "--rm", IMAGE, "echo", "x") == "x"
    elif kind == 1:
        assert machine.ok("run", "--rm", "-v", "/anonymous", "--tmpfs", "/t", IMAGE, "sh", "-c", "date >/anonymous/d") == ""
    elif kind == 2:
        assert machine.run("run", "--rm", "--network", "soaked", "-p", "8080", IMAGE, "sh", "-c", "exit 3").status == 3
    elif kind == 3:
        assert machine.ok("run", "--rm", "-i", IMAGE, "wc", "-c", stdin=bytes(300_000)) == "300000"
    elif kind == 4:
        shared = machine.home / "shared"
        assert machine.ok("run", "--rm", "-v", f"{shared}:/h", IMAGE, "sh", "-c", "echo y >/h/f; cat /h/f") == "y"
    elif kind == 5:
        assert machine.run("run", "--rm", IMAGE, "no-such-program").status == 127
    elif kind == 6:
        identity = machine.ok("run", "-d", "--init", IMAGE, "sleep", "1000")
        assert machine.ok("exec", identity, "sh", "-c", "dd if=/dev/zero of=/f bs=64k count=16 2>/dev/null; echo z") == "z"
        machine.ok("rm", "-f", identity)
    else:
        identity = machine.ok("create", "--memory", "64m", IMAGE, "sh", "-c", "head -c 100000 /dev/zero | tr '\\0' a")
        machine.ok("start", identity)
        assert machine.ok("wait", identity) == "0"
        assert len(machine.ok("logs", identity)) == 100_000
        machine.ok("rm", "-v", identity)


def assert_all_back(before: Holdings, after: Holdings) -> None:
    """Counts are what they were; sizes may move by what allocators and the file system's journal keep.

    `before` is a time at which the same had been done once: until then they take what they need for it.
    """
    assert after.counts == before.counts
    assert after.numbers["threads of the engine"] < 16
    for name, most in (
        ("of the engine (RSS)", 8 << 10),  # 200 at once take their third or fourth time until it stays as it is
        ("of the spawner (RSS)", 1 << 10),
        ("of hostagent (RSS), on the host", 3 << 10),
        ("of the kernel (slab)", 12 << 10),
        ("used of the guest's memory", 24 << 10),
        ("on the disk", 1 << 10),
    ):
        assert after.growth(before, name) < most, name


def test_one_after_the_other(machine: Cli, tell: Callable[[str, str], None]) -> None:
    for turn in range(WARM_UP):
        run_one(machine, turn)
    before = look_until_quiet(machine)
    columns = [("before", before)]
    for half in (1, 2):
        for turn in range(RUNS // 2):
            run_one(machine, turn)
        columns.append((f"after {half * (RUNS // 2):,}", look_until(machine, before, PATIENCE)))
    tell(f"{RUNS:,} containers one after the other", table(columns))
    assert columns[1][1].counts == before.counts
    assert_all_back(columns[1][1], columns[2][1])


def test_many_at_once(machine: Cli, tell: Callable[[str, str], None]) -> None:
    before = look_until_quiet(machine)
    columns = [("before", before)]
    names = [f"at-once-{number}" for number in range(AT_ONCE)]
    for turn in range(ROUNDS):
        columns.append((f"all running, {turn + 1}", with_all_running(machine, names)))
        columns.append(("all removed", look_until(machine, before, PATIENCE)))
        assert machine.ok("ps", "-aq") == ""
    tell(f"{AT_ONCE} containers at once", table(columns))
    assert columns[2][1].counts == before.counts
    assert_all_back(columns[-3][1], columns[-1][1])


def with_all_running(machine: Cli, names: list[str]) -> Holdings:
    """Start them all, ask them, remove them; what was held while they ran."""
    with ThreadPoolExecutor(8) as pool:
        flags = ("--network", "soaked", IMAGE, "sleep", "1000")
        list(pool.map(lambda name: machine.ok("run", "-d", "--name", name, *flags), names))
        running = look(machine)
        assert len(machine.ok("ps", "-q").split()) == len(names)
        said = list(pool.map(lambda name: machine.ok("exec", name, "hostname"), names[::10]))
        assert len(set(said)) == len(names[::10])
        assert f"Name:\t{names[-1]}" in machine.ok("exec", names[0], "nslookup", names[-1])
        assert len(machine.ok("stats", "--no-stream", "--format", "{{.Name}}").split()) == len(names)
        list(pool.map(lambda name: machine.ok("rm", "-f", "-v", name), names))
    return running


def test_many_ports_answer(machine: Cli) -> None:
    """Published ports of many containers come and go; each one leads to its own."""
    before = look_until_quiet(machine)
    names = [f"port-{number}" for number in range(20)]
    ports = []
    for name in names:
        script = f"echo {name} >/tmp/index.html; exec httpd -f -p 80 -h /tmp"
        machine.ok("run", "-d", "--name", name, "-p", "127.0.0.1::80", IMAGE, "sh", "-c", script)
        ports.append(machine.ok("port", name, "80").rpartition(":")[2])
    for name, port in zip(names, ports, strict=True):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            assert answer.read().decode() == f"{name}\n"
    machine.ok("rm", "-f", *names)
    assert look_until(machine, before, PATIENCE).counts == before.counts
