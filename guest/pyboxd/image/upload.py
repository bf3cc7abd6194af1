"""Writing to a repository of a registry (distribution-spec, push). Blocking, for worker threads.

A blob is sent in one request as it is made (PATCH), then closed with its digest (PUT): of what the specification has
for blobs whose size is not known before, this is what all registries take.
"""

from __future__ import annotations

import hashlib
import http.client
import re
from collections.abc import Callable, Iterator
from urllib.parse import quote, urljoin

from pyboxd.errors import PyboxdError, SystemFailure
from pyboxd.image.blobs import Blob
from pyboxd.image.distribution import ATTEMPTS, PAUSE, Registry
from pyboxd.image.refusal import Refused
from pyboxd.image.registry import Answer, words

COMMIT_TIMEOUT = 900.0  # seconds; some registries move the whole blob before they answer
_AGAIN = (401, 404, 408, 416)  # of a transfer: the login has ended, or the registry has lost what came before
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")
_BYTES = "application/octet-stream"


class _Broken(Exception):
    """A transfer did not come to its end; `error` says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Uploads:
    """The door for what is sent to `registry`."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._client = registry.client

    def size_of(self, digest: str) -> int | None:
        """The size of a blob that the repository has, None if it has none. Refused."""
        answer = self._ask("HEAD", f"blobs/{digest}")
        answer.body()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._client.refusal(answer)
        length = answer.headers.get("content-length", "")
        return int(length) if length.isdecimal() else 0

    def mount(self, digest: str, source: str) -> str:
        """Take a blob over from the repository `source` of the same registry.

        "" if it is there now, else the place of an upload that the registry has begun instead. Refused.
        """
        query = f"mount={quote(digest, safe=':')}&from={quote(source, safe='/')}"
        answer = self._ask("POST", f"blobs/uploads/?{query}", scope=f"repository:{source}:pull")
        if answer.status == 201:
            answer.body()
            return ""
        return self._begun(answer)

    def send(self, source: Callable[[], Iterator[bytes]], place: str = "") -> Blob:
        """Send a blob; `source` gives its bytes from their start, the same ones whenever it is called.

        `place` is an upload that was begun before. A broken transfer is taken up where the registry says that it
        ended, or from the start, a few times. Refused, SystemFailure.
        """
        failures = done = 0
        while True:
            try:
                if not place:
                    place, done = self._begin(), 0
                return self._transfer(place, source, done)
            except _Broken as broken:
                self._registry.stop.check()
                failures += 1
                if failures >= ATTEMPTS:
                    if isinstance(broken.error, PyboxdError):
                        raise broken.error from None
                    raise SystemFailure(f"upload failed: {words(broken.error, self._client.host)}") from broken.error
                self._registry.stop.wait(PAUSE * 2**failures)
                # What the registry itself gave up is begun anew.
                place, done = self._state(place) if place and not isinstance(broken.error, Refused) else ("", 0)

    def put_manifest(self, tag: str, data: bytes, media_type: str) -> None:
        """Give the repository a manifest under `tag`. Refused, SystemFailure."""
        answer = self._ask("PUT", f"manifests/{tag}", {"Content-Type": media_type}, data)
        if answer.status not in (200, 201, 202):
            raise self._client.refusal(answer)
        answer.body()

    def abandon(self, place: str) -> None:
        """Tell the registry that an upload will not be used. It forgets them after a time by itself: errors are none."""
        try:
            self._client.request("DELETE", place).body()
        except (OSError, http.client.HTTPException, PyboxdError):
            self._registry.stop.check()

    # -- steps -----------------------------------------------------------------------------------

    def _transfer(self, place: str, source: Callable[[], Iterator[bytes]], done: int) -> Blob:
        digest = hashlib.sha256()
        size = 0

        def rest() -> Iterator[bytes]:
            nonlocal size
            for piece in source():
                self._registry.stop.check()
                digest.update(piece)
                size += len(piece)
                if size > done:
                    yield piece[max(0, len(piece) - (size - done)) :]

        answer = self._moved("PATCH", place, {"Content-Type": _BYTES}, rest())
        place = urljoin(f"{self._client.base}/", answer.headers.get("location") or place)
        blob = Blob(f"sha256:{digest.hexdigest()}", size)
        joint = "&" if "?" in place else "?"
        try:
            self._moved("PUT", f"{place}{joint}digest={quote(blob.digest, safe='')}", {"Content-Type": _BYTES}, b"")
        except _Broken:
            if not self._is_there(blob.digest):  # else only the answer was lost
                raise
        return blob

    def _is_there(self, digest: str) -> bool:
        try:
            return self.size_of(digest) is not None
        except PyboxdError:  # the next attempt tells
            return False

    def _moved(self, method: str, place: str, headers: dict[str, str], content: bytes | Iterator[bytes]) -> Answer:
        try:
            answer = self._client.request(method, place, headers, content, timeout=COMMIT_TIMEOUT)
            if answer.status in (200, 201, 202, 204):
                answer.body()
                return answer
            refused = self._client.refusal(answer)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(error) from error
        if answer.status in _AGAIN or answer.status >= 500 or refused.code == "DIGEST_INVALID":
            raise _Broken(refused)
        raise refused

    def _begin(self) -> str:
        try:
            return self._begun(self._client.request("POST", self._registry.path("blobs/uploads/"), {}, b""))
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(error) from error

    def _begun(self, answer: Answer) -> str:
        place = answer.headers.get("location", "")
        if answer.status != 202 or not place:
            raise self._client.refusal(answer)
        answer.body()
        return urljoin(f"{self._client.base}/", place)

    def _state(self, place: str) -> tuple[str, int]:
        """Where an upload goes on, and how many bytes of it the registry has; ("", 0) when it is lost."""
        try:
            answer = self._client.request("GET", place)
            answer.body()
        except (OSError, http.client.HTTPException, Refused):
            return "", 0
        found = _RANGE.fullmatch(answer.headers.get("range", ""))
        if answer.status not in (200, 204) or found is None or found[1] == "0":  # "0-0" means none as well as one
            return "", 0
        return urljoin(f"{self._client.base}/", answer.headers.get("location") or place), int(found[1]) + 1

    def _ask(
        self, method: str, rest: str, headers: dict[str, str] | None = None, content: bytes | None = None, *, scope: str = ""
    ) -> Answer:
        """A request that is over quickly; SystemFailure when the network fails."""
        path = self._registry.path(rest)
        try:
            return self._client.request(method, path, headers or {}, content, scope=scope)
        except (OSError, http.client.HTTPException) as error:
            self._registry.stop.check()
            raise SystemFailure(
                f'{method.capitalize()} "{self._client.base}{path}": {words(error, self._client.host)}'
            ) from error
