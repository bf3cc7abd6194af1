"""pybox at work, driven by its own command line in a folder of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pybox import hostos
from pybox.errors import MachineError
from pybox.files import tail
from pybox.machine.files import MachineFiles
from pybox.paths import Paths
from tests.bench.api import Address, Api, first_answer
from tests.bench.machine import Memory, Port, free_ports

_PATIENCE = 300.0  # seconds; the first start makes the golden state
_MACHINE = "bench"
_PHASE = re.compile(r"\s*([\d.]+) s  (\S+)")
# One line per process: PSS in kB, parent, number, name. A kernel thread has no PSS.
_PROBE = r"""for folder in /proc/[0-9]*; do
    pss=$(sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' $folder/smaps_rollup 2>/dev/null)
    parent=$(sed -n 's/^PPid:[^0-9]*//p' $folder/status 2>/dev/null)
    [ -z "$pss" ] || echo "$pss $parent ${folder#/proc/} $(cat $folder/comm)"
done"""
_CONTAINERS_OWN = ("sleep",)  # what the measured containers run


@dataclass(frozen=True)
class Start:
    """One start. `whole` is the command, its end, and one answered call after it; `from_qemu` the time from the start
    of QEMU's process to the first answered call, None where this system does not tell. Seconds."""

    whole: float
    from_qemu: float | None
    phases: Mapping[str, float]


class PyboxVm:
    """One machine of an installation below `home`, with the given size."""

    name = "pybox"

    def __init__(self, home: Path, memory_mib: int, cpus: int) -> None:
        self.home = home
        self.settings: dict[str, str] = {"memory": str(memory_mib), "cpus": str(cpus), "shares": ""}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYBOX_", "PYTHON"))}
        self._environment = {**kept, "PYBOX_HOME": str(home), "PYBOX_MACHINE": _MACHINE}
        self._paths = Paths.from_environment(self._environment)
        self.api = Api(Address(path=hostos.api_address(self._paths, _MACHINE)))
        self._ports: list[int] = []

    def command(self, *words: str) -> list[str]:
        """Return a whole command line; to be run in `own_environment`."""
        program = Path(sys.executable).with_name("pybox")
        return [str(program), *words] if program.exists() else [sys.executable, "-m", "pybox", *words]

    def own_environment(self) -> dict[str, str]:
        settings = {f"PYBOX_{name.replace('-', '_').upper()}": value for name, value in self.settings.items()}
        return {**self._environment, **settings}

    def run(self, *words: str, timeout: float = _PATIENCE) -> str:
        """Run a command; its standard output. Raises MachineError with what it said."""
        done = subprocess.run(
            self.command(*words), env=self.own_environment(), capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise MachineError(f"pybox {' '.join(words[:3])}: exit status {done.returncode}", done.stderr.strip())
        return done.stdout

    def start(self, *, golden: bool = True) -> Start:
        """Start the machine, from the golden state or by a cold boot. Raises MachineError."""
        self.settings["golden-state"] = "true" if golden else "false"
        self._ports = free_ports(4)
        answered: list[float] = []
        began = time.monotonic()
        process = subprocess.Popen(
            self.command("start", "--verbose"),
            env=self.own_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        watcher = threading.Thread(target=self._watch, args=(process, answered))
        watcher.start()
        try:
            errors = process.communicate(timeout=_PATIENCE)[1]
        except subprocess.TimeoutExpired:
            raise MachineError(f"pybox start did not end within {_PATIENCE:g} s", self._agent_log()) from None
        finally:
            process.kill()  # nothing, when it has ended
            process.wait()
            watcher.join()
        if process.returncode:
            raise MachineError(f"pybox start: exit status {process.returncode}", errors.strip())
        self.api.close()
        self.api.call("GET", "/_ping")
        whole = time.monotonic() - began
        phases = {match[2]: float(match[1]) for match in _PHASE.finditer(errors)}
        return Start(whole, self._since_qemu(answered[0]) if answered else None, phases)

    def stop(self) -> None:
        self.api.close()
        self.run("stop")

    def kill(self) -> None:
        """End it at once."""
        self.api.close()
        self.run("stop", "--time", "0")

    def last_words(self) -> str:
        """Return the end of what its console says."""
        return tail(MachineFiles(self._paths, _MACHINE).console_log)

    def delete(self) -> None:
        """Stop the machine and remove all that it holds; the saved state and the guest image stay."""
        self.api.close()
        if MachineFiles(self._paths, _MACHINE).exists():
            self.run("delete", "--force")

    def status(self) -> dict[str, Any]:
        """Return what `pybox status` says."""
        found: dict[str, Any] = json.loads(self.run("status", "--format", "json"))
        return found

    def port(self, number: int) -> Port:
        return Port(self._ports[number], self._ports[number])

    def memory(self) -> Memory:
        return engine_memory(self.run("ssh", _PROBE))

    def environment(self) -> Mapping[str, str]:
        return {**self._environment, "DOCKER_HOST": self.api.address.docker_host, "DOCKER_BUILDKIT": "0"}

    # -- inside ----------------------------------------------------------------------------------

    def _agent_log(self) -> str:
        """Return the end of what the hostagent has to say."""
        return tail(MachineFiles(self._paths, _MACHINE).agent_log)

    def _watch(self, process: subprocess.Popen[str], answered: list[float]) -> None:
        """Note the moment of the first answer; give up when the start has failed."""
        deadline = time.monotonic() + _PATIENCE
        while process.poll() in (None, 0) and time.monotonic() < deadline:
            try:
                answered.append(first_answer(self.api.address, time.monotonic() + 1.0))
            except TimeoutError:
                continue
            return

    def _since_qemu(self, answered: float) -> float | None:
        pid = self.status().get("qemu_pid")
        identity = hostos.current().identify(int(pid)) if pid else None
        if identity is None or not identity.started.isdigit() or not hasattr(time, "CLOCK_BOOTTIME"):
            return None
        # The process's start counts clock ticks since the boot of this computer (proc(5)).
        since_boot = int(identity.started) / os.sysconf("SC_CLK_TCK")
        return answered - (since_boot - time.clock_gettime(time.CLOCK_BOOTTIME) + time.monotonic())


def engine_memory(text: str) -> Memory:
    """Sum up the probe's lines, without the probe's own ssh session and without what runs in containers."""
    rows = [line.split(None, 3) for line in text.splitlines() if line.count(" ") >= 3]
    parents = {int(number): int(parent) for _pss, parent, number, _name in rows}
    names = {int(number): name for _pss, _parent, number, name in rows}
    sums: dict[str, float] = {}
    for pss, _parent, number, name in rows:
        if name in _CONTAINERS_OWN or _in_session(int(number), parents, names):
            continue
        sums[name] = sums.get(name, 0.0) + int(pss) * 1024 / 1e6
    return Memory(sums)


def _in_session(number: int, parents: Mapping[int, int], names: Mapping[int, str]) -> bool:
    """Whether a process is, or was started by, the ssh server's own child for one connection."""
    line: Sequence[int] = ()
    while number in parents:
        line = (*line, number)
        number = parents[number]
    servers = [item for item in line if names.get(item) == "dropbear"]
    return len(servers) > 1 or (len(servers) == 1 and names[line[0]] != "dropbear")
