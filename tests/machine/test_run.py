"""Containers from the command line: output, exit status, terminal, environment, removal."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import select
import signal
import subprocess
import time

import pytest

from tests.support.pybox_cli import Cli


def test_prints_and_exits_with_the_container(cli: Cli, debian: str) -> None:
    done = cli.run("run", "--rm", debian, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.out, done.err, done.status) == ("out\n", "err\n", 3)


def test_stdin_reaches_the_container_and_ends(cli: Cli, debian: str) -> None:
    data = os.urandom(300_000).hex().encode()
    done = cli.run("run", "--rm", "-i", debian, "sha256sum", stdin=data)
    assert done.ok().out.split()[0] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (("/no/such",), 127, "no such file or directory"),
        (("nosuch",), 127, "executable file not found in $PATH"),
        (("/etc",), 126, "is a directory"),
        (("/etc/passwd",), 126, "permission denied"),
    ],
)
def test_what_cannot_be_run(cli: Cli, debian: str, command: tuple[str, ...], status: int, words: str) -> None:
    done = cli.run("run", "--rm", debian, *command)
    assert done.status == status, f"{done}"
    assert words in done.err
    assert cli.ok("ps", "-aq", "--filter", "status=created") == ""


def test_unknown_image(cli: Cli) -> None:
    done = cli.run("run", "--rm", "--pull", "never", "no-such-image")
    assert done.status == 125
    assert "No such image: no-such-image:latest" in done.err


def test_unknown_flag_is_125(cli: Cli) -> None:
    assert cli.run("run", "--no-such-flag", "x").status == 125


def test_environment_user_workdir_hostname(cli: Cli, debian: str) -> None:
    text = cli.ok(
        "run", "--rm", "-e", "A=1 2", "-u", "daemon", "-w", "/new/place", "--hostname", "box", debian,
        "sh", "-c", 'echo "$A"; id -un; pwd; hostname; echo "$HOME"',
    )  # fmt: skip
    assert text.splitlines() == ["1 2", "daemon", "/new/place", "box", "/usr/sbin"]


def test_detached_container_lives_logs_and_stops(cli: Cli, debian: str, name: str) -> None:
    identity = cli.ok("run", "-d", "--name", name, debian, "sh", "-c", "echo one; echo two >&2; exec sleep 1000")
    assert len(identity) == 64
    row = json.loads(cli.ok("ps", "--filter", f"name={name}", "--format", "json"))
    assert row["Status"].startswith("Up ") and row["Names"] == name
    deadline = time.monotonic() + 60
    while "two" not in (done := cli.run("logs", name)).err and time.monotonic() < deadline:
        time.sleep(0.2)
    assert (done.out, done.err) == ("one\n", "two\n")
    cli.ok("kill", name)
    assert cli.ok("wait", name) == "137"
    found = cli.json("inspect", name)[0]["State"]
    assert (found["Status"], found["ExitCode"], found["Running"]) == ("exited", 137, False)
    assert cli.ok("rm", name) == name
    assert cli.run("inspect", name).status == 1


def test_logs_follow_ends_with_the_container(cli: Cli, debian: str, name: str) -> None:
    cli.ok("run", "-d", "--name", name, debian, "sh", "-c", "for i in 1 2 3; do echo $i; sleep 1; done")
    assert cli.ok("logs", "-f", name) == "1\n2\n3"
    assert cli.ok("logs", "--tail", "1", name) == "3"


def test_exec(cli: Cli, debian: str, name: str) -> None:
    cli.ok("run", "-d", "--name", name, "-e", "A=1", debian, "sleep", "1000")
    done = cli.run("exec", "-e", "B=2", "-w", "/tmp", name, "sh", "-c", "echo $A$B; pwd; echo e >&2; exit 7")
    assert (done.out, done.err, done.status) == ("12\n/tmp\n", "e\n", 7)
    assert cli.run("exec", "-i", name, "cat", stdin=b"through").ok().out == "through"
    assert cli.run("exec", name, "nosuch").status == 127
    cli.ok("kill", name)
    cli.ok("wait", name)
    assert "is not running" in cli.run("exec", name, "true").err


def test_terminal_has_a_size_and_ctrl_c_and_an_exit_status(cli: Cli, debian: str) -> None:
    master, slave = pty.openpty()
    os.set_blocking(master, True)
    subprocess.run(["stty", "rows", "33", "cols", "77"], stdin=slave, check=True)
    process = subprocess.Popen(
        cli.command("run", "--rm", "-it", debian, "bash", "--norc"),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=cli.environment,
        cwd=cli.home,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""

    def expect(text: bytes) -> None:
        nonlocal seen
        deadline = time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < deadline, seen
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 4096)
        seen = seen.partition(text)[2]

    try:
        expect(b"# ")
        os.write(master, b"stty size\r")
        expect(b"33 77")
        os.write(master, b"sleep 100\r")
        expect(b"sleep 100")
        time.sleep(1)
        os.write(master, b"\x03")
        expect(b"# ")
        os.write(master, b"echo code $?\r")
        expect(b"code 130")
        os.write(master, b"exit 5\r")
        assert process.wait(60) == 5
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        os.close(master)


def test_name_conflict_and_missing_container(cli: Cli, debian: str, name: str) -> None:
    cli.ok("create", "--name", name, debian, "true")
    done = cli.run("create", "--name", name, debian, "true")
    assert done.status == 1
    assert f'The container name "/{name}" is already in use by container' in done.err
    for command in ("start", "stop", "kill", "logs", "rm"):
        missing = cli.run(command, "no-such-container")
        assert missing.status == 1
        assert "No such container: no-such-container" in missing.err
