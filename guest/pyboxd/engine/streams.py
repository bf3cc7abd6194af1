"""A client's connection and a process's streams, joined: what attach and exec do once everything is set up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from pyboxd.errors import InvalidArgument
from pyboxd.runtime.client import Attachment

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_NAMED = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


class Client(Protocol):
    """The client's end: its input, and where output goes."""

    async def read(self) -> bytes: ...
    async def write(self, data: bytes) -> None: ...


def parse_detach_keys(text: str) -> bytes:
    """ "ctrl-p,ctrl-q" -> the bytes a terminal sends for it. InvalidArgument."""
    keys = bytearray()
    for part in (text or DEFAULT_DETACH_KEYS).split(","):
        if len(part) == 1 and part.isascii():
            keys.append(ord(part))
        elif part.startswith("ctrl-") and len(part) == 6 and "a" <= part[5].lower() <= "z":
            keys.append(ord(part[5].lower()) - ord("a") + 1)
        elif part.startswith("ctrl-") and part[5:] in _NAMED:
            keys.append(_NAMED[part[5:]])
        elif part == "DEL":
            keys.append(127)
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(keys)


class DetachFilter:
    """Finds the detach keys in what a terminal's user types, also when they come one by one."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0
        self.detached = False

    def feed(self, data: bytes) -> bytes:
        """What goes on to the process; held back are keys that may turn out to be the sequence."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self.detached = True
                    return bytes(out)
                continue
            out += self._keys[: self._matched]
            self._matched = int(byte == self._keys[0])
            if not self._matched:
                out.append(byte)
        return bytes(out)


async def join(
    client: Client,
    attachment: Attachment,
    encode: Callable[[int, bytes], bytes],
    stdin: bool,
    keys: bytes | None,
) -> bool:
    """Carry bytes both ways until the process's output ends; True when the user typed the detach `keys`.

    `keys` are those of a terminal, None when there is none. The client's end of input ends nothing here; it is passed
    on, but not to a terminal, which others may still type at.
    """
    filter_ = DetachFilter(keys) if keys else None
    writing = asyncio.ensure_future(_output(client, attachment, encode))
    reading = asyncio.ensure_future(_input(client, attachment, filter_)) if stdin else None
    try:
        if reading is not None:
            await asyncio.wait((writing, reading), return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and reading.result():
                return True
        await writing
        return False
    finally:
        for task in (writing, reading):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(task for task in (writing, reading) if task is not None), return_exceptions=True)
        await attachment.close()


async def _output(client: Client, attachment: Attachment, encode: Callable[[int, bytes], bytes]) -> None:
    async for stream, data in attachment.frames():
        await client.write(encode(stream, data))


async def _input(client: Client, attachment: Attachment, filter_: DetachFilter | None) -> bool:
    """True when the detach keys were typed."""
    try:
        while data := await client.read():
            if filter_ is not None:
                data = filter_.feed(data)
            if data:
                await attachment.write(data)
            if filter_ is not None and filter_.detached:
                return True
        if filter_ is None:
            await attachment.close_stdin()
    except ConnectionError:
        # The process takes no more; its output tells why. Read on: a client that still sends must not get stuck, and
        # one behind a WebSocket says in the same way that it leaves.
        while await client.read():
            pass
    return False
