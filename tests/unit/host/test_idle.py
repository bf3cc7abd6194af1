"""Machines that go off by themselves and come back for the next client, over a program that behaves like QEMU."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox import hostos
from pybox.errors import MachineError
from pybox.machine import lifecycle
from pybox.model import MachineState
from tests.support.machine_lab import Machine, machine_in, wait_until

pytestmark = [
    pytest.mark.skipif(not hostos.current().passes_sockets, reason="the stand-in for QEMU wants unix sockets"),
    pytest.mark.timeout(60),
]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with machine_in(tmp_path, monkeypatch) as made:
        made.settings = made.settings.with_values({"idle": "suspend:1s"})
        yield made


@pytest.fixture
def asleep(machine: Machine) -> Machine:
    machine.start()
    until(machine, MachineState.SUSPENDED)
    return machine


def until(machine: Machine, state: MachineState) -> None:
    wait_until(lambda: machine.status().state is state)


def test_it_is_suspended_and_wakes_for_the_next_client(asleep: Machine) -> None:
    first = asleep.status()
    assert first.pid is not None and first.qemu_pid is None and first.started_at is None and first.idle == "suspend:1s"
    assert first.saved_size > 0 and asleep.files.api_socket.exists()
    assert asleep.get("/syncs") == 1
    now = asleep.status()
    assert now.state is MachineState.RUNNING and now.pid == first.pid and now.qemu_pid is not None
    until(asleep, MachineState.SUSPENDED)  # and again
    assert asleep.get("/syncs") == 2


def test_what_keeps_it_awake(machine: Machine) -> None:
    machine.start()
    machine.get("/busy")
    looked = machine.get("/looks")
    time.sleep(1.7)  # more than a second, without any client
    assert machine.get("/looks") > looked and machine.status().state is MachineState.RUNNING
    machine.get("/lazy")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(machine.files.api_socket))
        time.sleep(1.7)
        assert machine.status().state is MachineState.RUNNING
    until(machine, MachineState.SUSPENDED)


def test_it_stops_and_is_started_for_the_next_client(machine: Machine) -> None:
    machine.settings = machine.settings.with_values({"idle": "stop:1s"})
    machine.start()
    until(machine, MachineState.ASLEEP)
    assert machine.status().qemu_pid is None and machine.status().pid is not None
    with pytest.raises(MachineError, match="is off"):
        machine.suspend()
    assert machine.get("/syncs") == 0 and machine.status().state is MachineState.RUNNING
    until(machine, MachineState.ASLEEP)
    assert machine.stop() and machine.status().state is MachineState.STOPPED


def test_a_start_wakes_it(asleep: Machine) -> None:
    pid = asleep.status().pid
    assert asleep.start().status.pid == pid
    assert asleep.get("/_ping") == "OK"


@pytest.mark.parametrize("order", ["stop", "suspend"])
def test_an_order_ends_the_wait(asleep: Machine, order: str) -> None:
    """Then it is suspended as by hand: nothing of it runs on this host, and it is not lost."""
    assert getattr(asleep, order)()
    assert asleep.status().pid is None and asleep.status().state is MachineState.SUSPENDED
    assert not asleep.files.api_socket.exists()
    asleep.start()
    assert asleep.get("/syncs") == 1


def test_its_memory_can_be_given_up(asleep: Machine) -> None:
    assert lifecycle.discard(asleep.settings, "default")
    assert asleep.status().state is MachineState.STOPPED
    asleep.start()
    assert asleep.get("/syncs") == 0


def test_a_machine_that_cannot_wake(asleep: Machine) -> None:
    """The client is sent away, and the next start says why."""
    with asleep.files.data_disk.open("ab") as disk:
        disk.write(b"x")
    with pytest.raises((OSError, http.client.HTTPException)):
        asleep.get("/_ping")
    wait_until(lambda: asleep.status().pid is None)
    assert asleep.status().state is MachineState.SUSPENDED
    with pytest.raises(MachineError, match="data disk changed"):
        asleep.start()


def test_a_client_that_comes_while_it_goes_to_sleep(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_QEMU_SAVE", "slow")
    machine.start()
    until(machine, MachineState.SUSPENDING)
    assert machine.get("/syncs") == 1
    assert "somebody wants the machine" in machine.files.agent_log.read_text()


def test_a_client_when_it_is_suspended_by_hand(machine: Machine) -> None:
    """It hears the end of its connection, and no new one is taken."""
    machine.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(machine.files.api_socket))
        assert machine.suspend()
        assert client.recv(1000) == b""
    assert not machine.files.api_socket.exists()
