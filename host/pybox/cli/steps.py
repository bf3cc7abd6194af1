"""Named steps of long work on the host: a counter on a terminal, one line per step elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TextIO

REDRAW = 0.1  # seconds


class Steps:
    """Called with (step, done, total): `total` 0 means unknown. A context manager."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._step = ""
        self._started = time.monotonic()
        self._last = 0.0

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def __call__(self, step: str, done: int = 0, total: int = 0) -> None:
        if step != self._step:
            self._end()
            self._step = step
            self._started = time.monotonic()
            if not self._terminal:
                self._stream.write(f"{step}\n")
                self._stream.flush()
        if self._terminal and (time.monotonic() - self._last > REDRAW or done == total):
            counter = f" {done}/{total}" if total else ""
            self._stream.write(f"\r\x1b[2K{step}{counter}")
            self._stream.flush()
            self._last = time.monotonic()

    def _end(self) -> None:
        if self._step and self._terminal:
            self._stream.write(f"\r\x1b[2K{self._step} ({time.monotonic() - self._started:.1f} s)\n")
            self._stream.flush()
        self._step = ""
