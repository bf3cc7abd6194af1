"""The machine's life: accelerator fallback, crashes of each part, what is kept, and errors a person meets."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

import pytest

from tests.support.pybox_cli import Cli

TRIED_KVM = "start with Candidate(accelerator=<Accelerator.KVM"


def status(cli: Cli) -> dict[str, object]:
    done = cli.run("status", "--format", "json")
    value: dict[str, object] = json.loads(done.out)
    return value


def alive(pid: object) -> bool:
    try:
        os.kill(int(str(pid)), 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: object, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while alive(pid):
        assert time.monotonic() < deadline, f"{pid} is still there"
        time.sleep(0.05)


def states(cli: Cli) -> dict[str, str]:
    """The state of each container by its name."""
    return {row["Names"]: row["State"] for row in map(json.loads, cli.ok("ps", "-a", "--format", "json").splitlines())}


def load_image(cli: Cli, debian: str, source: Cli) -> None:
    archive = source.home / "base.tar"
    if not archive.exists():
        source.ok("save", "-o", str(archive), debian)
    cli.ok("load", "-i", str(archive))


def test_starting_twice_says_so(cli: Cli) -> None:
    assert "is already running" in cli.ok("start")


def test_a_broken_accelerator_is_tried_once(cli: Cli) -> None:
    """Where /dev/kvm is there but guests do not run under it, tcg takes over by itself and the verdict is kept."""
    if not os.path.exists("/dev/kvm"):
        pytest.skip("this computer offers no accelerator to be tried")
    if status(cli)["accelerator"] == "kvm":
        pytest.skip("kvm works on this computer")
    (cli.home / "state" / "accelerators.json").unlink()
    again = Cli(cli.home, "again")
    log = cli.home / "state" / "machines" / "again" / "hostagent.log"
    try:
        again.ok("start")
        found = status(again)
        assert found["accelerator"] == "tcg"
        assert {item["accelerator"]: item["works"] for item in found["verdicts"]}["kvm"] is False  # type: ignore[attr-defined]
        assert log.read_text().count(TRIED_KVM) == 1
        again.ok("restart")
        assert log.read_text().count(TRIED_KVM) <= 1  # the log may be a new one
    finally:
        again.run("delete", "--force")


def test_machines_are_apart(cli: Cli, other: Cli) -> None:
    names = {row["Name"] for row in map(json.loads, cli.ok("machine", "ls", "--format", "json").splitlines())}
    assert {"default", "other"} <= names
    cli.ok("volume", "create", "apart")
    assert other.run("volume", "inspect", "apart").status == 1
    cli.ok("volume", "rm", "apart")


def test_state_survives_a_restart(other: Cli, cli: Cli, debian: str) -> None:
    load_image(other, debian, cli)
    other.ok("run", "-d", "--name", "always", "--restart", "always", debian, "sleep", "10000")
    other.ok("run", "-d", "--name", "once", debian, "sh", "-c", "echo kept >/file; echo logged; sleep 10000")
    other.ok("restart")
    deadline = time.monotonic() + 60  # the engine answers before all containers are back
    while states(other) != {"always": "running", "once": "exited"}:
        assert time.monotonic() < deadline, states(other)
        time.sleep(0.2)
    assert other.ok("logs", "once") == "logged"
    other.ok("start", "once")
    assert other.ok("exec", "once", "cat", "/file") == "kept"
    other.ok("rm", "-f", "always", "once")


def test_full_disk_is_an_error_and_nothing_breaks(other: Cli, cli: Cli, debian: str) -> None:
    load_image(other, debian, cli)
    done = other.run("run", "--rm", debian, "sh", "-c", "dd if=/dev/zero of=/fill bs=1M count=4000 2>&1; rm /fill")
    assert "No space left on device" in done.out
    assert other.ok("run", "--rm", debian, "echo", "fine") == "fine"


def test_the_socket_is_mine_alone(cli: Cli) -> None:
    path = Path(str(status(cli)["api_socket"]))
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


def test_malformed_requests_get_clear_answers(cli: Cli) -> None:
    path = str(status(cli)["api_socket"])
    for request, code in (
        (b"GARBAGE\r\n\r\n", b"400"),
        (b"GET /nosuch HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /v9.99/info HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n{]}",
            b"400",
        ),
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(path)
            connection.sendall(request)
            answer = connection.recv(4096)
        assert answer.split(b" ")[1] == code, answer


def test_stopped_machine_says_how_to_start(home: Path) -> None:
    done = Cli(home, "never-started").run("ps")
    assert done.status == 1
    assert "pybox start" in done.err
    assert Cli(home, "never-started").run("status").status == 3


def test_settings_are_checked(cli: Cli) -> None:
    done = cli.run("config", "set", "memory", "plenty")
    assert done.status == 2 and "memory" in done.err
    assert cli.run("config", "get", "colour").status == 2


def test_delete_asks_and_forgets(home: Path, cli: Cli) -> None:
    short = Cli(home, "short-lived")
    short.ok("start")
    assert short.run("delete", stdin=b"n\n").status != 0
    short.ok("delete", "--force")
    assert short.run("status").status == 3
    assert not (home / "state" / "machines" / "short-lived").exists()
