"""`pybox stats`: the engine's figures as Docker computes them, redrawn on a terminal."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from pybox.cli import output
from pybox.cli.output import size
from pybox.engine.client import EngineClient

REDRAW = 0.5  # seconds
PERCENT = 9  # characters before a bar
BAR = 10  # characters
COLUMNS = {
    "CONTAINER ID": "ID",
    "NAME": "Name",
    "CPU %": "CPUPerc",
    "MEM USAGE / LIMIT": "MemUsage",
    "MEM %": "MemPerc",
    "NET I/O": "NetIO",
    "BLOCK I/O": "BlockIO",
    "PIDS": "PIDs",
}


def show_once(client: EngineClient, names: Sequence[str], *, every: bool, full: bool, template: str | None) -> None:
    """Show the named (or all running) containers as they are now."""
    from concurrent.futures import ThreadPoolExecutor

    wanted = names or [item["Id"] for item in client.get("/containers/json", {"all": every})]
    with ThreadPoolExecutor(max_workers=max(len(wanted), 1)) as pool:
        found = list(pool.map(lambda name: client.get(f"/containers/{name}/stats", {"stream": False}), wanted))
    output.listing(COLUMNS, [row(item, full=full) for item in found], template)


def show_live(client: EngineClient, names: Sequence[str], *, every: bool, full: bool, template: str | None) -> None:
    """The same again and again, until interrupted or until no named container is left; redrawn on a terminal."""
    from pybox.app.figures import Figures

    figures = Figures(client, names, every=every)
    terminal = sys.stdout.isatty() and template is None
    while figures.update():
        rows = [row(item, full=full) for item in figures.latest()]
        if terminal:
            _draw(rows, figures.latest())
        elif rows:
            output.listing(COLUMNS, rows, template)
            sys.stdout.flush()
        time.sleep(REDRAW)


def _draw(rows: Sequence[dict[str, str]], items: Sequence[dict[str, Any]]) -> None:
    import shutil

    size = shutil.get_terminal_size()
    cells = [[item[key] for key in COLUMNS.values()] for item in rows]
    lines = output.table_lines([list(COLUMNS), *cells])
    if "utf" in (sys.stdout.encoding or "").lower():
        barred = output.table_lines([_with_room(list(COLUMNS)), *map(_with_bars, cells, items)])
        if max(map(len, barred)) <= size.columns:
            lines = barred
    shown = (f"{_coloured(line)}\x1b[K\n" for line in lines[: max(size.lines - 1, 1)])
    sys.stdout.write("\x1b[H" + "".join(shown) + "\x1b[J")
    sys.stdout.flush()


def _with_room(heads: list[str]) -> list[str]:
    return [head.ljust(PERCENT + BAR) if head in ("CPU %", "MEM %") else head for head in heads]


def _with_bars(cells: list[str], item: dict[str, Any]) -> list[str]:
    cpus = (item.get("cpu_stats") or {}).get("online_cpus") or 1
    shares = {2: cpu_percent(item) / cpus, 4: float(cells[4].rstrip("%"))}
    return [f"{text:<{PERCENT}}{bar(shares[place])}" if place in shares else text for place, text in enumerate(cells)]


def bar(percent: float) -> str:
    """BAR characters, filled from the left in eighths: "███▌      "."""
    eighths = round(min(max(percent, 0), 100) * BAR * 8 / 100)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(BAR)


def _coloured(line: str) -> str:
    def paint(match: re.Match[str]) -> str:
        length = len(match.group())
        return click.style(match.group(), fg="red" if length > 8 else "yellow" if length > 5 else "green")

    return re.sub("[█-▏]+", paint, line)


def row(item: dict[str, Any], *, full: bool = False) -> dict[str, str]:
    """One answer of GET …/stats as `docker stats` shows it (cgroup v2 rules)."""
    memory = item.get("memory_stats") or {}
    used = memory.get("usage", 0) - (memory.get("stats") or {}).get("inactive_file", 0)
    limit = memory.get("limit", 0)
    networks = (item.get("networks") or {}).values()
    received, sent = sum(n["rx_bytes"] for n in networks), sum(n["tx_bytes"] for n in networks)
    blocks = (item.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    read = sum(entry["value"] for entry in blocks if entry["op"].lower() == "read")
    written = sum(entry["value"] for entry in blocks if entry["op"].lower() == "write")
    return {
        "ID": item["id"] if full else item["id"][:12],
        "Container": item["id"] if full else item["id"][:12],
        "Name": item["name"].lstrip("/"),
        "CPUPerc": f"{cpu_percent(item):.2f}%",
        "MemUsage": f"{size(used, base=1024)} / {size(limit, base=1024)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{size(received)} / {size(sent)}",
        "BlockIO": f"{size(read)} / {size(written)}",
        "PIDs": str((item.get("pids_stats") or {}).get("current", 0)),
    }


def cpu_percent(item: dict[str, Any]) -> float:
    """Share of one CPU, in percent: 200 means two CPUs busy."""
    now, before = item.get("cpu_stats") or {}, item.get("precpu_stats") or {}

    def delta(*keys: str) -> float:
        values = []
        for stats in (now, before):
            value: Any = stats
            for key in keys:
                value = (value or {}).get(key)
            values.append(float(value or 0))
        return values[0] - values[1]

    spent, system = delta("cpu_usage", "total_usage"), delta("system_cpu_usage")
    return 100 * spent / system * (now.get("online_cpus") or 1) if system > 0 and spent > 0 else 0.0
