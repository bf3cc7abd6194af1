"""How long something took that was done many times: printed for a person, kept as JSON for a comparison."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def distribution(seconds: Sequence[float]) -> dict[str, float]:
    """Count, least, quartiles, percentiles and most; {} of nothing."""
    if not seconds:
        return {}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 99
    return {
        "count": len(seconds),
        "min": min(seconds),
        "q1": cuts[24],
        "median": cuts[49],
        "q3": cuts[74],
        "p90": cuts[89],
        "p99": cuts[98],
        "max": max(seconds),
    }


class Times:
    """Measures by name. `path` gets the figures; what other tests have put there stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seconds: dict[str, list[float]] = {}
        self._counts: dict[str, int] = {}

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Count the time of what is done inside, when it ends well."""
        began = time.monotonic()
        yield
        self._seconds.setdefault(name, []).append(time.monotonic() - began)

    def count(self, name: str, number: int) -> None:
        """Keep a number that says what the times belong to."""
        self._counts[name] = number

    def write(self) -> None:
        """Put all figures into the file."""
        known = json.loads(self.path.read_bytes()) if self.path.exists() else {}
        figures = {name: distribution(seconds) for name, seconds in self._seconds.items()}
        self.path.write_text(json.dumps({**known, **figures, **self._counts}, indent=1) + "\n")

    def __str__(self) -> str:
        lines = [f"{name}: {number}" for name, number in self._counts.items()]
        for name, seconds in self._seconds.items():
            figures = {key: value for key, value in distribution(seconds).items() if key != "count"}
            words = "  ".join(f"{key} {value:.2f}" for key, value in figures.items())
            lines.append(f"{name}: {len(seconds)} times; seconds: {words}")
        return "\n".join(lines)
