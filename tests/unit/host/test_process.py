"""The door to other programs, with real programs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pybox import hostos, process
from pybox.errors import PyboxError
from pybox.machine.files import ProcessRecord

PYTHON = sys.executable


def test_output_and_input() -> None:
    done = process.run([PYTHON, "-c", "print(input()[::-1])"], input_data="abc\n")
    assert (done.stdout, done.status) == ("cba\n", 0)


def test_a_failure_says_command_status_and_words() -> None:
    with pytest.raises(PyboxError) as caught:
        process.run([PYTHON, "-c", "import sys; sys.exit('no luck')"])
    assert "exit status 1" in caught.value.brief
    assert "no luck" in caught.value.details and PYTHON in caught.value.details


def test_a_signal_has_its_name() -> None:
    done = process.run([PYTHON, "-c", "import os; os.kill(os.getpid(), 15)"], check=False)
    assert done.ending == "was ended by SIGTERM"
    assert process.ending(127) == "was not found (exit status 127)"


def test_a_program_that_is_not_there() -> None:
    for start in (process.run, process.popen):
        with pytest.raises(PyboxError, match="was not found"):
            start(["/nonexistent/program"])


def test_a_program_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(PyboxError, match="did not end"):
        process.run([PYTHON, "-c", "import time; time.sleep(60)"], timeout=0.2)
    assert time.monotonic() - began < 30


def test_a_detached_program_reports_through_its_pipe(tmp_path: Path) -> None:
    detachment = hostos.current().detachment
    code = "import os, sys; print(os.getsid(0) == os.getpid(), flush=True); sys.stderr.write('oops')"
    child = process.spawn_detached(
        [PYTHON, "-c", code],
        errors=tmp_path / "errors",
        new_session=detachment.new_session,
        creation_flags=detachment.creation_flags,
    )
    with child.orders, child.reports:
        assert child.reports.read() == b"True\n"
    assert (tmp_path / "errors").read_text() == "oops"


def test_a_child_of_the_loop_writes_to_a_file(tmp_path: Path) -> None:
    async def scenario() -> int:
        child = process.start([PYTHON, "-c", "print('hello')"], output=tmp_path / "log")
        return await child.wait()

    assert asyncio.run(scenario()) == 0
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_child_is_older_than_the_loop_and_has_many_who_wait(tmp_path: Path) -> None:
    child = process.start([PYTHON, "-c", "import time; time.sleep(60)"], output=tmp_path / "log")
    assert child.returncode is None

    async def scenario() -> list[int]:
        given_up = asyncio.ensure_future(child.wait())
        waiting = [asyncio.ensure_future(child.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        given_up.cancel()
        child.kill()
        return [*await asyncio.gather(*waiting), await child.wait()]

    assert asyncio.run(scenario()) == [-signal.SIGKILL] * 4
    assert child.returncode == -signal.SIGKILL
    child.terminate()  # it has ended, and that is no error
    child.kill()


def test_programs_with_endings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tool.exe", "other"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/nonexistent")
    monkeypatch.delenv("PATHEXT", raising=False)
    assert process.find("other") == tmp_path / "other"
    assert process.find("tool") is None
    monkeypatch.setenv("PATHEXT", os.pathsep.join([".COM", ".exe"]))
    assert process.find("tool") == process.find("tool.exe") == tmp_path / "tool.exe"


def test_a_process_is_known_by_its_start() -> None:
    child = process.popen([PYTHON, "-c", "import time; time.sleep(60)"])
    record = ProcessRecord.of(child.pid)
    assert record is not None and record.lives()
    assert ProcessRecord(child.pid, type(record.identity)("another start", record.identity.command)).lives() is False
    hostos.current().end_process(child.pid)
    child.wait()
    assert not record.lives()
    hostos.current().end_process(child.pid)


def test_the_memory_of_a_process() -> None:
    host, more = hostos.current(), 64 * 1024 * 1024
    before = host.memory_of(os.getpid())
    block = bytearray(b"x") * more
    assert host.memory_of(os.getpid()) - before > more * 0.9
    del block
    child = process.popen([PYTHON, "-c", "pass"])
    child.wait()
    assert host.memory_of(child.pid) == 0


def test_a_zombie_does_not_live() -> None:
    child = process.popen([PYTHON, "-c", "pass"])
    record = ProcessRecord.of(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert record is None or not record.lives()
    child.wait()


@pytest.mark.skipif(hostos.current().with_parent(["x"]) == ["x"], reason="this system has no leash for children")
def test_a_child_on_the_leash_ends_with_its_parent() -> None:
    leashed = [str(word) for word in hostos.current().with_parent([PYTHON, "-c", "import time; time.sleep(60)"])]
    code = f"import subprocess, time; print(subprocess.Popen({leashed!r}).pid, flush=True); time.sleep(60)"
    parent = process.popen([PYTHON, "-c", code], stdout=process.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
    record = None
    while record is None or PYTHON not in record.identity.command or "setpriv" in record.identity.command:
        record = ProcessRecord.of(pid)  # until the leash has executed the program
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while record.lives() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not record.lives()
