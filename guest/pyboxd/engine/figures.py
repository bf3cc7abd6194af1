"""What running containers use and what runs in them: `docker stats` and `docker top`."""

from __future__ import annotations

import os
import pwd
import time
from collections.abc import Sequence

from pyboxd.engine import cpus
from pyboxd.engine.containers import Container
from pyboxd.errors import Conflict, InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.runtime import cgroup
from pyboxd.runtime.stats import Stats, read_stats

_TICKS = os.sysconf("SC_CLK_TCK")
_NET_FIELDS = 16


@frozen
class Interface:
    """Traffic of one network interface since it was made."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


@frozen
class Sample:
    """One reading of a container; `stats` is None when it does not run."""

    read_at: int  # nanoseconds since the epoch
    stats: Stats | None = None
    interfaces: tuple[Interface, ...] = ()
    system_ns: int = 0  # processor time of the whole machine, idle time included
    online_cpus: int = 0
    memory: int = 0  # of the machine


def sample(container: Container) -> Sample:
    """Read a container's figures now."""
    process = container.process
    if process is None:
        return Sample(time.time_ns())
    return Sample(
        read_at=time.time_ns(),
        stats=read_stats(process.cgroup),
        interfaces=_interfaces(process.pid),
        system_ns=_system_time(),
        online_cpus=cpus.count(),
        memory=cpus.memory(),
    )


def _system_time() -> int:
    """The first seven fields of /proc/stat's first line, as Docker adds them up."""
    with open("/proc/stat", encoding="ascii") as file:
        fields = file.readline().split()[1:8]
    return sum(int(field) for field in fields) * 10**9 // _TICKS


def _interfaces(pid: int) -> tuple[Interface, ...]:
    try:
        with open(f"/proc/{pid}/net/dev", encoding="ascii") as file:
            lines = file.read().splitlines()[2:]
    except OSError:
        return ()
    found = []
    for line in lines:
        name, _, rest = line.partition(":")
        numbers = [int(field) for field in rest.split()]
        if name.strip() != "lo" and len(numbers) >= _NET_FIELDS:
            found.append(Interface(name.strip(), *numbers[0:4], *numbers[8:12]))
    return tuple(found)


_FULL = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
_AUX = ("USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND")


def top(container: Container, arguments: str) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Titles and rows of `ps ARGUMENTS` for a container's processes. Conflict when it does not run.

    `-ef` (the default), `aux` and `-o NAME,…` are known; the guest has no full ps to ask.
    """
    if container.process is None:
        raise Conflict(f"container {container.id} is not running")
    columns = titles(arguments or "-ef")
    rows = []
    for pid in sorted(cgroup.processes(container.process.cgroup)):
        row = process_row(pid)
        if row is not None:
            rows.append(tuple(row.get(title.upper(), "-") for title in columns))
    return tuple(columns), tuple(rows)


def titles(arguments: str) -> Sequence[str]:
    """The columns that arguments of ps ask for. InvalidArgument when there is no PID among them."""
    words = arguments.split()
    chosen: list[str] = []
    for index, word in enumerate(words):
        if word in ("-o", "o", "-eo", "--format") and index + 1 < len(words):
            chosen += words[index + 1].split(",")
        elif word.startswith("-o") and len(word) > 2:
            chosen += word[2:].split(",")
    if chosen:
        columns = [name.partition("=")[0].upper() for name in chosen]
        if "PID" not in columns:
            raise InvalidArgument("Couldn't find PID field in ps output")
        return ["COMMAND" if column in ("ARGS", "COMM") else column for column in columns]
    return _AUX if any(("u" in word and not word.startswith("-")) or word == "-aux" for word in words) else _FULL


def process_row(pid: int) -> dict[str, str] | None:
    """One process in the columns of ps; None when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            command = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
        owner = os.stat(f"/proc/{pid}").st_uid
        with open("/proc/uptime", encoding="ascii") as file:
            uptime = float(file.read().split()[0])
    except OSError:
        return None
    name = text[text.index("(") + 1 : text.rindex(")")]
    fields = text[text.rindex(")") + 2 :].split()
    seconds = (int(fields[11]) + int(fields[12])) / _TICKS
    age = max(uptime - int(fields[19]) / _TICKS, 0.01)
    started = time.localtime(time.time() - age)
    resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    share = seconds * 100 / age
    shown = command or f"[{name}]"
    user = _user(owner)
    return {
        "UID": user,
        "USER": user,
        "PID": str(pid),
        "PPID": fields[1],
        "C": str(int(share)),
        "STIME": time.strftime("%H:%M", started),
        "START": time.strftime("%H:%M", started),
        "TTY": _terminal(int(fields[4])),
        "TIME": time.strftime("%H:%M:%S", time.gmtime(seconds)),
        "CMD": shown,
        "COMMAND": shown,
        "STAT": fields[0],
        "S": fields[0],
        "%CPU": f"{share:.1f}",
        "PCPU": f"{share:.1f}",
        "%MEM": f"{resident * 100 / cpus.memory():.1f}",
        "VSZ": str(int(fields[20]) // 1024),
        "RSS": str(resident // 1024),
        "NI": fields[16],
        "PRI": fields[15],
    }


def _terminal(number: int) -> str:
    major, minor = os.major(number), os.minor(number)
    return f"pts/{minor}" if 136 <= major < 144 else "?"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
