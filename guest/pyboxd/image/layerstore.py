"""Layers on the data disk. A layer is its uncompressed tar and a small EROFS index over it; nothing is unpacked.

    LAYERS/sha256/<hex>/layer.tar     the bytes whose digest is the layer's diff id
    LAYERS/sha256/<hex>/index.erofs   made by mkfs.erofs --tar=i --aufs: whiteouts become overlayfs's

While the index is made, the tar's end is another one: see `_completed`. A folder appears under its digest only when
both files are complete and synced. Mounts live below /run, so that they
are gone exactly when the kernel's are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from typing import BinaryIO

from pyboxd import locations
from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.frozen import frozen
from pyboxd.image import diff
from pyboxd.image.compression import decompressed
from pyboxd.image.digest import StreamDigest
from pyboxd.image.model import HelperRunner
from pyboxd.image.tarread import FileReader, Kind, TarEntry, TarError, TarReader, clean_name
from pyboxd.image.workers import Stop, consume, run_blocking
from pyboxd.linux import constants as k
from pyboxd.linux.mount import mount, umount2

MOUNTS = f"{locations.RUN}/layers"
MKFS = "/usr/bin/mkfs.erofs"
INDEX_TIMEOUT = 600.0  # seconds
_WHITEOUT = ".wh."
_BUFFER = 1024 * 1024  # bytes
_MAX_REST = 64 * 1024 * 1024  # bytes behind the last entry; tar pads its archives to less than 1 MiB


@frozen
class Layer:
    """A layer of the store; `size` counts bytes of file content."""

    diff_id: str
    size: int


@frozen
class _Content:
    """A tar that was read: `end` is where its last entry ends, `implied` are folders that have no entry of their own."""

    layer: Layer
    end: int
    implied: tuple[str, ...]


class LayerStore:
    """Adds, mounts and removes layers below `root`. `temporary` is on the same file system."""

    def __init__(
        self,
        helpers: HelperRunner,
        *,
        root: str = locations.LAYERS,
        temporary: str = locations.TEMPORARY,
        mounts: str = MOUNTS,
    ) -> None:
        self._helpers = helpers
        self._root = root
        self.temporary = temporary
        self._mounts = mounts

    def path(self, diff_id: str) -> str:
        """The layer's folder; it exists if `has` says so."""
        return f"{self._root}/{diff_id.replace(':', '/')}"

    def archive(self, diff_id: str) -> str:
        """The layer's uncompressed tar."""
        return f"{self.path(diff_id)}/layer.tar"

    def has(self, diff_id: str) -> bool:
        return os.path.isdir(self.path(diff_id))

    async def add_stream(self, chunks: AsyncIterator[bytes], expected: str = "") -> Layer:
        """Add a layer from a (possibly compressed) tar that arrives on the loop."""
        folder = self._new_folder()
        return await self._finish(
            folder, await self._guarded(folder, consume(chunks, lambda data: _write(folder, data))), expected
        )

    async def add(self, open_chunks: Callable[[Stop], Iterable[bytes]], expected: str = "") -> Layer:
        """Add a layer from a (possibly compressed) tar that `open_chunks` reads in a worker thread.

        InvalidArgument when the archive is damaged, hostile, or not the one whose diff id is `expected`.
        """
        folder = self._new_folder()
        job = run_blocking(lambda stop: _write(folder, open_chunks(stop)))
        return await self._finish(folder, await self._guarded(folder, job), expected)

    async def add_tree(self, tree: str) -> Layer:
        """Add a layer of what a directory holds: an overlay's upper one, or any other."""
        folder = self._new_folder()
        job = run_blocking(lambda stop: _write_tree(folder, tree, stop))
        return await self._finish(folder, await self._guarded(folder, job))

    async def adopt(self, file: str, expected: str) -> Layer:
        """Add a layer whose uncompressed tar with the digest `expected` is already at `file` on the same file system.

        The file is taken (renamed), not copied. Whoever wrote it has computed its digest.
        """
        folder = self._new_folder()
        return await self._finish(folder, await self._guarded(folder, run_blocking(lambda _: _take(folder, file, expected))))

    async def _guarded(self, folder: str, job: Awaitable[_Content]) -> _Content:
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            content = await job
            undo.pop_all()
        return content

    async def _finish(self, folder: str, content: _Content, expected: str = "") -> Layer:
        layer = content.layer
        try:
            if expected and layer.diff_id != expected:
                raise InvalidArgument(f"layer verification failed: expected diff id {expected}, got {layer.diff_id}")
            if not self.has(layer.diff_id):
                with open(f"{folder}/layer.tar", "r+b") as file, _completed(file, content):
                    await self._index(folder)
                _sync(f"{folder}/layer.tar")
                self._publish(folder, self.path(layer.diff_id))
            return layer
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _new_folder(self) -> str:
        folder = f"{self.temporary}/layer-{secrets.token_hex(16)}"
        os.makedirs(folder)
        return folder

    async def _index(self, folder: str) -> None:
        command = (MKFS, "--quiet", "--tar=i", "--aufs", f"{folder}/index.erofs", f"{folder}/layer.tar")
        done = await self._helpers.run_helper(command, timeout=INDEX_TIMEOUT)
        if done.status:
            said = done.stderr.decode(errors="replace").strip()
            if "No space left" in said:
                raise SystemFailure("write layer: no space left on device")
            raise InvalidArgument(f"the layer cannot be indexed: {said or f'mkfs.erofs ended with {done.status}'}")
        _sync(f"{folder}/index.erofs")

    def _publish(self, folder: str, target: str) -> None:
        parent = os.path.dirname(target)
        if not os.path.isdir(parent):
            os.makedirs(parent)
            _sync(self._root)
        _sync(folder)
        try:
            os.rename(folder, target)
        except OSError:
            if not os.path.isdir(target):  # else added by somebody else in the meantime
                raise
        _sync(parent)

    def mount(self, diff_id: str) -> str:
        """The folder where the layer's files are; mounted at the first call. OSError from the kernel."""
        target = f"{self._mounts}/{diff_id.partition(':')[2]}"
        if not os.path.ismount(target):
            os.makedirs(target, exist_ok=True)
            folder = self.path(diff_id)
            mount(f"{folder}/index.erofs", target, "erofs", k.MS_RDONLY, f"device={folder}/layer.tar")
        return target

    def detach(self, diff_id: str) -> str:
        """Unmount the layer and take it out of the store; the folder that is left to delete.

        A running container that uses the layer can go on reading it. The loop's thread calls this and lets another
        one delete: whoever adds the same layer meanwhile must not take a dying one for whole.
        """
        target = f"{self._mounts}/{diff_id.partition(':')[2]}"
        if os.path.ismount(target):
            umount2(target, k.MNT_DETACH)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(target)
        grave = self._new_folder()
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path(diff_id), f"{grave}/layer")
        return grave

    def known(self) -> list[str]:
        """Diff ids of all complete layers."""
        return [
            f"{algorithm}:{name}"
            for algorithm in (os.listdir(self._root) if os.path.isdir(self._root) else ())
            for name in os.listdir(f"{self._root}/{algorithm}")
        ]


def _write(folder: str, chunks: Iterable[bytes]) -> _Content:
    """Uncompress `chunks` into the folder's layer.tar, checking every name on the way."""
    with StreamDigest() as digest, open(f"{folder}/layer.tar", "wb") as file:

        def pieces() -> Iterator[bytes]:
            for piece in decompressed(chunks):
                digest.update(piece)
                file.write(piece)
                yield piece

        survey = _Survey(TarReader(pieces()))
        file.flush()
        os.fsync(file.fileno())  # here, in the worker's thread: what is left for later is little
        return survey.content(f"sha256:{digest.hexdigest()}")


def _write_tree(folder: str, tree: str, stop: Stop) -> _Content:
    """Archive `tree` as the folder's layer.tar. What is in it need not be looked for: every folder has its entry."""
    digest = hashlib.sha256()  # not in a thread: the pieces are small
    archive = diff.Archive(tree)
    with open(f"{folder}/layer.tar", "wb", buffering=_BUFFER) as file:
        for piece in archive.pieces(stop):
            digest.update(piece)
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    return _Content(Layer(f"sha256:{digest.hexdigest()}", archive.size), archive.end, ("",))


def _take(folder: str, file: str, diff_id: str) -> _Content:
    """Rename `file` to the folder's layer.tar once every name in it is checked."""
    with open(file, "rb") as source:
        survey = _Survey(TarReader(FileReader(source)))
        os.fsync(source.fileno())
    os.rename(file, f"{folder}/layer.tar")
    return survey.content(diff_id)


class _Survey:
    """Reads all headers of a layer. TarError for an entry that could reach outside of it."""

    def __init__(self, reader: TarReader) -> None:
        self._size = 0
        self._explicit: set[str] = set()
        self._implied: set[str] = {""}
        self._links: set[str] = set()
        for entry in reader:
            self._size += entry.size
            self._add(entry)
        self._end = reader.end

    def content(self, diff_id: str) -> _Content:
        return _Content(Layer(diff_id, self._size), self._end, tuple(sorted(self._implied - self._explicit)))

    def _add(self, entry: TarEntry) -> None:
        name = clean_name(entry.name)
        folder, _, base = name.rpartition("/")
        if base.startswith(_WHITEOUT) and base[len(_WHITEOUT) :] in ("", ".", ".."):
            raise TarError(f"invalid whiteout in archive: {entry.name!r}")
        if entry.kind is Kind.HARDLINK:
            clean_name(entry.link)
        while folder not in self._implied:
            if folder in self._links:
                raise TarError(f"unsupported archive: {name[:200]!r} lies behind the link {folder[:200]!r}")
            self._implied.add(folder)
            folder = folder.rpartition("/")[0]
        if entry.kind is Kind.DIRECTORY:
            self._explicit.add(name)
            self._links.discard(name)
        else:
            self._implied.discard(name)
            if entry.kind is Kind.SYMLINK:
                self._links.add(name)


@contextlib.contextmanager
def _completed(file: BinaryIO, content: _Content) -> Iterator[None]:
    """The tar inside the block: with entries for the folders that have none, and with an end.

    mkfs.erofs gives a folder that is only a part of names the mode 0777 (Docker 0755), and refuses an archive that
    just ends. No entry moves, so that the index fits the tar as it came, which it is again behind the block.
    """
    if os.fstat(file.fileno()).st_size - content.end > _MAX_REST:
        raise TarError("the archive goes on behind its end")
    file.seek(content.end)
    with open(f"{os.path.dirname(file.name)}/end", "w+b") as kept:
        shutil.copyfileobj(file, kept)
        file.seek(content.end)
        file.truncate()
        for name in content.implied:
            info = tarfile.TarInfo(f"{name}/" if name else "./")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            file.write(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        file.write(bytes(1024))
        file.flush()
        try:
            yield
        finally:
            file.seek(content.end)
            file.truncate()
            kept.seek(0)
            shutil.copyfileobj(kept, file)
            file.flush()
    os.unlink(kept.name)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
