"""The data disk: found by its place, formatted only when it is provably blank, grown when the host grew it.

The file system leaves the disk's last MiB alone. There a marker stands while the disk is being formatted, so that
a machine that was killed in the middle knows its own unfinished work from a disk that somebody else wrote to.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Protocol

from pyboxd.boot import devices, filesystems
from pyboxd.errors import SystemFailure
from pyboxd.linux import constants as k
from pyboxd.linux.mount import mount
from pyboxd.locations import DATA

MIB = 1024 * 1024
PEEK = 4096  # bytes
MARKER = b"pybox is formatting this disk\n"
EXT4_MAGIC = b"\x53\xef"  # s_magic, little endian
SUPERBLOCK = 1024  # bytes from the disk's start (struct ext4_super_block, fs/ext4/ext4.h)
EXT4_ERROR_FS = 2  # s_state: the kernel found errors
FORMAT_TIMEOUT = 300.0  # seconds
CHECK_TIMEOUT = 3600.0
PREENED = 1  # e2fsck's exit status: errors were corrected


class HelperResult(Protocol):
    """What became of a helper program."""

    @property
    def status(self) -> int: ...
    @property
    def stderr(self) -> bytes: ...


class Helpers(Protocol):
    """Runs helper programs; `runtime.client.Runtime` is one."""

    async def run_helper(self, args: Sequence[str], stdin: bytes | None = None, timeout: float = ...) -> HelperResult: ...


async def mount_data_disk(helpers: Helpers) -> None:
    """Bind the data disk and mount it at `locations.DATA`; no-op when it is mounted there.

    The kernel's work is done by a thread: it takes a tenth of a second, in which others get on.
    SystemFailure when it cannot be read, holds something that is not ours, or cannot be repaired.
    """
    if os.path.ismount(DATA):
        return
    try:
        device = devices.block_device(await asyncio.to_thread(devices.bind, devices.DATA_SLOT, "virtio_blk"))
    except OSError as error:
        raise SystemFailure(f"the machine has no data disk: {error}") from error
    state = await prepare(helpers, device)
    try:
        await asyncio.to_thread(mount, device, DATA, "ext4", k.MS_NOATIME)
    except OSError as error:
        raise SystemFailure(f"the data disk cannot be mounted: {error}") from error
    if state.size - state.used > 2 * MIB:
        await _run(helpers, "grow", ("/usr/sbin/resize2fs", device, f"{_usable(state.size) // 1024}K"))


async def prepare(helpers: Helpers, device: str) -> DiskState:
    """Make sure that there is a sound file system of ours; what the disk says then. Errors as `mount_data_disk`."""
    state = _inspect(device)
    if state.foreign:
        raise SystemFailure(f"the data disk {device} is neither blank nor formatted by pybox; it was left as it is")
    if state.blank:
        await _format(helpers, device, state.size)
    elif state.has_errors:
        await _repair(helpers, device)
    else:
        return state
    return _inspect(device)


def unmount_data_disk() -> None:
    """Write everything out and unmount. SystemFailure names what is still in use."""
    os.sync()
    busy = filesystems.unmount_below(DATA)
    if busy:
        raise SystemFailure(f"the data disk is still in use: {', '.join(busy)}")


class DiskState:
    """What the beginnings of the first and the last MiB of a disk say; all of both, where there is no file system."""

    def __init__(self, size: int, head: bytes, tail: bytes) -> None:
        superblock = head[SUPERBLOCK : SUPERBLOCK + 1024]
        zero = not head.strip(b"\0") and not tail.strip(b"\0")
        formatted = _is_formatted(head)
        self.size = size
        self.blank = zero or tail.startswith(MARKER)
        self.foreign = not self.blank and not formatted
        self.has_errors = bool(int.from_bytes(superblock[58:60], "little") & EXT4_ERROR_FS)
        blocks = int.from_bytes(superblock[4:8], "little") + (int.from_bytes(superblock[0x150:0x154], "little") << 32)
        self.used = blocks << (10 + superblock[24])
        """Bytes that the file system takes up."""


def _inspect(device: str) -> DiskState:
    """Look at a disk. One that cannot be read is a failure, and never taken for blank."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            length = PEEK
            head = os.pread(descriptor, length, 0)
            if not _is_formatted(head):  # then it must be proved to be blank
                length = MIB
                head = os.pread(descriptor, length, 0)
            tail = os.pread(descriptor, length, size - MIB)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SystemFailure(f"the data disk cannot be read: {error}") from error
    if len(head) < length or len(tail) < length:
        raise SystemFailure(f"the data disk {device} cannot be read: it ends early")
    return DiskState(size, head, tail)


def _is_formatted(head: bytes) -> bool:
    return head[SUPERBLOCK + 56 : SUPERBLOCK + 58] == EXT4_MAGIC


def _usable(size: int) -> int:
    return (size - MIB) // 4096 * 4096


async def _format(helpers: Helpers, device: str, size: int) -> None:
    # A blank disk is all zeros: nothing is gained by writing zeros to it, or by discarding it.
    extended = "nodiscard,assume_storage_prezeroed=1,lazy_itable_init=1,lazy_journal_init=1"
    command = [
        "/usr/sbin/mke2fs", "-q", "-F",
        "-t", "ext4",
        "-L", "pybox",
        "-m", "0",
        # Every mount reads all blocks of an orphan file, one by one: 512 on a disk of 64 GiB.
        "-O", "^orphan_file",
        "-E", extended,
        device, f"{_usable(size) // 1024}K",
    ]  # fmt: skip
    _write_marker(device, size, MARKER)
    await _run(helpers, "format", command)
    _write_marker(device, size, bytes(len(MARKER)))


def _write_marker(device: str, size: int, text: bytes) -> None:
    descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, text, size - MIB)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def _repair(helpers: Helpers, device: str) -> None:
    result = await helpers.run_helper(("/usr/sbin/e2fsck", "-p", device), timeout=CHECK_TIMEOUT)
    if result.status > PREENED:
        raise SystemFailure(f"the data disk has errors that cannot be repaired: {_words(result.stderr)}")


async def _run(helpers: Helpers, what: str, args: Sequence[str]) -> None:
    result = await helpers.run_helper(args, timeout=FORMAT_TIMEOUT)
    if result.status != 0:
        raise SystemFailure(f"cannot {what} the data disk: {_words(result.stderr)}")


def _words(stderr: bytes) -> str:
    return stderr.decode(errors="replace").strip() or "no reason given"
