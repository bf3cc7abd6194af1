"""Why a line does not reach its budget: what the profiles of these parts say. Used where it is not reached."""

from __future__ import annotations

_COLD = (
    "under emulation a machine that goes on from a state has no translated code: QEMU translates each piece of the "
    "guest's kernel and Python anew when it is first run, and a start is made of first runs. PROFILES.md has the steps."
)
_SAME_ROAD = "both engines' bytes go through QEMU's user network, and two runs differ by more than the engines do."
_ROUND_TRIPS = "each call goes through two Python processes, relay and server, one message at a time."

_REASONS = {
    "start.golden": _COLD,
    "start.qemu": _COLD,
    "start.cold": (
        "2.8 s are the kernel's and the first Python's, 1.0 s modules and devices, 1.4 s the engine's import (PROFILES.md)."
    ),
    "start.resume": _COLD,
    "start.fresh": (
        "two processors share eight times the start above: command, hostagent, folder server, QEMU and the guest's "
        "first steps come to a second and a half of processor time each."
    ),
    "start.fresh-memory": (
        "of a machine that has just started 58 MB are QEMU's own and its translated code, 13 MB are pages that the guest "
        "has written, about 40 MB are Python processes on the host; the state's pages are shared."
    ),
    "exec.true": (
        "three API calls, the join of six namespaces by a fork of a Python process, and the program's own start; "
        "PROFILES.md has the steps."
    ),
    "cli.ps": "Python's start and the import of click are half of it.",
    "memory.idle": (
        "six Python processes; the engine's modules alone are 12 MB, OpenSSL 4 MB. The spawner and a spare monitor hold "
        "pages of their own, because counting references writes to them."
    ),
    "net.out": _SAME_ROAD,
    "net.latency": _SAME_ROAD,
    "images.pull": "the kernel's TCP takes 10 ms a megabyte, SHA-256 13 ms, twice; writing and unpacking share the rest.",
    "images.load": "the kernel's TCP takes 10 ms a megabyte, SHA-256 13 ms, writing 13 ms, on two processors.",
    "folder.again": "what was looked at stays valid for a second only, until changes on the host are watched for.",
    "folder.create": _ROUND_TRIPS,
    "folder.small": _ROUND_TRIPS,
    "folder.unlink": _ROUND_TRIPS,
    "folder.read": "virtiofsd maps what the guest reads; here it is copied through a serial port, 128 KiB at a time.",
}


def reason(series: str) -> str:
    """Return what is known of a series, "" when nothing is."""
    return _REASONS.get(series, "")
