"""A stand-in for testcontainers' reaper, `testcontainers/ryuk`: it removes what a test's process could not.

A client connects to port 8080 and says by filters what is its own, one in a line: `label=A=B&label=C=D`, answered with
`ACK` (`connection` does that). When the last connection has ended and none comes for RYUK_RECONNECTION_TIMEOUT, the
containers, networks, volumes and images with these labels are removed over the engine's socket, and this program and
its container end. So they do when nobody comes for RYUK_CONNECTION_TIMEOUT.

Needs Python's own library only.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

ENGINE = "/var/run/docker.sock"
STATE = Path("/reaper/state")  # `asked`: the lines of all clients; clients/: an entry for each connection
ROUNDS = 10  # a network is refused as long as one of its containers goes
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0}


def seconds(text: str) -> float:
    """A time as Go writes it: "10s", "1m30s", "500ms". ValueError."""
    if re.fullmatch(r"(\d+(ms|s|m))+", text) is None:
        raise ValueError(f"not a time: {text}")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|s|m)", text))


def labels_of(line: str) -> tuple[str, ...]:
    """The labels that a line names. None is as good as a line that was not sent: it would mean everything."""
    return tuple(value for key, value in parse_qsl(line.strip()) if key == "label")


class Engine:
    """The few requests there are to make."""

    def __init__(self, path: str = ENGINE) -> None:
        self._path = path

    def found(self, labels: tuple[str, ...]) -> list[str]:
        """What has these labels, as the addresses that remove it, in an order that works."""
        query = urlencode({"filters": json.dumps({"label": labels}), "all": 1})
        containers = [f"/containers/{item['Id']}?force=1&v=1" for item in self._request("GET", f"/containers/json?{query}")]
        networks = [f"/networks/{item['Id']}" for item in self._request("GET", f"/networks?{query}")]
        volumes = self._request("GET", f"/volumes?{query}")["Volumes"] or ()
        named = [f"/volumes/{quote(item['Name'], safe='')}?force=1" for item in volumes]
        images = [f"/images/{item['Id']}?force=1" for item in self._request("GET", f"/images/json?{query}")]
        return containers + networks + named + images

    def remove(self, address: str) -> None:
        """Remove one thing; what refuses is met again in the next round."""
        self._request("DELETE", address)

    def _request(self, method: str, address: str) -> Any:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        connection.sock.connect(self._path)
        try:
            connection.request(method, address)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        print(f"{method} {address}: {answer.status}", flush=True)
        return json.loads(body or b"null")


def wait(first: float, patience: float) -> str:
    """Wait until nobody has been connected for `patience` seconds, `first` for the first one; the lines they sent."""
    asked, deadline = "", time.monotonic() + first
    while time.monotonic() < deadline:
        said = (STATE / "asked").read_text()
        if said != asked or any((STATE / "clients").iterdir()):
            asked, deadline = said, time.monotonic() + patience
        time.sleep(0.1)
    return asked


def reap(engine: Engine, asked: set[tuple[str, ...]]) -> int:
    """Remove everything that was asked for; how many things are left."""
    left: list[str] = []
    for turn in range(ROUNDS):
        if turn:
            time.sleep(1)
        left = [address for labels in asked for address in engine.found(labels)]
        if not left:
            break
        for address in left:
            engine.remove(address)
    return len(left)


def main() -> None:
    first, patience = os.environ.get("RYUK_CONNECTION_TIMEOUT", "60s"), os.environ.get("RYUK_RECONNECTION_TIMEOUT", "10s")
    asked = {labels_of(line) for line in wait(seconds(first), seconds(patience)).splitlines()} - {()}
    print(f"Reaping {sorted(asked)}", flush=True)
    print(f"{reap(Engine(), asked)} left", flush=True)


if __name__ == "__main__":
    main()
