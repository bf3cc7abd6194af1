"""The one error of this package. It carries the three parts that a person needs; the host draws it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ImageError(Exception):
    """The guest image cannot be made, or a package cannot be had.

    `brief` says what failed, in one line; `details` what was seen; `resolution` what to type or change.
    """

    brief: str
    details: str = ""
    resolution: str = ""

    def __str__(self) -> str:
        return self.brief
