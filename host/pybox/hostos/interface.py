"""What the rest of pybox asks of a host system. One class per system implements it."""

from __future__ import annotations

import platform
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from io import RawIOBase
from pathlib import Path
from typing import IO, Protocol

from pybox.errors import UsageProblem
from pybox.frozen import frozen
from pybox.model import Accelerator, Arch, Share


@frozen
class ProcessIdentity:
    """Tells a process from a later one with the same number."""

    started: str  # opaque; equal means the same process
    command: str  # its command line, or at least its program


@frozen
class Detachment:
    """How a program is started so that it outlives its parent's terminal."""

    new_session: bool
    creation_flags: int


class HostSystem(Protocol):
    """One kind of system. Methods answer for this very host, at this moment."""

    name: str  # linux | macos | windows
    accelerators: tuple[Accelerator, ...]  # hardware ones, best first
    passes_sockets: bool  # a child can be given an open unix socket
    removes_open_files: bool
    reuses_addresses: bool  # SO_REUSEADDR is about connections of the past, and takes nothing from a live listener
    reset_on_close: bytes  # the value of SO_LINGER that makes `close` a reset
    detachment: Detachment

    def accelerator_problem(self, accelerator: Accelerator) -> str:
        """Say why an accelerator cannot be tried at all; "" when it can."""
        ...

    def unread(self, connection: int) -> int:
        """Return how many bytes of the kernel's the peer of a local socket has not read yet; 0 where nobody knows."""
        ...

    def total_memory_mib(self) -> int:
        """Return the host's memory in MiB."""
        ...

    def identify(self, pid: int) -> ProcessIdentity | None:
        """Return who a living process is, None when there is none (a zombie is none)."""
        ...

    def memory_of(self, pid: int) -> int:
        """Return the bytes of this host's memory that a process takes; 0 when it is gone or may not be looked at.

        Linux divides what processes share among them (Pss, proc_pid_smaps(5)); the others count it for each.
        """
        ...

    def end_process(self, pid: int) -> None:
        """End a process at once; it may be gone already."""
        ...

    def with_parent(self, command: Sequence[str | Path]) -> list[str | Path]:
        """Return the command that makes the program end when the process that started it ends.

        The command as it is where this system cannot do it.
        """
        ...

    def adopt(self, pid: int) -> None:
        """Do the same for a child that runs already, where that is this system's way."""
        ...

    def try_lock(self, stream: IO[bytes]) -> bool:
        """Lock a file for this process and its life; False when another process holds it."""
        ...

    def listen(self, address: Path) -> socket.socket:
        """Return a socket that listens at `address` for this user alone, in the place of a stale one.

        Only where `passes_sockets`. Raises OSError.
        """
        ...

    def dial(self, address: Path) -> socket.socket:
        """Return a socket that is connected to a listening one. Only where `passes_sockets`. Raises OSError."""
        ...

    def connect(self, address: Path) -> RawIOBase:
        """Open a local address of this user, unbuffered for reading and writing.

        Raises OSError when nobody listens there.
        """
        ...

    def home_shares(self) -> tuple[Share, ...]:
        """Return the folders that a machine sees unless settings say otherwise."""
        ...

    def guest_path(self, path: str) -> str:
        """Return the path by which a machine's bind mounts name a folder of this host."""
        ...

    def local_certificates(self) -> str:
        """Return (PEM) the roots that this host's administrator added; "" when there are none."""
        ...


def native_arch() -> Arch:
    """Return this host's architecture. Raises UsageProblem where there is no guest for it."""
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        return Arch.AMD64
    if machine in ("aarch64", "arm64"):
        return Arch.ARM64
    raise UsageProblem(
        f"pybox has no guest for this host's architecture, {machine}",
        "",
        "Set `arch` to amd64 or arm64 to have it emulated.",
    )


class Console(Protocol):
    """The user's side of the streams."""

    def read(self) -> bytes:
        """Some bytes of standard input, b"" at its end. Blocks."""

    def write(self, data: bytes, *, error: bool) -> None: ...

    def size(self) -> tuple[int, int] | None:
        """(rows, columns), None when there is no terminal."""

    def is_terminal(self) -> bool:
        """Whether standard input is a terminal."""

    def session(
        self,
        *,
        raw: bool,
        resize: Callable[[int, int], None] | None,
        signal: Callable[[str], None] | None,
    ) -> AbstractContextManager[None]:
        """Raw mode, size changes and signals handed on while the context lasts; all restored after it."""
