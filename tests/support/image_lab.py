"""An image store in a temporary folder, whose mkfs.erofs only makes an empty file; and archives to put into it."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyboxd.database import Database
from pyboxd.image import config as codec
from pyboxd.image.layerstore import Layer, LayerStore
from pyboxd.image.model import HelperResult, ImageDocument, Progress
from pyboxd.image.room import ImageRoom
from pyboxd.model import ImageConfig


class Indexer:
    """The helper runner: "makes" an index, or fails as it was told to."""

    def __init__(self) -> None:
        self.failure = b""
        self.runs = 0

    async def run_helper(self, args: Sequence[str], stdin: bytes | None = None, timeout: float = 0) -> HelperResult:
        self.runs += 1
        await asyncio.sleep(0)
        if self.failure:
            return HelperResult(1, b"", self.failure)
        assert Path(args[-1]).name == "layer.tar" and Path(args[-1]).is_file()
        Path(args[-2]).write_bytes(b"")
        return HelperResult(0, b"", b"")


class ImageLab:
    """The store, and what a test wants to know of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.indexer = Indexer()
        self.database = Database(":memory:")
        self.layers = LayerStore(
            self.indexer, root=str(folder / "layers"), temporary=str(self.temporary), mounts=str(folder / "mounts")
        )
        self.images = ImageRoom(self.database, self.layers, architecture="amd64")
        self.said: list[Progress] = []

    def close(self) -> None:
        self.database.close()

    def add(self, *contents: bytes, parent: str = "", config: ImageConfig | None = None) -> str:
        """An image with one layer for each of `contents`; its id."""
        layers = [self.add_layer(tar({"file": data})) for data in contents]
        document = ImageDocument("amd64", "linux", config or ImageConfig(), tuple(layer.diff_id for layer in layers))
        return self.images.add(codec.encode(document), layers, parent=parent).id

    def add_layer(self, data: bytes) -> Layer:
        return asyncio.run(self.layers.add(lambda _: iter((data,))))

    def assert_empty(self) -> None:
        """Nothing is left: no image, no layer, no temporary file, no thread."""
        assert self.images.list() == []
        for table in ("image", "layer", "image_tag", "image_digest"):
            assert self.database.rows(f"SELECT * FROM {table}") == []
        self.assert_tidy()
        assert self.layers.known() == []

    def assert_tidy(self) -> None:
        assert list(self.temporary.iterdir()) == []
        for thread in threading.enumerate():
            if thread.name == "image-job":
                thread.join(1)  # it may still be on its last line
                assert not thread.is_alive()
        rows = {row[0] for row in self.database.rows("SELECT diff_id FROM layer")}
        assert set(self.layers.known()) == rows
        assert rows == {diff_id for image in self.images.list() for diff_id in image.layers}


def tar(files: Mapping[str, bytes]) -> bytes:
    """An archive of regular files; the same for the same content."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@dataclass(frozen=True)
class Sample:
    """An image outside of any store: plain layers and their configuration."""

    layers: tuple[bytes, ...]
    raw: bytes
    id: str = field(default="")

    @classmethod
    def of(
        cls,
        *layers: bytes,
        architecture: str = "amd64",
        labels: Mapping[str, str] | None = None,
        cmd: tuple[str, ...] = ("/bin/sh",),
    ) -> Sample:
        digests = tuple(codec.digest_of(layer) for layer in layers)
        config = ImageConfig(cmd=cmd, labels=labels or {})
        raw = codec.encode(ImageDocument(architecture, "linux", config, digests))
        return cls(layers, raw, codec.digest_of(raw))

    def saved(self, *references: str) -> bytes:
        """As `docker save` wrote it before OCI layouts."""
        config = self.id.removeprefix("sha256:") + ".json"
        names = [f"{number}/layer.tar" for number in range(len(self.layers))]
        manifest = [{"Config": config, "RepoTags": list(references) or None, "Layers": names}]
        files = {config: self.raw} | dict(zip(names, self.layers, strict=True))
        return tar(files | {"manifest.json": json.dumps(manifest).encode()})


async def chunked(data: bytes, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
