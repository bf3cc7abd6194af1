"""Whole lives of machines: real hostagents in the background, over a program that behaves like QEMU."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox import hostos
from pybox.errors import MachineError, UsageProblem
from pybox.machine import lifecycle
from pybox.machine.files import Processes
from pybox.model import Accelerator, MachineState, Phase
from tests.support.machine_lab import CODE, Machine, machine_in, wait_until

pytestmark = [
    pytest.mark.skipif(not hostos.current().passes_sockets, reason="the stand-in for QEMU wants unix sockets"),
    pytest.mark.timeout(60),
]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with machine_in(tmp_path, monkeypatch) as made:
        yield made


def test_start_status_stop(machine: Machine) -> None:
    assert machine.status().state is MachineState.MISSING
    seen: list[Phase] = []
    running = machine.start(seen.append)
    assert [phase.name for phase in seen] == ["qemu", "kernel", "engine", "api", "ready"]
    assert running.phases == tuple(seen) and running.api_socket == machine.files.api_socket
    assert machine.get("/_ping") == "OK"
    status = machine.status()
    assert status.state is MachineState.RUNNING and status.accelerator is Accelerator.TCG
    assert status.image_id == "1" and status.qemu.endswith("7.2.99") and status.ssh_port
    assert status.pid and status.memory_used > hostos.current().memory_of(status.pid) > 0
    assert stat.S_IMODE(machine.files.api_socket.stat().st_mode) == 0o600
    assert machine.stop()
    assert (machine.status().state, machine.status().memory_used) == (MachineState.STOPPED, 0)
    assert list(machine.files.sockets.iterdir()) == []
    assert not machine.files.processes.exists()
    assert not machine.stop()


def test_the_guest_code_is_behind_the_initrd(machine: Machine) -> None:
    machine.start()
    assert machine.files.initrd.read_bytes() == b"initrd\0\0" + CODE


def test_a_second_start_finds_it_running(machine: Machine) -> None:
    machine.start()
    first = machine.status().pid
    assert [phase.name for phase in machine.start().phases] == ["ready"]
    assert machine.status().pid == first


def test_many_starts_at_once_make_one_machine(machine: Machine) -> None:
    results: list[lifecycle.Running] = []
    threads = [threading.Thread(target=lambda: results.append(machine.start())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len({result.status.pid for result in results}) == 1


def test_a_start_that_is_given_up_leaves_nothing(machine: Machine) -> None:
    def unreadable() -> bytes:
        raise PermissionError("the guest's program")

    with pytest.raises(PermissionError):
        lifecycle.start(machine.settings, "default", machine.image, unreadable)
    assert machine.status().pid is None
    assert not machine.files.agent_log.exists()
    machine.start()
    assert machine.get("/_ping") == "OK"


def test_what_the_guest_is_told(machine: Machine) -> None:
    machine.start()
    told = machine.get("/configuration")
    assert told["hostname"] == "pybox" and told["data_disk"] is True and told["shares"] == []
    words = machine.files.agent_log.read_text() + machine.files.request.read_text()
    assert "PRIVATE KEY" not in words


def test_published_ports(machine: Machine) -> None:
    machine.start()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        refused = machine.get(f"/publish/{listener.getsockname()[1]}")
    assert "bind: address already in use" in refused["error"]["brief"]
    port = machine.get("/publish/0")["result"]["host_port"]
    (status,) = machine.status().ports
    assert (status.host_ip, status.host_port) == ("127.0.0.1", port)
    socket.create_connection(("127.0.0.1", port)).close()


def test_an_engine_that_begins_anew_is_configured_again(machine: Machine) -> None:
    machine.start()
    machine.get("/engine-restart")
    wait_until(lambda: bool(machine.get("/configuration")))
    assert machine.status().state is MachineState.RUNNING


@pytest.mark.parametrize("who", ["hostagent", "qemu"])
def test_a_kill_leaves_nothing_to_repair(machine: Machine, who: str) -> None:
    machine.start()
    qemu = Processes.read(machine.files)
    assert qemu is not None and qemu.qemu is not None
    machine.kill(who)
    # A hostagent needs a moment to notice that its QEMU is gone.
    wait_until(lambda: machine.status().qemu_pid != qemu.qemu.pid)  # type: ignore[union-attr]
    machine.start()
    assert machine.get("/_ping") == "OK"
    assert not qemu.qemu.lives()


def test_the_systems_signal_is_a_stop(machine: Machine) -> None:
    pid = machine.start().status.pid
    assert pid is not None
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: machine.status().state is MachineState.STOPPED)
    assert not machine.files.processes.exists() and list(machine.files.sockets.iterdir()) == []


def test_a_qemu_without_its_hostagent_is_ended(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = machine.files.folder.parents[2] / "no-programs"
    bare.mkdir(parents=True)
    monkeypatch.setenv("PATH", str(bare))  # without the leash for children
    machine.start()
    orphan = Processes.read(machine.files)
    assert orphan is not None and orphan.qemu is not None
    machine.kill("hostagent")
    assert orphan.qemu.lives()
    machine.start()
    assert not orphan.qemu.lives() and machine.get("/_ping") == "OK"


def test_a_machine_that_dies_is_started_once_more_then_reported(machine: Machine) -> None:
    machine.start()
    first = machine.status()
    for expected in (MachineState.RUNNING, MachineState.STOPPED):
        before = machine.status().qemu_pid
        with pytest.raises((OSError, http.client.HTTPException)):
            machine.get("/crash")
        wait_until(lambda wanted=expected, old=before: _settled(machine, wanted, old))  # type: ignore[misc]
    assert first.pid is not None and "ended by itself" in machine.files.agent_log.read_text()


def _settled(machine: Machine, wanted: MachineState, old: int | None) -> bool:
    status = machine.status()
    return status.state is wanted and status.qemu_pid != old


def test_a_guest_that_powers_off_stays_off(machine: Machine) -> None:
    machine.start()
    machine.get("/power-off")
    wait_until(lambda: machine.status().state is MachineState.STOPPED)
    assert "ended by itself" not in machine.files.agent_log.read_text()


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("crash", "SIGABRT"), ("hang", "no sign of life"), ("fail", None), ("ok", "")]
)
def test_accelerators_are_tried(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, behaviour: str, reason: str | None
) -> None:
    if hostos.current().accelerator_problem(Accelerator.KVM):
        pytest.skip("this host has no KVM to try")
    monkeypatch.setenv("FAKE_QEMU_KVM", behaviour)
    machine.settings = machine.settings.with_values({"accelerator": "auto"})
    status = machine.start().status
    assert status.accelerator is (Accelerator.KVM if behaviour == "ok" else Accelerator.TCG)
    verdicts = {verdict.accelerator: verdict for verdict in status.verdicts}
    if reason is None:  # a failure that may have been of the moment is not held against it
        assert Accelerator.KVM not in verdicts
    else:
        assert verdicts[Accelerator.KVM].works is (behaviour == "ok") and reason in verdicts[Accelerator.KVM].reason


def test_a_guest_of_another_version(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU_PROTOCOL", "1")
    with pytest.raises(MachineError, match="does not fit") as caught:
        machine.start()
    assert "Build it again" in caught.value.resolution
    assert machine.status().state is MachineState.STOPPED


def test_a_failure_shows_phase_command_ending_and_console(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    if hostos.current().accelerator_problem(Accelerator.KVM):
        pytest.skip("this host has no KVM to try")
    monkeypatch.setenv("FAKE_QEMU_KVM", "fail")
    machine.settings = machine.settings.with_values({"accelerator": "kvm"})
    with pytest.raises(MachineError) as caught:
        machine.start()
    details = caught.value.details
    assert "-accel kvm" in details and "exit status 1" in details and "could not access KVM" in details


def test_settings_that_cannot_be(machine: Machine, tmp_path: Path) -> None:
    machine.settings = machine.settings.with_values({"shares": str(tmp_path / "missing")})
    with pytest.raises((MachineError, UsageProblem)):
        machine.settings = machine.settings.with_values({"certificates": str(tmp_path / "missing")})
        machine.start()
    assert machine.status().state is MachineState.STOPPED


def test_a_stop_breaks_off_a_start(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    if hostos.current().accelerator_problem(Accelerator.KVM):
        pytest.skip("this host has no KVM to try")
    monkeypatch.setenv("FAKE_QEMU_KVM", "hang")
    machine.settings = machine.settings.with_values({"accelerator": "kvm"})
    errors: list[MachineError] = []

    def start() -> None:
        try:
            machine.start()
        except MachineError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    wait_until(lambda: machine.status().state is MachineState.STARTING and machine.status().qemu_pid is not None)
    assert machine.stop()
    thread.join()
    assert "broken off" in errors[0].brief


def test_delete(machine: Machine) -> None:
    assert not lifecycle.delete(machine.settings, "default")
    machine.start()
    with pytest.raises(MachineError, match="in use"):
        lifecycle.delete(machine.settings, "default")
    assert machine.get("/_ping") == "OK"
    machine.stop()
    assert lifecycle.machines(machine.settings) == ["default"]
    assert lifecycle.delete(machine.settings, "default")
    assert not machine.files.folder.exists() and lifecycle.machines(machine.settings) == []


def test_restart_takes_todays_settings(machine: Machine) -> None:
    machine.start()
    changed = machine.settings.with_values({"cpus": "3"})
    running = lifecycle.restart(changed, "default", machine.image, lambda: CODE, timeout=5)
    assert running.status.cpus == 3
