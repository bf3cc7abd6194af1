"""The only door to other programs: every command is logged, and its end is told in words.

No shell, ever. `OSError`s of the start become PyboxError here.
"""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pybox.errors import PyboxError
from pybox.frozen import frozen

if TYPE_CHECKING:
    from asyncio import Future

log = logging.getLogger(__name__)
Arguments = Sequence[str | Path]
Child = subprocess.Popen[bytes]
PIPE = subprocess.PIPE


@frozen
class Detached:
    """A program that outlives this one: where its standard input is written, and its standard output read."""

    orders: IO[bytes]
    reports: IO[bytes]


@frozen
class Completed:
    """A program that has ended. `status` is negative for a signal, as in `subprocess`."""

    command: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    @property
    def ending(self) -> str:
        return ending(self.status)


def ending(status: int) -> str:
    """Say how a program ended: `status` is an exit status, or a negative signal number."""
    if status == 0:
        return "ended normally"
    if status > 0:
        return "was not found (exit status 127)" if status == 127 else f"ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"was ended by {name}"


def find(program: str) -> Path | None:
    """Return the absolute path of a program on PATH; where programs have endings (PATHEXT), of one with such an ending."""
    endings = [ending for ending in os.environ.get("PATHEXT", "").split(os.pathsep) if ending]
    if not endings or program.lower().endswith(tuple(ending.lower() for ending in endings)):
        endings = [""]
    for folder in os.get_exec_path():
        for ending in endings:
            path = Path(folder, program + ending)
            if path.is_file() and os.access(path, os.X_OK):
                return path.absolute()
    return None


def text(command: Arguments) -> str:
    """Return a command as one would type it."""
    return shlex.join(str(part) for part in command)


def run(
    command: Arguments,
    *,
    check: bool = True,
    timeout: float | None = 60.0,
    environment: Mapping[str, str] | None = None,
    input_data: str | None = None,
) -> Completed:
    """Run a program to its end and return its output.

    `timeout` is in seconds. Raises PyboxError when it cannot be started, is too slow, or (with `check`) fails.
    """
    words = tuple(str(part) for part in command)
    log.debug("run %s", text(words))
    try:
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=None if environment is None else dict(environment),
            input=input_data,
            stdin=subprocess.DEVNULL if input_data is None else None,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PyboxError(f"{words[0]} did not end within {timeout} s", text(words)) from None
    except OSError as error:
        raise _cannot_start(words, error) from None
    result = Completed(words, done.returncode, done.stdout, done.stderr)
    log.debug("%s %s", words[0], result.ending)
    if check and result.status:
        raise PyboxError(f"{words[0]} {result.ending}", f"{text(words)}\n{result.stderr.strip()}".rstrip())
    return result


def popen(
    command: Arguments,
    *,
    stdin: int | IO[bytes] | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = subprocess.DEVNULL,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Child:
    """Start a program and return at once. Raises PyboxError when it cannot be started."""
    words = tuple(str(part) for part in command)
    log.debug("start %s", text(words))
    env = None if environment is None else dict(environment)
    try:
        return subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, env=env, pass_fds=tuple(pass_fds))
    except OSError as error:
        raise _cannot_start(words, error) from None


def wait(child: Child, timeout: float) -> int:
    """Wait for a child's end and return its status. Raises TimeoutError after `timeout` seconds."""
    try:
        return child.wait(timeout)
    except subprocess.TimeoutExpired:
        raise TimeoutError from None


def spawn_detached(
    command: Arguments,
    *,
    errors: Path,
    new_session: bool,
    creation_flags: int,
    environment: Mapping[str, str] | None = None,
) -> Detached:
    """Start a program that outlives this one. The caller closes what is returned.

    What it writes to standard error is appended to the file `errors`. `new_session` and `creation_flags` are how this
    system separates it (`hostos` knows). Raises PyboxError when it cannot be started.
    """
    words = tuple(str(part) for part in command)
    log.debug("spawn %s", text(words))
    errors.parent.mkdir(parents=True, exist_ok=True)
    env = None if environment is None else dict(environment)
    with errors.open("ab") as stderr:
        try:
            child = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=new_session,
                creationflags=creation_flags,
                close_fds=True,
                env=env,
            )
        except OSError as error:
            raise _cannot_start(words, error) from None
    assert child.stdin is not None and child.stdout is not None
    # It is not this program's business any more; without this, the interpreter would warn when `child` is collected.
    child.returncode = 0
    return Detached(child.stdin, child.stdout)


class Watched:
    """A child that an event loop can wait for, and that may be started before there is one."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._end: Future[int] | None = None

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """How it ended, as in `subprocess`; None while it runs."""
        return self._child.poll()

    def terminate(self) -> None:
        """Ask it to end; nothing happens when it has ended."""
        self._child.terminate()

    def kill(self) -> None:
        """End it; nothing happens when it has ended."""
        self._child.kill()

    async def wait(self) -> int:
        """Wait for its end and return its status. Any number may wait, in one event loop."""
        import asyncio

        if self._end is None:
            self._end = asyncio.get_running_loop().create_future()
            threading.Thread(target=self._watch, args=(self._end,), daemon=True).start()
        return await asyncio.shield(self._end)

    def _watch(self, end: Future[int]) -> None:
        status = self._child.wait()
        with suppress(RuntimeError):  # the loop has ended before the child
            end.get_loop().call_soon_threadsafe(end.set_result, status)


def start(command: Arguments, *, output: Path, pass_fds: Sequence[int] = ()) -> Watched:
    """Start a child and return at once; what it prints is appended to the file `output`.

    Raises PyboxError when it cannot be started.
    """
    words = tuple(str(part) for part in command)
    log.info("start %s", text(words))
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as stream:
        return Watched(popen(words, stdout=stream, stderr=stream, pass_fds=pass_fds))


def _cannot_start(words: Sequence[str], error: OSError) -> PyboxError:
    if isinstance(error, FileNotFoundError):
        return PyboxError(f"{words[0]} was not found", text(words), "Install it, or correct the path.")
    return PyboxError(f"{words[0]} cannot be started", f"{text(words)}\n{error.strerror or error}")
