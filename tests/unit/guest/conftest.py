"""What several of these tests need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.image_lab import ImageLab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ImageLab]:
    """A store of images of the test's own."""
    found = ImageLab(tmp_path)
    yield found
    found.close()
