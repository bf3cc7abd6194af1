"""POST …/update: new limits and a new restart policy for a container that may be running."""

from __future__ import annotations

from typing import Any

from pyboxd.engine import validate
from pyboxd.engine.containers import Container, Containers
from pyboxd.engine.events import Events
from pyboxd.engine.model import RestartPolicy
from pyboxd.engine.resources import resources
from pyboxd.errors import Conflict
from pyboxd.frozen import replace
from pyboxd.runtime import cgroup


async def update(
    containers: Containers, events: Events, container: Container, changes: dict[str, Any], policy: RestartPolicy | None
) -> list[str]:
    """Apply what is given (attributes of `Limits`), keep the rest; the warnings. InvalidArgument, Conflict."""
    given = {name: value for name, value in changes.items() if value not in (0, "", ())}
    async with container.lock:
        if container.removing:
            raise Conflict(f"Cannot update container {container.id}: container is marked for removal and cannot be updated")
        host = container.record.host
        limits = replace(host.limits, **given)
        if given.get("memory", 0) > 0 and "memory_swap" not in given and 0 < limits.memory_swap < limits.memory:
            raise Conflict(
                f"Cannot update container {container.id}: Memory limit should be smaller than already set memoryswap "
                "limit, update the memoryswap at the same time"
            )
        warnings = validate.check_limits(limits)
        if policy is not None:
            validate.check_policy(policy, host.auto_remove)
            host = replace(host, restart_policy=policy)
        if container.process is not None:
            cgroup.apply(container.process.cgroup, resources(limits))
        containers.update(container, host=replace(host, limits=limits))
    events.container(container.record, "update")
    return warnings
