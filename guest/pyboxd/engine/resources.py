"""Docker's resource limits as those of a cgroup. Pure."""

from __future__ import annotations

from pyboxd.engine.model import Limits, ThrottleDevice
from pyboxd.runtime.spec import IoLimit, Resources

_PERIOD = 100_000  # microseconds


def resources(limits: Limits) -> Resources:
    """The runtime's form of `limits`."""
    quota, period = limits.cpu_quota, limits.cpu_period or _PERIOD
    if limits.nano_cpus:
        quota, period = limits.nano_cpus * _PERIOD // 10**9, _PERIOD
    return Resources(
        memory=limits.memory or None,
        memory_swap=limits.memory_swap or None,
        memory_reservation=limits.memory_reservation or None,
        cpu_quota_us=quota or None,
        cpu_period_us=period,
        cpu_shares=limits.cpu_shares or None,
        cpuset_cpus=limits.cpuset_cpus,
        cpuset_mems=limits.cpuset_mems,
        pids_limit=limits.pids_limit or None,
        io=_io(limits),
        blkio_weight=limits.blkio_weight or None,
    )


def _io(limits: Limits) -> tuple[IoLimit, ...]:
    """One entry per device from Docker's four lists."""
    read_bps, write_bps = _rates(limits.blkio_device_read_bps), _rates(limits.blkio_device_write_bps)
    read_iops, write_iops = _rates(limits.blkio_device_read_iops), _rates(limits.blkio_device_write_iops)
    return tuple(
        IoLimit(path, read_bps.get(path), write_bps.get(path), read_iops.get(path), write_iops.get(path))
        for path in {**read_bps, **write_bps, **read_iops, **write_iops}
    )


def _rates(devices: tuple[ThrottleDevice, ...]) -> dict[str, int]:
    return {device.path: device.rate for device in devices}
