"""Suspended machines, over a program that behaves like QEMU: what is kept, used once, refused, and survives a kill."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pybox import hostos
from pybox.errors import MachineError
from pybox.machine import lifecycle
from pybox.machine.files import InUse
from pybox.model import MachineState, Phase
from tests.support.machine_lab import Machine, machine_in, wait_until

pytestmark = [
    pytest.mark.skipif(not hostos.current().passes_sockets, reason="the stand-in for QEMU wants unix sockets"),
    pytest.mark.timeout(60),
]
RESUMED = ["qemu", "state", "kernel", "folders", "engine", "api", "ready"]
COLD = ["qemu", "kernel", "engine", "api", "ready"]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with machine_in(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def suspended(machine: Machine) -> Machine:
    machine.start()
    assert machine.suspend()
    return machine


def phases(machine: Machine) -> list[str]:
    """Start; the names of the start's phases."""
    seen: list[Phase] = []
    machine.start(seen.append)
    assert machine.get("/_ping") == "OK"
    return [phase.name for phase in seen]


def refusal(machine: Machine) -> MachineError:
    """Start a machine that cannot be resumed; the error. It is still suspended then."""
    before = {path: path.stat().st_mtime_ns for path in machine.files.folder.glob("suspended*/*")}
    with pytest.raises(MachineError) as caught:
        machine.start()
    assert "pybox start --discard" in caught.value.resolution and "as if the power had failed" in caught.value.resolution
    wait_until(lambda: machine.status().pid is None)
    assert machine.status().state is MachineState.SUSPENDED
    assert {path: path.stat().st_mtime_ns for path in machine.files.folder.glob("suspended*/*")} == before
    return caught.value


def left(machine: Machine) -> set[str]:
    return {path.name for path in machine.files.folder.glob("suspended*")}


def test_it_goes_on_where_it_was(machine: Machine) -> None:
    machine.start()
    port = machine.get("/publish/0")["result"]["host_port"]
    first = machine.get("/configuration")
    began = time.time()
    assert machine.suspend()
    status = machine.status()
    assert status.state is MachineState.SUSPENDED and status.pid is None and status.qemu_pid is None
    assert status.suspended_at is not None and began <= status.suspended_at <= time.time() and status.saved_size > 10
    assert list(machine.files.sockets.iterdir()) == [] and not machine.files.processes.exists()
    assert {path.name for path in machine.files.suspended.iterdir()} == {"stream", "record.json"}

    assert phases(machine) == RESUMED
    assert machine.status().state is MachineState.RUNNING and machine.status().suspended_at is None
    assert machine.get("/syncs") == 1
    second = machine.get("/configuration")
    assert [first[name] == second[name] for name in ("hostname", "api", "entropy")] == [True, False, False]
    assert [item.host_port for item in machine.status().ports] == [port]
    assert left(machine) == set()
    assert machine.suspend()  # and again
    assert phases(machine) == RESUMED and machine.get("/syncs") == 2


def test_it_is_used_up(suspended: Machine) -> None:
    """What was resumed once does not come back: not by a restart, not after a kill, not by a copy that somebody kept."""
    kept = suspended.files.folder / "kept"
    shutil.copytree(suspended.files.suspended, kept)
    assert phases(suspended) == RESUMED
    suspended.kill("hostagent")
    wait_until(lambda: suspended.status().pid is None)
    assert suspended.status().state is MachineState.STOPPED
    kept.replace(suspended.files.suspended)
    assert "its data disk changed since it was suspended" in refusal(suspended).brief


def test_what_runs_or_is_off_already(suspended: Machine) -> None:
    assert not suspended.suspend()
    phases(suspended)
    assert [phase.name for phase in suspended.start().phases] == ["ready"]
    suspended.stop()
    assert not suspended.suspend()
    assert suspended.status().state is MachineState.STOPPED
    assert phases(suspended) == COLD


def test_many_at_once(machine: Machine) -> None:
    """Everybody who wanted it hears of it; the starts that come between make one machine."""
    machine.start()
    done: list[object] = []
    work: list[Callable[[], object]] = [machine.suspend, machine.suspend, machine.start, machine.start]
    threads = [threading.Thread(target=lambda step=step: done.append(step())) for step in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4
    machine.start()
    assert machine.get("/_ping") == "OK" and left(machine) == set()


# -- what changed meanwhile -------------------------------------------------------------------------


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"x")


def rewrite(path: Path, before: str, after: str) -> None:
    path.write_text(path.read_text().replace(before, after))


def rename_kernel(machine: Machine) -> None:
    (machine.image.folder / "vmlinuz").rename(machine.image.folder / "vmlinux")
    rewrite(machine.image.folder / "manifest.json", "vmlinuz", "vmlinux")


CHANGES: tuple[tuple[str, Callable[[Machine], object]], ...] = (
    ("its data disk changed", lambda machine: append(machine.files.data_disk)),
    ("its data disk cannot be read", lambda machine: machine.files.data_disk.unlink()),
    ("QEMU changed", lambda machine: append(Path(machine.settings.qemu))),
    ("the guest image changed", lambda machine: rewrite(machine.image.folder / "manifest.json", '"id": "1"', '"id": "2"')),
    ("pybox's program in the guest changed", lambda machine: machine.image.initrd.write_bytes(b"INITRD")),
    ("QEMU's command line changed", rename_kernel),
    ("memory of default is damaged", lambda machine: os.truncate(machine.files.suspended / "stream", 3)),
    (
        "memory of default is damaged",
        lambda machine: rewrite(machine.files.suspended / "record.json", '"format": 1', '"format": 0'),
    ),
    ("memory of default is damaged", lambda machine: (machine.files.suspended / "record.json").unlink()),
)


def test_a_machine_that_changed_is_not_resumed(suspended: Machine, tmp_path: Path) -> None:
    """And it is, once the change is undone."""
    places = (suspended.files.data_disk, Path(suspended.settings.qemu), suspended.image.folder, suspended.files.suspended)
    for place in places:
        copy(place, tmp_path / "copy" / place.name)
    for words, change in CHANGES:
        change(suspended)
        suspended.image = suspended.image.open(suspended.image.folder)
        assert words in refusal(suspended).brief
        for place in places:
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
            copy(tmp_path / "copy" / place.name, place)
    suspended.image = suspended.image.open(suspended.image.folder)
    assert phases(suspended) == RESUMED


def copy(source: Path, target: Path) -> None:
    """With its times."""
    target.parent.mkdir(exist_ok=True)
    shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)


def test_a_memory_that_is_given_up(suspended: Machine) -> None:
    append(suspended.files.data_disk)
    refusal(suspended)
    assert lifecycle.discard(suspended.settings, "default")
    assert not lifecycle.discard(suspended.settings, "default")
    assert suspended.status().state is MachineState.STOPPED and left(suspended) == set()
    assert phases(suspended) == COLD


def test_settings_wait_for_the_next_start(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    machine.settings = machine.settings.with_values({"memory": "1g", "cpus": "1"})
    machine.start()
    machine.suspend()
    machine.settings = machine.settings.with_values({"memory": "2g", "cpus": "2", "accelerator": "auto", "disk-size": "99g"})
    machine.settings = machine.settings.with_values({"shares": str(tmp_path / "folder")})
    assert phases(machine) == RESUMED
    status = machine.status()
    assert (status.memory_mib, status.cpus, status.shares) == (1024, 1, ())
    machine.stop()
    machine.settings = machine.settings.with_values({"shares": "", "disk-size": "64g"})
    machine.start()
    assert (machine.status().memory_mib, machine.status().cpus) == (2048, 2)


# -- what goes wrong --------------------------------------------------------------------------------


def test_a_save_that_fails(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU_SAVE", "fail")
    machine.start()
    for _ in range(2):
        with pytest.raises(MachineError, match="the machine was not suspended: QEMU could not") as caught:
            machine.suspend()
        assert "fake: nobody takes it" in caught.value.details
        assert machine.status().state is MachineState.RUNNING and machine.get("/_ping") == "OK"
    assert left(machine) == set()


def test_a_full_disk(machine: Machine) -> None:
    machine.start()
    machine.files.suspended.with_name("suspended.new").write_text("in the way")
    with pytest.raises(MachineError, match="the machine was not suspended: ") as caught:
        machine.suspend()
    assert "suspended.new" in caught.value.details
    assert machine.get("/_ping") == "OK"


def test_a_stream_that_qemu_does_not_take(suspended: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU_STATE", "refuse")
    error = refusal(suspended)
    assert "was not resumed" in error.brief and "fake: this is no state" in error.details
    monkeypatch.delenv("FAKE_QEMU_STATE")
    assert phases(suspended) == RESUMED


def test_a_guest_that_dies_when_it_goes_on(suspended: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU_STATE", "die")
    with pytest.raises(MachineError, match="after it was resumed") as caught:
        suspended.start()
    assert "used up" in caught.value.resolution
    monkeypatch.delenv("FAKE_QEMU_STATE")
    assert suspended.status().state is MachineState.STOPPED
    assert phases(suspended) == COLD


@pytest.mark.parametrize("moment", ["stuck", "kill"])
def test_a_kill_while_it_is_suspended(machine: Machine, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Before the state is in its place there is none: the machine boots, as after a power failure."""
    monkeypatch.setenv("FAKE_QEMU_SAVE", moment)
    machine.start()
    failures: list[MachineError] = []

    def suspend() -> None:
        try:
            machine.suspend()
        except MachineError as error:
            failures.append(error)

    thread = threading.Thread(target=suspend)
    thread.start()
    if moment == "stuck":
        wait_until(lambda: (machine.files.folder / "suspended.new" / "stream").exists())
        assert machine.status().state is MachineState.SUSPENDING
        machine.kill("hostagent")
    thread.join()
    assert "ended before default was suspended" in failures[0].brief
    monkeypatch.delenv("FAKE_QEMU_SAVE")
    wait_until(lambda: machine.status().state is MachineState.STOPPED)
    assert left(machine) == {"suspended.new"}
    assert phases(machine) == COLD
    assert left(machine) == set()


def test_a_kill_when_the_guest_should_go_on(suspended: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whether it did: the state is used up."""
    monkeypatch.setenv("FAKE_QEMU_STATE", "kill")
    with pytest.raises(MachineError, match="did not start"):
        suspended.start()
    monkeypatch.delenv("FAKE_QEMU_STATE")
    wait_until(lambda: suspended.status().pid is None)
    assert suspended.status().state is MachineState.STOPPED and left(suspended) == {"suspended.taken"}
    assert phases(suspended) == COLD
    assert left(suspended) == set()


# -- stop, delete -----------------------------------------------------------------------------------


def test_delete(suspended: Machine) -> None:
    assert lifecycle.delete(suspended.settings, "default")
    assert suspended.status().state is MachineState.MISSING


def test_a_running_machine_has_nothing_to_discard(suspended: Machine) -> None:
    phases(suspended)
    assert not lifecycle.discard(suspended.settings, "default")
    suspended.files.suspended.mkdir()
    with pytest.raises(InUse):
        lifecycle.discard(suspended.settings, "default")
    suspended.files.suspended.rmdir()
