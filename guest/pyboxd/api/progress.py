"""Docker's JSON streams of long jobs (pull, load, build): one object per line, ended by CR LF, errors among them."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable

from pyboxd.api.fields import JsonObject
from pyboxd.errors import PyboxdError, SystemFailure
from pyboxd.image.model import Progress
from pyboxd.server.message import ClientGone

log = logging.getLogger(__name__)
Say = Callable[[JsonObject], None]


def line(value: JsonObject) -> bytes:
    """One message."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\r\n"


def message(progress: Progress) -> JsonObject:
    """A step of a job in the image room."""
    value: JsonObject = {"status": progress.status}
    if progress.current is not None or progress.total is not None:
        detail = {"current": progress.current, "total": progress.total}
        value["progressDetail"] = {key: number for key, number in detail.items() if number is not None}
    elif progress.id:
        value["progressDetail"] = {}
    if progress.id:
        value["id"] = progress.id
    return value


def failure(error: PyboxdError, code: int = 0) -> JsonObject:
    """A failure in the middle of a stream."""
    detail: JsonObject = {"message": str(error)}
    if code:
        detail = {"code": code} | detail
    return {"errorDetail": detail, "error": str(error)}


async def stream(
    job: Callable[[Say], Awaitable[None]],
    code_of: Callable[[PyboxdError], int] = lambda error: 0,
    held: int = 0,
) -> AsyncIterator[bytes]:
    """Run `job` and pass on what it says.

    A failure before anything was sent is raised and becomes the response's status; the first `held` messages are kept
    back for that, as they say nothing yet (-1: no failure becomes a status). The job is cancelled when the client leaves.
    """
    queue: asyncio.Queue[JsonObject | None] = asyncio.Queue()
    task = asyncio.ensure_future(job(queue.put_nowait))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    waiting: list[bytes] = []
    said = 0
    try:
        while (value := await queue.get()) is not None:
            said += 1
            waiting.append(line(value))
            if said > held:
                yield b"".join(waiting)
                waiting.clear()
        error = task.exception()
        if isinstance(error, ClientGone):  # in the middle of what it sends: nobody is left to be told
            raise error
        if error is not None:
            told = error if isinstance(error, PyboxdError) else _bug(error)
            if said <= held:
                raise told
            waiting.append(line(failure(told, code_of(told))))
        if waiting:
            yield b"".join(waiting)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _bug(error: BaseException) -> PyboxdError:
    """What the client is told of a bug; the log has the rest."""
    bug = secrets.token_hex(4)
    log.error("bug %s in a job", bug, exc_info=error)
    return SystemFailure(f"internal error {bug}: {type(error).__name__} (the engine's log has the details)")
