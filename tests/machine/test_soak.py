"""Again and again: starts from the golden state, starts with a damaged one, suspends while a database is written to.

An hour under emulation: `pytest -m slow tests/machine/test_soak.py`. PYBOX_SOAK says how often (100), and
PYBOX_SOAK_REPORT where the distribution of times goes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox.files import tail
from pybox.hostos.interface import native_arch
from pybox.machine.golden import GoldenState
from pybox.qemu import probe
from tests.machine.test_golden import phases, ram_of
from tests.support import postgres
from tests.support.data_disk import recover
from tests.support.distribution import Times
from tests.support.postgres import Life, Postgres, Rows, Writer
from tests.support.pybox_cli import ROOT, Cli
from tests.support.state_damage import DAMAGES, Damage, Target

pytestmark = pytest.mark.slow
TURNS = int(os.environ.get("PYBOX_SOAK", "100"))
_KERNEL_COMPLAINTS = re.compile(r".*(?:EXT4-fs (?:error|warning)|I/O error|BUG:|Oops|Call Trace).*")
MEMORY, OTHER_MEMORY = "1g", "1100m"


@pytest.fixture(scope="module")
def machine(home: Path) -> Iterator[Cli]:
    """The only machine of its own installation: under another one that runs from it, no state could be damaged."""
    folder = home / "soak"
    folder.mkdir()
    (home / "cache").mkdir(exist_ok=True)
    (folder / "cache").symlink_to(home / "cache")
    made = Cli(folder, "soak")
    for key, value in (("cpus", "2"), ("memory", MEMORY), ("shares", "[]")):
        made.ok("config", "set", key, value)
    try:
        made.ok("start", timeout=900)
        made.ok("volume", "create", "kept")
        yield made
    finally:
        made.run("delete", "--force")


@pytest.fixture
def stopped(machine: Cli) -> Cli:
    """The machine, off; its state is there."""
    machine.run("stop")
    if not from_state(phases(machine)):
        machine.ok("stop")
        assert from_state(phases(machine)), log_of(machine)
    machine.ok("stop")
    return machine


@pytest.fixture
def times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Times]:
    """What is measured, told at the end, also of a test that failed."""
    made = Times(Path(os.environ.get("PYBOX_SOAK_REPORT") or tmp_path / "soak.json"))
    yield made
    made.write()
    with capsys.disabled():
        print(f"\n{made}\n({made.path})")


def from_state(names: list[str]) -> bool:
    """Say whether a start with these phases went on from a state at once."""
    return names[:2] == ["qemu", "state"] and names.count("qemu") == 1


def folder_of(machine: Cli) -> Path:
    return machine.home / "state" / "machines" / machine.machine


def log_of(machine: Cli) -> str:
    return tail(folder_of(machine) / "hostagent.log", 60)


def files_of(machine: Cli) -> set[Path]:
    """Everything that the machine has on this computer."""
    state = machine.home / "state"
    return {path for folder in (folder_of(machine), state / "golden", machine.home / "run") for path in folder.rglob("*")}


def answers(machine: Cli) -> bool:
    """Say whether the engine has the machine's data."""
    return machine.ok("volume", "ls", "-q").split()[:1] == ["kept"]


def test_many_starts_from_the_state(stopped: Cli, times: Times) -> None:
    files = files_of(stopped)
    for turn in range(TURNS):
        with times.measure("start"):
            seen = phases(stopped)
        assert from_state(seen), f"start {turn}: {seen}\n{log_of(stopped)}"
        assert answers(stopped)
        with times.measure("stop"):
            stopped.ok("stop")
    assert files_of(stopped) == files


def state_of(machine: Cli) -> GoldenState:
    """The state that the machine was started from last."""
    folder = ram_of(machine).parent
    return GoldenState(folder.name, folder)


@pytest.fixture(scope="module")
def foreign(machine: Cli) -> GoldenState:
    """The state of a machine with more memory."""
    machine.run("stop")
    machine.ok("config", "set", "memory", OTHER_MEMORY)
    for _turn in ("made", "used"):
        machine.ok("start")
        machine.ok("stop")
    machine.ok("config", "set", "memory", MEMORY)
    return state_of(machine)


@pytest.fixture
def target(foreign: GoldenState, stopped: Cli) -> Iterator[Target]:
    """What there is to damage."""
    state = state_of(stopped)
    yield Target(state, foreign)
    if not state.folder.is_dir() or state.folder.is_symlink():  # a test failed; the next one shall not
        state.folder.unlink(missing_ok=True)


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_repaired(stopped: Cli, target: Target, damage: Damage) -> None:
    damage(target)
    cold_once(stopped)


def cold_once(machine: Cli) -> None:
    """Start twice: without the state that there was, and from a new one."""
    seen = phases(machine)
    assert "saved" in seen, f"{seen}\n{log_of(machine)}"
    assert answers(machine)
    machine.ok("stop")
    seen = phases(machine)
    assert from_state(seen), f"{seen}\n{log_of(machine)}"
    assert answers(machine)
    machine.ok("stop")


def test_a_state_of_another_qemu_is_not_used(stopped: Cli, tmp_path: Path) -> None:
    program = probe.find(native_arch()).program
    other = tmp_path / Path(program).name
    other.symlink_to(program)
    stopped.ok("config", "set", "qemu", str(other))
    try:
        cold_once(stopped)
    finally:
        stopped.ok("config", "unset", "qemu")
    assert from_state(phases(stopped)), "the state of before"


def test_a_state_of_another_guest_program_is_not_used(stopped: Cli, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "guest", tmp_path / "guest", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "guest" / "pyboxd" / "__init__.py").open("a") as file:
        file.write("# changed\n")
    changed = Cli(stopped.home, stopped.machine)
    changed.environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "guest"), stopped.environment["PYTHONPATH"]])
    cold_once(changed)
    assert from_state(phases(stopped)), "the state of before"


def test_suspended_in_the_middle_of_commits(stopped: Cli, times: Times, tmp_path: Path) -> None:
    machine, files = stopped, files_of(stopped)
    machine.ok("start")
    postgres.image(machine)
    server = Postgres(machine)
    writer = Writer(machine, server.address)
    acknowledged = writer.wait_beyond(0)
    lives = [Life.of(machine, name) for name in (server.name, writer.name)]
    for turn in range(TURNS):
        with server.dial() as connection:
            with times.measure("suspend"):
                machine.ok("suspend")
            assert connection.recv(1) == b"", "a connection from outside ends"
        with times.measure("resume"):
            machine.ok("resume")
        server.dial().close()
        assert [Life.of(machine, name) for name in (server.name, writer.name)] == lives, f"turn {turn}"
        acknowledged = writer.wait_beyond(acknowledged)
    assert server.sessions_of(writer.name) == (1, 0)
    numbers = writer.end()
    times.count("acknowledged commits", len(numbers))
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= acknowledged
    rows = server.rows()
    # The last row may be committed, and its writer killed before it was told.
    assert rows.count in (len(numbers), len(numbers) + 1)
    assert rows == Rows(rows.count, distinct=rows.count, least=1, most=rows.count, sessions=1, damaged=0)
    assert server.complaints() == []
    server.check_tables()
    assert "Bad checksums:  0" in server.check_pages()
    assert _KERNEL_COMPLAINTS.findall(machine.ok("ssh", "busybox dmesg")) == []
    machine.ok("stop")
    assert files_of(machine) == files
    check_disk(machine, tmp_path / "disk")


def check_disk(machine: Cli, copy: Path) -> None:
    """What the guest left is a sound file system."""
    disk = folder_of(machine) / "data.qcow2"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk), str(copy)], check=True)
    recover(copy)
    copy.unlink()
