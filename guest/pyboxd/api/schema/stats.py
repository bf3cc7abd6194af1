"""Docker's JSON of `docker stats` (moby, daemon/stats_unix.go: cgroups v2)."""

from __future__ import annotations

from pyboxd.api.fields import JsonObject
from pyboxd.engine.figures import Interface, Sample
from pyboxd.engine.timestamps import rfc3339
from pyboxd.runtime.stats import Stats


def stats(container_id: str, name: str, now: Sample, before: Sample | None) -> JsonObject:
    """One reading, and the one before it for the client to compare with."""
    value: JsonObject = {
        "id": container_id,
        "name": f"/{name}",
        "os_type": "linux",
        "read": rfc3339(now.read_at),
        "preread": rfc3339(before.read_at if before else 0),
        "num_procs": 0,
        "storage_stats": {},
    }
    if now.stats is None:  # what Docker says of a container that does not run
        empty = {"cpu_usage": _cpu_usage(None), "throttling_data": _throttling(None)}
        zero = rfc3339(0)
        return value | {"read": zero, "preread": zero, "cpu_stats": empty, "precpu_stats": empty} | _NOTHING
    used = now.stats
    value |= {
        "pids_stats": {"current": used.pids} | ({"limit": used.pids_limit} if used.pids_limit else {}),
        "blkio_stats": _block_io(used),
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": {
            "usage": used.memory_usage,
            "stats": dict(used.memory_stat),
            "limit": min(used.memory_limit or now.memory, now.memory),
        },
    }
    if now.interfaces:
        value["networks"] = {interface.name: _interface(interface) for interface in now.interfaces}
    return value


_NOTHING: JsonObject = {"pids_stats": {}, "blkio_stats": {}, "memory_stats": {}}


def _cpu(sample: Sample | None) -> JsonObject:
    used = sample.stats if sample else None
    value: JsonObject = {"cpu_usage": _cpu_usage(used)}
    if sample is not None:
        value |= {"system_cpu_usage": sample.system_ns, "online_cpus": sample.online_cpus}
    return value | {"throttling_data": _throttling(used)}


def _cpu_usage(used: Stats | None) -> JsonObject:
    return {
        "total_usage": used.cpu_total_ns if used else 0,
        "usage_in_kernelmode": used.cpu_system_ns if used else 0,
        "usage_in_usermode": used.cpu_user_ns if used else 0,
    }


def _throttling(used: Stats | None) -> JsonObject:
    return {
        "periods": used.throttling_periods if used else 0,
        "throttled_periods": used.throttled_periods if used else 0,
        "throttled_time": used.throttled_ns if used else 0,
    }


def _block_io(used: Stats) -> JsonObject:
    entries = [
        {"major": device.major, "minor": device.minor, "op": op, "value": value}
        for device in used.block_io
        for op, value in (("read", device.read_bytes), ("write", device.write_bytes))
    ]
    others = ("io_serviced", "io_queue", "io_service_time", "io_wait_time", "io_merged", "io_time")
    value: JsonObject = {"io_service_bytes_recursive": entries}
    return value | dict.fromkeys([*(f"{name}_recursive" for name in others), "sectors_recursive"])


def _interface(interface: Interface) -> JsonObject:
    return {
        "rx_bytes": interface.rx_bytes,
        "rx_packets": interface.rx_packets,
        "rx_errors": interface.rx_errors,
        "rx_dropped": interface.rx_dropped,
        "tx_bytes": interface.tx_bytes,
        "tx_packets": interface.tx_packets,
        "tx_errors": interface.tx_errors,
        "tx_dropped": interface.tx_dropped,
    }
