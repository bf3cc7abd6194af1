"""A machine that is suspended goes on where it was: containers, ports, folders, the clock."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pybox_cli import Cli

COUNT = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
# A server that says how many requests it had.
SERVER = """
use IO::Socket::INET;
$s = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;
while ($c = $s->accept) { defined <$c> or next; $n++; print $c "HTTP/1.0 200 OK\\r\\n\\r\\n$n"; close $c }
"""


@pytest.fixture
def machine(cli: Cli, debian: str) -> Iterator[Cli]:
    """One of its own: suspending the machine of all tests would take away their connections."""
    made = Cli(cli.home, "sleeper")
    archive = cli.home / "base.tar"
    if not archive.exists():
        cli.ok("save", "-o", str(archive), debian)
    made.ok("start")
    made.ok("load", "-i", str(archive))
    yield made
    made.run("delete", "--force")


def ask(port: str) -> str:
    """The server's answer; it may still be starting, and QEMU answers for it until then."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return str(urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read(), "ascii")
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_it_goes_on_where_it_was(machine: Cli, shared: Path, debian: str) -> None:
    (shared / "before").write_text("there")
    machine.ok("run", "-d", "--name", "counter", debian, "sh", "-c", COUNT)
    machine.ok("run", "-d", "--name", "folder", "-v", f"{shared}:/shared", debian, "sleep", "10000")
    web = machine.ok("run", "-d", "--name", "web", "-p", "80", debian, "perl", "-e", SERVER)
    port = machine.ok("port", "web").rpartition(":")[2]
    assert ask(port) == "1"
    for turn in (2, 3):
        machine.ok("suspend")
        assert machine.run("ps").status != 0
        assert "suspended" in machine.run("status").out
        (shared / f"turn-{turn}").write_text(str(turn))
        time.sleep(1)
        machine.ok("resume")
        assert ask(port) == str(turn)
        assert machine.ok("exec", "folder", "cat", "/shared/before", f"/shared/turn-{turn}") == f"there{turn}"
        machine.ok("exec", "folder", "sh", "-c", f"echo from the container > /shared/answer-{turn}")
        assert (shared / f"answer-{turn}").read_text() == "from the container\n"
        assert abs(float(machine.ok("ssh", "date +%s")) - time.time()) < 5
    assert machine.ok("inspect", "-f", "{{.State.Running}}", web) == "true"
    seen = machine.ok("logs", "counter").split()
    assert len(seen) > 20 and seen == [str(number) for number in range(1, len(seen) + 1)]
    machine.ok("stop")
    assert machine.run("resume").status != 0


def test_an_idle_machine_sleeps_until_somebody_comes(machine: Cli, debian: str) -> None:
    machine.ok("config", "set", "idle", "suspend:5s")
    machine.ok("restart")
    machine.ok("run", "-d", "--name", "busy", debian, "sleep", "8")
    time.sleep(7)
    assert "suspended" not in machine.run("status").out, "a container runs"
    deadline = time.monotonic() + 60
    while "suspended" not in machine.run("status").out:
        assert time.monotonic() < deadline, machine.run("status").out
        time.sleep(0.5)
    assert "busy" in machine.ok("ps", "-a")
    assert "suspended" not in machine.run("status").out
