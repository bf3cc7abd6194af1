"""The guest's root and initrd, put together from packages, kernel modules and this project's texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybox_image import cpio, kernel
from pybox_image.debian import deb
from pybox_image.kernel import Kernel, Module
from pybox_image.progress import Progress, ProgressCallback
from pybox_image.recipe import Recipe
from pybox_image.rootfs import Tree

_BUSYBOX = "usr/bin/busybox"
# What the initrd's scripts call. busybox would find its applets without links only as arguments.
_APPLETS = ("chroot", "cp", "insmod", "mkdir", "mount", "poweroff", "sh", "switch_root", "sync")


def root_tree(recipe: Recipe, debs: Sequence[Path], linux: Kernel, progress: ProgressCallback) -> Tree:
    """Return the guest's root as it is before the bake."""
    tree = Tree(recipe.exclude)
    with ThreadPoolExecutor() as pool:  # decompression takes most of the time and runs beside Python
        for number, archive in enumerate(pool.map(deb.data_archive, debs), 1):
            with archive:
                tree.add_package(archive)
            progress(Progress("unpack", number, len(debs)))
    for path, mode in recipe.folders:
        tree.folder(path, mode)
    for path, target in recipe.links:
        tree.link(path, target)
    for path, text in recipe.files:
        tree.file(path, text)
    _accounts(tree)
    _certificates(tree)
    _modules(tree, linux, linux.closure(recipe.root_modules))
    return tree


def _accounts(tree: Tree) -> None:
    """Make the account files that base-passwd's script would make; root's shell is the one that exists."""
    users = tree.read("usr/share/base-passwd/passwd.master").replace(b"/bin/bash", b"/bin/sh").replace(b":*:", b":x:")
    tree.file("etc/passwd", users)
    tree.file("etc/group", tree.read("usr/share/base-passwd/group.master").replace(b":*:", b":x:"))
    names = [line.partition(b":")[0] for line in users.splitlines() if line]
    tree.file("etc/shadow", b"".join(name + b":*:20000:0:99999:7:::\n" for name in names), 0o640)


def _certificates(tree: Tree) -> None:
    """Make the bundle that ca-certificates' script would make."""
    roots = tree.matching("usr/share/ca-certificates/mozilla/*.crt")
    bundle = b"".join(entry.data if entry.data.endswith(b"\n") else entry.data + b"\n" for entry in roots)
    tree.file("etc/ssl/certs/ca-certificates.crt", bundle)


def _modules(tree: Tree, linux: Kernel, modules: Sequence[Module]) -> None:
    """Install modules decompressed (xz is slow under emulation), with the tables that depmod would make."""
    folder = f"usr/lib/modules/{linux.release}"
    for module in modules:
        tree.file(f"{folder}/{module.path}", module.data)
    tree.file(f"{folder}/modules.dep", kernel.dependency_file(modules))
    tree.file(f"{folder}/modules.alias", kernel.alias_file(modules))
    tree.file(f"{folder}/modules.builtin", linux.builtin_list)


def initrd(recipe: Recipe, tree: Tree, linux: Kernel) -> bytes:
    """Return the initrd of a machine: busybox, a few modules, the init script."""
    entries = [*skeleton(tree, linux.closure(recipe.initrd_modules)), cpio.folder("newroot")]
    return cpio.pack([*entries, cpio.file("init", recipe.initrd_init, 0o755)])


def bake_initrd(recipe: Recipe, tree: Tree, linux: Kernel, code: Iterable[cpio.Entry]) -> bytes:
    """Return the initrd of the bake: the same start, the whole raw tree below `tree`, the guest code,
    and the packed kernel where there is one."""
    payload = kernel.payload(linux.image)
    packed = [cpio.file("vmlinux.zst", payload.data)] if payload else []
    raw = (cpio.Entry(f"tree/{item.path}", item.mode, item.data, item.uid, item.gid) for item in tree.entries())
    return cpio.pack(
        [
            *skeleton(tree, linux.closure(recipe.initrd_modules)),
            cpio.folder("tree"),
            *raw,
            *code,
            *packed,
            cpio.file("bake.py", recipe.bake_program),
            cpio.file("init", recipe.bake_init, 0o755),
        ]
    )


def skeleton(tree: Tree, modules: Iterable[Module]) -> list[cpio.Entry]:
    """What every initrd begins with: busybox with its names, folders to mount at, and modules with their order."""
    entries = [cpio.folder(name) for name in ("bin", "dev", "modules", "proc", "sys")]
    entries.append(cpio.file("bin/busybox", tree.read(_BUSYBOX), 0o755))
    entries += [cpio.link(f"bin/{name}", "busybox") for name in _APPLETS]
    order = []
    for module in modules:
        entries.append(cpio.file(f"modules/{module.name}.ko", module.data))
        order.append(f"{module.name}.ko\n")
    entries.append(cpio.file("modules/order", "".join(order).encode()))
    return entries
