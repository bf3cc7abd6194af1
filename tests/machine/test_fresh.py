"""Throw-away machines: clean, apart from the user's own, and gone without a trace."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from tests.support.pybox_cli import Cli

LOOK = "import os, subprocess, sys; print(os.environ['PYBOX_MACHINE']); sys.exit(subprocess.call(sys.argv[1:]))"


def machines(cli: Cli) -> set[str]:
    return {path.name for path in (cli.home / "state" / "machines").iterdir() if path.name.startswith("fresh-")}


def sockets(cli: Cli) -> set[Path]:
    return set((cli.home / "run").glob("fresh-*"))


def test_a_run_in_a_machine_of_its_own(cli: Cli, debian: str) -> None:
    cli.ok("create", "--name", "mine", debian, "true")
    done = cli.run("--fresh", "run", "--rm", debian, "sh", "-c", "echo seen; exit 7")
    assert done.status == 7 and done.out == "seen\n", done
    boots = [cli.ok("--fresh", "run", "--rm", debian, "cat", "/proc/sys/kernel/random/boot_id") for _ in range(2)]
    assert len({*boots, cli.ok("run", "--rm", debian, "cat", "/proc/sys/kernel/random/boot_id")}) == 3
    assert not machines(cli) and not sockets(cli)
    cli.ok("rm", "mine")


def test_a_program_against_a_clean_machine(cli: Cli, debian: str) -> None:
    """What it makes stays in there, and what is here is not there."""
    pybox = cli.command()
    seen = [
        cli.ok("test", "-i", debian, "--", sys.executable, "-c", LOOK, *pybox, *words)
        for words in (("run", "-d", "--name", "inside", debian, "sleep", "100"), ("ps", "-aq"))
    ]
    assert seen[0].startswith("fresh-") and len(seen[0].split()) == 2
    assert len(seen[1].split()) == 1, "the second machine has no container"
    assert "inside" not in cli.ok("ps", "-a")
    assert cli.run("test", "--", sys.executable, "-c", "raise SystemExit(5)").status == 5
    assert cli.run("test", "--", "/no/such/program").status != 0
    assert not machines(cli) and not sockets(cli)


def test_what_a_killed_command_left_is_removed_by_the_next(cli: Cli, debian: str) -> None:
    running = cli.start_process("--fresh", "run", "--rm", debian, "sleep", "1000")
    deadline = time.monotonic() + 60
    while not sockets(cli) or not any((path / "docker.sock").exists() for path in sockets(cli)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGKILL)
    running.wait(10)
    assert machines(cli)
    assert cli.ok("--fresh", "run", "--rm", debian, "echo", "next") == "next"
    assert not machines(cli) and not sockets(cli)


def test_refusals(cli: Cli, debian: str) -> None:
    done = cli.run("--fresh", "ps")
    assert done.status == 2 and "--fresh does not go with this command" in done.err
    done = cli.run("--fresh", "run", "-d", debian, "true")
    assert done.status != 0 and "--detach" in done.err
    assert not machines(cli)
