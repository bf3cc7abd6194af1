"""The only door to other programs: every command is logged, and its end is told in words.

No shell, ever. `OSError`s of the start become PyboxError here.
"""

from __future__ import annotations

import logging
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from pybox.errors import PyboxError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

log = logging.getLogger(__name__)
Arguments = Sequence[str | Path]
Child = subprocess.Popen[bytes]
PIPE = subprocess.PIPE


@dataclass(frozen=True)
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
    """Return the absolute path of a program on PATH."""
    found = shutil.which(program)
    return Path(found).absolute() if found else None


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
) -> IO[bytes]:
    """Start a program that outlives this one, and return the reading end of its standard output.

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
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=new_session,
                creationflags=creation_flags,
                close_fds=True,
                env=env,
            )
        except OSError as error:
            raise _cannot_start(words, error) from None
    assert child.stdout is not None
    # It is not this program's business any more; without this, the interpreter would warn when `child` is collected.
    child.returncode = 0
    return child.stdout


async def start_async(command: Arguments, *, output: Path, pass_fds: Sequence[int] = ()) -> Process:
    """Start a child of this event loop; what it prints is appended to the file `output`.

    Raises PyboxError when it cannot be started.
    """
    import asyncio  # the command line never comes here, and must not wait for it

    words = tuple(str(part) for part in command)
    log.info("start %s", text(words))
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("ab") as stream:
        try:
            return await asyncio.create_subprocess_exec(
                *words,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                pass_fds=tuple(pass_fds),
            )
        except OSError as error:
            raise _cannot_start(words, error) from None


def _cannot_start(words: Sequence[str], error: OSError) -> PyboxError:
    if isinstance(error, FileNotFoundError):
        return PyboxError(f"{words[0]} was not found", text(words), "Install it, or correct the path.")
    return PyboxError(f"{words[0]} cannot be started", f"{text(words)}\n{error.strerror or error}")
