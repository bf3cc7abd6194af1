"""Process 1 for real: each test runs it as the first process of a new pid namespace."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyboxd.boot import filesystems, init
from pyboxd.boot.start import SETTLED_VARIABLE
from pyboxd.linux import constants as k
from pyboxd.linux.mount import mount
from pyboxd.linux.namespaces import unshare

LIMIT = 20.0  # seconds until a hanging process 1 is killed


def can_make_namespaces() -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            unshare(k.CLONE_NEWPID | k.CLONE_NEWNS)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


pytestmark = pytest.mark.skipif(not can_make_namespaces(), reason="needs root and namespaces")


class FirstProcess:
    """A process that is number 1 of its own pid namespace and runs `program`."""

    def __init__(self, program: Callable[[], None]) -> None:
        reading, writing = os.pipe()
        self._outer = os.fork()
        if self._outer == 0:
            unshare(k.CLONE_NEWPID | k.CLONE_NEWNS)
            mount("", "/", flags=k.MS_REC | k.MS_PRIVATE)
            pid = os.fork()
            if pid == 0:
                assert os.getpid() == 1  # what follows would be the end of the machine that runs the tests
                mount("proc", "/proc", "proc")
                self._run(program)
            os.write(writing, pid.to_bytes(4, "little"))
            status = os.waitpid(pid, 0)[1]
            os._exit(os.WTERMSIG(status) + 100 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
        os.close(writing)
        self.pid = int.from_bytes(os.read(reading, 4), "little")  # as seen from outside
        os.close(reading)

    def _run(self, program: Callable[[], None]) -> None:
        try:
            program()
        except BaseException as error:  # noqa: BLE001 - the end of this process in every case
            sys.excepthook(type(error), error, error.__traceback__)
            os._exit(99)
        os._exit(0)

    def wait(self) -> int:
        """Exit status, 100 + signal when it was killed by one."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self._outer, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self._outer, 0)
        raise AssertionError("process 1 did not end")


@pytest.fixture(autouse=True)
def plain_score(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every root may make a process safer from the OOM killer than it was."""
    monkeypatch.setattr(init, "OOM_SCORE", "0")


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "notes"
    path.touch()
    yield path


def note(path: Path, line: str) -> int:
    """Append a line; the number of lines then."""
    with path.open("a") as file:
        file.write(f"{line}\n")
    return len(path.read_text().splitlines())


def settled(_writing: int) -> int:
    return 0


def wait_for(path: Path, line: str) -> None:
    deadline = time.monotonic() + LIMIT
    while line not in path.read_text().splitlines():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.01)


def idle() -> int:
    """In the place of the relay, which has no port here."""
    signal.pause()
    return 0


def test_the_engine_is_started_again_until_it_ends_well(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine() -> int:
        count = note(notes, "start")
        if count == 1:
            return 3
        if count == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        if count == 3:
            raise ZeroDivisionError
        return 0

    monkeypatch.setattr(init, "_relay", idle)
    monkeypatch.setattr(init, "_settle", settled)
    assert FirstProcess(lambda: init.Supervisor(engine).run()).wait() == 0
    assert notes.read_text().split() == ["start"] * 4


def test_the_engine_waits_for_the_slow_part(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(writing: int) -> int:
        time.sleep(0.2)
        note(notes, "settled")
        os.write(writing, b"KeyError: 'bridge'")
        return 1

    def engine() -> int:
        with os.fdopen(int(os.environ[SETTLED_VARIABLE]), "rb", 0) as pipe:
            note(notes, pipe.read().decode())
        return 0

    monkeypatch.setattr(init, "_relay", idle)
    monkeypatch.setattr(init, "_settle", slow)
    assert FirstProcess(lambda: init.Supervisor(engine).run()).wait() == 0
    assert notes.read_text().splitlines() == ["settled", "KeyError: 'bridge'"]


def test_orphans_are_taken_care_of(notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def engine() -> int:
        if os.fork() == 0:
            for _ in range(3):
                if os.fork() == 0:
                    os._exit(0)
            os._exit(0)
        os.wait()
        deadline = time.monotonic() + LIMIT
        while len([name for name in os.listdir("/proc") if name.isdigit()]) > 3:  # process 1, the relay, this one
            if time.monotonic() > deadline:
                return 5
            time.sleep(0.01)
        note(notes, "clean")
        return 0

    monkeypatch.setattr(init, "_relay", idle)
    monkeypatch.setattr(init, "_settle", settled)
    assert FirstProcess(lambda: init.Supervisor(engine).run()).wait() == 0
    assert "clean" in notes.read_text()


@pytest.mark.parametrize("obeys", [True, False])
def test_a_signal_to_process_1_stops_the_engine(notes: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool) -> None:
    def engine() -> int:
        if not obeys:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        note(notes, "up")
        time.sleep(60)
        return 0

    monkeypatch.setattr(init, "_relay", idle)
    monkeypatch.setattr(init, "_settle", settled)
    monkeypatch.setattr(init, "STOP_TIMEOUT", 0.3)
    first = FirstProcess(lambda: init.Supervisor(engine).run())
    wait_for(notes, "up")
    os.kill(first.pid, signal.SIGTERM)
    assert first.wait() == 0


def test_switching_off_kills_everything_and_unmounts(notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "data"
    folder.mkdir()

    def program() -> None:
        mount("tmpfs", str(folder), "tmpfs")
        for _ in range(3):
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                os.chdir(folder)  # keeps the mount busy
                os.setsid()
                time.sleep(60)
        time.sleep(0.2)
        monkeypatch.setattr(init, "DATA", str(folder))
        monkeypatch.setattr(init, "reboot", lambda command: note(notes, f"mounted: {os.path.ismount(folder)}"))
        init.power_off()

    assert FirstProcess(program).wait() == 0
    assert notes.read_text() == "mounted: False\n"


def test_the_kernel_is_told_to_switch_off() -> None:
    """In a pid namespace the kernel answers reboot(2) with SIGINT to its process 1 (pid_namespaces(7))."""
    assert FirstProcess(init.power_off).wait() == 100 + signal.SIGINT


def test_mounts_go_from_the_inside_out(tmp_path: Path, notes: Path) -> None:
    def program() -> None:
        outer = tmp_path / "outer"
        outer.mkdir()
        mount("tmpfs", str(outer), "tmpfs")
        for name in ("a", "b c"):
            (outer / name).mkdir()
            mount("tmpfs", str(outer / name), "tmpfs")
        with (outer / "a" / "open").open("w"):
            note(notes, str(filesystems.unmount_below(str(outer))))
        note(notes, str(filesystems.unmount_below(str(outer))))

    assert FirstProcess(program).wait() == 0
    outer = tmp_path / "outer"
    assert notes.read_text().splitlines() == [str([f"{outer}/a", f"{outer}"]), "[]"]
