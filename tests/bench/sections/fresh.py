"""Eight throw-away machines at once: until all answer, and what they then take of this computer's memory."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pybox.errors import MachineError, PyboxError
from tests.bench.api import Address, first_answer
from tests.bench.bench import Bench
from tests.bench.lines import PYBOX

COUNT = 8
_PATIENCE = 300.0  # seconds
_MARK = "PYBOX_BENCH_MARK"  # in the environment of all that belongs to the machines
# Says where its machine answers, and lets it live until there is a line for it to read.
_GUEST_OF = 'echo "$DOCKER_HOST" >"$1.part"; mv "$1.part" "$1"; read -r _ <"$2"'
_PSS = re.compile(rb"^Pss: +(\d+) kB", re.MULTILINE)


def measure(bench: Bench) -> None:
    """The user's own machine does not run. A first one makes the template of their disks."""
    try:
        _round(bench, 1)
        for _ in range(bench.repeats.boots):
            seconds, memory = _round(bench, COUNT)
            bench.book.add("start.fresh", PYBOX, seconds)
            bench.book.add("start.fresh-memory", PYBOX, memory)
    except (PyboxError, OSError) as error:
        for series in ("start.fresh", "start.fresh-memory"):
            bench.fail(series, PYBOX, error)


def _round(bench: Bench, count: int) -> tuple[float, float]:
    """Start so many machines; seconds until all have answered, and MB of PSS for each."""
    folder = bench.folder / f"fresh-{secrets.token_hex(4)}"
    folder.mkdir()
    mark = secrets.token_hex(8)
    began = time.monotonic()
    with _machines(bench, folder, count, mark) as commands:
        waiting = {folder / str(number) for number in range(count)}
        while waiting:
            for path in [path for path in waiting if path.exists()]:
                socket = path.read_text().strip().removeprefix("unix://")
                first_answer(Address(path=Path(socket)), began + _PATIENCE)
                waiting.remove(path)
            if any(command.poll() is not None for command in commands):
                raise MachineError("a throw-away machine did not start", (folder / "errors").read_text(errors="replace"))
            if time.monotonic() > began + _PATIENCE:
                raise MachineError(f"the throw-away machines do not answer within {_PATIENCE:g} s")
            time.sleep(0.005)
        seconds = time.monotonic() - began
        return seconds, _memory(f"{_MARK}={mark}".encode()) / count


@contextmanager
def _machines(bench: Bench, folder: Path, count: int, mark: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Commands that each have a machine; ended behind the block, and their machines with them."""
    fifo = folder / "end"
    os.mkfifo(fifo)
    environment = {**bench.pybox.own_environment(), _MARK: mark}
    commands = []
    # Open for both, so that nobody waits for the other side to come.
    with (folder / "errors").open("wb") as errors, fifo.open("r+b", buffering=0) as end:
        try:
            for number in range(count):
                words = ("sh", "-c", _GUEST_OF, "sh", str(folder / str(number)), str(fifo))
                command = bench.pybox.command("test", "--", *words)
                commands.append(subprocess.Popen(command, env=environment, stdout=errors, stderr=errors))
            yield commands
        finally:
            end.write(b"\n" * count)
            for process in commands:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()  # what it leaves is removed with the bench's installation
        process.wait()


def _memory(mark: bytes) -> float:
    """Return the PSS, in MB, of all processes with this in their environment but the shells above."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark not in (folder / "environ").read_bytes() or (folder / "comm").read_text() == "sh\n":
                continue
            found = _PSS.search((folder / "smaps_rollup").read_bytes())
        except OSError:  # it has ended, or is not ours
            continue
        total += int(found[1]) if found else 0
    return total * 1024 / 1e6
