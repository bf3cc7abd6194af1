"""Why a process could not be started, in the words that Docker's clients know.

The docker CLI chooses its own exit status 125, 126 or 127 by these texts, so their wording is an interface.
"""

from __future__ import annotations

import os

from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.frozen import frozen

_CREATE = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: "
    "runc create failed: unable to start container process: "
)
_EXEC = "OCI runtime exec failed: exec failed: unable to start container process: "


class StartFailure(SystemFailure):
    """A process could not be started; `exit_code` is what the container or exec is recorded with."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CommandFailure(InvalidArgument, StartFailure):
    """The command itself was the reason: not there (127), or there and not to be executed (126)."""


@frozen
class Failure:
    """A failure on its way from the container's first process to the engine.

    `plain` failures are Docker's own words and not the runtime's, so they get no prefix.
    """

    detail: str
    plain: bool = False


def words(error: OSError) -> str:
    """An OSError as Go prints it: what was done, then the reason in lower case."""
    if error.errno is None:
        return str(error)
    reason = os.strerror(error.errno)
    shown = str(error.strerror or reason).replace(reason, reason[:1].lower() + reason[1:])
    return f"{shown} ({os.fspath(error.filename)})" if error.filename else shown


def start_failure(failure: Failure, is_exec: bool) -> StartFailure:
    """The error for the engine."""
    if failure.plain:
        message = failure.detail
    elif is_exec:
        message = f"{_EXEC}{failure.detail}: unknown"
    else:
        message = f"{_CREATE}error during container init: {failure.detail}: unknown"
    code = _exit_code(failure.detail)
    if code not in (126, 127):
        return StartFailure(message, 126 if failure.plain and is_exec else code)
    if "is a directory" in failure.detail and not failure.plain:
        message += ": permission denied"  # moby has it for its own CLI, which looks for these words
    return CommandFailure(message, code)


def _exit_code(detail: str) -> int:
    """moby, daemon/errors.go: the recorded exit status follows from the text."""
    if any(text in detail for text in ("executable file not found", "no such file or directory", "not a directory")):
        return 127
    if any(text in detail for text in ("permission denied", "is a directory", "exec format error")):
        return 126
    return 128
