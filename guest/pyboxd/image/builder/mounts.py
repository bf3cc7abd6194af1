"""The mounts of one RUN: made before it, taken away behind it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterator, Sequence

from pyboxd.errors import InvalidArgument
from pyboxd.image.builder.doors import StepMount
from pyboxd.image.builder.places import Root, open_layers, open_plain, writable
from pyboxd.image.builder.runstep import SCRIPTS, CommandLine, MountOption, cache_folder
from pyboxd.image.builder.session import Session
from pyboxd.image.builder.sources import find_sources
from pyboxd.image.builder.stages import Stage
from pyboxd.image.builder.treecopy import CopyRules, TreeCopier
from pyboxd.image.workers import Stop, run_blocking
from pyboxd.linux import constants as k
from pyboxd.linux.mount import umount2


@contextlib.asynccontextmanager
async def step_mounts(
    session: Session, stage: Stage, options: Sequence[MountOption], line: CommandLine
) -> AsyncIterator[tuple[StepMount, ...]]:
    """The mounts while the block runs. InvalidArgument, OSError."""
    async with contextlib.AsyncExitStack() as stack:
        mounts = [await _mount(session, stage, option, stack) for option in options]
        if line.script:
            path = f"{session.new_folder('script')}/{line.script_name}"
            with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(line.script)
            os.chmod(path, 0o755)
            mounts.append(StepMount("bind", path, f"{SCRIPTS}/{line.script_name}", readonly=True))
        yield tuple(mounts)


async def _mount(session: Session, stage: Stage, option: MountOption, stack: contextlib.AsyncExitStack) -> StepMount:
    if option.kind == "tmpfs":
        return StepMount("tmpfs", "", option.target, size=option.size)
    if option.kind == "cache":
        if option.source_from:
            raise InvalidArgument("RUN --mount=type=cache with from= is not supported")
        folder = cache_folder(session.cache_mounts, option)
        if option.sharing != "shared":
            await stack.enter_async_context(session.cache_locks.setdefault(folder, asyncio.Lock()))
        return StepMount("bind", folder, option.target, readonly=option.readonly)
    place = session.new_folder("mount")
    if not option.source_from:
        source = await run_blocking(lambda stop: _copy_of_context(session, option.source, place, stop))
        return StepMount("bind", source, option.target, readonly=option.readonly)
    lower = await session.lower(await session.source_image(option.source_from, stage))
    if option.readonly:
        view: contextlib.AbstractContextManager[Root] = open_layers(lower, session.empty)
    else:  # what is written there is thrown away
        step = session.new_step()
        view = writable(lower, step.upper, step.work, session.empty)
    stack.enter_context(view).attach(place)
    stack.callback(umount2, place, k.MNT_DETACH)
    return StepMount("bind", _inside(place, option.source), option.target, readonly=option.readonly)


def _copy_of_context(session: Session, source: str, place: str, stop: Stop) -> str:
    """Path of a copy of a file or directory of the context. InvalidArgument."""
    try:
        (found,) = find_sources(session.context, [source or "."], from_context=True)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"failed to mount {source}: {error}") from error
    with session.context.item(found.path) as item, open_plain(place) as root:
        copier = TreeCopier(root, CopyRules((0, 0)), stop)
        if found.directory:
            copier.contents(item, "/copy", take_over=True)
        else:
            copier.file(item, "/", "copy")
    return f"{place}/copy"


def _inside(place: str, source: str) -> str:
    """The real path of `source` below the mount `place`; links are followed inside it."""
    with open_plain(place) as root:
        try:
            descriptor = root.open(source)
        except OSError as error:
            raise InvalidArgument(f"failed to mount {source or '/'}: {error.strerror}") from error
        try:
            mode = os.fstat(descriptor).st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                raise InvalidArgument(f"failed to mount {source}: it is neither a file nor a directory")
            return os.readlink(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
