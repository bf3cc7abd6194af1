"""The reference VM at work: one QEMU, its console, its engine behind a forwarded port."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pybox import hostos
from pybox.errors import MachineError
from pybox.model import Accelerator, Arch
from pybox.qemu.command import Board, Channels, EngineMachine, LoopbackPort, engine_command, kernel_line
from tests.bench.api import Address, Api, first_answer
from tests.bench.machine import Memory, Port, free_ports
from tests.bench.stock.reference import Reference

_PATIENCE = 300.0  # seconds for a boot on a busy computer
_ANSWER = 120.0  # seconds for an answer on the console
_FORWARDS = 4
_FIRST = 18000  # of the published ports in the guest
_DISK = 16 << 30  # bytes, sparse
_OURS = ("dockerd", "containerd", "docker-proxy", "runc")  # the first letters of the engine's processes
_CONSOLE_TAIL = 80


@dataclass(frozen=True)
class Size:
    """What both machines have in common."""

    program: Path
    accelerator: Accelerator
    memory_mib: int
    cpus: int

    def words(self) -> list[str]:
        """Return QEMU's options for it, taken from the very function that makes pybox's command line."""
        nothing = Path("unused")
        board = Board(self.program, Arch.AMD64, self.accelerator, self.memory_mib, self.cpus, nothing, nothing, nothing)
        channels = Channels(*(LoopbackPort(0),) * 4)
        command = engine_command(EngineMachine(board, "bench", nothing, None, channels))
        options = ("-machine", "-accel", "-cpu", "-smp", "-m", "-object")
        return [word for option in options for word in (option, command[command.index(option) + 1])]


class StockVm:
    """A reference VM. `data` is its disk, made blank when it does not exist; `extra` are more words for QEMU."""

    name = "stock"

    def __init__(
        self,
        reference: Reference,
        size: Size,
        data: Path,
        *,
        extra: Sequence[str] = (),
        machine: Sequence[str] | None = None,
    ) -> None:
        self._reference = reference
        self._machine = list(machine or size.words())
        self._program = size.program
        self._data = data
        self._extra = list(extra)
        self._lines: list[str] = []
        self._arrived = threading.Condition()
        self._qemu: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._api: Api | None = None
        self._forwards: list[int] = []

    @property
    def api(self) -> Api:
        if self._api is None:
            raise MachineError("the reference VM does not run")
        return self._api

    def start(self) -> float:
        """Boot; seconds from the start of QEMU's process to the first answer of the engine. Raises MachineError."""
        if not self._data.exists():
            with self._data.open("wb") as stream:
                stream.truncate(_DISK)
        port, *self._forwards = free_ports(1 + _FORWARDS)
        self._api = Api(Address(port=port))
        self._lines.clear()
        began = time.monotonic()
        self._qemu = subprocess.Popen(
            hostos.current().with_parent(self._command(port)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        hostos.current().adopt(self._qemu.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            # Not before its sockets are open: a connection that comes too early is tried again after seconds.
            self._wait(lambda lines: any("BENCH phase dockerd" in line for line in lines), _PATIENCE, "its boot")
            answered = first_answer(self._api.address, began + _PATIENCE)
        except TimeoutError as error:
            raise self._failure(str(error)) from None
        except BaseException:
            self.kill()
            raise
        return answered - began

    def stop(self) -> None:
        """Power off, with the disk in order. One that does not is ended."""
        if self._qemu is None:
            return
        self.api.close()
        with suppress(OSError):
            self._send("off")
        with suppress(subprocess.TimeoutExpired):
            self._qemu.wait(60)
        self.kill()

    def kill(self) -> None:
        """End it at once."""
        if self._api is not None:
            self._api.close()
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            for stream in (self._qemu.stdin, self._qemu.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            self._qemu = None
        if self._reader is not None:
            self._reader.join()
            self._reader = None

    def last_words(self) -> str:
        """Return the end of what its console says."""
        return "\n".join(self._lines[-_CONSOLE_TAIL:])

    def port(self, number: int) -> Port:
        return Port(_FIRST + number, self._forwards[number])

    def memory(self) -> Memory:
        sums: dict[str, float] = {}
        for line in self.ask("memory"):
            size, _, name = line.partition(" ")
            if size.isdigit() and name.startswith(_OURS):
                sums[name] = sums.get(name, 0.0) + int(size) * 1024 / 1e6
        return Memory(sums)

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, "DOCKER_HOST": self.api.address.docker_host, "DOCKER_BUILDKIT": "0"}

    def shell(self, command: str) -> str:
        """Run a command in the guest; what it printed."""
        return "\n".join(self.ask(f"shell {command}"))

    def ask(self, order: str) -> list[str]:
        """Send a line to the guest's init; the lines of its answer. Raises MachineError when none comes."""
        first = len(self._lines)
        self._send(order)
        try:
            self._wait(lambda lines: "BENCH end" in lines[first:], _ANSWER, order)
        except TimeoutError as error:
            raise self._failure(str(error)) from None
        answer = self._lines[first:]
        return answer[: answer.index("BENCH end")]

    # -- inside ----------------------------------------------------------------------------------

    def _command(self, port: int) -> list[str | Path]:
        forwards = [f"hostfwd=tcp:127.0.0.1:{port}-:2375"]
        forwards += [f"hostfwd=tcp:127.0.0.1:{host}-:{_FIRST + number}" for number, host in enumerate(self._forwards)]
        return [
            self._program, "-name", "pybox-bench-stock", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            *self._machine,
            "-kernel", self._reference.kernel, "-initrd", self._reference.initrd,
            "-append", kernel_line(Arch.AMD64),
            "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
            "-drive", f"if=none,id=root,format=raw,readonly=on,file={self._reference.root_disk}",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"if=none,id=data,format=raw,cache=writeback,discard=unmap,detect-zeroes=unmap,file={self._data}",
            "-device", "virtio-blk-pci,drive=data",
            "-device", "virtio-rng-pci",
            "-netdev", "user,id=net,ipv6=off," + ",".join(forwards), "-device", "virtio-net-pci,netdev=net,romfile=",
            *self._extra,
        ]  # fmt: skip

    def _send(self, line: str) -> None:
        assert self._qemu is not None and self._qemu.stdin is not None
        self._qemu.stdin.write(line + "\n")
        self._qemu.stdin.flush()

    def _read(self) -> None:
        assert self._qemu is not None and self._qemu.stdout is not None
        for line in self._qemu.stdout:
            with self._arrived:
                self._lines.append(line.strip())
                self._arrived.notify_all()
        with self._arrived:
            self._arrived.notify_all()

    def _wait(self, condition: Callable[[list[str]], bool], timeout: float, what: str) -> None:
        deadline = time.monotonic() + timeout
        with self._arrived:
            while not condition(self._lines):
                if self._qemu is None or self._qemu.poll() is not None:
                    raise TimeoutError(f"the reference VM ended during {what}")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the reference VM gave no answer within {timeout:g} s ({what})")
                self._arrived.wait(0.5)

    def _failure(self, seen: str) -> MachineError:
        self.kill()  # first: what it said last is read to the end
        return MachineError(seen, self.last_words() or "its console stayed empty")
