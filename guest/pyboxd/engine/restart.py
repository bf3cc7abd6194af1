"""Restart policies: whether a container that ended is started again, and after how long. Pure."""

from __future__ import annotations

from pyboxd.engine.model import RestartPolicy

FIRST_DELAY = 0.1  # seconds
LONGEST_DELAY = 60.0
LONG_RUN = 10.0  # seconds; a run at least this long starts the delays from the beginning


def wanted(policy: RestartPolicy, exit_code: int, restarts: int, manually_stopped: bool) -> bool:
    """Whether a container that has ended is started again; `restarts` counts those in a row.

    Asked when its process ends, unless a stop or kill was the reason, and when the machine starts; only there does
    `manually_stopped` count, and only for `unless-stopped` (moby, daemon/internal/restartmanager).
    """
    if policy.name == "always":
        return True
    if policy.name == "unless-stopped":
        return not manually_stopped
    if policy.name == "on-failure":
        return exit_code != 0 and (policy.maximum_retry_count == 0 or restarts < policy.maximum_retry_count)
    return False


def delay(previous: float, run_time: float) -> float:
    """Seconds to wait before the next attempt, after a run of `run_time` seconds that waited `previous`."""
    if previous == 0.0 or run_time >= LONG_RUN:
        return FIRST_DELAY
    return min(previous * 2, LONGEST_DELAY)
