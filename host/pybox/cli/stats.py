"""`pybox stats`: the engine's figures as Docker computes them, redrawn on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pybox.cli import output
from pybox.cli.output import size
from pybox.engine.client import EngineClient

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


def show_stats(client: EngineClient, names: Sequence[str], *, every: bool, once: bool, template: str | None) -> None:
    """Show the named (or all running) containers, once or until interrupted."""
    terminal = sys.stdout.isatty() and template is None
    while True:
        wanted = names or [item["Id"] for item in client.get("/containers/json", {"all": every})]
        with ThreadPoolExecutor(max_workers=max(len(wanted), 1)) as pool:
            found = list(pool.map(lambda name: client.get(f"/containers/{name}/stats", {"stream": False}), wanted))
        if terminal and not once:
            sys.stdout.write("\x1b[2J\x1b[H")
        output.listing(COLUMNS, [row(item) for item in found], template, quiet_key=None)
        if once:
            return


def row(item: dict[str, Any]) -> dict[str, str]:
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
        "ID": item["id"][:12],
        "Container": item["id"][:12],
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
