"""Builds the reference VM: kernel, initrd and root disk from Debian's signed packages. No maintainer script runs.

    reference = ensure(folder, "6.12.1+deb13-cloud-amd64", downloads, print)

It is kept in its folder until the kernel of pybox's guest image or something in this folder of the source changes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pybox.errors import PyboxError
from pybox_image import cpio, kernel, mirror, recipe
from pybox_image.debian import deb
from pybox_image.debian.archive import Archive
from pybox_image.debian.index import Package
from pybox_image.debian.resolve import closure, named
from pybox_image.download import Cache
from pybox_image.errors import ImageError
from pybox_image.guestroot import skeleton
from pybox_image.rootfs import Tree

_SOURCE = Path(__file__).parent
_PARTS = ("reference.py", "reference.toml", "initrd-init", "bench-init", "bench-sockets")
_RECORD = "reference.json"
_SHOWN = ("docker.io", "containerd", "runc", "iptables")  # versions that the report names
_FOLDERS = ("dev", "proc", "sys", "run", "tmp", "root", "mnt", "var/lib/docker")
_PROGRAMS = {"bench-init": 0o755, "bench-sockets": 0o644}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Reference:
    """A built reference: its folder, and the versions of what is in it by name."""

    folder: Path
    versions: Mapping[str, str]

    @property
    def kernel(self) -> Path:
        return self.folder / "kernel"

    @property
    def initrd(self) -> Path:
        return self.folder / "initrd"

    @property
    def root_disk(self) -> Path:
        return self.folder / "root.erofs"


def ensure(folder: Path, release: str, downloads: Path, say: Say) -> Reference:
    """Return the reference in `folder`, built now when there is none for this kernel release and this source.

    Raises PyboxError when a package or a program of this host is missing.
    """
    key = _key(release)
    found = _open(folder, key)
    if found is not None:
        return found
    say("building the reference VM (once)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".reference-", dir=folder.parent) as name:
        finished = Path(name) / "finished"
        finished.mkdir()
        try:
            versions = _build(finished, Path(name) / "root", release, downloads, say)
        except ImageError as error:
            raise PyboxError(error.brief, error.details, error.resolution) from error
        (finished / _RECORD).write_text(json.dumps({"key": key, "versions": versions}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        finished.replace(folder)
    return Reference(folder, versions)


def full_flavour(release: str) -> str:
    """Return the package with the full kernel of the same version as a cloud one. Raises PyboxError for other names."""
    stem, found, architecture = release.rpartition("-cloud-")
    if not found:
        raise PyboxError(f"the guest image's kernel {release} is not of the cloud flavour")
    return f"linux-image-{stem}-{architecture}"


def _key(release: str) -> str:
    digest = hashlib.sha256(release.encode())
    for name in _PARTS:
        digest.update((_SOURCE / name).read_bytes())
    return digest.hexdigest()


def _open(folder: Path, key: str) -> Reference | None:
    try:
        record = json.loads((folder / _RECORD).read_bytes())
    except (OSError, ValueError):
        return None
    return Reference(folder, dict(record["versions"])) if record.get("key") == key else None


def _build(into: Path, root: Path, release: str, downloads: Path, say: Say) -> dict[str, str]:
    table = tomllib.loads((_SOURCE / "reference.toml").read_text())
    suite = recipe.load("amd64").suite
    archive = Archive(suite, "amd64", mirror=mirror.choose(), cache=Cache(downloads))
    packages = closure(archive.index, table["packages"], omit=table["omit"])
    (linux_package,) = _linux(archive, full_flavour(release))
    say(f"  {len(packages) + 1} packages")
    *debs, linux_deb = archive.fetch([*packages, linux_package])
    with deb.data_archive(linux_deb) as opened:
        linux = kernel.read(opened)
        tree = _tree(table, debs, linux)
        (into / "initrd").write_bytes(_initrd(tree, linux.closure(table["initrd"])))
    (into / "kernel").write_bytes(_unpacked(linux.image))
    tree.write(root)
    _make_file_system(root, into / "root.erofs")
    shown = {package.name: package.version for package in packages if package.name in _SHOWN}
    return {"kernel": linux.release, **shown}


def _linux(archive: Archive, name: str) -> list[Package]:
    try:
        return named(archive.index, [name])
    except ImageError as error:
        raise PyboxError(
            f"Debian has no {name} any more",
            f"{error.details}; the guest image is older than the archive.",
            "Build the image and the reference again: scripts/bench --rebuild",
        ) from None


def _tree(table: Mapping[str, Any], debs: Iterable[Path], linux: kernel.Kernel) -> Tree:
    tree = Tree(table["exclude"])
    for path in debs:
        with deb.data_archive(path) as opened:
            tree.add_package(opened)
    for name in _FOLDERS:
        tree.folder(name)
    for path_name, target in table["links"].items():
        tree.link(path_name, target)
    for path_name, text in table["files"].items():
        tree.file(path_name, text.encode())
    for name, mode in _PROGRAMS.items():
        tree.file(f"usr/libexec/{name}", (_SOURCE / name).read_bytes(), mode)
    tree.file("usr/libexec/bench-modules", " ".join(table["boot"]).encode())
    modules = linux.closure([*table["early"], *table["boot"], *table["more"]])
    folder = f"usr/lib/modules/{linux.release}"
    for module in modules:
        tree.file(f"{folder}/{module.path}", module.data)
    tree.file(f"{folder}/modules.dep", kernel.dependency_file(modules))
    tree.file(f"{folder}/modules.alias", kernel.alias_file(modules))
    tree.file(f"{folder}/modules.builtin", linux.builtin_list)
    _link_applets(tree)
    return tree


def _link_applets(tree: Tree) -> None:
    """Give busybox the names that the scripts call and no package of the tree has."""
    names = ("cat", "ip", "hostname", "killall", "mkdir", "mount", "pidof", "poweroff", "sed", "stty", "sync", "sysctl")
    for name in (*names, "umount", "usleep", "ps", "ls", "tail", "grep", "cp", "rm", "ifconfig", "dmesg"):
        if not any(f"usr/{place}/{name}" in tree for place in ("bin", "sbin")):
            tree.link(f"usr/bin/{name}", "busybox")


def _initrd(tree: Tree, modules: Iterable[kernel.Module]) -> bytes:
    init = cpio.file("init", (_SOURCE / "initrd-init").read_bytes(), 0o755)
    return cpio.pack([*skeleton(tree, modules), cpio.folder("newroot"), init])


def _unpacked(image: bytes) -> bytes:
    """Return the kernel as pybox boots its own: unpacked by the host, not by the guest's CPU."""
    packed = kernel.payload(image)
    if packed is None:
        return image
    import zstandard

    return zstandard.ZstdDecompressor().decompress(packed.data, max_output_size=packed.size)


def _make_file_system(root: Path, into: Path) -> None:
    try:
        subprocess.run(["mkfs.erofs", "-T0", "--all-root", into, root], check=True, capture_output=True)
    except FileNotFoundError:
        raise PyboxError(
            "mkfs.erofs is missing", "It makes the reference VM's root disk.", "apt-get install -y erofs-utils"
        ) from None
    except subprocess.CalledProcessError as error:
        raise PyboxError("the reference VM's root disk cannot be made", error.stderr.decode(errors="replace")) from None
