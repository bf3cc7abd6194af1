"""What the processes of a start share: the console, the times of the phases, the name of a pipe, an order.

Used by process 1, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal
import time

from pyboxd.locations import RUN

SETTLED_VARIABLE = "PYBOXD_SETTLED"
"""Environment variable: number of the descriptor on which the engine waits for `settle.py`."""

RELAY_NAME = "pyboxd-relay"
"""Of its processes."""
RELAY_ORDER = signal.SIGUSR1
"""To the relay's process of the replies: say when the host is gone and half a message forgotten."""
RELAY_PROCESS = f"{RUN}/relay.pid"
"""File with the number of that process, once it takes orders."""
RELAY_DONE = f"{RUN}/relay.done"
"""File that it makes when it has carried one out."""

_PHASES = f"{RUN}/phases"


def say(text: str) -> None:
    """Write one line to the console (standard error, which every process of ours has from process 1)."""
    os.write(2, f"pyboxd: {text}\n".encode())


def mark_phase(name: str) -> float:
    """Remember that the start has reached phase `name`; the seconds since the kernel's start."""
    now = time.clock_gettime(time.CLOCK_MONOTONIC)  # counts from the kernel's start
    with open(_PHASES, "a") as file:
        file.write(f"{name} {now:.3f}\n")
    return now


def phases() -> list[tuple[str, float]]:
    """All phases so far, with seconds since the kernel's start."""
    try:
        with open(_PHASES) as file:
            return [(name, float(seconds)) for name, seconds in map(str.split, file)]
    except FileNotFoundError:
        return []
