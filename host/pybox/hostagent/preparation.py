"""Before a machine's life: everything that a start needs is looked at, and what is missing is made."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from pybox import hostos
from pybox.frozen import replace
from pybox.hostagent import configuration
from pybox.hostagent.plan import Plan
from pybox.hostos.interface import native_arch
from pybox.machine import disks, keys
from pybox.machine.accelerators import Candidate, VerdictBook, choose
from pybox.machine.files import MachineFiles, StartRequest
from pybox.machine.image import GuestImage
from pybox.machine.suspended import Record
from pybox.model import Share
from pybox.qemu import probe

_CPUS_AT_MOST = 4
_MEMORY_MIB = (2048, 8192)  # least and most of a default machine


def default_memory_mib(total: int) -> int:
    """Return a machine's memory on a host with `total` MiB: a quarter, between 2 and 8 GiB."""
    least, most = _MEMORY_MIB
    return max(least, min(most, total // 4))


def default_cpus(total: int) -> int:
    """Return a machine's CPUs on a host with `total`: half, at most 4."""
    return max(1, min(_CPUS_AT_MOST, total // 2))


def prepare(files: MachineFiles, request: StartRequest, book: VerdictBook) -> tuple[Plan, list[Candidate]]:
    """Return how the machine will be run, and under which accelerators that is to be tried. Raises PyboxError."""
    host = hostos.current()
    settings = request.settings
    folders = configuration.shares(settings, host) if _can_serve() else []
    plan = _plan(files, request, folders)
    candidates = choose(host, plan.qemu, plan.image.arch, native_arch(), settings.accelerator, book)
    disks.ensure(plan.qemu, files.data_disk, settings.disk_size)
    return plan, candidates


def prepare_resume(files: MachineFiles, request: StartRequest, record: Record) -> tuple[Plan, Candidate]:
    """Return how a suspended machine goes on: as the one that it was. What settings say since then waits for its
    next start, as it does for one that runs. Raises PyboxError.
    """
    plan = _plan(files, request, record.shares)
    return replace(plan, memory_mib=record.memory_mib, cpus=record.cpus), Candidate(record.accelerator, proved=True)


def _plan(files: MachineFiles, request: StartRequest, folders: Sequence[Share]) -> Plan:
    host = hostos.current()
    settings = request.settings
    image = GuestImage.open(request.image)
    return Plan(
        files=files,
        settings=settings,
        image=image,
        keys=keys.ensure(files.keys),
        qemu=probe.find(image.arch, settings.qemu, files.paths.qemu_file),
        memory_mib=settings.memory_mib or default_memory_mib(host.total_memory_mib()),
        cpus=settings.cpus or default_cpus(os.cpu_count() or 1),
        certificates=configuration.certificates(settings, host),
        shares=tuple(folders),
    )


def _can_serve() -> bool:
    """Say whether this installation has the folder server."""
    return importlib.util.find_spec("pybox.share.server") is not None
