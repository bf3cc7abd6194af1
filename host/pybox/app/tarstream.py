"""A tar archive as pieces of bytes, made by a thread while they are sent: nothing is kept on the way."""

from __future__ import annotations

import io
import queue
import tarfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

CHUNK = 256 * 1024  # bytes


def packed(fill: Callable[[tarfile.TarFile], None]) -> Iterator[bytes]:
    """The archive that `fill` writes. What it raises is raised where the pieces are read."""
    pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(16)
    gone = threading.Event()
    writer = _QueueWriter(pieces, gone)

    def pack() -> None:
        try:
            with tarfile.open(fileobj=writer, mode="w|", bufsize=CHUNK, format=tarfile.PAX_FORMAT) as archive:
                fill(archive)
            writer.put(None)
        except _ReaderGone:
            return
        except BaseException as error:  # noqa: BLE001 - raised again where the stream is read
            writer.put(error)

    threading.Thread(target=pack, daemon=True).start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        gone.set()


class _ReaderGone(Exception):
    pass


class _QueueWriter(io.RawIOBase):
    def __init__(self, pieces: queue.Queue[bytes | BaseException | None], gone: threading.Event) -> None:
        self._pieces = pieces
        self._gone = gone

    def write(self, data: Any) -> int:
        self.put(bytes(data))
        return len(data)

    def put(self, piece: bytes | BaseException | None) -> None:
        while not self._gone.is_set():
            try:
                self._pieces.put(piece, timeout=0.2)
            except queue.Full:
                continue
            return
        raise _ReaderGone
