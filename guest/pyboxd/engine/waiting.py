"""POST /containers/{id}/wait: who waits for what (moby, container/state.go)."""

from __future__ import annotations

import asyncio

from pyboxd.engine.containers import Container, Waiter
from pyboxd.errors import InvalidArgument

NOT_RUNNING, NEXT_EXIT, REMOVED = "not-running", "next-exit", "removed"
CONDITIONS = (NOT_RUNNING, NEXT_EXIT, REMOVED)
Outcome = tuple[int, str]  # exit status, error text


def watch(container: Container, condition: str) -> asyncio.Future[Outcome]:
    """A future for `condition`; to be cancelled by whoever stops waiting. InvalidArgument.

    `not-running` is met at once by a container that does not run, `next-exit` never by what was before.
    """
    condition = condition or NOT_RUNNING
    if condition not in CONDITIONS:
        raise InvalidArgument(f'invalid condition: "{condition}"')
    result: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    if condition == NOT_RUNNING and not container.state.running:
        result.set_result(outcome(container))
        return result
    waiter = Waiter(condition, result)
    container.waiters.append(waiter)
    result.add_done_callback(lambda _: container.waiters.remove(waiter) if waiter in container.waiters else None)
    return result


def tell(container: Container, *conditions: str) -> None:
    """These conditions are met now."""
    for waiter in tuple(container.waiters):
        if waiter.condition in conditions and not waiter.result.done():
            code, error = outcome(container)
            waiter.result.set_result((code, "" if waiter.condition == REMOVED else error))


def outcome(container: Container) -> Outcome:
    """How the container's last run ended."""
    return container.state.exit_code, container.state.error
