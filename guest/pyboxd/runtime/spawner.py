"""The process that forks: single-threaded, made before the engine has any thread or loop.

It knows two jobs, each a byte with one descriptor, and does nothing but fork for them: the child takes the
descriptor and gets everything else through it. So a fork is never behind another container's work, and no
container's monitor has seen another container's spec. One monitor is forked ahead of its work: a fork, and the
pages that are copied after it, are what costs most in making a container.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable

from pyboxd.linux import process

from . import codec, devices, handshake, helper, monitor, seccomp_profile
from .spec import Exit
from .wire import SOCKET_NAME, Answer, Request, State

MONITOR = b"m"  # with a listening socket
HELPER = b"h"  # with a connected socket
_BACKLOG = 128
_QUIET = 0.1  # seconds


def fork() -> socket.socket:
    """Fork the spawner; the engine's end of the channel to it. Closing that end ends the spawner."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gc.collect()
    gc.freeze()
    if os.fork() == 0:
        _run(functools.partial(_serve, theirs))
    theirs.close()
    return ours


def listen(run_dir: str) -> socket.socket:
    """The socket that a monitor will answer on. Reached through a descriptor: paths of sockets must be short."""
    directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME, dir_fd=directory)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        listener.listen(_BACKLOG)
        return listener
    finally:
        os.close(directory)


def connect(run_dir: str) -> socket.socket:
    """A connection to the monitor of a run directory. OSError when there is none."""
    directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        except OSError:
            connection.close()
            raise
        return connection
    finally:
        os.close(directory)


def _serve(channel: socket.socket) -> None:
    process.set_name("spawner")
    process.close_from(3, keep=channel.fileno())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: nobody here waits for a child
    gc.disable()
    _prepare()
    spare: socket.socket | None = None
    while True:
        # A spare is made when nothing is asked for, so that its making is in nobody's way.
        if spare is None and not select.select([channel], [], [], _QUIET)[0]:
            spare = _fork_spare(channel)
        kind, descriptors, _, _ = socket.recv_fds(channel, 16, 1)
        if not kind:
            return
        if kind == MONITOR and spare and _hand_to(spare, descriptors[0]):
            spare = None
        else:
            # Without memory or process numbers nothing is forked: the engine sees the end of its connection.
            with contextlib.suppress(OSError):
                if os.fork() == 0:
                    channel.close()
                    _run(functools.partial(_child, kind, descriptors[0]))
        os.close(descriptors[0])


def _fork_spare(channel: socket.socket) -> socket.socket | None:
    """A monitor that waits for its work, with all that is slow about a fork behind it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if os.fork() == 0:
            channel.close()
            ours.close()
            _run(functools.partial(_wait_as_spare, theirs))
    except OSError:
        ours.close()
        return None
    finally:
        theirs.close()
    return ours


def _hand_to(spare: socket.socket, descriptor: int) -> bool:
    """Give a spare monitor its work; False if it has died."""
    with spare:
        try:
            socket.send_fds(spare, [MONITOR], [descriptor])
        except OSError:
            return False
        return True


def _wait_as_spare(channel: socket.socket) -> None:
    process.set_name("monitor")
    monitor.rehearse()
    _, descriptors, _, _ = socket.recv_fds(channel, 16, 1)
    channel.close()
    if descriptors:
        _child(MONITOR, descriptors[0])


def _prepare() -> None:
    """Make here what every child would have to make for itself."""
    codec.prepare(Request, Answer, State, Exit, handshake.Packet, helper.Job)
    devices.prepare()
    seccomp_profile.prepare()
    monitor.rehearse()
    gc.freeze()  # objects that live for ever stay out of the collector's sight, and their pages stay shared


def _child(kind: bytes, descriptor: int) -> None:
    handed = socket.socket(fileno=descriptor)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    gc.enable()
    if kind == MONITOR:
        monitor.run(handed)
    else:
        helper.run(handed)


def _run(body: Callable[[], None]) -> None:
    """Be a process of its own: whatever happens, never return into the parent's code."""
    status = 1
    try:
        body()
        status = 0
    except BaseException:  # noqa: BLE001 - the end of a process is the boundary
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)
