"""The containers that a build's RUN steps run in: made, followed and taken away in one go, listed nowhere."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Protocol

from pyboxd import locations
from pyboxd.engine import mountpoints, networking
from pyboxd.engine.model import ContainerConfig, EndpointConfig, HostConfig, Limits, Record
from pyboxd.engine.networking import Networking
from pyboxd.engine.preparation import run_directory_of
from pyboxd.engine.resources import resources
from pyboxd.engine.specs import environment
from pyboxd.engine.trees import remove_tree
from pyboxd.frozen import replace
from pyboxd.image.builder.doors import RunStep, StepMount
from pyboxd.runtime.client import Process
from pyboxd.runtime.spec import DEFAULT_SHM_SIZE, ContainerSpec, Mount, RootFilesystem

_MANAGED = (("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts"), ("hostname", "/etc/hostname"))


class StepRuntime(Protocol):
    """The part of the runtime that is needed here."""

    async def create(self, spec: ContainerSpec) -> Process: ...


class Steps:
    """Runs build steps; `image.builder.doors.StepRunner`."""

    def __init__(self, runtime: StepRuntime, networks: Networking) -> None:
        self._runtime = runtime
        self._networks = networks

    async def run(self, step: RunStep, output: Callable[[int, bytes], None]) -> int:
        """Status of the command; nothing of the container is left. PyboxdError when it cannot start."""
        record = _record(step)
        directory = f"{locations.TEMPORARY}/step-{record.short_id}"
        run_dir = run_directory_of(record.id)
        async with AsyncExitStack() as undo:
            os.makedirs(directory, mode=0o700)
            undo.callback(remove_tree, directory)
            undo.callback(remove_tree, run_dir)
            places = f"{directory}/mountpoints"
            if mountpoints.make(step.lower, places):
                step = replace(step, lower=(places, *step.lower))
            network, attachments = await self._networks.attach(record)
            undo.push_async_callback(self._networks.detach, record)
            networking.write_files(record, directory, attachments)
            process = await self._runtime.create(_spec(step, record, directory, run_dir, network))
            undo.push_async_callback(self._end, process)
            attachment = await process.attach(False, True, True)
            undo.push_async_callback(attachment.close)
            await process.start()
            async for stream, data in attachment.frames():
                output(stream, data)
            return (await process.wait()).code

    async def _end(self, process: Process) -> None:
        """Also when the build is given up in the middle: the command must not go on."""
        if process.started:
            await process.kill_all()
            await process.wait()
        await process.close()


def _record(step: RunStep) -> Record:
    """A container as far as its network and files are concerned."""
    container_id = secrets.token_hex(32)
    mode = "bridge" if step.network in ("", "default") else step.network
    return Record(
        id=container_id,
        name=f"build_{container_id[:12]}",
        created=0,
        image_id="",
        image_name="",
        platform="linux",
        config=ContainerConfig(hostname=step.hostname or container_id[:12], env=step.env),
        host=HostConfig(network_mode=mode, extra_hosts=step.extra_hosts),
        endpoints=(EndpointConfig(mode),),
    )


def _spec(step: RunStep, record: Record, directory: str, run_dir: str, network: str) -> ContainerSpec:
    targets = {mount.target for mount in step.mounts}
    managed = [Mount("bind", f"{directory}/{name}", target) for name, target in _MANAGED if target not in targets]
    mounts = [*managed, *(_mount(mount) for mount in step.mounts)]
    return ContainerSpec(
        id=record.id,
        root=RootFilesystem(step.lower, step.upper, step.work, volatile=True),  # a crash ends the build
        args=step.args,
        run_dir=run_dir,
        env=environment(record),
        cwd=step.cwd or "/",
        user=step.user,
        hostname=record.config.hostname,
        mounts=tuple(sorted(mounts, key=lambda mount: mount.target.count("/"))),
        network=network,
        resources=resources(Limits(memory=step.memory)),
        shm_size=step.shm_size or DEFAULT_SHM_SIZE,
    )


def _mount(mount: StepMount) -> Mount:
    options = (f"mode={mount.mode:o}", *((f"size={mount.size}",) if mount.size else ())) if mount.kind == "tmpfs" else ()
    return Mount(mount.kind, mount.source, mount.target, mount.readonly, options=options)
