"""Checks of what a client asks for, one small function each, in Docker's words (moby, daemon_unix.go, container.go).

Each check raises InvalidArgument; `check_create` and `check_limits` also return warnings for the client. Docker
ignores what cgroups v2 does not have, with a warning, and so does this.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from pyboxd.engine import cpus
from pyboxd.engine.model import ContainerConfig, HostConfig, Limits, RestartPolicy, ThrottleDevice, WeightDevice
from pyboxd.engine.resources import resources
from pyboxd.errors import InvalidArgument, NotImplementedHere
from pyboxd.frozen import replace
from pyboxd.model import Healthcheck
from pyboxd.runtime import cgroup

LEAST_MEMORY = 6 * 1024 * 1024  # bytes
LOG_DRIVERS = ("json-file", "local", "none")
_POLICIES = ("no", "always", "unless-stopped", "on-failure")
_RUNTIMES = ("", "runc", "io.containerd.runc.v2")
_MILLISECOND = 1_000_000


def check_create(config: ContainerConfig, host: HostConfig) -> list[str]:
    """Everything about a new container that can be said without looking at the system."""
    _check_config(config)
    _check_healthcheck(config.healthcheck)
    _check_host(config, host)
    check_policy(host.restart_policy, host.auto_remove)
    return [*check_limits(host.limits), *_warnings(host)]


def _check_config(config: ContainerConfig) -> None:
    for variable in config.env:
        if variable.startswith("=") or not variable:
            raise InvalidArgument(f"invalid environment variable: {variable}")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")
    if len(config.hostname) > 64:
        raise InvalidArgument(f"invalid hostname format: {config.hostname}")


def _check_healthcheck(check: Healthcheck | None) -> None:
    if check is None:
        return
    names = (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    )
    for name, duration in names:
        if duration and duration < _MILLISECOND:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def _check_host(config: ContainerConfig, host: HostConfig) -> None:
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if host.runtime not in _RUNTIMES:
        raise InvalidArgument(f"unknown or invalid runtime name: {host.runtime}")
    if host.log_config.type and host.log_config.type not in LOG_DRIVERS:
        driver = host.log_config.type
        raise InvalidArgument(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation '{host.isolation}' on linux")
    if host.userns_mode not in ("", "host"):
        raise InvalidArgument("invalid user namespace mode")
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    for request in host.device_requests:
        shown = " ".join(f"[{' '.join(names)}]" for names in request.capabilities)
        raise InvalidArgument(f'could not select device driver "{request.driver}" with capabilities: [{shown}]')
    if host.storage_opt:
        raise NotImplementedHere("--storage-opt is not supported: a container's disk space has no limit of its own")
    _check_network_mode(config, host)


def _check_network_mode(config: ContainerConfig, host: HostConfig) -> None:
    if not host.network_mode.startswith("container:"):
        return
    kind = "conflicting options: {} and the container type network mode"
    if config.hostname:
        raise InvalidArgument("conflicting options: hostname and the network mode")
    if host.dns:
        raise InvalidArgument("conflicting options: dns and the network mode")
    if host.extra_hosts:
        raise InvalidArgument("conflicting options: custom host-to-IP mapping and the network mode")
    if host.port_bindings:
        raise InvalidArgument(kind.format("port publishing"))
    if config.exposed_ports and host.publish_all_ports:
        raise InvalidArgument(kind.format("port exposing"))


def check_policy(policy: RestartPolicy, auto_remove: bool = False) -> None:
    """A restart policy."""
    if policy.name and policy.name not in _POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or "
            "'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")


def check_limits(limits: Limits) -> list[str]:
    """Resource limits; what they warn about."""
    _check_memory(limits)
    _check_cpu(limits)
    cgroup.validate(resources(limits), cpus.count())
    throttled: tuple[ThrottleDevice | WeightDevice, ...] = (
        *limits.blkio_device_read_bps,
        *limits.blkio_device_write_bps,
        *limits.blkio_device_read_iops,
        *limits.blkio_device_write_iops,
        *limits.blkio_weight_device,
    )
    for device in throttled:
        if not os.path.exists(device.path):
            raise InvalidArgument(f"no such device: {device.path}")
    return list(_limit_warnings(limits))


def _check_memory(limits: Limits) -> None:
    if 0 < limits.memory_reservation < LEAST_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")


def _check_cpu(limits: Limits) -> None:
    if limits.nano_cpus:
        if limits.cpu_period:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if limits.cpu_quota:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if limits.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({limits.cpu_shares}): value must be a positive integer")
    if limits.cpuset_cpus:
        _check_set("CPUs", limits.cpuset_cpus, cpus.online())
    if limits.cpuset_mems:
        _check_set("memory nodes", limits.cpuset_mems, cpus.memory_nodes())


def _check_set(what: str, text: str, present: frozenset[int]) -> None:
    option = "cpus" if what == "CPUs" else "mems"
    try:
        asked = cpus.parse_list(text)
    except ValueError:
        raise InvalidArgument(f"Invalid value {text} for cpuset {option}") from None
    if not asked <= present:
        raise InvalidArgument(
            f"Requested {what} are not available - requested {text}, available: {cpus.format_list(present)}"
        )


def _limit_warnings(limits: Limits) -> Iterator[str]:
    if limits.kernel_memory:
        yield "Specifying a kernel memory limit is not supported; it was discarded."
    if limits.memory_swappiness not in (None, -1):
        yield (
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. "
            "Memory swappiness discarded."
        )
    if limits.oom_kill_disable:
        yield ("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    if limits.cpu_realtime_period or limits.cpu_realtime_runtime:
        yield "Your kernel does not support CPU real-time scheduling; its settings were discarded."


def _warnings(host: HostConfig) -> Iterator[str]:
    if host.network_mode == "host" and (host.port_bindings or host.publish_all_ports):
        yield "Published ports are discarded when using host network mode"


def with_defaults(host: HostConfig) -> HostConfig:
    """The host configuration as Docker stores it: what was left out gets Docker's value."""
    limits = host.limits
    if limits.memory > 0 and limits.memory_swap == 0:
        limits = replace(limits, memory_swap=limits.memory * 2)
    return replace(
        host,
        limits=replace(limits, oom_kill_disable=None, memory_swappiness=None, kernel_memory=0),
        log_config=replace(host.log_config, type=host.log_config.type or "json-file"),
        restart_policy=replace(host.restart_policy, name=host.restart_policy.name or "no"),
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        ipc_mode=host.ipc_mode or "private",
        cgroupns_mode=host.cgroupns_mode or "private",
        shm_size=host.shm_size or 64 * 1024 * 1024,
        runtime=host.runtime or "runc",
    )
