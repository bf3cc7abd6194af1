"""Programs of the guest that the engine needs (`mkfs.erofs`): run in a process of their own, output captured.

The engine is at the other end of a stream socket. It sends the job and its input, and gets the result when the
program has ended; when it hangs up before that, or the time is over, the program's whole session is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Sequence

from pyboxd.errors import SystemFailure
from pyboxd.frozen import frozen
from pyboxd.linux import process

from . import codec
from .spec import HelperResult

_LENGTHS = struct.Struct("!IQ")
_RESULT = struct.Struct("!iQQ")
_TIMED_OUT = -1
_NOT_STARTED = -2
MAX_OUTPUT = 64 << 20  # bytes per stream; a helper that says more is killed
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/"}


@frozen
class Job:
    """A program with its arguments; `timeout` in seconds."""

    args: tuple[str, ...]
    timeout: float
    has_stdin: bool


def pack_job(job: Job, stdin: bytes) -> bytes:
    """A job as the engine sends it."""
    description = codec.dumps(job)
    return _LENGTHS.pack(len(description), len(stdin)) + description + stdin


def unpack_result(data: bytes, args: Sequence[str]) -> HelperResult:
    """The result that the engine received. SystemFailure when there is none."""
    name = args[0]
    if len(data) < _RESULT.size:
        raise SystemFailure(f"{name}: the helper process died")
    status, out, err = _RESULT.unpack_from(data)
    body = data[_RESULT.size :]
    if status == _TIMED_OUT:
        raise SystemFailure(f"{name}: killed, it took too long or wrote too much")
    if status == _NOT_STARTED:
        raise SystemFailure(f"{name}: {body.decode(errors='replace')}")
    return HelperResult(status, body[:out], body[out : out + err])


def run(connection: socket.socket) -> None:
    """Do the job that comes over `connection`. Runs in a process of its own."""
    process.set_name("helper")
    description, length = _LENGTHS.unpack(_receive(connection, _LENGTHS.size))
    job = codec.loads(Job, _receive(connection, description))
    stdin = _receive(connection, length)
    try:
        child = subprocess.Popen(
            job.args,
            stdin=subprocess.PIPE if job.has_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
            bufsize=0,
        )
    except OSError as error:
        _reply(connection, _NOT_STARTED, str(error).encode(), b"")
        return
    with child:  # closes its pipes
        try:
            output = _communicate(child, connection, stdin, time.monotonic() + job.timeout)
            status = child.wait() if output is not None else _TIMED_OUT
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    out, err = output or (b"", b"")
    _reply(connection, status if status >= 0 or output is None else 128 - status, out, err)


def _communicate(
    child: subprocess.Popen[bytes], connection: socket.socket, stdin: bytes, deadline: float
) -> tuple[bytes, bytes] | None:
    """Feed and read until both outputs end; None when the engine hung up, or time or size ran out."""
    assert child.stdout and child.stderr
    outputs = {child.stdout.fileno(): bytearray(), child.stderr.fileno(): bytearray()}
    out, err = outputs.values()
    poller = select.poll()
    poller.register(connection, 0)  # hang-up is always reported
    for descriptor in outputs:
        poller.register(descriptor, select.POLLIN)
    feed = -1
    if child.stdin:
        feed = child.stdin.fileno()
        os.set_blocking(feed, False)
        poller.register(feed, select.POLLOUT)
    remaining = memoryview(stdin)
    while outputs:
        left = deadline - time.monotonic()
        if left <= 0 or len(out) > MAX_OUTPUT or len(err) > MAX_OUTPUT:
            return None
        for descriptor, _ in poller.poll(left * 1000):
            if descriptor == connection.fileno():
                return None
            if descriptor == feed:
                remaining = _feed(feed, remaining)
                if not remaining:
                    poller.unregister(feed)
                    assert child.stdin
                    child.stdin.close()
                continue
            data = os.read(descriptor, 65536)
            outputs[descriptor] += data
            if not data:
                poller.unregister(descriptor)
                del outputs[descriptor]
    return bytes(out), bytes(err)


def _feed(descriptor: int, data: memoryview) -> memoryview:
    """Write what fits; what is left. A program that closed its input needs no more."""
    if not data:
        return data
    try:
        return data[os.write(descriptor, data[:65536]) :]
    except BrokenPipeError:
        return data[:0]


def _receive(connection: socket.socket, length: int) -> bytes:
    buffer = bytearray(length)
    view = memoryview(buffer)
    while view:
        received = connection.recv_into(view)
        if not received:
            raise SystemFailure("the engine went away")
        view = view[received:]
    return bytes(buffer)


def _reply(connection: socket.socket, status: int, out: bytes, err: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        connection.sendall(_RESULT.pack(status, len(out), len(err)) + out + err)
