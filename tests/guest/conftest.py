"""What tests of attacks share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

OUTSIDE = "/run/outside"  # of the guest, as a container would name it if it could


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder of the guest with a file that no container may see or change."""
    folder = Path(OUTSIDE)
    folder.mkdir()
    (folder / "file").write_text("the guest's")
    yield folder
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
