"""The guest's program as a second cpio archive behind the initrd: an edit of it needs no new image."""

from __future__ import annotations

from pathlib import Path

from pybox_image import cpio

FOLDER = "pyboxd-code"  # in the initramfs; the init script copies it to where the engine expects it

# Debian's Python looks for its packages where `-S` (no site module: faster) does not.
_MAIN = b"""\
import sys

sys.path.append("/usr/lib/python3/dist-packages")

from pyboxd.__main__ import main

sys.exit(main(sys.argv[1:]))
"""


def entries(source: Path) -> list[cpio.Entry]:
    """Return the files of the guest code below `source` (the folder that holds `pyboxd`), sorted by path."""
    package = source / "pyboxd"
    found: list[cpio.Entry] = [cpio.folder(FOLDER), cpio.file(f"{FOLDER}/__main__.py", _MAIN)]
    for path in sorted([package, *package.rglob("*")]):
        relative = path.relative_to(source)
        if "__pycache__" in relative.parts:
            continue
        name = f"{FOLDER}/{relative.as_posix()}"
        if path.is_dir():
            found.append(cpio.folder(name))
        elif path.is_file():
            found.append(cpio.file(name, path.read_bytes()))
    return found


def pack(source: Path) -> bytes:
    """Return the guest code below `source` as a cpio archive; the same files always give the same bytes."""
    return cpio.pack(entries(source))
