"""What a machine holds at a moment, on both sides: counted in /proc, /sys and on the disk, to compare with later.

Nothing is asked of the engine: it is what is watched.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.pybox_cli import Cli

# Each line prints "name number"; `of NAME` is the pid of the engine's process of that name.
_SCRIPT = r"""
of() { for c in /proc/[0-9]*/comm; do read -r n <$c && test "$n" = "$1" && { c=${c%/comm}; echo ${c#/proc/}; return; }; done; }
engine=$(of pyboxd-engine) spawner=$(of spawner)
sync; echo 3 >/proc/sys/vm/drop_caches
echo "monitors $(cat /proc/[0-9]*/comm | grep -cx monitor)"
echo "descriptors of the engine $(ls /proc/$engine/fd | wc -l)"
echo "descriptors of the spawner $(ls /proc/$spawner/fd | wc -l)"
echo "threads of the engine $(ls /proc/$engine/task | wc -l)"
echo "mounts $(wc -l </proc/1/mountinfo)"
echo "mounts of the engine $(wc -l </proc/$engine/mountinfo)"
echo "control groups $(find /sys/fs/cgroup -type d | wc -l)"
echo "network namespaces $(ls /run/pyboxd/netns | wc -l)"
echo "network links $(ls /sys/class/net | wc -l)"
echo "rules of nftables $(nft list ruleset | grep -c .)"
echo "files in /run $(find /run -xdev | wc -l)"
echo "files on the disk $(find /var/lib/pyboxd -xdev | wc -l)"
echo "loop devices $(ls -d /sys/block/loop*/loop 2>/dev/null | wc -l)"
echo "KiB on the disk $(df -k /var/lib/pyboxd | tail -1 | tr -s ' ' | cut -d' ' -f3)"
echo "KiB of the engine (RSS) $(grep ^VmRSS /proc/$engine/status | tr -dc 0-9)"
echo "KiB of the spawner (RSS) $(grep ^VmRSS /proc/$spawner/status | tr -dc 0-9)"
echo "KiB of the kernel (slab) $(grep ^Slab: /proc/meminfo | tr -dc 0-9)"
echo "KiB used of the guest's memory $(($(grep ^MemTotal: /proc/meminfo | tr -dc 0-9) - $(grep ^MemAvailable: /proc/meminfo | tr -dc 0-9)))"
"""  # noqa: E501


_MOVING = ("threads of the engine", "descriptors of qemu, on the host")  # pools, and what a client is about to close


@dataclass(frozen=True)
class Holdings:
    """Numbers by name. Those whose name begins with KiB are sizes."""

    numbers: Mapping[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """What must be the same when the same containers are there."""
        return {name: n for name, n in self.numbers.items() if not name.startswith("KiB") and name not in _MOVING}

    def growth(self, before: Holdings, name: str) -> int:
        """By how many KiB a size has grown."""
        return self.numbers[f"KiB {name}"] - before.numbers[f"KiB {name}"]


def look(machine: Cli) -> Holdings:
    """Count everything."""
    lines = machine.ok("ssh", "--", _SCRIPT).splitlines()
    found = {name: int(number) for name, _, number in (line.strip().rpartition(" ") for line in lines)}
    for role, pid in _processes(machine).items():
        proc = Path(f"/proc/{pid}")
        found[f"descriptors of {role}, on the host"] = len(list((proc / "fd").iterdir()))
        found[f"KiB of {role} (RSS), on the host"] = _status(proc, "VmRSS")
    return Holdings(found)


def look_until(machine: Cli, wanted: Holdings, seconds: float) -> Holdings:
    """Count until all that is counted exactly is as it was, or the time is over."""
    end = time.monotonic() + seconds
    while (found := look(machine)).counts != wanted.counts and time.monotonic() < end:
        time.sleep(2)
    return found


def look_until_quiet(machine: Cli) -> Holdings:
    """Count until twice the same is there: pools are filled and ends are tidied behind the answers to clients."""
    found = look(machine)
    while True:
        time.sleep(2)
        again = look(machine)
        if again.counts == found.counts:
            return again
        found = again


def _processes(machine: Cli) -> dict[str, int]:
    file = machine.home / "state" / "machines" / machine.machine / "processes.json"
    return {role: int(value["pid"]) for role, value in json.loads(file.read_text()).items() if isinstance(value, dict)}


def _status(proc: Path, field: str) -> int:
    for line in (proc / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return 0


def table(columns: Sequence[tuple[str, Holdings]]) -> str:
    """All numbers in Markdown, a column for each moment."""
    titles = ["", *(title for title, _ in columns)]
    rows = [titles, ["---"] + ["---:"] * len(columns)]
    for name in columns[0][1].numbers:
        rows.append([name, *(f"{holdings.numbers[name]:,}" for _, holdings in columns)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
