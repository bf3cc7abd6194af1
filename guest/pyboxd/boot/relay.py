"""Shared folders, the guest's part: carries FUSE messages between the kernel and a serial port, unread.

`/dev/fuse` on one side, the port that leads to the host's folder server on the other, and one process for each
direction: threads would wait for each other. The kernel gives one whole request to a read and wants one whole reply in
a write, so only the replies have to be found in the stream.

The host's server may be started again, or the machine be restored: then the stream may have been cut anywhere. So every
connection begins with a greeting of the server. It has a secret that goes before the next request, for the server to
know where requests begin, and it makes the kernel send again what has no reply. Half a message is forgotten when the
port says that the host is gone; whoever has to know that this was seen gives an order (`folders.py`).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
from collections.abc import Callable, Sequence
from errno import EBADMSG, EINTR, EINVAL, ENODEV, ENOENT
from struct import Struct

from pyboxd.boot import devices
from pyboxd.boot.start import RELAY_DONE, RELAY_NAME, RELAY_ORDER, RELAY_PROCESS
from pyboxd.linux import constants as k
from pyboxd.linux.mount import mount, umount2
from pyboxd.linux.process import prctl, set_name
from pyboxd.locations import FUSE_PORT, SHARES

MAX_DATA = 1 << 20  # bytes of data in one READ or WRITE; the host's server says the same in INIT
MESSAGE = MAX_DATA + 4096
GREETING = (0x7079_626F).to_bytes(4, "little")  # in place of an error; this and the next as in share/protocol.py
SECRET_LENGTH = 16
PAUSE = 1.0  # seconds between looks whether the host is there, beside the kernel's signal that it is

_OUT_HEADER = Struct("<IiQ")  # struct fuse_out_header: len error unique
_RESEND = _OUT_HEADER.pack(_OUT_HEADER.size, 7, 0)  # FUSE_NOTIFY_RESEND, Linux 6.9
_OOM_SCORE = "-1000"  # without it every folder is gone


class Greetings:
    """The last greeting of the host, for both processes."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, SECRET_LENGTH)
        self._first_out, self._first_in = os.pipe()
        self._is_first = True

    def put(self, secret: bytes) -> None:
        """Tell the other process of a new connection."""
        self._page[:] = secret
        if self._is_first:
            self._is_first = False
            os.write(self._first_in, b"1")

    def wait(self) -> None:
        """Block until there has been one."""
        os.read(self._first_out, 1)

    def get(self) -> bytes:
        """The secret of the newest."""
        return self._page[:]


def main(argv: Sequence[str]) -> int:
    """Mount the shared folders and carry messages; returns when the mount is gone. Raises OSError."""
    set_name(RELAY_NAME)
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
    # Without `default_permissions`: what the user of the host may do is allowed to every user of a container. The numbers
    # of the two do not mean the same people, and checking them here would lock containers out of their user's folders.
    data = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={MAX_DATA}"
    mount("pybox", point, "fuse", k.MS_NOSUID | k.MS_NODEV, data)
    _read_far_ahead(point)


def _read_far_ahead(point: str) -> None:
    """Let the kernel read whole messages ahead; by itself it takes 128 KiB, whatever INIT says."""
    with open("/proc/self/mountinfo") as file:
        devices = [fields[2] for fields in map(str.split, file) if fields[4] == point]
    with open(f"/sys/class/bdi/{devices[-1]}/read_ahead_kb", "w") as file:
        file.write(str(MAX_DATA // 1024))


def run(fuse: int, port: int) -> int:
    """Carry in both directions until the mount is gone, which is status 0; neither process outlives the other."""
    greetings = Greetings()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _run_replies(parent, lambda: carry_replies(port, fuse, greetings, _tell_done))
    signal.signal(signal.SIGCHLD, lambda *_: os._exit(1))
    carry_requests(fuse, port, greetings)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 0


def _run_replies(parent: int, carry: Callable[[], None]) -> None:
    """Be the second process."""
    try:
        prctl(k.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_BLOCK, {RELAY_ORDER})
        with open(RELAY_PROCESS, "w") as file:
            file.write(str(os.getpid()))
        if os.getppid() == parent:
            carry()
    finally:
        os._exit(1)


def carry_requests(fuse: int, port: int, greetings: Greetings) -> None:
    """From the kernel to the host, until the mount is gone. Blocks while no host is there."""
    buffer = memoryview(bytearray(MESSAGE))
    buffers = [buffer]
    known = b""
    greetings.wait()
    while True:
        try:
            count = os.readv(fuse, buffers)
        except OSError as error:
            if error.errno == ENODEV:  # unmounted
                return
            if error.errno in (ENOENT, EINTR):  # interrupted before it was read
                continue
            raise
        secret = greetings.get()
        if secret != known:
            known = secret
            _write(port, memoryview(secret))
        _write(port, buffer[:count])


def _write(port: int, data: memoryview) -> None:
    while data:
        data = data[os.write(port, data) :]


def carry_replies(port: int, fuse: int, greetings: Greetings, tell_done: Callable[[], None] = lambda: None) -> None:
    """From the host to the kernel, for ever. `tell_done` is called when an order is carried out."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGIO, RELAY_ORDER})
    fcntl.fcntl(port, fcntl.F_SETOWN, os.getpid())
    buffer = memoryview(bytearray(2 * MESSAGE))
    end = 0
    while True:
        count = os.readv(port, [buffer[end:]])
        if count == 0:
            end = 0  # the rest of this message will not come
            if _wait_for_host(port) == RELAY_ORDER:
                tell_done()
            continue
        end = _take_messages(buffer, end + count, fuse, greetings)


def _wait_for_host(port: int) -> int:
    """Wait for a change of the port, or for an order, which waits for this moment; the signal, 0 for none."""
    flags = fcntl.fcntl(port, fcntl.F_GETFL)
    fcntl.fcntl(port, fcntl.F_SETFL, flags | os.O_ASYNC)  # a signal for every change of the port
    found = signal.sigtimedwait({signal.SIGIO, RELAY_ORDER}, PAUSE)
    fcntl.fcntl(port, fcntl.F_SETFL, flags)
    return found.si_signo if found else 0


def _tell_done() -> None:
    with open(RELAY_DONE, "w"):
        pass


def _take_messages(buffer: memoryview, end: int, fuse: int, greetings: Greetings) -> int:
    """Hand the whole messages in the buffer to the kernel and move the rest to the front; its length."""
    start = 0
    while end - start >= _OUT_HEADER.size:
        length = int.from_bytes(buffer[start : start + 4], "little")
        if not _OUT_HEADER.size <= length <= MESSAGE:
            raise OSError(EBADMSG, f"the folder server sent a message of {length} bytes")
        if end - start < length:
            break
        message = buffer[start : start + length]
        if message[4:8] == GREETING:
            # First the secret: a request that was read before and goes without it is among those that come again.
            greetings.put(bytes(message[_OUT_HEADER.size :]))
            _reply(fuse, memoryview(_RESEND))
        else:
            _reply(fuse, message)
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
