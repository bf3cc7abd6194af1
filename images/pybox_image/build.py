"""The whole build: packages, tree, bake, and the finished folder of an image."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from pybox_image import guestcode, guestroot, kernel, manifest, recipe
from pybox_image.bake import BootFunction, bake
from pybox_image.debian import deb
from pybox_image.debian.archive import Archive
from pybox_image.debian.index import Package
from pybox_image.debian.resolve import closure
from pybox_image.download import Cache
from pybox_image.errors import ImageError
from pybox_image.manifest import Manifest
from pybox_image.mirror import Mirror
from pybox_image.progress import Progress, ProgressCallback, silent

_SPARE = 64 * 1024 * 1024  # bytes of bake disk beyond twice the raw tree: bytecode, tables


@dataclass(frozen=True)
class BuildOptions:
    """`architecture` in Debian's words; `out` is the folder to make, replaced when it exists; `cache` keeps downloads
    from build to build; `guest_code` is the folder that holds `pyboxd`."""

    architecture: str
    out: Path
    cache: Path
    guest_code: Path
    mirror: Mirror = field(default_factory=Mirror)


@dataclass(frozen=True)
class Fetched:
    """Everything that an image is made of, verified and on this disk."""

    packages: list[Package]
    debs: list[Path]
    kernel_deb: Path
    kernel_package: Package


def build(options: BuildOptions, boot: BootFunction, progress: ProgressCallback = silent) -> Manifest:
    """Make a guest image in `options.out` and return its manifest.

    The folder appears at once and complete; a failed build leaves the one before as it was. Raises ImageError, and
    what `boot` raises.
    """
    plan = recipe.load(options.architecture)
    fetched = fetch(options, progress)
    with deb.data_archive(fetched.kernel_deb) as archive:
        linux = kernel.read(archive)
        tree = guestroot.root_tree(plan, fetched.debs, linux, progress)
        initrd = guestroot.initrd(plan, tree, linux)
        described = manifest.contents(
            plan.suite,
            plan.architecture,
            linux.release,
            [*fetched.packages, fetched.kernel_package],
            [guestroot.bake_initrd(plan, tree, linux, ()), initrd, linux.image],
        )
        tree.file(manifest.IN_ROOT, manifest.contents_json(described))
        raw = guestroot.bake_initrd(plan, tree, linux, guestcode.entries(options.guest_code))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".image-", dir=options.out.parent) as name:
        work, finished = Path(name), Path(name) / "finished"
        finished.mkdir()
        progress(Progress("bake"))
        space = 2 * len(raw) + _SPARE
        baked = bake(linux.image, raw, console=plan.console, space=space, work=work, boot=boot)
        (finished / "vmlinuz").write_bytes(linux.image)
        (finished / "initrd").write_bytes(initrd)
        baked.root.replace(finished / "root.erofs")
        if baked.vmlinux:
            baked.vmlinux.replace(finished / "vmlinux")
        result = Manifest(described, {path.name: _measure(path) for path in sorted(finished.iterdir())})
        (finished / manifest.FILE).write_bytes(manifest.to_json(result))
        _publish(finished, options.out, work / "previous")
    progress(Progress("done"))
    return result


def fetch(options: BuildOptions, progress: ProgressCallback = silent) -> Fetched:
    """Download everything that an image needs; a build after it needs no network but for the indexes."""
    plan = recipe.load(options.architecture)
    archive = _archive(options, plan.suite, progress)
    packages = closure(archive.index, plan.packages, omit=plan.omit)
    linux = _kernel_package(archive, plan.kernel_package)
    *debs, kernel_deb = archive.fetch([*packages, linux])
    return Fetched(packages, debs, kernel_deb, linux)


def _archive(options: BuildOptions, suite: str, progress: ProgressCallback) -> Archive:
    cache = Cache(options.cache, progress=progress)
    return Archive(suite, options.architecture, mirror=options.mirror, cache=cache, progress=progress)


def _kernel_package(archive: Archive, name: str) -> Package:
    """Return the package that holds the kernel: `name` is an empty one that depends on today's version."""
    meta = archive.index.candidate(name)
    for group in meta.depends if meta is not None else ():
        package = archive.index.candidate(group[0].name)
        if package is not None and package.name.startswith("linux-image-"):
            return package
    raise ImageError(f"Debian has no kernel {name}", f"release {archive.codename}, {archive.architecture}")


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as stream:
        return path.stat().st_size, hashlib.file_digest(stream, "sha256").hexdigest()


def _publish(finished: Path, out: Path, previous: Path) -> None:
    """Sync the files, then put the folder in its place."""
    for path in finished.iterdir():
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    if out.exists():
        out.replace(previous)
    try:
        finished.replace(out)
    except OSError:
        if previous.exists():
            previous.replace(out)
        raise
    shutil.rmtree(previous, ignore_errors=True)
