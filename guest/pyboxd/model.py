"""Values that several rooms of the guest share. Frozen; no behaviour beyond derived properties."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pyboxd.frozen import frozen

EMPTY: Mapping[str, str] = MappingProxyType({})


@frozen
class ImageConfig:
    """The run-time part of an OCI image configuration (image-spec, config.md, property `config`)."""

    user: str = ""
    exposed_ports: tuple[str, ...] = ()  # "8080/tcp"
    env: tuple[str, ...] = ()  # "NAME=value"
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: tuple[str, ...] = ()
    working_dir: str = ""
    labels: Mapping[str, str] = EMPTY
    stop_signal: str = ""
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] = ()
    healthcheck: Healthcheck | None = None


@frozen
class Healthcheck:
    """Docker's HEALTHCHECK; durations in nanoseconds, 0 means inherit."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@frozen
class RegistryAuth:
    """Credentials for one registry, as the X-Registry-Auth header carries them."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    server_address: str = ""
    registry_token: str = ""  # sent as it is, as a bearer token


@frozen
class PortRequest:
    """One `-p`: what the user asked for. `host_port` 0 means any free port; `host_ip` "" means the default."""

    container_port: int
    protocol: str = "tcp"  # tcp | udp
    host_ip: str = ""
    host_port: int = 0


@frozen
class PublishedPort:
    """One port that the host listens on for a container."""

    container_port: int
    protocol: str
    host_ip: str  # as Docker shows it ("0.0.0.0" when none was asked for)
    host_port: int
    guest_port: int  # port of the guest's card that QEMU forwards to


@frozen
class Share:
    """One folder of the host, an entry at the top of the FUSE mount."""

    name: str  # entry under SHARES in the guest
    host_path: str  # as the host writes it
    guest_path: str  # the path by which containers' bind sources name it (equals host_path on POSIX)
    readonly: bool = False
