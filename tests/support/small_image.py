"""Images of a few MB that run: busybox, and layers of random bytes that no compression makes smaller."""

from __future__ import annotations

import base64
import io
import random
import tarfile

from tests.support.image_lab import Sample, tar
from tests.support.pybox_cli import Cli

APPLETS = ("sh", "cat", "echo", "sleep", "sync", "mv", "dd", "ls", "true", "mkdir", "rm")


def busybox(cli: Cli) -> bytes:
    """The static busybox of the guest image."""
    return base64.b64decode(cli.ok("ssh", "busybox", "base64", "/bin/busybox"))


def busybox_layer(program: bytes) -> bytes:
    """A layer with /bin/busybox, names for what tests need of it, and empty folders to mount on."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        info = tarfile.TarInfo("bin/busybox")
        info.size, info.mode = len(program), 0o755
        archive.addfile(info, io.BytesIO(program))
        for name in APPLETS:
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
