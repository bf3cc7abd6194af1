"""The packages of a base image: resolved, downloaded and verified on the host (`pybox_image` does the work)."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from pybox.app.bootstrap import BASE_PACKAGES, BootstrapRequest, Packages, Progress
from pybox.app.compose import package_cache, package_mirror
from pybox.errors import ImageBuildError
from pybox_image.debian.archive import Archive
from pybox_image.debian.deb import data_archive
from pybox_image.debian.index import Package
from pybox_image.debian.resolve import closure
from pybox_image.errors import ImageError
from pybox_image.progress import Progress as ImageProgress

CHUNK = 1024 * 1024

SOURCES = """Types: deb
URIs: {archive}
Suites: {suite} {suite}-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: {security}
Suites: {suite}-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""


def fetch_packages(request: BootstrapRequest, architecture: str, progress: Progress) -> Packages:
    """Verified packages for `request`. Raises ImageBuildError when one cannot be had or trusted."""

    def report(state: ImageProgress) -> None:
        progress(f"Packages: {state.phase}", state.done, state.total)

    mirror = package_mirror()
    try:
        archive = Archive(request.suite, architecture, mirror=mirror, cache=package_cache(report), progress=report)
        essential = closure(archive.index, archive.index.essential())
        base = _beyond(archive, essential, BASE_PACKAGES)
        more = _beyond(archive, [*essential, *base], request.packages)
        paths = iter(archive.fetch([*essential, *base, *more]))
    except ImageError as error:
        raise ImageBuildError(error.brief, error.details, error.resolution) from error
    sources = SOURCES.format(archive=mirror.archive, security=mirror.security, suite=request.suite)
    return Packages(
        essential=tuple(islice(paths, len(essential))),
        base=tuple(islice(paths, len(base))),
        more=tuple(paths),
        sources=sources.encode(),
    )


def _beyond(archive: Archive, known: Sequence[Package], names: Iterable[str]) -> list[Package]:
    """The packages of `names` and what they need, without those that are known."""
    have = [package.name for package in known]
    return [package for package in closure(archive.index, [*have, *names]) if package.name not in have]


def seed_tree(packages: tuple[Path, ...]) -> Iterator[bytes]:
    """A tar stream of all files of `packages`: enough of a system that dpkg can run in it.

    base-files comes first: it makes /bin, /lib and /sbin links, and everything else is unpacked through them.
    """
    ordered = sorted(packages, key=lambda path: not _is_base_files(path))
    seen: set[str] = set()
    for path in ordered:
        with data_archive(path) as archive:
            for member in archive:
                name = member.name.removeprefix("./").rstrip("/")
                if not name or name == "." or name in seen:
                    continue
                seen.add(name)
                yield from _copy(archive, member, name)


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> Iterator[bytes]:
    member.name = name
    if member.islnk():
        member.linkname = member.linkname.removeprefix("./")
    content = archive.extractfile(member) if member.isreg() else None
    member.pax_headers = {}
    yield member.tobuf(tarfile.PAX_FORMAT)
    if content is not None:
        while data := content.read(CHUNK):
            yield data
        yield b"\0" * (-member.size % 512)


def _is_base_files(path: Path) -> bool:
    with data_archive(path) as archive:
        return any(member.issym() and member.name in ("./bin", "bin") for member in archive)
