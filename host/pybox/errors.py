"""Errors of the host program. `cli/main.py` is the one place that turns them into text and an exit status.

PyboxError            what failed, what was seen, what to do
 ├── UsageProblem     the command line or a setting is wrong          exit 2
 ├── MachineError     a machine cannot start, stop, answer            exit 1
 ├── EngineError      the engine answered with an HTTP error          exit 1 (125 for `run`)
 └── ImageBuildError  the guest image cannot be made                  exit 1
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class PyboxError(Exception):
    """An error that a person can act on.

    `brief` says what failed, in one line. `details` says what was seen (may be several lines).
    `resolution` says what to type or change.
    """

    brief: str
    details: str = ""
    resolution: str = ""

    def __str__(self) -> str:
        return self.brief


class UsageProblem(PyboxError):
    pass


class MachineError(PyboxError):
    pass


class ImageBuildError(PyboxError):
    pass


@dataclass
class EngineError(PyboxError):
    """The engine refused a request; `status` is the HTTP status, `exit_code` what the command ends with."""

    status: int = 500
    exit_code: int = 1
