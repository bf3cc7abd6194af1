"""Errors of the host program. `cli/main.py` is the one place that turns them into text and an exit status.

PyboxError            what failed, what was seen, what to do
 ├── UsageProblem     the command line or a setting is wrong          exit 2
 ├── MachineError     a machine cannot start, stop, answer            exit 1
 ├── EngineError      the engine answered with an HTTP error          exit 1 (125 for `run`)
 └── ImageBuildError  the guest image cannot be made                  exit 1
"""

from __future__ import annotations


class PyboxError(Exception):
    """An error that a person can act on.

    `brief` says what failed, in one line. `details` says what was seen (may be several lines).
    `resolution` says what to type or change.
    """

    def __init__(self, brief: str, details: str = "", resolution: str = "") -> None:
        super().__init__(brief, details, resolution)
        self.brief = brief
        self.details = details
        self.resolution = resolution

    def __str__(self) -> str:
        return self.brief

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.__dict__ == other.__dict__

    __hash__ = Exception.__hash__


class UsageProblem(PyboxError):
    pass


class MachineError(PyboxError):
    pass


class ImageBuildError(PyboxError):
    pass


class EngineError(PyboxError):
    """The engine refused a request; `status` is the HTTP status, `exit_code` what the command ends with."""

    def __init__(self, brief: str, details: str = "", resolution: str = "", status: int = 500, exit_code: int = 1) -> None:
        super().__init__(brief, details, resolution)
        self.status = status
        self.exit_code = exit_code
