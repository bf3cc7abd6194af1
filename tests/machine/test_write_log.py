"""Power cuts, all of them: every write of a machine to its data disk is logged, and the log is replayed to its flushes.

At each point the disk must come back with all that was acknowledged before, and with nothing half-written.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pybox.engine.client import EngineClient
from tests.machine.test_machine import status
from tests.support.data_disk import Contents, recover, state
from tests.support.disklog import DiskLog, Entry, flushes, logging_qemu, spread, torn
from tests.support.pybox_cli import Cli
from tests.support.registry import running_registry
from tests.support.small_image import busybox, busybox_layer, image

MIB = 1 << 20
DISK = 2 << 30  # bytes
POINTS = 40  # of the log, in a quick run
BASE, LOADED, REMOVED = "small:1", "loaded:1", "removed:1"


@dataclass(frozen=True)
class Fact:
    """Something that was acknowledged when the log had `count` entries. `holds` is to be true from then on."""

    count: int
    text: str
    holds: Callable[[Contents], bool]


@dataclass(frozen=True)
class Recording:
    """A machine's log, and what was acknowledged on the way. `started` is the log's length when the engine answered."""

    log: DiskLog
    entries: Sequence[Entry]
    started: int
    facts: Sequence[Fact]


class Recorder:
    """Notes facts with the log's length."""

    def __init__(self, log: DiskLog) -> None:
        self._log = log
        self.facts: list[Fact] = []

    def note(self, text: str, holds: Callable[[Contents], bool]) -> None:
        self.facts.append(Fact(self._log.count(), text, holds))


@pytest.fixture(scope="module")
def recording(cli: Cli, home: Path) -> Recording:
    folder = home / "write-log"
    folder.mkdir()
    log = DiskLog(folder / "log")
    machine = Cli(home, "logged")
    for key, value in (
        ("memory", "1g"),
        ("disk-size", "2g"),
        ("accelerator", str(status(cli)["accelerator"])),
        ("qemu", str(logging_qemu(folder, folder / "log"))),
    ):
        machine.ok("config", "set", key, value)
    machine.ok("start")
    try:
        started = log.count()
        recorder = Recorder(log)
        work(machine, recorder, folder)
        return Recording(log, log.entries(), started, recorder.facts)
    finally:
        machine.run("delete", "--force")


def work(machine: Cli, recorder: Recorder, folder: Path) -> None:
    """Something of each kind, one after the other: what one part syncs must not hide what another forgets."""
    layer = busybox_layer(busybox(machine))
    for name, sizes in ((BASE, ()), (LOADED, (2 * MIB, MIB)), (REMOVED, (MIB,)), ("pulled", (MIB, MIB, MIB))):
        (folder / f"{name.partition(':')[0]}.tar").write_bytes(image(layer, *sizes, name=name).saved(name))
    for volume in ("kept", "gone"):
        machine.ok("volume", "create", volume)
        recorder.note(f"volume {volume}", lambda found, name=volume: name in found.volumes or name == "gone")  # type: ignore[misc]
    for name in (BASE, LOADED, REMOVED):
        machine.ok("load", "-i", str(folder / f"{name.partition(':')[0]}.tar"))
        if name != REMOVED:
            recorder.note(f"load of {name}", lambda found, name=name: name in found.images)  # type: ignore[misc]
    write_numbers(machine, recorder)
    client = EngineClient(Path(str(status(machine)["api_socket"])))
    client.post("/networks/create", body={"Name": "own"})
    recorder.note("network", lambda found: "own" in found.networks)
    with running_registry(folder / "registry") as registry:
        registry.push(folder / "pulled.tar", "team/pulled:1")
        reference = f"{registry.address}/team/pulled:1"
        machine.ok("pull", reference)
        recorder.note("pull", lambda found: reference in found.images)
    machine.ok("rmi", REMOVED)
    recorder.note("removal of an image", lambda found: REMOVED not in found.images)
    machine.ok("volume", "rm", "gone")
    recorder.note("removal of a volume", lambda found: "gone" not in found.volumes)
    build(machine, folder / "context")
    recorder.note("build", lambda found: "built:1" in found.images)
    machine.ok("tag", "built:1", "again:1")
    recorder.note("tag", lambda found: "again:1" in found.images)
    identity = machine.ok("create", "-v", "kept:/k", "built:1")
    recorder.note("create", lambda found: identity in found.containers)
    short = machine.ok("create", "built:1")
    machine.ok("rm", short)
    recorder.note("removal of a container", lambda found: short not in found.containers)
    client.post("/commit", {"container": identity, "repo": "committed", "tag": "1"})
    recorder.note("commit", lambda found: "committed:1" in found.images)


def write_numbers(machine: Cli, recorder: Recorder) -> None:
    """A container syncs a number and says it, 20 times."""
    step = "echo $i >/k/new; sync; mv /k/new /k/count; sync; echo $i"
    script = f"i=0; while [ $i -lt 20 ]; do i=$((i+1)); {step}; done"
    process = machine.start_process("run", "--rm", "-v", "kept:/k", BASE, "sh", "-c", script)
    assert process.stdout is not None
    for line in process.stdout:
        number = int(line)
        recorder.note(f"number {number}", lambda found, least=number: int(found.file("volumes/kept/_data/count")) >= least)  # type: ignore[misc]
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0, error


def build(machine: Cli, context: Path) -> None:
    context.mkdir()
    (context / "data").write_bytes(random.Random("context").randbytes(MIB))
    (context / "Dockerfile").write_text(f"FROM {BASE}\nCOPY data /data\nRUN cat /data /data >/twice && mkdir /folder\n")
    machine.ok("build", "-t", "built:1", str(context))


def test_a_cut_while_the_disk_is_formatted(recording: Recording, tmp_path: Path) -> None:
    """At every request of the formatting the next start knows what to do: format again, or use what is there."""
    disk = empty_disk(tmp_path / "disk")
    seen = set()
    entries = recording.entries[: recording.started]
    for number, entry in enumerate(entries):
        found = state(disk)
        assert not found.foreign, f"after {number} requests"
        seen.add(found.blank)
        recording.log.replay([entry], disk)
        if found.blank and not state(disk).blank:  # the moment at which the disk is declared ready
            copy_sparse(disk, tmp_path / "copy")
            recover(tmp_path / "copy")
    assert seen == {True, False}


def test_power_cuts(recording: Recording, tmp_path: Path) -> None:
    points = [point for point in flushes(recording.entries) if point >= recording.started]
    assert len(points) > POINTS
    replay(recording, spread(points, POINTS), tmp_path)


@pytest.mark.slow
def test_a_power_cut_at_every_flush(recording: Recording, tmp_path: Path) -> None:
    replay(recording, [point for point in flushes(recording.entries) if point >= recording.started], tmp_path, chances=4)


def replay(recording: Recording, points: Sequence[int], folder: Path, chances: int = 1) -> None:
    """Look at the disk after each point, as it was flushed, and with parts of what came behind."""
    disk, copy = empty_disk(folder / "disk"), folder / "copy"
    done = 0
    indexes: dict[str, str] = {}
    for point in points:
        recording.log.replay(recording.entries[done:point], disk)
        done = point
        for seed in range(chances + 1):
            subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
            behind = torn(recording.entries, point, random.Random(point * 100 + seed)) if seed else []
            recording.log.replay(behind, copy)
            where = f"after {point} of {len(recording.entries)} requests, with {len(behind)} of those behind"
            try:
                look(recording, copy, point, folder / "contents", indexes)
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error


def look(recording: Recording, disk: Path, point: int, folder: Path, indexes: dict[str, str]) -> None:
    recover(disk)
    found = Contents(disk, folder)
    try:
        found.check(indexes)
        for fact in recording.facts:
            assert fact.count > point or fact.holds(found), f"not there: {fact.text}, acknowledged at {fact.count}"
    finally:
        found.close()


def empty_disk(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(DISK)
    return path


def copy_sparse(disk: Path, copy: Path) -> None:
    subprocess.run(["cp", "--sparse=always", str(disk), str(copy)], check=True)
