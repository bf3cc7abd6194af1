"""Control groups, version 2: from resources to files (pure), and what is done to a cgroup's directory.

A cgroup is named by the path of its directory. The mapping is Docker's: see `files`.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import time
from collections.abc import Callable

from pyboxd import locations
from pyboxd.errors import InvalidArgument, SystemFailure

from .spec import Resources

CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
MINIMUM_MEMORY = 6 << 20
_FREEZE_TIMEOUT = 10.0  # seconds
_REMOVE_TIMEOUT = 5.0
Numbers = Callable[[str], tuple[int, int]]


def device_number(path: str) -> tuple[int, int]:
    """Major and minor of the device node at `path` of the guest. OSError."""
    number = os.stat(path).st_rdev
    return os.major(number), os.minor(number)


def files(resources: Resources, numbers: Numbers = device_number) -> list[tuple[str, str]]:
    """The files of a cgroup to write, in order, for these resources; what is not set writes nothing.

    Swap goes before memory: a lower memory limit must not be met by a swap limit of yesterday.
    """
    written = [*_memory(resources), *_cpu(resources)]
    if resources.pids_limit is not None:
        written.append(("pids.max", str(resources.pids_limit) if resources.pids_limit > 0 else "max"))
    if resources.blkio_weight:
        written.append(("io.weight", f"default {io_weight(resources.blkio_weight)}"))
    for limit in resources.io:
        major, minor = numbers(limit.path)
        values = (
            ("rbps", limit.read_bps),
            ("wbps", limit.write_bps),
            ("riops", limit.read_iops),
            ("wiops", limit.write_iops),
        )
        wanted = " ".join(f"{name}={value}" for name, value in values if value is not None)
        if wanted:
            written.append(("io.max", f"{major}:{minor} {wanted}"))
    return written


def _memory(resources: Resources) -> list[tuple[str, str]]:
    written = []
    memory, swap = resources.memory, resources.memory_swap
    if swap == -1:
        written.append(("memory.swap.max", "max"))
    elif memory and memory > 0:
        # Docker: without a word about swap, a container may swap as much again as it has memory
        written.append(("memory.swap.max", str(swap - memory if swap else memory)))
    if memory:
        written.append(("memory.max", str(memory) if memory > 0 else "max"))
    if resources.memory_reservation:
        written.append(("memory.low", str(resources.memory_reservation)))
    return written


def _cpu(resources: Resources) -> list[tuple[str, str]]:
    written = []
    if resources.cpu_shares:
        written.append(("cpu.weight", str(cpu_weight(resources.cpu_shares))))
    quota = resources.cpu_quota_us
    if quota:
        written.append(("cpu.max", f"{quota if quota > 0 else 'max'} {resources.cpu_period_us}"))
    if resources.cpuset_cpus:
        written.append(("cpuset.cpus", resources.cpuset_cpus))
    if resources.cpuset_mems:
        written.append(("cpuset.mems", resources.cpuset_mems))
    return written


def cpu_weight(shares: int) -> int:
    """cpu.weight (1 to 10000) for Docker's CPU shares (2 to 262144); 1024 shares are the weight 100."""
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    exponent = math.log2(shares)
    return math.ceil(10 ** ((exponent**2 + 125 * exponent) / 612 - 7 / 34))


def io_weight(weight: int) -> int:
    """io.weight (1 to 10000) for Docker's blkio weight (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990


def validate(resources: Resources, cpus: int) -> None:
    """Refuse what cannot be, in Docker's words; `cpus` are online. InvalidArgument."""
    memory, swap = resources.memory or 0, resources.memory_swap or 0
    if 0 < memory < MINIMUM_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if swap > 0 and memory <= 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if 0 < swap < memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if 0 < memory < (resources.memory_reservation or 0):
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if resources.blkio_weight and not 10 <= resources.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    quota, period = resources.cpu_quota_us or 0, resources.cpu_period_us
    if quota > 0 and quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if not 1000 <= period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if quota > cpus * period:
        raise InvalidArgument(f"Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")


def path_of(parent: str, name: str) -> str:
    """Directory of the cgroup `name` below Docker's `--cgroup-parent`. InvalidArgument if it leads outside."""
    parts = [part for part in parent.split("/") if part]
    if ".." in parts or "." in parts or "/" in name:
        raise InvalidArgument(f"invalid cgroup parent: {parent}")
    return "/".join([locations.CGROUP, *parts, name])


def create(path: str) -> int:
    """Make a cgroup with every controller there is; a descriptor of its directory. OSError.

    The groups above are made when they are missing, and hand all controllers down. One that is there already
    was left by a container that nobody keeps any more.
    """
    try:
        os.mkdir(path)
    except FileNotFoundError:
        _make_parents(os.path.dirname(path))
        os.mkdir(path)
    except FileExistsError:
        kill(path)
        remove(path)
        os.mkdir(path)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _make_parents(path: str) -> None:
    """Make the cgroup `path` and those above it, each one handing its controllers down."""
    if path != locations.CGROUP:
        _make_parents(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            os.mkdir(path)
    available = set(_read(f"{path}/cgroup.controllers").split())
    enabled = set(_read(f"{path}/cgroup.subtree_control").split())
    wanted = [name for name in CONTROLLERS if name in available and name not in enabled]
    if wanted:
        _write(path, "cgroup.subtree_control", " ".join(f"+{name}" for name in wanted))


def apply(path: str, resources: Resources) -> None:
    """Write the limits into a cgroup. SystemFailure names the file and the value."""
    for name, value in files(resources):
        try:
            _write(path, name, value)
        except FileNotFoundError:
            if name == "memory.swap.max" and value in ("0", "max"):
                continue  # a kernel that does not count swap has none to limit
            raise SystemFailure(f"the guest's kernel has no {name}") from None
        except OSError as error:
            raise SystemFailure(f"failed to write {value!r} to {name}: {error.strerror}") from error


def kill(path: str) -> None:
    """Kill every process in a cgroup and below it; nothing when it is gone."""
    with contextlib.suppress(FileNotFoundError):
        _write(path, "cgroup.kill", "1")


def freeze(path: str, frozen: bool) -> None:
    """Stop all processes of a cgroup, or let them go on; returns when the kernel has done so. SystemFailure."""
    _write(path, "cgroup.freeze", "1" if frozen else "0")
    if not _wait_for(path, "frozen", frozen, _FREEZE_TIMEOUT):
        with contextlib.suppress(OSError):
            _write(path, "cgroup.freeze", "0")
        raise SystemFailure(f"the processes of {os.path.basename(path)} did not stop in time")


def remove(path: str) -> None:
    """Remove a cgroup and those below it, once the processes in them are gone. SystemFailure if they stay."""
    try:
        _remove_tree(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        try:
            _wait_for(path, "populated", False, _REMOVE_TIMEOUT)
            _remove_tree(path)
        except OSError as again:
            if again.errno not in (errno.ENODEV, errno.ENOENT):  # somebody else has removed it
                raise SystemFailure(f"cgroup {path} cannot be removed: {again.strerror}") from again


def _remove_tree(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        try:
            os.rmdir(path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            with os.scandir(path) as entries:
                children = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
            for child in children:
                _remove_tree(child)
            os.rmdir(path)


def oom_kills(path: str) -> int:
    """How many processes of a cgroup the kernel has killed for want of memory."""
    with contextlib.suppress(FileNotFoundError):
        return _value(_read(f"{path}/memory.events"), "oom_kill")
    return 0


def processes(path: str) -> list[int]:
    """Process ids in a cgroup and below it, as this pid namespace numbers them."""
    found = []
    with contextlib.suppress(OSError):  # groups come and go while they are walked
        found += [int(line) for line in _read(f"{path}/cgroup.procs").split()]
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found += processes(entry.path)
    return found


def holds(path: str, pid: int) -> bool:
    """Whether a process is in a cgroup or below it: the guard against a process id that was used again."""
    try:
        line = _read(f"/proc/{pid}/cgroup")
    except (FileNotFoundError, ProcessLookupError):
        return False
    inside = path.removeprefix(locations.CGROUP)
    place = next((entry[3:] for entry in line.splitlines() if entry.startswith("0::")), "")
    return place == inside or place.startswith(f"{inside}/")


def _wait_for(path: str, key: str, wanted: bool, timeout: float) -> bool:
    """Wait until cgroup.events says so; the kernel wakes us when the file changes. OSError when it goes away."""
    deadline = time.monotonic() + timeout
    descriptor = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLPRI)
        while _value(os.pread(descriptor, 4096, 0).decode(), key) != int(wanted):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poller.poll(left * 1000)
        return True
    finally:
        os.close(descriptor)


def _value(text: str, key: str) -> int:
    """The number behind `key` in a file of `key number` lines, 0 if it is not there."""
    for line in text.splitlines():
        name, _, number = line.partition(" ")
        if name == key:
            return int(number)
    return 0


def _read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def _write(path: str, name: str, value: str) -> None:
    descriptor = os.open(f"{path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)
