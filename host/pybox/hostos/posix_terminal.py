"""The terminal of macOS and Linux: raw mode, window size, signals. Implements `app.streams.Console`."""

from __future__ import annotations

import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

CHUNK = 32 * 1024
FORWARDED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")


class PosixConsole:
    """Standard input, output and error of this process."""

    def read(self) -> bytes:
        try:
            return os.read(0, CHUNK)
        except OSError:
            return b""

    def write(self, data: bytes, *, error: bool) -> None:
        stream = sys.stderr.buffer if error else sys.stdout.buffer
        stream.write(data)
        stream.flush()

    def size(self) -> tuple[int, int] | None:
        for descriptor in (1, 0, 2):
            try:
                found = os.get_terminal_size(descriptor)
            except OSError:
                continue
            return found.lines, found.columns
        return None

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
        saved = _enter_raw() if raw and self.is_terminal() else None
        restore = [*self._watch_size(resize), *_forward_signals(signal)]
        try:
            yield
        finally:
            for number, handler in restore:
                _set_handler(number, handler)
            if saved is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, saved)

    def _watch_size(self, resize: Callable[[int, int], None] | None) -> list[tuple[int, object]]:
        if resize is None or (first := self.size()) is None:
            return []
        resize(*first)

        def changed(_number: int, _frame: FrameType | None) -> None:
            if (now := self.size()) is not None:
                threading.Thread(target=resize, args=now, daemon=True).start()

        return [(signal.SIGWINCH, signal.signal(signal.SIGWINCH, changed))]


def _enter_raw() -> list[Any]:
    saved: list[Any] = termios.tcgetattr(0)
    tty.setraw(0)
    return saved


def _forward_signals(send: Callable[[str], None] | None) -> list[tuple[int, object]]:
    if send is None:
        return []

    def forward(number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=send, args=(signal.Signals(number).name,), daemon=True).start()

    return [(signal.Signals[name], signal.signal(signal.Signals[name], forward)) for name in FORWARDED]


def _set_handler(number: int, handler: object) -> None:
    if callable(handler) or isinstance(handler, signal.Handlers):
        signal.signal(number, handler)
