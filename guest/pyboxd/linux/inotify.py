"""inotify(7): be told when files change, instead of looking again and again."""

from __future__ import annotations

import os
import struct
from ctypes import c_char_p, c_int, c_uint

from pyboxd.frozen import frozen

from . import constants as k
from .libc import function

_init = function("inotify_init1", c_int)
_add_watch = function("inotify_add_watch", c_int, c_char_p, c_uint, path=1)
_rm_watch = function("inotify_rm_watch", c_int, c_int)
_EVENT = struct.Struct("=iIII")


@frozen
class Event:
    """One change; `name` is empty when the watched thing itself changed."""

    watch: int
    mask: int
    name: str


class Inotify:
    """A set of watches; readable (`fileno`) when there is something to `read`, which never blocks."""

    def __init__(self) -> None:
        self._descriptor = _init(k.IN_NONBLOCK | k.IN_CLOEXEC)

    def fileno(self) -> int:
        return self._descriptor

    def add(self, path: str, mask: int) -> int:
        """Watch `path` for the `IN_…` events of `mask`; the number that its events carry."""
        return _add_watch(self._descriptor, os.fsencode(path), mask)

    def remove(self, watch: int) -> None:
        _rm_watch(self._descriptor, watch)

    def read(self) -> list[Event]:
        """The events that are waiting, none if there are none."""
        try:
            data = os.read(self._descriptor, 65536)
        except BlockingIOError:
            return []
        events = []
        position = 0
        while position < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size
            name = data[position : position + length].rstrip(b"\0")
            events.append(Event(watch, mask, os.fsdecode(name)))
            position += length
        return events

    def close(self) -> None:
        os.close(self._descriptor)
