"""What a long step tells its caller while it runs. Nothing here prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """`phase` names the step ("index", "download", "unpack", "bake" ...).

    `done` and `total` count bytes while downloading and items elsewhere; `total` is 0 when it is not known.
    """

    phase: str
    done: int = 0
    total: int = 0
    detail: str = ""


# Called from worker threads too, one call at a time.
ProgressCallback = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """The callback of callers that want to hear nothing."""
