"""The container's first process, from its birth to the program it executes.

It is a fork of the monitor that follows a plan, tells the monitor when all is ready, and executes the program
when it is told to. Whatever fails becomes a message; nothing returns to the monitor's code.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from typing import NoReturn

from pyboxd.errors import PyboxdError
from pyboxd.frozen import frozen
from pyboxd.linux import caps, seccomp

from . import handshake
from .failure import Failure, words
from .operation import Context
from .plan import Plan, ProcessSpec, bounding_mask
from .spec import DEFAULT_PATH, ContainerSpec

_SEARCH_GOES_ON = (FileNotFoundError, NotADirectoryError, PermissionError)


@frozen
class Birth:
    """What the first process needs beyond its spec."""

    plan: Plan
    program: bytes  # compiled system call filter, b"" for none
    container_fd: int  # pidfd of the container that an exec joins, -1 otherwise


class _Failed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


def run(spec: ProcessSpec, birth: Birth, end: socket.socket, stdio: tuple[int, int, int]) -> NoReturn:
    """Be the first process. `stdio` are descriptors for 0, 1 and 2; `end` is its side of the handshake."""
    try:
        for number, descriptor in enumerate(stdio):
            os.dup2(descriptor, number)
        os.umask(0)
        context = Context(end, container_fd=birth.container_fd)
        _follow(birth.plan, context)
        environment = _environment(spec, context)
        handshake.send(end, "ready")
        if handshake.receive(end) is None:
            os._exit(0)
        os.umask(0o022)
        _reset_signals()
        if isinstance(spec, ContainerSpec) and spec.init:
            _fork_program(spec, birth, end, context)
        handshake.send(end, "executing")
        _drop_privileges(spec, birth, context)
        _execute(spec.args, environment)
    except _Failed as error:
        _report(end, error.failure)
    except BaseException as error:  # noqa: BLE001 - the end of a process is the boundary
        traceback.print_exc()  # where the process's errors go: into the container's log
        _report(end, Failure(f"internal error: {error!r}"))
    finally:
        os._exit(1)


def _follow(plan: Plan, context: Context) -> None:
    for operation in plan.operations:
        try:
            operation.execute(context)
        except OSError as error:
            raise _Failed(Failure(f"{operation.failing()}: {words(error)}")) from error
        except PyboxdError as error:
            raise _Failed(Failure(str(error), plain=True)) from error


def _report(end: socket.socket, failure: Failure) -> None:
    try:
        handshake.send(end, "failed", failure)
    except OSError:  # a filter that forbids even this
        sys.stderr.write(f"{failure.detail}\n")


def _environment(spec: ProcessSpec, context: Context) -> dict[bytes, bytes]:
    """The spec's variables, and those that every program expects."""
    variables = dict(entry.partition("=")[::2] for entry in [DEFAULT_PATH, f"HOME={context.identity.home}"])
    if spec.terminal:
        variables["TERM"] = "xterm"
    if isinstance(spec, ContainerSpec) and spec.hostname:
        variables["HOSTNAME"] = spec.hostname
    variables.update(entry.partition("=")[::2] for entry in spec.env if "=" in entry)
    return {_encoded(name): _encoded(value) for name, value in variables.items()}


def _reset_signals() -> None:
    """Python ignores these two, and an ignored signal stays ignored over execve."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _drop_privileges(spec: ProcessSpec, birth: Birth, context: Context) -> None:
    """The filter, and the capabilities that a program of this user starts with.

    Loading a filter takes CAP_SYS_ADMIN unless no_new_privs is set, so the one waits for the other.
    """
    final = 0 if context.identity.uid else bounding_mask(spec) & caps.permitted()
    try:
        if spec.no_new_privileges:
            caps.set_effective(final)
            if birth.program:
                seccomp.load(birth.program)
        else:
            if birth.program:
                seccomp.load(birth.program)
            caps.set_effective(final)
    except OSError as error:
        raise _Failed(Failure(f"error loading seccomp filter: {words(error)}")) from error


def _execute(args: tuple[str, ...], environment: dict[bytes, bytes]) -> NoReturn:
    """execve(2) along PATH, with the failures worded as Go words them, because clients look at the text."""
    name = args[0]
    encoded = [_encoded(argument) for argument in args]
    if "/" in name:
        candidates = [_encoded(name)]
    else:
        folders = environment[b"PATH"].split(b":")
        candidates = [folder + b"/" + encoded[0] for folder in folders if folder]
    denied = b""
    for path in candidates:
        try:
            os.execve(path, encoded, environment)
        except _SEARCH_GOES_ON as error:
            if isinstance(error, PermissionError) and not os.path.isdir(path):
                denied = path
            elif "/" in name:
                raise _Failed(Failure(_cannot_execute(name, error))) from error
        except OSError as error:
            raise _Failed(Failure(f"exec {os.fsdecode(path)}: {words(OSError(error.errno, None))}")) from error
    if denied:
        raise _Failed(Failure(f'exec: "{name}": permission denied'))
    raise _Failed(Failure(f'exec: "{name}": executable file not found in $PATH'))


def _cannot_execute(name: str, error: OSError) -> str:
    if os.path.isdir(name):
        return f'exec: "{name}": is a directory'
    reason = words(OSError(error.errno, None))
    if os.path.exists(name):  # the interpreter is what is missing
        return f"exec {name}: {reason}"
    return f'exec: "{name}": stat {name}: {reason}'


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _fork_program(spec: ProcessSpec, birth: Birth, end: socket.socket, context: Context) -> None:
    """`--init`: stay as the first process, which reaps and passes signals on; the child returns to go on."""
    signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if spec.terminal:
            os.tcsetpgrp(0, os.getpid())
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        return
    end.close()
    _drop_privileges(spec, birth, context)
    os._exit(_reap(child))


def _reap(child: int) -> int:
    """Wait for everything, until `child` has ended: its status as a shell counts it."""
    while True:
        signum = signal.sigwait(signal.valid_signals())
        if signum != signal.SIGCHLD:
            try:
                os.kill(child, signum)
            except ProcessLookupError:
                continue
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
            if pid == 0:
                break
