"""A machine's data disk looked at from outside: what belongs to nothing, and what is there after a power cut."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from pyboxd.boot.data import MIB, DiskState
from pyboxd.database import Database
from pyboxd.engine.store import Store
from pyboxd.image.images import Images
from pyboxd.image.layerstore import LayerStore
from pyboxd.network.store import NetworkStore
from tests.support.image_lab import Indexer
from tests.support.pybox_cli import Cli

_LIST = "cd /var/lib/pyboxd && ls -d tmp/* old-* layers/*/* containers/* volumes/* 2>/dev/null"
# What the check after a power cut may say: that it did what every mount does.
_ORDINARY = re.compile(
    r"(recovering journal|Clearing orphaned inode .*|CLEARED\."
    r"|Feature orphan_present is set but orphan file is clean\.|Orphan file \(inode \d+\) block \d+ is not clean\."
    r"|Setting (free|.*inodes count).*|Setting .* to .*|\d+/\d+ files .*|)$"
)


def untidy(cli: Cli) -> list[str]:
    """Files of the machine's data disk that belong to nothing which is listed, and listed things that have no files."""
    found = set(cli.run("ssh", _LIST).out.split())
    known = {f"containers/{identity}" for identity in cli.ok("ps", "-aq", "--no-trunc").split()}
    known |= {f"volumes/{name}" for name in cli.ok("volume", "ls", "-q").split()}
    if images := cli.ok("images", "-aq", "--no-trunc").split():
        for image in cli.json("image", "inspect", *images):
            known |= {f"layers/{diff_id.replace(':', '/')}" for diff_id in image["RootFS"]["Layers"]}
    return sorted(found ^ known)


def state(disk: Path) -> DiskState:
    """What the guest's start thinks of a raw disk."""
    size = disk.stat().st_size
    with disk.open("rb") as file:
        head = file.read(MIB)
        file.seek(size - MIB)
        return DiskState(size, head, file.read())


def recover(disk: Path) -> None:
    """What a mount does, on a raw disk: replay of the journal. AssertionError when the file system is not sound then."""
    done = _run("e2fsck", "-fp", str(disk))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    for line in done.stdout.splitlines():
        assert _ORDINARY.match(line.rpartition(": ")[2]), done.stdout
    done = _run("e2fsck", "-fn", str(disk))
    assert done.returncode == 0, done.stdout + done.stderr


class Contents:
    """What a raw disk of the machine holds, after `recover`; read with the engine's own code from a copy in `folder`."""

    def __init__(self, disk: Path, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._folder = folder
        done = _run("debugfs", "-R", f"rdump / {folder}", str(disk))
        assert done.returncode == 0, done.stderr
        self._database = Database(str(folder / "engine.db"))
        assert self._database.rows("PRAGMA integrity_check") == [("ok",)]
        self._layers = LayerStore(Indexer(), root=str(folder / "layers"), temporary=str(folder), mounts=str(folder / "mnt"))
        self._images = Images(self._database, self._layers, architecture="amd64")
        store = Store(self._database)
        self.images = {name for image in self._images.list() for name in image.references}
        self.containers = {record.id for record in store.containers()}
        self.volumes = {volume.name for volume in store.volumes()}
        self.networks = {network.name for network in NetworkStore(self._database).all()}

    def close(self) -> None:
        self._database.close()

    def file(self, path: str) -> bytes:
        """The content of a file; b"" when it is not there."""
        found = self._folder / path
        return found.read_bytes() if found.is_file() else b""

    def check(self, indexes: dict[str, str]) -> None:
        """AssertionError for anything half-written that somebody could see.

        `indexes` has the digests of the layers' indexes seen before; an index is made once and never differs.
        """
        for diff_id in self._layers.known():  # a folder with a digest's name is complete, listed or not
            folder = Path(self._layers.path(diff_id))
            assert _digest(folder / "layer.tar") == diff_id
            assert indexes.setdefault(diff_id, _digest(folder / "index.erofs")) == _digest(folder / "index.erofs")
        for image in self._images.list():
            assert set(image.layers) <= set(self._layers.known()), image
        orphans = "SELECT reference FROM image_{} WHERE image NOT IN (SELECT id FROM image)"
        assert [row for kind in ("tag", "digest") for row in self._database.rows(orphans.format(kind))] == []
        for name in self.volumes:
            assert (self._folder / "volumes" / name / "_data").is_dir()
        for identity in self.containers:
            assert (self._folder / "containers" / identity).is_dir()


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
