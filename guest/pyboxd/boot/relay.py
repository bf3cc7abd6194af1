"""Shared folders, the guest's part: carries FUSE messages between the kernel and a serial port, unread.

`/dev/fuse` on one side, the port that leads to the host's folder server on the other, and one process for each
direction: threads would wait for each other. The kernel gives one whole request to a read and wants one whole reply in
a write, so only the replies have to be found in the stream.

The host's server may be started again. Then the stream may have been cut anywhere, so the next request is preceded by
a marker that the new server looks for, and the kernel is asked to send again what has no reply.
"""

from __future__ import annotations

import mmap
import os
import signal
import time
from collections.abc import Callable, Sequence
from errno import EBADMSG, EINTR, EINVAL, ENODEV, ENOENT
from struct import Struct

from pyboxd.boot import devices
from pyboxd.linux import constants as k
from pyboxd.linux.mount import mount, umount2
from pyboxd.linux.process import prctl, set_name
from pyboxd.locations import FUSE_PORT, SHARES

MAX_DATA = 1 << 20  # bytes of data in one READ or WRITE; the host's server says the same in INIT
MESSAGE = MAX_DATA + 4096
MARKER = b"\xff\xff\xff\xffpybox: requests begin here\n\xff"  # as in the host's share/protocol.py
PAUSE = 0.05  # seconds between looks whether the host is there

_OUT_HEADER = Struct("<IiQ")  # struct fuse_out_header: len error unique
_RESEND = _OUT_HEADER.pack(_OUT_HEADER.size, 7, 0)  # FUSE_NOTIFY_RESEND, Linux 6.9
_OOM_SCORE = "-1000"  # without it every folder is gone


class Connections:
    """How many connections of the host there have been: a number that both processes see."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, 1)

    def get(self) -> int:
        return self._page[0]

    def count(self) -> None:
        self._page[0] = (self._page[0] + 1) % 256


def main(argv: Sequence[str]) -> int:
    """Mount the shared folders and carry messages; returns when the mount is gone. Raises OSError."""
    set_name("pyboxd-relay")
    fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    port = os.open(devices.port(FUSE_PORT), os.O_RDWR | os.O_CLOEXEC)
    attach(fuse, SHARES)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE)
    return run(fuse, port)


def attach(fuse: int, point: str) -> None:
    """Mount the file system behind an open `/dev/fuse`, in place of one that a dead relay left. Raises OSError."""
    try:
        os.makedirs(point, exist_ok=True)
        os.stat(point)
    except OSError:
        umount2(point, k.MNT_DETACH)
    data = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={MAX_DATA}"
    mount("pybox", point, "fuse", k.MS_NOSUID | k.MS_NODEV, data)


def run(fuse: int, port: int) -> int:
    """Carry in both directions until the mount is gone, which is status 0; neither process outlives the other."""
    connections = Connections()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _run_replies(parent, lambda: carry_replies(port, fuse, connections))
    signal.signal(signal.SIGCHLD, lambda *_: os._exit(1))
    carry_requests(fuse, port, connections)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 0


def _run_replies(parent: int, carry: Callable[[], None]) -> None:
    """Be the second process."""
    try:
        prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            carry()
    finally:
        os._exit(1)


def carry_requests(fuse: int, port: int, connections: Connections) -> None:
    """From the kernel to the host, until the mount is gone. Blocks while no host is there."""
    buffer = memoryview(bytearray(MESSAGE))
    buffers = [buffer]
    marked = connections.get() - 1
    while True:
        try:
            count = os.readv(fuse, buffers)
        except OSError as error:
            if error.errno == ENODEV:  # unmounted
                return
            if error.errno in (ENOENT, EINTR):  # interrupted before it was read
                continue
            raise
        now = connections.get()
        if now != marked:
            _write(port, memoryview(MARKER))
            marked = now
        _write(port, buffer[:count])


def _write(port: int, data: memoryview) -> None:
    while data:
        data = data[os.write(port, data) :]


def carry_replies(port: int, fuse: int, connections: Connections) -> None:
    """From the host to the kernel, for ever."""
    buffer = memoryview(bytearray(2 * MESSAGE))
    end = 0
    is_connected = True  # the first marker is sent anyway
    while True:
        count = os.readv(port, [buffer[end:]])
        if count == 0:
            if is_connected:
                is_connected = False
                end = 0  # the rest of this message will not come
                connections.count()
                _reply(fuse, memoryview(_RESEND))
            time.sleep(PAUSE)
            continue
        is_connected = True
        end = _take_messages(buffer, end + count, fuse)


def _take_messages(buffer: memoryview, end: int, fuse: int) -> int:
    """Hand the whole messages in the buffer to the kernel and move the rest to the front; its length."""
    start = 0
    while end - start >= _OUT_HEADER.size:
        length = int.from_bytes(buffer[start : start + 4], "little")
        if not _OUT_HEADER.size <= length <= MESSAGE:
            raise OSError(EBADMSG, f"the folder server sent a message of {length} bytes")
        if end - start < length:
            break
        _reply(fuse, buffer[start : start + length])
        start += length
    if start:
        rest = end - start
        buffer[:rest] = bytes(buffer[start:end])
        return rest
    return end


def _reply(fuse: int, message: memoryview) -> None:
    try:
        os.write(fuse, message)
    except OSError as error:
        # Nobody waits for it any more, or, to the request for another sending, this kernel knows none.
        if error.errno not in (ENOENT, EINVAL):
            raise
