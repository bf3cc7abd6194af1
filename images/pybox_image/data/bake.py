"""Finish the guest's root from inside: links of busybox, bytecode, the kernel. Run by its Python during the bake."""

import compileall
import os
import sys
from pathlib import Path
from py_compile import PycInvalidationMode as Mode

LIBRARIES = [Path("/usr/lib/python3.13"), Path("/usr/lib/python3/dist-packages")]
CODE = Path("/run/pyboxd/code")
APPLETS = Path("/run/applets")
PACKED_KERNEL = Path("/run/vmlinux.zst")
KERNEL_DISK = Path("/dev/vdb")


def link_applets() -> None:
    """Give busybox the names that no other program of the image has."""
    for name in APPLETS.read_text().split():
        if not any(os.path.lexists(f"/usr/{folder}/{name}") for folder in ("bin", "sbin")):
            Path(f"/usr/bin/{name}").symlink_to("busybox")


def compile_share(share: list[tuple[Path, Mode]]) -> bool:
    """Compile files into the place that `-X pycache_prefix` names."""
    return all(compileall.compile_file(path, quiet=1, invalidation_mode=mode) for path, mode in share)


def compile_tree() -> bool:
    """Compile the libraries, which never change, and the guest code, which is compiled anew when it is edited.

    One process per CPU. The workers of compileall itself are new interpreters, and -X is not handed on to them.
    """
    work = [(path, Mode.UNCHECKED_HASH) for folder in LIBRARIES for path in sorted(folder.rglob("*.py"))]
    work += [(path, Mode.CHECKED_HASH) for path in sorted(CODE.rglob("*.py"))]
    workers = os.cpu_count() or 1
    children = []
    for number in range(workers):
        child = os.fork()
        if child == 0:
            os._exit(0 if compile_share(work[number::workers]) else 1)
        children.append(child)
    return all(os.waitpid(child, 0)[1] == 0 for child in children)


def unpack_kernel() -> None:
    """Unpack the kernel onto its own disk, because the host's Python may know no zstd."""
    sys.path.append("/usr/lib/python3/dist-packages")
    import zstandard

    with PACKED_KERNEL.open("rb") as source, KERNEL_DISK.open("wb") as disk:
        zstandard.ZstdDecompressor().copy_stream(source, disk)
        disk.flush()
        os.fsync(disk.fileno())


if __name__ == "__main__":
    link_applets()
    if PACKED_KERNEL.exists():
        unpack_kernel()
    sys.exit(0 if compile_tree() else 1)
