"""Debian's archive as this project uses it: three suites of one release, verified, with their packages on this disk."""

from __future__ import annotations

import lzma
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pybox_image.debian import release
from pybox_image.debian.index import Index, Package
from pybox_image.download import Cache, Download
from pybox_image.errors import ImageError
from pybox_image.mirror import Mirror
from pybox_image.progress import Progress, ProgressCallback, silent


@dataclass(frozen=True)
class Suite:
    """One suite on a mirror; `name` is also the codename that its index must carry."""

    base: str
    name: str


def suites(codename: str, mirror: Mirror) -> list[Suite]:
    """Return the release itself, its updates and its security updates; the rolling one has only itself."""
    if codename in ("sid", "unstable"):
        return [Suite(mirror.archive, codename)]
    return [
        Suite(mirror.archive, codename),
        Suite(mirror.archive, f"{codename}-updates"),
        Suite(mirror.security, f"{codename}-security"),
    ]


class Archive:
    """A release of Debian for one architecture. Everything it hands out was verified down from the signature."""

    def __init__(
        self,
        codename: str,
        architecture: str,
        *,
        mirror: Mirror,
        cache: Cache,
        keyring: bytes | None = None,
        progress: ProgressCallback = silent,
    ) -> None:
        """Read and verify the indexes. Raises ImageError when one cannot be had or trusted."""
        self.codename = codename
        self.architecture = architecture
        self._cache = cache
        progress(Progress("index"))
        keys = keyring if keyring is not None else release.archive_keys()
        with ThreadPoolExecutor() as pool:
            wanted = list(pool.map(lambda suite: self._index_file(suite, keys), suites(codename, mirror)))
            paths = cache.fetch([download for download, _base in wanted], "index")
            texts = pool.map(lambda path: lzma.decompress(path.read_bytes()), paths)
            self.index = Index(zip(texts, (base for _download, base in wanted), strict=True))

    def fetch(self, packages: Iterable[Package]) -> list[Path]:
        """Return the verified .deb files of `packages`, in their order."""
        return self._cache.fetch([Download(item.url, item.sha256, item.size) for item in packages])

    def _index_file(self, suite: Suite, keys: bytes) -> tuple[Download, str]:
        folder = f"{suite.base}/dists/{suite.name}"
        verified = release.verify(self._cache.text(f"{folder}/InRelease"), keys, codename=suite.name)
        path = f"main/binary-{self.architecture}/Packages.xz"
        try:
            entry = verified.files[path]
        except KeyError:
            raise ImageError(
                f"{suite.name} has no packages for {self.architecture}", f"{folder} does not list {path}"
            ) from None
        place = f"main/binary-{self.architecture}/by-hash/SHA256/{entry.sha256}" if verified.by_hash else path
        return Download(f"{folder}/{place}", entry.sha256, entry.size), suite.base
