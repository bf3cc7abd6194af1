"""The data disk: a sparse qcow2 file that grows with its setting and never shrinks by itself."""

from __future__ import annotations

import logging
import struct
from contextlib import suppress
from pathlib import Path

from pybox import process
from pybox.errors import MachineError, PyboxError
from pybox.qemu.probe import Qemu

log = logging.getLogger(__name__)
_MAGIC = b"QFI\xfb"  # docs/interop/qcow2.txt
_HEADER = 32  # bytes up to and with the size


def ensure(qemu: Qemu, path: Path, size: int) -> None:
    """Make the disk, or make it larger: `size` is in bytes. The guest formats it when it is blank.

    A disk that is larger than asked stays as it is. Raises MachineError when the file is damaged or cannot be made.
    """
    if not path.exists():
        _create(qemu, path, size)
        return
    now = virtual_size(path)
    if now < size:
        log.info("the data disk grows from %d to %d bytes", now, size)
        _tool(qemu, "the data disk cannot be made larger", "resize", "-f", "qcow2", path, str(size))
    elif now > size:
        log.info("the data disk has %d bytes, more than the setting's %d; it is not made smaller", now, size)


def make_overlay(qemu: Qemu, path: Path, base: Path) -> None:
    """Make a disk that begins with what is on `base`, which is only read. Raises MachineError."""
    arguments = ("create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base.absolute(), path)
    _tool(qemu, "the data disk cannot be made", *arguments)
    path.chmod(0o600)


def virtual_size(path: Path) -> int:
    """Return the size in bytes that the guest sees. Raises MachineError when the file is no qcow2 disk."""
    try:
        with path.open("rb") as stream:
            header = stream.read(_HEADER)
    except OSError as error:
        raise MachineError("the data disk cannot be read", f"{path}: {error.strerror}") from None
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        raise MachineError(
            "the data disk is damaged",
            f"{path} does not begin like a qcow2 file.",
            "Put a copy back, or give it up: pybox machine delete.",
        )
    return int(struct.unpack_from(">Q", header, 24)[0])


def used_size(path: Path) -> int:
    """Return the bytes that the disk takes on the host, 0 when there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0
    # Windows does not tell how much of a sparse file is there.
    blocks: int | None = getattr(found, "st_blocks", None)
    return found.st_size if blocks is None else blocks * 512


def _create(qemu: Qemu, path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".new")
    with suppress(FileNotFoundError):
        unfinished.unlink()
    _tool(qemu, "the data disk cannot be made", "create", "-q", "-f", "qcow2", unfinished, str(size))
    unfinished.chmod(0o600)
    unfinished.replace(path)


def _tool(qemu: Qemu, failure: str, *arguments: str | Path) -> None:
    tool = qemu.disk_tool()
    try:
        process.run([tool, *arguments], timeout=120)
    except PyboxError as error:
        raise MachineError(failure, f"{error.brief}\n{error.details}".strip(), error.resolution) from None
