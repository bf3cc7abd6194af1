"""Finish the guest's root from inside: links of busybox, bytecode. Run by the guest's Python during the bake."""

import compileall
import os
import subprocess
import sys
from py_compile import PycInvalidationMode as Mode

LIBRARIES = ["/usr/lib/python3.13", "/usr/lib/python3/dist-packages"]
CODE = "/run/pyboxd/code"


def link_applets() -> None:
    """Give busybox the names that no other program of the image has."""
    names = subprocess.run(["/usr/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if not any(os.path.lexists(f"/usr/{folder}/{name}") for folder in ("bin", "sbin")):
            os.symlink("busybox", f"/usr/bin/{name}")


def sources(folder: str) -> list[str]:
    """Return every Python file below a folder."""
    return sorted(
        os.path.join(path, name) for path, _, names in os.walk(folder) for name in names if name.endswith(".py")
    )


def compile_share(share: list[tuple[str, Mode]]) -> bool:
    """Compile files into the place that `-X pycache_prefix` names."""
    return all([compileall.compile_file(path, quiet=1, invalidation_mode=mode) for path, mode in share])


def compile_tree() -> bool:
    """Compile the libraries, which never change, and the guest code, which is compiled anew when it is edited.

    One process per CPU. The workers of compileall itself are new interpreters, and -X is not handed on to them.
    """
    work = [(path, Mode.UNCHECKED_HASH) for folder in LIBRARIES for path in sources(folder)]
    work += [(path, Mode.CHECKED_HASH) for path in sources(CODE)]
    workers = os.cpu_count() or 1
    children = []
    for number in range(workers):
        child = os.fork()
        if child == 0:
            os._exit(0 if compile_share(work[number::workers]) else 1)
        children.append(child)
    return all([os.waitpid(child, 0)[1] == 0 for child in children])


if __name__ == "__main__":
    link_applets()
    sys.exit(0 if compile_tree() else 1)
