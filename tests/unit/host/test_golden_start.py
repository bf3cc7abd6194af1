"""Starts from a saved state, over a program that behaves like QEMU: what is made, used, noticed and repaired."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pybox import hostos
from pybox.errors import MachineError
from pybox.machine.golden import FileFacts, GoldenState, GoldenStore
from pybox.model import MachineState, Phase
from tests.support.machine_lab import Machine, machine_in, wait_until

pytestmark = [
    pytest.mark.skipif(not hostos.current().passes_sockets, reason="the stand-in for QEMU wants unix sockets"),
    pytest.mark.timeout(60),
]
MADE = ["qemu", "kernel", "saved", "qemu", "state", "kernel", "engine", "api", "ready"]
USED = ["qemu", "state", "kernel", "engine", "api", "ready"]
COLD = ["qemu", "kernel", "engine", "api", "ready"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with machine_in(tmp_path, monkeypatch, golden=True) as made:
        yield made


def phases(machine: Machine) -> list[str]:
    """Start, and stop again; the names of the start's phases."""
    seen: list[Phase] = []
    machine.start(seen.append)
    assert machine.get("/_ping") == "OK"
    machine.stop()
    return [phase.name for phase in seen]


def states(machine: Machine) -> list[Path]:
    return [path for path in machine.paths.golden_dir.iterdir() if path.is_dir()]


def test_the_first_start_makes_the_state_that_others_use(machine: Machine) -> None:
    assert phases(machine) == MADE
    assert phases(machine) == USED
    (state,) = states(machine)
    assert {path.name for path in state.iterdir()} == {"ram", "devices", "state.json"}
    words = machine.files.agent_log.read_text()
    assert f"mem-path={state}/ram,share=off" in words and "-incoming defer" in words


def test_the_machine_that_becomes_a_state_is_told_nothing(machine: Machine) -> None:
    machine.start()
    saved, running = [line for line in machine.files.agent_log.read_text().splitlines() if "-nodefaults" in line]
    assert "null-co" in saved and str(machine.files.data_disk) not in saved and "share=on" in saved
    assert str(machine.files.data_disk) in running and "null-co" not in running
    assert machine.files.agent_log.read_text().count("configured in") == 1


def flip(path: Path) -> None:
    """Change one byte in the middle."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def gone(folder: Path) -> Path:
    """The path, where nothing is any more."""
    shutil.rmtree(folder)
    return folder


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a byte of the RAM": lambda state: flip(state / "ram"),
    "a byte of the devices": lambda state: flip(state / "devices"),
    "the RAM is shorter": lambda state: os.truncate(state / "ram", 3),
    "no devices": lambda state: (state / "devices").unlink(),
    "no RAM": lambda state: (state / "ram").unlink(),
    "no record": lambda state: (state / "state.json").unlink(),
    "the record is of another state": lambda state: (state / "state.json").write_text('{"key": "other"}'),
    "the record is no JSON": lambda state: (state / "state.json").write_text("{"),
    "a file in its place": lambda state: gone(state).write_text(""),
    "a link to nothing in its place": lambda state: os.symlink("nowhere", gone(state)),
}


@pytest.fixture
def store(tmp_path: Path) -> GoldenStore:
    """One with a state."""
    made = GoldenStore(tmp_path / "golden")
    draft = made.draft("key")
    draft.memory.write_bytes(bytes(200_000) + os.urandom(100_000))
    draft.devices.write_bytes(os.urandom(1000))
    made.publish(draft)
    assert made.find("key") is not None
    return made


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_noticed(store: GoldenStore, tmp_path: Path, damage: str) -> None:
    DAMAGES[damage](tmp_path / "golden" / "key")
    assert store.find("key") is None
    assert not os.path.lexists(tmp_path / "golden" / "key")


def test_decay_is_noticed_once_a_day(store: GoldenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that changed without a write: the times tell nothing."""
    state = store.find("key")
    assert state is not None
    before = state.memory.stat()
    flip(state.memory)
    os.utime(state.memory, ns=(before.st_atime_ns, before.st_mtime_ns))
    monkeypatch.setattr(FileFacts, "of", classmethod(lambda cls, path: cls(before.st_size, before.st_ino, 0, 0)))
    record = json.loads(state.record.read_bytes())
    record["memory"] = {"size": before.st_size, "inode": before.st_ino, "modified_ns": 0, "changed_ns": 0}
    state.record.write_text(json.dumps(record))
    assert store.find("key") is not None and store.verify_in_time(state)
    state.record.write_text(json.dumps({**record, "verified_at": 0.0}))
    assert not store.verify_in_time(state)
    assert store.find("key") is None


def test_few_states_are_kept(store: GoldenStore, tmp_path: Path) -> None:
    for number in range(6):
        draft = store.draft(f"key-{number}")
        draft.memory.write_bytes(b"ram")
        draft.devices.write_bytes(b"devices")
        store.publish(draft)
        os.utime(tmp_path / "golden" / f"key-{number}", (number, number))
    store.collect()
    assert {path.name for path in (tmp_path / "golden").iterdir()} == {"key", "key-3", "key-4", "key-5"}


def test_damage_is_repaired(machine: Machine) -> None:
    phases(machine)
    (state,) = states(machine)
    flip(state / "ram")
    assert phases(machine) == MADE
    assert phases(machine) == USED


def test_other_times_and_the_same_bytes_are_no_damage(machine: Machine) -> None:
    phases(machine)
    (state,) = states(machine)
    shutil.copy(state / "ram", state / "copy")
    (state / "copy").replace(state / "ram")
    assert phases(machine) == USED


def test_what_must_match_makes_another_state(machine: Machine) -> None:
    phases(machine)
    machine.settings = machine.settings.with_values({"memory": "1g"})
    assert phases(machine) == MADE
    assert len(states(machine)) == 2


def test_a_state_that_cannot_be_loaded_is_replaced(machine: Machine) -> None:
    """One that is whole, and not what QEMU takes: sums cannot tell."""
    phases(machine)
    (state,) = states(machine)
    store = GoldenStore(machine.paths.golden_dir)
    draft = store.draft(state.name)
    draft.memory.write_bytes(b"fake RAM")
    draft.devices.write_bytes(b"something else")
    store.discard(GoldenState(state.name, state), "test")
    store.publish(draft)
    assert phases(machine) == ["qemu", *MADE]
    assert phases(machine) == USED


def test_where_no_state_works_machines_boot(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU_STATE", "die")
    seen = phases(machine)
    assert [name for name in seen if name != "state"] == [*MADE[:4], *COLD]
    assert phases(machine) == COLD  # it is not tried again
    assert states(machine) == []


def test_no_room_for_a_state(machine: Machine) -> None:
    machine.paths.golden_dir.parent.mkdir(parents=True)
    machine.paths.golden_dir.write_text("in the way")
    assert phases(machine) == COLD


def test_without_golden_states(machine: Machine) -> None:
    machine.settings = machine.settings.with_values({"golden-state": "false"})
    assert phases(machine) == COLD
    assert not machine.paths.golden_dir.exists()


def test_a_kill_while_a_state_is_made(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not finished is not used."""
    monkeypatch.setenv("FAKE_QEMU_SAVE", "stuck")
    failures: list[MachineError] = []

    def start() -> None:
        try:
            machine.start()
        except MachineError as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: machine.paths.golden_dir.exists() and bool(list(machine.paths.golden_dir.glob("draft-*/devices"))))
    machine.kill("hostagent")
    thread.join()
    monkeypatch.delenv("FAKE_QEMU_SAVE")
    wait_until(lambda: machine.status().state is MachineState.STOPPED)
    assert phases(machine) == MADE
