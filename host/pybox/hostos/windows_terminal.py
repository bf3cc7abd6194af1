"""The terminal of Windows. Implements `app.streams.Console`; size changes are seen when output is written.

The console's own input editing stays on (no raw mode): Ctrl-C reaches the container as a signal.
"""

from __future__ import annotations

import os
import signal as signals
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CHUNK = 32 * 1024


class WindowsConsole:
    """Standard input, output and error of this process."""

    def __init__(self) -> None:
        self._size: tuple[int, int] | None = None
        self._resize: Callable[[int, int], None] | None = None

    def read(self) -> bytes:
        try:
            return os.read(0, CHUNK)
        except OSError:
            return b""

    def write(self, data: bytes, *, error: bool) -> None:
        stream = sys.stderr.buffer if error else sys.stdout.buffer
        stream.write(data)
        stream.flush()
        self._report_size()

    def size(self) -> tuple[int, int] | None:
        try:
            found = os.get_terminal_size()
        except OSError:
            return None
        return found.lines, found.columns

    def is_terminal(self) -> bool:
        return os.isatty(0)

    @contextmanager
    def session(
        self,
        *,
        raw: bool,
        resize: Callable[[int, int], None] | None,
        signal: Callable[[str], None] | None,
    ) -> Iterator[None]:
        self._resize = resize
        self._report_size()
        previous = None
        if signal is not None:

            def forward(_number: int, _frame: FrameType | None) -> None:
                threading.Thread(target=signal, args=("SIGINT",), daemon=True).start()

            previous = signals.signal(signals.SIGINT, forward)
        try:
            yield
        finally:
            self._resize = None
            if previous is not None:
                signals.signal(signals.SIGINT, previous)

    def _report_size(self) -> None:
        now = self.size()
        if self._resize is not None and now is not None and now != self._size:
            self._size = now
            self._resize(*now)
