"""Images of a few MB that run: busybox, and layers of random bytes that no compression makes smaller."""

from __future__ import annotations

import base64
import io
import random
import tarfile
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tests.support.image_lab import Sample, tar
from tests.support.pybox_cli import Cli

FOLDERS = ("bin", "dev", "etc", "proc", "sys", "tmp", "root")
APPLETS = ("sh", "cat", "echo", "sleep", "sync", "mv", "dd", "ls", "true", "mkdir", "rm")


def busybox(cli: Cli) -> bytes:
    """The static busybox of the guest image."""
    return base64.b64decode(cli.ok("ssh", "busybox", "base64", "/bin/busybox"))


def busybox_layer(
    program: bytes,
    applets: Sequence[str] = APPLETS,
    folders: Sequence[str] = FOLDERS,
    files: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """A layer with /bin/busybox, its names, folders to mount on, and files of text."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in folders:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(folder)
        for name, content, mode in (("bin/busybox", program, 0o755), *((k, v.encode(), 0o644) for k, v in files.items())):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
        for name in applets:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return out.getvalue()


def noise(name: str, size: int) -> bytes:
    """A layer with one file of `size` random bytes, the same for the same name."""
    return tar({name: random.Random(name).randbytes(size)})


def image(base: bytes, *sizes: int, name: str = "") -> Sample:
    """An image of a busybox layer and one layer of noise for each of `sizes` (bytes): files `name`0, `name`1, …"""
    return Sample.of(base, *(noise(f"{name}{number}", size) for number, size in enumerate(sizes)), labels={"name": name})
