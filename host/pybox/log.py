"""Logging of the host's programs: the command line warns on stderr, the hostagent keeps a file."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from pathlib import Path

_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
_FILE_LIMIT = 2 * 1024 * 1024  # bytes, one older file is kept


class _LimitedFile(logging.FileHandler):
    """A file that is turned over when it is full; `logging.handlers` has such a one, and much that nobody here needs."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self.stream is None or self.stream.tell() < _FILE_LIMIT:
            return
        self.stream.close()
        path = Path(self.baseFilename)
        with suppress(OSError):  # then it grows on
            path.replace(path.with_name(f"{path.name}.1"))
        path.touch(mode=0o600)
        self.stream = self._open()


def _formatter() -> logging.Formatter:
    formatter = logging.Formatter(_FORMAT, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    return formatter


def to_stderr(level: int = logging.WARNING) -> None:
    """Send log lines of this program to its standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_formatter())
    _install(handler, level)


def to_file(path: Path, level: int = logging.INFO) -> None:
    """Send log lines of this program to a file that only its owner can read; it is turned over at 2 MiB."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    handler = _LimitedFile(path, encoding="utf-8")
    handler.setFormatter(_formatter())
    _install(handler, level)


def _install(handler: logging.Handler, level: int) -> None:
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    # It logs as an error what its caller handles: that QEMU has ended.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
