"""The bake: one boot of the raw tree, in which the guest itself writes its root disk.

The host needs no root, no loop device and no Linux for it: it gives a machine an initrd and an empty disk file, and
reads the file system out of the disk file afterwards.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pybox_image.errors import ImageError
from pybox_image.kernel import payload

_MEMORY_MIB = 2048
_TIMEOUT = 600.0  # seconds; a minute under emulation on a small machine
_SUPERBLOCK = 1024
_EROFS_MAGIC = 0xE0F5E1E2
_DONE = b"PYBOX-BAKE done"
_TAIL = 15  # lines of the console in an error
_SECTOR = 4096  # bytes; disks are whole multiples
_COPY = 1024 * 1024


@dataclass(frozen=True)
class BakeBoot:
    """A machine to boot once: direct kernel boot with `append` as command line, `disks` as writable virtio-blk disks
    in their order, 2 CPUs, no network. It powers itself off; `timeout` is in seconds; its serial console goes to
    `console_log`."""

    kernel: Path
    initrd: Path
    append: str
    disks: tuple[Path, ...]
    memory_mib: int
    timeout: float
    console_log: Path


# Returns when the machine is off; raises what the caller will understand when it cannot be started or must be ended.
BootFunction = Callable[[BakeBoot], None]


@dataclass(frozen=True)
class Baked:
    """What a bake leaves in its work folder: the root file system, and the unpacked kernel where there is one."""

    root: Path
    vmlinux: Path | None


def bake(kernel: bytes, initrd: bytes, *, console: str, space: int, work: Path, boot: BootFunction) -> Baked:
    """Boot the bake and return the files that it wrote, in the folder `work`.

    `space` bytes is what the root's disk can hold. Raises ImageError when the guest did not finish.
    """
    for name, data in (("vmlinuz", kernel), ("initrd", initrd)):
        (work / name).write_bytes(data)
    packed = payload(kernel)
    disk, kernel_disk, log = work / "disk.raw", work / "kernel.raw", work / "console.log"
    sizes = {disk: space} | ({kernel_disk: packed.size} if packed else {})
    for path, size in sizes.items():
        with path.open("wb") as stream:
            stream.truncate(size + -size % _SECTOR)
    boot(
        BakeBoot(
            kernel=work / "vmlinuz",
            initrd=work / "initrd",
            append=f"console={console} quiet loglevel=3 mitigations=off panic=-1 no_timer_check nowatchdog tsc=reliable",
            disks=tuple(sizes),
            memory_mib=_MEMORY_MIB,
            timeout=_TIMEOUT,
            console_log=log,
        )
    )
    seen = log.read_bytes() if log.exists() else b""
    if _DONE not in seen:
        tail = b"\n".join(seen.splitlines()[-_TAIL:]).decode(errors="replace")
        raise ImageError("the guest image could not be finished", tail or "the machine's console stayed empty")
    root = extract(disk, work / "root.erofs")
    return Baked(root, _kernel_file(kernel_disk, packed.size) if packed else None)


def _kernel_file(disk: Path, size: int) -> Path:
    with disk.open("rb+") as stream:
        if stream.read(4) != b"\x7fELF":
            raise ImageError("the guest image could not be finished", "the kernel was not unpacked")
        stream.truncate(size)
    return disk


def extract(disk: Path, into: Path) -> Path:
    """Copy the EROFS file system at the start of a disk to a file of its own size."""
    with disk.open("rb") as source:
        size = erofs_size(source.read(_SUPERBLOCK + 128))
        source.seek(0)
        with into.open("wb") as target:
            while size:
                block = source.read(min(_COPY, size))
                if not block:
                    raise ImageError("the guest image could not be finished", "its disk is shorter than it says")
                target.write(block)
                size -= len(block)
    return into


def erofs_size(start: bytes) -> int:
    """Return the size in bytes of a file system from its first blocks (struct erofs_super_block in erofs_fs.h)."""
    if len(start) < _SUPERBLOCK + 128 or struct.unpack_from("<I", start, _SUPERBLOCK)[0] != _EROFS_MAGIC:
        raise ImageError("the guest image could not be finished", "there is no file system on the disk")
    bits: int = start[_SUPERBLOCK + 12]
    (blocks,) = struct.unpack_from("<I", start, _SUPERBLOCK + 36)
    return int(blocks) << bits
