"""An image's configuration under a container's: what the client left out comes from the image. Pure.

Rules of moby, daemon/commit.go (merge) and daemon/create.go.
"""

from __future__ import annotations

from pyboxd.engine.model import ContainerConfig
from pyboxd.errors import InvalidArgument
from pyboxd.frozen import replace
from pyboxd.model import Healthcheck, ImageConfig


def merge(config: ContainerConfig, image: ImageConfig) -> ContainerConfig:
    """The container's configuration in full. InvalidArgument when it has no command."""
    entrypoint, cmd = _command(config, image)
    merged = replace(
        config,
        user=config.user or image.user,
        exposed_ports=_union(config.exposed_ports, image.exposed_ports),
        env=_environment(config.env, image.env),
        entrypoint=entrypoint,
        cmd=cmd,
        volumes=_union(config.volumes, image.volumes),
        working_dir=config.working_dir or image.working_dir,
        labels=tuple(({**image.labels, **dict(config.labels)}).items()),
        stop_signal=config.stop_signal or image.stop_signal,
        shell=config.shell or image.shell,
        healthcheck=_healthcheck(config.healthcheck, image.healthcheck),
    )
    if not merged.entrypoint and not merged.cmd:
        raise InvalidArgument("no command specified")
    return merged


def _command(config: ContainerConfig, image: ImageConfig) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """Entry point and arguments. An entry point of one empty word is `--entrypoint ""`: none at all."""
    entrypoint, cmd = config.entrypoint, config.cmd
    if not entrypoint:
        cmd = cmd or image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == ("",):
        entrypoint = None
    return entrypoint, cmd


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _environment(own: tuple[str, ...], image: tuple[str, ...]) -> tuple[str, ...]:
    """The container's variables, then those of the image that it does not name."""
    names = {variable.partition("=")[0] for variable in own}
    return (*own, *(variable for variable in image if variable.partition("=")[0] not in names))


def _healthcheck(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """The container's check, its unset parts taken from the image's."""
    if own is None or image is None:
        return own or image
    return Healthcheck(
        test=own.test or image.test,
        interval=own.interval or image.interval,
        timeout=own.timeout or image.timeout,
        start_period=own.start_period or image.start_period,
        start_interval=own.start_interval or image.start_interval,
        retries=own.retries or image.retries,
    )
