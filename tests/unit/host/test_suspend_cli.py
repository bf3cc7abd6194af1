"""The commands around a suspended machine, from the command line down to a program that behaves like QEMU."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox import hostos
from pybox.app import compose
from pybox.app.machines import Machines, Phase
from pybox.cli.main import run
from pybox.errors import MachineError
from pybox.hostos.interface import native_arch
from pybox.model import MachineState
from pybox.settings import SettingsFile
from tests.support.machine_lab import Machine

pytestmark = [
    pytest.mark.skipif(not hostos.current().passes_sockets, reason="the stand-in for QEMU wants unix sockets"),
    pytest.mark.timeout(60),
]


class Report:
    def __call__(self, phase: Phase) -> None: ...

    def step(self, text: str, done: int = 0, total: int = 0) -> None: ...


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A running machine that the command line knows."""
    monkeypatch.setenv("PYBOX_HOME", str(tmp_path / "home"))
    compose.paths.cache_clear()
    made = Machine(tmp_path)
    shutil.copytree(made.image.folder, made.paths.image_dir(native_arch()))
    file = SettingsFile(made.paths.settings_file)
    values = {"qemu": made.settings.qemu, "accelerator": "tcg", "shares": "[]", "golden-state": "false"}
    for name, value in values.items():
        file.set(name, value)
    assert run(["start"]) == 0
    yield made
    made.stop(0)
    shutil.rmtree(made.files.sockets, ignore_errors=True)
    compose.paths.cache_clear()


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    capsys.readouterr()
    assert run(list(words)) == status
    out, err = capsys.readouterr()
    return out + err


def test_suspend_and_resume(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert "resume" in said(capsys, "resume", "--help") and "already running" in said(capsys, "resume")
    assert 'Machine "default" suspended in' in said(capsys, "suspend")
    assert "is suspended already" in said(capsys, "machine", "suspend")
    text = said(capsys, "status", status=3)
    assert "suspended\n" in text and "Suspended at:" in text and "Saved memory:" in text
    assert "suspended" in said(capsys, "machine", "ls")
    assert "pybox resume" in said(capsys, "ip", status=1)
    assert 'Machine "default" resumed in' in said(capsys, "machine", "resume")
    assert said(capsys, "suspend") and 'Machine "default" resumed in' in said(capsys, "start")
    assert "stopped" in said(capsys, "stop")
    assert "is not suspended" in said(capsys, "resume", status=1) and "is not running" in said(capsys, "suspend", status=1)


def test_a_stop_resumes_it_first(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """So that containers end properly; who cannot wait for that says so."""
    said(capsys, "suspend")
    assert "stopped" in said(capsys, "stop")
    assert "resume with" in machine.files.agent_log.read_text() and machine.status().state is MachineState.STOPPED
    said(capsys, "start")
    said(capsys, "suspend")
    machine.files.agent_log.unlink()
    assert "stopped" in said(capsys, "stop", "--discard")
    assert not machine.files.agent_log.exists() and machine.status().state is MachineState.STOPPED


def test_a_restart_takes_todays_settings(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    before = machine.status().memory_mib
    said(capsys, "suspend")
    said(capsys, "config", "set", "memory", "3g")
    said(capsys, "resume")
    assert machine.status().memory_mib == before
    said(capsys, "suspend")
    said(capsys, "restart")
    assert machine.status().memory_mib == 3072 and machine.get("/syncs") == 0


def test_one_that_cannot_be_resumed(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "suspend")
    with machine.files.data_disk.open("ab") as disk:
        disk.write(b"x")
    for command in ("start", "resume", "stop", "restart"):
        text = said(capsys, command, status=1)
        assert "its data disk changed" in text and "pybox start --discard" in text
    assert 'Machine "default" started in' in said(capsys, "start", "--discard")


def test_delete(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "suspend")
    assert "deleted" in said(capsys, "delete", "--force")
    assert machine.status().state is MachineState.MISSING


def test_commands_start_it_unless_settings_forbid_it(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    said(capsys, "suspend")
    said(capsys, "config", "set", "autostart", "false")
    with pytest.raises(MachineError, match="does not answer"):
        compose.engine_or_start("default", Report()).get("/_ping")
    said(capsys, "config", "unset", "autostart")
    assert compose.engine_or_start("default", Report()).get("/_ping") == b'"OK"'
    said(capsys, "stop")
    assert compose.engine_or_start("default", Report()).get("/_ping") == b'"OK"'


def test_idle_is_shown(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert "not" in said(capsys, "config", "set", "idle", "sometimes", status=2)
    said(capsys, "config", "set", "idle", "suspend:15m")
    said(capsys, "restart")
    assert "Idle:         it will suspend after 15m without containers and clients" in said(capsys, "status")
    assert Machines(machine.paths).status("default").found.idle == "suspend:15m"
