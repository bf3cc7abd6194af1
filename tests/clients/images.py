"""The small images that other people's suites ask Docker Hub for, made of Debian's static busybox."""

from __future__ import annotations

from pathlib import Path

from tests.support.image_lab import Sample
from tests.support.pybox_cli import Cli
from tests.support.registry import Registry
from tests.support.small_image import busybox, busybox_layer

NAMES = ("busybox:latest", "alpine:latest", "alpine:3.10", "hello-world:latest")
_FOLDERS = ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "var", "var/log", "var/opt")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\npostgres:x:70:70::/var/lib/postgresql:/bin/sh\n",
    "etc/group": "root:x:0:\npostgres:x:70:\n",
    "etc/shadow": "root:*::0:::::\n",
}


def base_layer(cli: Cli) -> bytes:
    """A root file system: busybox under all the names it knows, and the users that suites expect."""
    applets = [name for name in cli.ok("ssh", "busybox", "--list").split() if name != "busybox"]
    return busybox_layer(busybox(cli), applets, _FOLDERS, _FILES)


def fill(cli: Cli, registry: Registry, folder: Path) -> None:
    """Put all of NAMES into a registry that stands for the hub. They have different ids, as the real ones have."""
    layer = base_layer(cli)
    for name in NAMES:
        command = ("echo", "Hello from pybox!") if name.startswith("hello-world") else ("sh",)
        archive = folder / "image.tar"
        archive.write_bytes(Sample.of(layer, labels={"made.for": name.partition(":")[0]}, cmd=command).saved(name))
        registry.push(archive, f"library/{name}")
