"""Files by their hash, fetched in parallel over HTTP and kept in a cache folder.

A file appears under its hash only when it is complete, verified and synced; an interrupted download goes on
where it stopped. Nothing here knows about Debian.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import requests

from pybox_image.errors import ImageError
from pybox_image.progress import Progress, ProgressCallback, silent

_BLOCK = 256 * 1024
_ATTEMPTS = 4
_TIMEOUT = (15.0, 60.0)  # seconds to connect, seconds between two pieces of data
_WORKERS = 6  # connections at once; Debian's mirrors ask for few
_PROGRESS_EVERY = 0.1  # seconds


@dataclass(frozen=True)
class Download:
    """One file: where it is, its SHA-256 in hex, its size in bytes."""

    url: str
    sha256: str
    size: int


class _Meter:
    """How far each file is; reports the sum now and then, from whichever worker came by."""

    def __init__(self, total: int, phase: str, report: ProgressCallback) -> None:
        self._total, self._phase, self._report = total, phase, report
        self._done: dict[Download, int] = {}
        self._last = 0.0
        self._lock = threading.Lock()

    def at(self, item: Download, position: int) -> None:
        """Note that the first `position` bytes of a file are here."""
        with self._lock:
            self._done[item] = position
            done, now = sum(self._done.values()), time.monotonic()
            if now - self._last >= _PROGRESS_EVERY or done >= self._total:
                self._last = now
                self._report(Progress(self._phase, done, self._total))


class Cache:
    """A folder of files named by their SHA-256, shared by every build of this user."""

    def __init__(self, folder: Path, *, progress: ProgressCallback = silent) -> None:
        self._folder = folder
        self._progress = progress
        self._local = threading.local()

    def fetch(self, wanted: Iterable[Download], phase: str = "download") -> list[Path]:
        """Return the verified files in the order asked for; download those that are missing.

        Raises ImageError when a file cannot be had or is not what its hash says.
        """
        downloads = list(wanted)
        unique = {item.sha256: item for item in downloads}
        meter = _Meter(sum(item.size for item in unique.values()), phase, self._progress)
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            futures = {name: pool.submit(self._one, item, meter) for name, item in unique.items()}
            try:
                return [futures[item.sha256].result() for item in downloads]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def text(self, url: str) -> bytes:
        """Return a small file whose hash nobody knows (a signed index); the caller verifies it."""
        failure = ""
        for attempt in range(_ATTEMPTS):
            _pause(attempt)
            try:
                answer = self._session().get(url, timeout=_TIMEOUT)
                answer.raise_for_status()
                return answer.content
            except requests.RequestException as error:
                failure = str(error)
                if _is_final(error):
                    break
        raise _unreachable(url, failure)

    def _one(self, item: Download, meter: _Meter) -> Path:
        path = self._folder / item.sha256[:2] / item.sha256
        failure = ""
        for attempt in range(_ATTEMPTS):
            _pause(attempt)
            if path.exists():  # from an earlier build, or another one was faster
                if _sha256(path) == item.sha256:
                    meter.at(item, item.size)
                    return path
                path.unlink()  # damaged on this disk after it was verified
            try:
                partial = self._download(item, meter)
                found = _sha256(partial)
                if found == item.sha256:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    partial.replace(path)
                    return path
                partial.unlink()
                failure = f"expected SHA-256 {item.sha256}, received {found}"
            except (requests.RequestException, OSError) as error:
                failure = str(error)
                if isinstance(error, requests.RequestException) and _is_final(error):
                    break
        raise _unreachable(item.url, failure)

    def _download(self, item: Download, meter: _Meter) -> Path:
        """Bring the partial file to its end; returns its path, not yet verified."""
        partial = self._folder / "partial" / item.sha256
        partial.parent.mkdir(parents=True, exist_ok=True)
        # Two builds may write the same partial file at once: both write the same bytes at the same places,
        # and what goes wrong all the same is found by the hash.
        partial.touch()
        with partial.open("r+b") as stream:
            have = stream.seek(0, os.SEEK_END)
            if have > item.size:
                stream.truncate(0)
                have = 0
            meter.at(item, have)
            if have == item.size:
                return partial
            headers = {"Range": f"bytes={have}-"} if have else {}
            with self._session().get(item.url, headers=headers, stream=True, timeout=_TIMEOUT) as answer:
                answer.raise_for_status()
                if have and not _continues(answer, have):
                    stream.truncate(0)
                    stream.seek(0)
                    have = 0
                for block in answer.iter_content(_BLOCK):
                    stream.write(block)
                    have += len(block)
                    meter.at(item, have)
                    if have > item.size:
                        break
            stream.flush()
            os.fsync(stream.fileno())
        if have < item.size:
            raise OSError(f"{item.url}: the connection ended after {have} of {item.size} bytes")
        return partial

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # Packages are compressed already, and a resumed transfer must count the bytes of the file.
            session.headers["Accept-Encoding"] = "identity"
        return session


def _continues(answer: requests.Response, offset: int) -> bool:
    """Whether the server sends from `offset` on; one without ranges sends the whole file with status 200."""
    return answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _is_final(error: requests.RequestException) -> bool:
    """Whether asking again cannot help: the server answered, and what it said is about the request."""
    return error.response is not None and 400 <= error.response.status_code < 500 and error.response.status_code != 429


def _pause(attempt: int) -> None:
    if attempt:
        time.sleep(0.5 * 2**attempt)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unreachable(url: str, seen: str) -> ImageError:
    return ImageError(
        f"cannot download {url}",
        seen,
        "Check the network and the mirror setting, then run the same command again: it goes on where it stopped.",
    )
