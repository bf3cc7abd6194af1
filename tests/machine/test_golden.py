"""Starts from the golden state on a real machine: used, its own each time, and repaired when it is damaged."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.pybox_cli import Cli

# Everything random that a machine shows: two machines from one state must have nothing of it in common.
_NUMBERS = """
cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid /run/pyboxd/generation; echo
od -An -tx8 -w8 -N64 /dev/urandom
od -An -tx8 -w8 -j256 -N8 /var/lib/pyboxd/engine.db >/dev/null
python3 -c 'import random, secrets, ssl; print(random.getrandbits(64), secrets.token_hex(8), ssl.RAND_bytes(8).hex())'
"""


@pytest.fixture
def twins(cli: Cli) -> Iterator[tuple[Cli, Cli]]:
    """Two more machines with the settings of the first, which has made the state."""
    made = Cli(cli.home, "twin-1"), Cli(cli.home, "twin-2")
    yield made
    for machine in made:
        machine.run("delete", "--force")


def phases(cli: Cli) -> list[str]:
    """Start; the names of the start's phases."""
    done = cli.run("start", "--verbose").ok()
    return re.findall(r"^ *[\d.]+ s  (\w+)", done.err, re.MULTILINE)


def ram_of(machine: Cli) -> Path:
    """The file that the machine started from."""
    log = machine.home / "state" / "machines" / machine.machine / "hostagent.log"
    return Path(re.findall(r"mem-path=([^,]+),share=off", log.read_text())[-1])


def test_two_machines_from_one_state_share_nothing_random(cli: Cli, twins: tuple[Cli, Cli], debian: str) -> None:
    seen: list[set[str]] = []
    for machine in twins:
        assert "state" in phases(machine)
        shown = machine.run("ssh", _NUMBERS).ok()
        assert shown.err == ""  # whose server is still starting
        words = set(shown.out.split())
        keys = cli.home / "state" / "machines" / machine.machine / "keys"
        words |= {path.read_text() for path in keys.iterdir()}
        words.add(machine.json("info", "--format", "{{json .ID}}"))
        seen.append(words)
    assert min(map(len, seen)) > 12
    assert seen[0] & seen[1] <= {"ssh-ed25519", "pybox"}
    archive = cli.home / "base.tar"
    if not archive.exists():
        cli.ok("save", "-o", str(archive), debian)
    made = []
    for machine in twins:
        machine.ok("load", "-i", str(archive))
        identity = machine.ok("create", debian, "true")
        made.append({identity, machine.json("inspect", identity)[0]["Name"]})
        drawn = machine.ok("run", "--rm", debian, "sh", "-c", "cat /proc/sys/kernel/random/uuid /proc/self/stat").split()
        made[-1] |= {drawn[0], drawn[28]}  # a number of the kernel's, and where the process's stack begins
    assert not made[0] & made[1]


def test_a_damaged_state_is_repaired(cli: Cli, twins: tuple[Cli, Cli]) -> None:
    machine = twins[0]
    # A state of its own: the RAM of running machines is mapped from the others' files.
    machine.environment["PYBOX_MEMORY"] = "1400m"
    assert "saved" in phases(machine)
    machine.ok("stop")
    assert "saved" not in phases(machine)
    machine.ok("stop")
    ram = ram_of(machine)
    with ram.open("r+b") as file:  # one byte in the middle of what is there
        place = os.lseek(file.fileno(), ram.stat().st_size // 8, os.SEEK_DATA)
        byte = os.pread(file.fileno(), 1, place)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), place)
    assert "saved" in phases(machine)
    machine.ok("stop")
    assert "saved" not in phases(machine)
    assert machine.ok("ps", "-q") == ""
