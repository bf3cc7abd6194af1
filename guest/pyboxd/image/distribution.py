"""One repository of a registry (distribution-spec): its manifests and blobs. Blocking, for worker threads."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.frozen import frozen
from pyboxd.image.model import RegistrySettings
from pyboxd.image.reference import DEFAULT_DOMAIN, Reference
from pyboxd.image.registry import MAX_DOCUMENT, Answer, Client, host_of, words
from pyboxd.image.workers import Stop
from pyboxd.model import RegistryAuth

PIECE = 256 * 1024
ATTEMPTS = 5
PAUSE = 0.2  # seconds before the second attempt, doubled for each later one
MANIFEST_TYPES = (
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.oci.image.index.v1+json",
)


@frozen
class Document:
    """A manifest: its bytes, media type, and the digest that the registry told (or "")."""

    data: bytes
    media_type: str
    digest: str


@dataclass
class Registry:
    """One repository of one registry."""

    reference: Reference
    client: Client

    @classmethod
    def of(
        cls, reference: Reference, settings: RegistrySettings, auth: RegistryAuth | None, actions: str = "pull"
    ) -> Registry:
        """The repository of `reference`; `actions` is what a token is asked for."""
        scope = f"repository:{reference.path}:{actions}"
        host = host_of(reference.domain)
        if settings.mirror and reference.domain == DEFAULT_DOMAIN and actions == "pull":
            host, auth = settings.mirror, None  # the login is the hub's
        return cls(reference, Client(host, settings, auth, (scope,)))

    @property
    def stop(self) -> Stop:
        return self.client.stop

    def with_stop(self, stop: Stop) -> Registry:
        """The same repository for another job."""
        return Registry(self.reference, self.client.with_stop(stop))

    def for_tag(self, tag: str) -> Registry:
        """The same repository for a job of its own about one tag. InvalidArgument."""
        return Registry(self.reference.with_tag(tag), self.client.with_stop(Stop()))

    def path(self, rest: str) -> str:
        """The path of something in the repository."""
        return f"/v2/{self.reference.path}/{rest}"

    def manifest(self, what: str) -> Document:
        """The manifest of a tag or digest. Refused by the registry; Unauthorized and SystemFailure in Docker's words."""
        answer, data = self._small(self.path(f"manifests/{what}"), {"Accept": ", ".join(MANIFEST_TYPES)})
        kind = answer.headers.get("content-type", "").partition(";")[0].strip()
        return Document(data, kind, answer.headers.get("docker-content-digest", ""))

    def tags(self) -> list[str]:
        """All tags of the repository, in the registry's order. Errors as of `manifest`."""
        path = self.path("tags/list")
        found: list[str] = []
        while path:
            answer, data = self._small(path, {})
            try:
                listed = json.loads(data)["tags"] or []
            except (ValueError, KeyError, TypeError) as error:
                raise SystemFailure(f"{self.client.host}: invalid list of tags") from error
            if not isinstance(listed, list) or not all(isinstance(tag, str) for tag in listed):
                raise SystemFailure(f"{self.client.host}: invalid list of tags")
            fresh = [tag for tag in listed if tag not in found]
            found += fresh
            path = _next_page(answer.headers.get("link", "")) if fresh else ""
        return found

    def _small(self, path: str, headers: dict[str, str]) -> tuple[Answer, bytes]:
        """A document that is no blob."""
        try:
            answer = self._get(path, headers)
            data = answer.body()
        except (OSError, http.client.HTTPException) as error:
            self.stop.check()
            raise SystemFailure(f'Get "{self.client.base}{path}": {words(error, self.client.host)}') from error
        if len(data) > MAX_DOCUMENT:
            raise SystemFailure(f"{self.client.host}: a manifest or list is larger than 4 MiB")
        return answer, data

    def blob(self, digest: str, size: int) -> Iterator[bytes]:
        """The bytes of a blob; a broken transfer is taken up where it ended, a few times."""
        done = 0
        failures = 0
        while done < size:
            try:
                for piece in self._blob_from(digest, done):
                    done += len(piece)
                    failures = 0
                    if done > size:
                        raise InvalidArgument(f"{digest} is longer than its manifest says")
                    yield piece
                if done < size:
                    raise http.client.IncompleteRead(b"", size - done)
            except (OSError, http.client.HTTPException) as error:
                self.stop.check()
                failures += 1
                if failures >= ATTEMPTS:
                    raise SystemFailure(f"download of {digest} failed: {words(error)}") from error
                self.stop.wait(PAUSE * 2**failures)

    def document(self, digest: str, size: int) -> bytes:
        """A small blob, whole."""
        if size > MAX_DOCUMENT:
            raise SystemFailure(f"the image's configuration is larger than {MAX_DOCUMENT} bytes")
        return b"".join(self.blob(digest, size))

    def _blob_from(self, digest: str, start: int) -> Iterator[bytes]:
        answer = self._get(self.path(f"blobs/{digest}"), {"Range": f"bytes={start}-"} if start else {})
        try:
            skip = start if answer.status == 200 else 0  # a registry without ranges begins again
            if answer.status == 206 and not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
                raise http.client.HTTPException("the registry answered with another range")
            while data := answer.response.read1(PIECE):
                self.stop.check()
                if skip >= len(data):
                    skip -= len(data)
                    continue
                piece, skip = data[skip:], 0
                yield piece
        finally:
            answer.connection.close()

    def _get(self, path: str, headers: dict[str, str]) -> Answer:
        answer = self.client.request("GET", path, headers)
        if answer.status in (200, 206):
            return answer
        raise self.client.refusal(answer)


def _next_page(link: str) -> str:
    """The path and query of a Link header (RFC 8288) to the next page: always of the same registry."""
    address, _, relation = link.partition(">")
    if 'rel="next"' not in relation:
        return ""
    parts = urlsplit(address.lstrip("<"))
    return f"{parts.path}?{parts.query}"
