"""Real builds for tests: the real store of images and the real runtime in a folder. Needs root."""

from __future__ import annotations

import asyncio
import io
import os
import re
import shutil
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pyboxd import locations
from pyboxd.database import Database
from pyboxd.image.builder.builder import Builder
from pyboxd.image.builder.doors import BuildOutput, BuildRequest, RunStep, StepMount
from pyboxd.image.layerstore import LayerStore
from pyboxd.image.model import Image
from pyboxd.image.room import ImageRoom
from pyboxd.runtime.spec import ContainerSpec, LogSettings, Mount, Rlimit, RootFilesystem
from tests.support.container_lab import Lab

Content = str | bytes | tarfile.TarInfo | None
Files = Mapping[str, Content]  # None is a directory


def archive(files: Files) -> bytes:
    """A tar of files; a TarInfo stands for itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.mtime = 1_600_000_000
            data = content.encode() if isinstance(content, str) else content
            if data is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size, info.mode = len(data), 0o644
            info.uid = info.gid = 4321  # the uploader's, which must not show
            tar.addfile(info, io.BytesIO(data or b""))
    return buffer.getvalue()


def entry(kind: bytes, link: str = "", mode: int = 0o755, **fields: object) -> tarfile.TarInfo:
    """A member of an archive that is no plain file; `archive` gives it its name."""
    info = tarfile.TarInfo()
    info.type, info.linkname, info.mode = kind, link, mode
    for key, value in fields.items():
        setattr(info, key, value)
    return info


def symlink(target: str) -> tarfile.TarInfo:
    return entry(tarfile.SYMTYPE, target)


@dataclass
class Built:
    """A finished build and what it printed."""

    image: Image
    output: list[BuildOutput]

    @property
    def text(self) -> str:
        return "".join(item.stream for item in self.output)

    @property
    def steps_cached(self) -> int:
        return self.text.count("---> Using cache")


@dataclass
class Runner:
    """Steps in real containers, without a network."""

    lab: Lab
    steps: list[RunStep] = field(default_factory=list)

    async def run(self, step: RunStep, output: Callable[[int, bytes], None]) -> int:
        self.steps.append(step)
        number = len(self.steps)
        spec = ContainerSpec(
            id=f"test-{os.getpid()}-{self.lab.folder.name}-b{number}",
            root=RootFilesystem(step.lower, step.upper, step.work),
            args=step.args,
            env=step.env,
            cwd=step.cwd,
            user=step.user,
            hostname=step.hostname,
            mounts=tuple(map(_mount, step.mounts)),
            run_dir=str(self.lab.folder / f"b{number}"),
            rlimits=(Rlimit("nofile", 1024, 4096),),
            log=LogSettings("none", ""),
        )
        process = await self.lab.runtime.create(spec)
        attachment = await process.attach(False, True, True)

        async def copy() -> None:
            async for kind, data in attachment.frames():
                output(kind, data)

        reading = asyncio.create_task(copy())
        await process.start()
        await reading
        ended = await process.wait()
        await attachment.close()
        await process.close()
        return ended.code


def _mount(mount: StepMount) -> Mount:
    options = (f"size={mount.size}",) if mount.size else ()
    return Mount(mount.kind, mount.source, mount.target, readonly=mount.readonly, options=options)


class BuildLab:
    """A builder over an empty store; `base` is an image with busybox in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        # the kernel mounts an EROFS out of a file of a disk, not of a tmpfs
        top = Path(locations.DATA, "test") if os.path.ismount(locations.DATA) else lab.folder
        self.folder = top / f"build-{lab.folder.name}"
        for name in ("layers", "tmp", "mounts"):
            (self.folder / name).mkdir(parents=True)
        self.database = Database(str(self.folder / "engine.db"))
        layers = LayerStore(
            lab.runtime,
            root=str(self.folder / "layers"),
            temporary=str(self.folder / "tmp"),
            mounts=str(self.folder / "mounts"),
        )
        self.images = ImageRoom(self.database, layers, architecture="amd64")
        self.runner = Runner(lab)
        self.builder = Builder(
            self.images,
            self.runner,
            self.database,
            str(self.folder / "tmp"),
            cache_mounts=str(self.folder / "caches"),
        )

    async def build(self, dockerfile: str, files: Files | None = None, **settings: object) -> Built:
        """Build a Dockerfile with files beside it; `settings` are fields of the request."""
        data = archive({"Dockerfile": dockerfile, **(files or {})})
        return await self.build_archive(data, **settings)

    async def build_archive(self, data: bytes, **settings: object) -> Built:
        output: list[BuildOutput] = []

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), 65536):
                yield data[start : start + 65536]

        try:
            image = await self.builder.build(BuildRequest(**settings), chunks(), output.append)  # type: ignore[arg-type]
        finally:
            self.last = Built(None, output)  # type: ignore[arg-type]
            assert os.listdir(self.folder / "tmp") == []
        return Built(image, output)

    async def base(self) -> Image:
        """An image `base` with busybox, passwd and group, from the lab's tree."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add(self.lab.image, arcname=".")
        built = await self.build("FROM scratch\nADD base.tar /\nCMD sh\n", {"base.tar": buffer.getvalue()}, tags=("base",))
        return built.image

    async def sh(self, image: Image, script: str) -> str:
        """What a script prints in a container of the image."""
        step = self.folder / f"look{len(self.runner.steps)}"
        (step / "upper").mkdir(parents=True)
        (step / "work").mkdir()
        lower = await self.images.mount_layers(image)
        seen = bytearray()
        wanted = RunStep(lower, str(step / "upper"), str(step / "work"), ("/bin/sh", "-c", script), ("PATH=/bin",))
        status = await self.runner.run(wanted, lambda _, data: seen.extend(data))
        text = seen.decode()
        assert status == 0, text
        return text

    async def content(self, image: Image) -> list[str]:
        """All lower directories of an image, to look at files without a container."""
        return list(await self.images.mount_layers(image))


def without_ids(text: str) -> str:
    """Output with every id of twelve digits replaced."""
    return re.sub(r"\b[0-9a-f]{12}\b", "ID", text)


def in_build_lab(folder: Path, scenario: Callable[[BuildLab], Awaitable[None]]) -> None:
    """Run a scenario with an empty store; all mounts of it are gone behind it."""
    from pyboxd.linux import constants as k
    from pyboxd.linux.mount import umount2
    from tests.support.container_lab import in_lab

    async def whole(lab: Lab) -> None:
        made = BuildLab(lab)
        try:
            await scenario(made)
        finally:
            made.database.close()
            for name in os.listdir(made.folder / "mounts"):
                if os.path.ismount(made.folder / "mounts" / name):
                    umount2(str(made.folder / "mounts" / name), k.MNT_DETACH)
            assert str(made.folder) not in Path("/proc/self/mounts").read_text()
            shutil.rmtree(made.folder)

    in_lab(folder, whole)
