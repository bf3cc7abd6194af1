"""Values of the host and of the engine behave alike: each has its own copy of one module."""

from __future__ import annotations

from pathlib import Path

import pybox.frozen
import pyboxd.frozen


def test_both_have_the_same_text() -> None:
    assert Path(pybox.frozen.__file__).read_text() == Path(pyboxd.frozen.__file__).read_text()
