"""The digest of a long stream, computed by a thread of its own beside whatever else is done with the bytes."""

from __future__ import annotations

import hashlib
import queue
import threading
from types import TracebackType

ALONE = 1024 * 1024  # bytes; below this a thread costs more than it saves
_AHEAD = 16  # pieces that may wait: a quarter of a megabyte each, as they mostly come


class StreamDigest:
    """SHA-256 of pieces that come one by one and do not change after that. A context: its thread ends with it."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size = 0
        self._pieces: queue.Queue[bytes | memoryview | None] = queue.Queue(_AHEAD)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> StreamDigest:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._finish()

    def update(self, piece: bytes | memoryview) -> None:
        """Take the next piece; waits while too many others wait."""
        self._size += len(piece)
        if self._size < ALONE:
            self._hash.update(piece)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
            self._thread.start()
        self._pieces.put(piece)

    def hexdigest(self) -> str:
        """Return the digest of all pieces. There can be no more after that."""
        self._finish()
        return self._hash.hexdigest()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            self._hash.update(piece)

    def _finish(self) -> None:
        if self._thread is not None:
            self._pieces.put(None)
            self._thread.join()
            self._thread = None
