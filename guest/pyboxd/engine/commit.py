"""`docker commit` and `docker import`: images out of a container's writable layer, or of a file tree in an archive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, suppress
from types import MappingProxyType

from pyboxd.engine import specs
from pyboxd.engine.containers import Container
from pyboxd.engine.model import ContainerConfig, Status
from pyboxd.engine.preparation import directory_of
from pyboxd.errors import InvalidArgument, NotFound
from pyboxd.image import config as codec
from pyboxd.image.images import Images, now
from pyboxd.image.model import HistoryEntry, Image, ImageDocument
from pyboxd.model import ImageConfig
from pyboxd.runtime.client import Process

_ALLOWED = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip


async def commit(
    images: Images,
    container: Container,
    changes: Sequence[str],
    *,
    author: str = "",
    comment: str = "",
    pause: bool = True,
) -> Image:
    """A new image: the container's image, its changes in files, its configuration, and `changes` (instructions)."""
    record = container.record
    config = with_changes(image_config(record.config), changes)
    parent = images.get(record.image_id)
    entry = HistoryEntry(created=now(), created_by=" ".join(record.command), author=author, comment=comment)
    async with AsyncExitStack() as undo:
        process = container.process
        if pause and process is not None and container.state.status == Status.RUNNING:
            with suppress(FileNotFoundError, NotFound):  # it is just ending, and holds still then
                await process.pause()
                undo.push_async_callback(_unpause, process)
        upper = specs.upper(directory_of(record.id))
        return await images.commit(parent, upper, config, entry, author=author)


async def _unpause(process: Process) -> None:
    with suppress(FileNotFoundError, NotFound):
        await process.unpause()


async def import_tree(images: Images, chunks: AsyncIterator[bytes], changes: Sequence[str], *, comment: str = "") -> Image:
    """A new image of one layer: the tree in an archive, compressed or not. InvalidArgument."""
    config = with_changes(ImageConfig(), changes)
    async with images.keeping() as keep:
        layer = keep(await images.layers.add_stream(chunks))
        created = now()
        document = ImageDocument(
            architecture=images.architecture,
            os="linux",
            config=config,
            layers=(layer.diff_id,),
            history=(HistoryEntry(created=created, comment=comment or "Imported from -"),),
            created=created,
            comment=comment or "Imported from -",
        )
        return images.add(codec.encode(document), [layer])


def image_config(config: ContainerConfig) -> ImageConfig:
    """What of a container's configuration an image carries."""
    return ImageConfig(
        user=config.user,
        exposed_ports=config.exposed_ports,
        env=config.env,
        entrypoint=config.entrypoint,
        cmd=config.cmd,
        volumes=config.volumes,
        working_dir=config.working_dir,
        labels=MappingProxyType(dict(config.labels)),
        stop_signal=config.stop_signal,
        shell=config.shell,
        on_build=config.on_build,
        healthcheck=config.healthcheck,
    )


def with_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The configuration after `--change` instructions. InvalidArgument."""
    from pyboxd.image.builder import metadata  # much to import, and seldom needed
    from pyboxd.image.builder.arguments import environment
    from pyboxd.image.builder.instructions import interpret
    from pyboxd.image.builder.parser import parse_line
    from pyboxd.image.builder.words import expand, expand_words

    def scope(variables: dict[str, str]) -> metadata.Scope:
        return metadata.Scope(lambda text: expand(text, variables), lambda text: expand_words(text, variables))

    for text in changes:
        raw = parse_line(text, 1)
        if raw.name.upper() not in _ALLOWED:
            raise InvalidArgument(f"{raw.name.upper()} is not a valid change command")
        change = metadata.apply(interpret(raw), config, scope(environment(config.env)))
        assert change is not None, raw.name
        config = change.config
    return config
