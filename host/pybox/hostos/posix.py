"""What Linux and macOS have in common."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import IO

from pybox.hostos.interface import Detachment
from pybox.model import Share


class Posix:
    """Base of the systems with unix sockets, signals and flock."""

    passes_sockets = True
    removes_open_files = True
    reuses_addresses = True
    reset_on_close = struct.pack("ii", 1, 0)
    detachment = Detachment(new_session=True, creation_flags=0)

    def unread(self, connection: int) -> int:
        return 0

    def total_memory_mib(self) -> int:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1024 * 1024)

    def end_process(self, pid: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def try_lock(self, stream: IO[bytes]) -> bool:
        try:
            fcntl.flock(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def listen(self, address: Path) -> socket.socket:
        address.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(address))
            address.chmod(0o600)  # the folder is private already
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        return listener

    def dial(self, address: Path) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(address))
        except OSError:
            connection.close()
            raise
        return connection

    def connect(self, address: Path) -> RawIOBase:
        with self.dial(address) as connection:
            return connection.makefile("rwb", buffering=0)

    def home_shares(self) -> tuple[Share, ...]:
        home = os.path.realpath(Path.home())
        return (Share("home", home, self.guest_path(home)),)

    def guest_path(self, path: str) -> str:
        return path


def read_all(files: list[Path]) -> str:
    """Return the texts of certificate files that can be read, one after the other."""
    found = []
    for path in files:
        with suppress(OSError, UnicodeDecodeError):
            text = path.read_text()
            if "-----BEGIN CERTIFICATE-----" in text:
                found.append(text if text.endswith("\n") else text + "\n")
    return "".join(found)
