"""What a monitor leaves in its run directory, so that an engine that was away finds out what happened."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from pyboxd.errors import NotFound

from . import cgroup, codec
from .spec import Exit
from .wire import EXIT_FILE, STATE_FILE, State


def clear(run_dir: str) -> None:
    """Make a run directory ready for a new process: what an earlier one left there is not about it."""
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    for name in (STATE_FILE, EXIT_FILE):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{run_dir}/{name}")


def write_state(run_dir: str, state: State) -> None:
    """Record which process this is about."""
    _write(f"{run_dir}/{STATE_FILE}", codec.dumps(state))


def write_exit(run_dir: str, ended: Exit) -> None:
    """Record how the process ended. Whoever reads the file sees all of it or does not see it."""
    _write(f"{run_dir}/{EXIT_FILE}", codec.dumps(ended))


def read_exit(run_dir: str) -> Exit | None:
    """The recorded end, None if there is none."""
    data = _read(f"{run_dir}/{EXIT_FILE}")
    return None if data is None else codec.loads(Exit, data)


def read_state(run_dir: str) -> State:
    """The recorded process. NotFound."""
    data = _read(f"{run_dir}/{STATE_FILE}")
    if data is None:
        raise NotFound(f"no process was ever started in {run_dir}")
    return codec.loads(State, data)


def lost_exit(run_dir: str) -> Exit:
    """The end of a process whose monitor died: it is killed now, with its container, and recorded so. NotFound.

    Its output has nowhere to go any more, so letting it live would only hang it.
    """
    state = read_state(run_dir)
    if not state.is_exec:
        cgroup.kill(state.cgroup)
        cgroup.remove(state.cgroup)
    elif cgroup.holds(state.cgroup, state.pid):
        os.kill(state.pid, signal.SIGKILL)
    ended = Exit(128 + signal.SIGKILL, False, time.time())
    write_exit(run_dir, ended)
    return ended


def _write(path: str, data: bytes) -> None:
    temporary = f"{path}.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
