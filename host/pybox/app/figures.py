"""Live figures of containers: a thread reads each one's stream, whoever shows them takes the latest."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from pybox.engine.client import EngineClient
from pybox.errors import EngineError, MachineError


class Figures:
    """The latest figures (GET …/stats) of the named containers, or of all that run (`every`: of all there are)."""

    def __init__(self, client: EngineClient, names: Sequence[str], *, every: bool) -> None:
        self._client = client
        self._every = every
        self._latest: dict[str, dict[str, Any]] = {}
        self._readers: dict[str, threading.Thread] = {}
        # By their ids, so that a second container of the same name is not taken for the first.
        self._named = [str(client.get(f"/containers/{name}/json")["Id"]) for name in names]
        self._shown: list[str] = []

    def update(self) -> bool:
        """Look which containers there are; False when those that were named have all gone. Raises EngineError."""
        wanted = self._named or [str(item["Id"]) for item in self._client.get("/containers/json", {"all": self._every})]
        for identity in wanted:
            if identity not in self._readers:
                self._readers[identity] = threading.Thread(target=self._read, args=(identity,), daemon=True)
                self._readers[identity].start()
        self._shown = [identity for identity in wanted if self._readers[identity].is_alive()]
        for gone in self._readers.keys() - set(self._shown):
            self._latest.pop(gone, None)
            if not self._named:  # it may be started again
                del self._readers[gone]
        return bool(self._shown or not self._named)

    def latest(self) -> list[dict[str, Any]]:
        """The figures of those that have any yet, in the order of the list."""
        return [self._latest[identity] for identity in self._shown if identity in self._latest]

    def _read(self, identity: str) -> None:
        try:
            for figures in self._client.json_lines("GET", f"/containers/{identity}/stats", {"stream": True}):
                self._latest[identity] = figures
        except (EngineError, MachineError):
            return  # the container has gone, or the machine; the next list tells
