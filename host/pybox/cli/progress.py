"""Progress of long work: one line per layer that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

from pybox.cli.output import size

REDRAW = 0.1  # seconds
BAR = 30


class PullProgress:
    """Shows the objects of a pull, load or build stream. A context manager that is called with each of them."""

    def __init__(self, stream: TextIO = sys.stdout, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._terminal = stream.isatty()
        self._rows: dict[str, str] = {}
        self._drawn = 0
        self._last = 0.0

    def __enter__(self) -> PullProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._terminal and not self._quiet:
            self._draw()

    def __call__(self, line: dict[str, Any]) -> None:
        if self._quiet:
            return
        identity, status = line.get("id"), str(line.get("status") or line.get("stream") or "").rstrip()
        if not identity:
            if status:
                self._plain(status)
            return
        detail = line.get("progressDetail") or {}
        text = f"{identity}: {status} {bar(detail)}".rstrip()
        if self._terminal:
            self._rows[identity] = text
            if time.monotonic() - self._last > REDRAW:
                self._draw()
        elif not detail:
            self._plain(f"{identity}: {status}")

    def _plain(self, text: str) -> None:
        if self._terminal:
            self._draw()
            self._rows.clear()
            self._drawn = 0
        self._stream.write(text + "\n")
        self._stream.flush()

    def _draw(self) -> None:
        if self._drawn:
            self._stream.write(f"\x1b[{self._drawn}A")
        for text in self._rows.values():
            self._stream.write(f"\x1b[2K{text}\n")
        self._drawn = len(self._rows)
        self._last = time.monotonic()
        self._stream.flush()


def bar(detail: dict[str, Any]) -> str:
    """ "[=====>    ]  12.3MB/40MB" for {"current", "total"}; "" for nothing."""
    current, total = detail.get("current"), detail.get("total")
    if current is None:
        return ""
    if not total or total < current:
        return size(current)
    filled = int(BAR * current / total)
    arrow = "=" * max(filled - 1, 0) + (">" if filled else "")
    return f"[{arrow.ljust(BAR)}] {size(current)}/{size(total)}"
