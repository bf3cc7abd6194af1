"""The small images that other people's suites ask Docker Hub for, made of Debian's static busybox."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from tests.support.image_lab import Sample
from tests.support.pybox_cli import Cli
from tests.support.registry import Registry
from tests.support.small_image import busybox

NAMES = ("busybox:latest", "alpine:latest", "alpine:3.10", "hello-world:latest")
_FOLDERS = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "var", "var/log", "var/opt")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n",
    "etc/group": "root:x:0:\npostgres:x:70:\n",
    "etc/shadow": "root:*::0:::::\n",
}


def base_layer(cli: Cli) -> bytes:
    """A root file system: busybox under all the names it knows, and the users that suites expect."""
    program = busybox(cli)
    applets = cli.ok("ssh", "busybox", "--list").split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in _FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(folder)
        for name, content in [("bin/busybox", program), *((name, text.encode()) for name, text in _FILES.items())]:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755 if name.startswith("bin") else 0o644
            archive.addfile(info, io.BytesIO(content))
        for name in applets:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "/bin/busybox"
                archive.addfile(link)
    return out.getvalue()


def fill(cli: Cli, registry: Registry, folder: Path) -> None:
    """Put all of NAMES into a registry that stands for the hub. They have different ids, as the real ones have."""
    layer = base_layer(cli)
    for name in NAMES:
        command = ("echo", "Hello from pybox!") if name.startswith("hello-world") else ("sh",)
        archive = folder / "image.tar"
        archive.write_bytes(Sample.of(layer, labels={"made.for": name.partition(":")[0]}, cmd=command).saved(name))
        registry.push(archive, f"library/{name}")
