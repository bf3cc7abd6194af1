"""What the hostagent and its callers say to each other: one JSON object a line, without I/O.

    caller                          hostagent
    {"do": "status"}            ->  status
    {"do": "wait"}              ->  phase…, then ready or failed
    {"do": "stop", "timeout"}   ->  stopped or failed
    {"do": "suspend"}           ->  suspended or failed (the machine runs on)

The same lines go through the pipe on which a start waits for its hostagent: phase…, then ready or failed. The other
way goes one line, GO: the hostagent may read what the start has written for it. Without it, the start was given up.
"""

from __future__ import annotations

import json
from typing import Any

from pybox.errors import MachineError, PyboxError
from pybox.frozen import frozen
from pybox.machine.status import MachineStatus
from pybox.model import Phase

GO = b"go\n"


@frozen
class Ready:
    """The machine answers."""

    status: MachineStatus


@frozen
class Failed:
    """It does not, and why."""

    error: MachineError


@frozen
class Stopped:
    """The machine is off."""


@frozen
class Suspended:
    """The machine is off, and its memory is kept."""


@frozen
class StatusReport:
    status: MachineStatus


Report = Phase | Ready | Failed | Stopped | Suspended | StatusReport


@frozen
class Order:
    """What a caller wants. `timeout` (seconds) is for `stop`: how long containers may take to end."""

    do: str  # status | wait | stop | suspend
    timeout: float = 10.0


def encode_report(report: Report) -> bytes:
    """Return a report as a line."""
    return json.dumps(_report_object(report)).encode() + b"\n"


def _report_object(report: Report) -> dict[str, Any]:
    match report:
        case Phase(name, seconds):
            return {"report": "phase", "name": name, "seconds": seconds}
        case Ready(status):
            return {"report": "ready", "status": status.to_json()}
        case StatusReport(status):
            return {"report": "status", "status": status.to_json()}
        case Failed(error):
            parts = {"brief": error.brief, "details": error.details, "resolution": error.resolution}
            return {"report": "failed", "error": parts}
        case Stopped():
            return {"report": "stopped"}
        case Suspended():
            return {"report": "suspended"}


def decode_report(line: bytes) -> Report:
    """Return the report of a line. Raises MachineError when it is none: the two sides are of different versions."""
    try:
        value = json.loads(line)
        match value["report"]:
            case "phase":
                return Phase(str(value["name"]), float(value["seconds"]))
            case "ready":
                return Ready(MachineStatus.from_json(value["status"]))
            case "status":
                return StatusReport(MachineStatus.from_json(value["status"]))
            case "failed":
                return Failed(MachineError(**value["error"]))
            case "stopped":
                return Stopped()
            case "suspended":
                return Suspended()
            case other:
                raise ValueError(f"unknown report {other!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise MachineError(
            "the hostagent's answer cannot be understood", f"{error}: {line[:200]!r}", "Restart the machine."
        ) from None


def encode_order(order: Order) -> bytes:
    """Return an order as a line."""
    return json.dumps({"do": order.do, "timeout": order.timeout}).encode() + b"\n"


def decode_order(line: bytes) -> Order:
    """Return the order of a line. Raises PyboxError when it is none."""
    try:
        value = json.loads(line)
        return Order(str(value["do"]), float(value.get("timeout", 10.0)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PyboxError("this order cannot be understood", f"{error}: {line[:200]!r}") from None
