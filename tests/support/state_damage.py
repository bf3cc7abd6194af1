"""Everything that can have become of a golden state between two starts. Each makes the next start a cold one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pybox.machine.golden import GoldenState

_MIB = 1 << 20


@dataclass(frozen=True)
class Target:
    """The state to damage, and one of a machine with another size."""

    state: GoldenState
    foreign: GoldenState


Damage = Callable[[Target], object]


def flip(path: Path, place: int) -> None:
    """Change one bit of the byte at `place`; a negative one counts from the end."""
    with path.open("r+b") as file:
        position = file.seek(place, os.SEEK_SET if place >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def middle(path: Path) -> int:
    """A place near the middle of what is there; the RAM's file is mostly holes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(descriptor, path.stat().st_size // 8, os.SEEK_DATA)
    finally:
        os.close(descriptor)


def _flip_in_the_middle_and_keep_the_times(path: Path) -> None:
    before = path.stat()
    flip(path, middle(path))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _copy_with_a_flip(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    before = copy.stat()
    flip(copy, middle(copy))
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.replace(path)


def _shorten(path: Path, left: Callable[[int], int]) -> None:
    os.truncate(path, left(path.stat().st_size))


def _lengthen(path: Path, by: int) -> None:
    os.truncate(path, path.stat().st_size + by)


def _zero(path: Path) -> None:
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def _become_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _become_loop(path: Path) -> None:
    """What nobody can read, root included."""
    path.unlink()
    path.symlink_to(path.name)


def _become(path: Path, other: Path) -> None:
    path.unlink()
    os.link(other, path)


def _swap(target: Target) -> None:
    state = target.state
    state.memory.rename(state.folder / "other")
    state.devices.rename(state.memory)
    (state.folder / "other").rename(state.devices)


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **values}))


def _edit_memory(path: Path) -> None:
    memory = json.loads(path.read_bytes())["memory"]
    _edit(path, memory={**memory, "modified_ns": memory["modified_ns"] + 1}, memory_sum="0" * 128)


def _become_foreign(target: Target) -> None:
    for name in ("memory", "devices", "record"):
        _become(getattr(target.state, name), getattr(target.foreign, name))


def _become_foreign_with_our_key(target: Target) -> None:
    """Sums and all are right: only QEMU can tell."""
    _become_foreign(target)
    target.state.record.unlink()  # it is the other's, too
    record = json.loads(target.foreign.record.read_bytes())
    target.state.record.write_text(json.dumps({**record, "key": target.state.key}))


def _empty(target: Target) -> None:
    for path in target.state.folder.iterdir():
        path.unlink()


def _folder_becomes_file(target: Target) -> None:
    shutil.rmtree(target.state.folder)
    target.state.folder.write_bytes(b"")


def _folder_becomes_link(target: Target) -> None:
    shutil.rmtree(target.state.folder)
    target.state.folder.symlink_to(target.foreign.folder.name)


def _folder_becomes_dangling_link(target: Target) -> None:
    shutil.rmtree(target.state.folder)
    target.state.folder.symlink_to("nowhere")


# What can happen to a file, whatever is in it. One byte in the middle of the RAM is test_golden's.
_OF_A_FILE: dict[str, Callable[[Path], object]] = {
    "its first byte": partial(flip, place=0),
    "its last byte": partial(flip, place=-1),
    "a byte with the times as before": _flip_in_the_middle_and_keep_the_times,
    "a copy with another byte": _copy_with_a_flip,
    "nothing left": partial(_shorten, left=lambda size: 0),
    "half of it left": partial(_shorten, left=lambda size: size // 2),
    "its last byte missing": partial(_shorten, left=lambda size: size - 1),
    "a byte more": partial(_lengthen, by=1),
    "a MiB more": partial(_lengthen, by=_MIB),
    "zeros": _zero,
    "not there": Path.unlink,
    "a folder": _become_folder,
    "unreadable": _become_loop,
}
_OF_THE_RECORD: dict[str, Callable[[Path], object]] = {
    "nothing left": _OF_A_FILE["nothing left"],
    "half of it left": _OF_A_FILE["half of it left"],
    "zeros": _zero,
    "not there": Path.unlink,
    "a folder": _become_folder,
    "unreadable": _become_loop,
    "a list": lambda path: path.write_text("[]"),
    "another key": partial(_edit, key="0" * 32),
    "another format": partial(_edit, format=0),
    "another sum of the devices": partial(_edit, devices_sum="0" * 64),
    "other facts of the RAM": _edit_memory,
    "a field that is not known": partial(_edit, more=1),
}
_OF_THE_WHOLE: dict[str, Damage] = {
    "RAM and devices change places": _swap,
    "another's RAM": lambda target: _become(target.state.memory, target.foreign.memory),
    "another's devices": lambda target: _become(target.state.devices, target.foreign.devices),
    "another's record": lambda target: _become(target.state.record, target.foreign.record),
    "another's": _become_foreign,
    "another's with the right key": _become_foreign_with_our_key,
    "an empty folder": _empty,
    "a file in the folder's place": _folder_becomes_file,
    "a link in the folder's place": _folder_becomes_link,
    "a link to nothing in the folder's place": _folder_becomes_dangling_link,
}


def _of(name: str, change: Callable[[Path], object]) -> Damage:
    return lambda target: change(getattr(target.state, name))


DAMAGES: dict[str, Damage] = {
    **{f"RAM: {text}": _of("memory", change) for text, change in _OF_A_FILE.items()},
    **{f"devices: {text}": _of("devices", change) for text, change in _OF_A_FILE.items()},
    **{f"record: {text}": _of("record", change) for text, change in _OF_THE_RECORD.items()},
    **_OF_THE_WHOLE,
}
