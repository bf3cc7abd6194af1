"""Images with more of Debian's packages than the base image has."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.pybox_cli import Cli


def debian_image(cli: Cli, name: str, *packages: str) -> str:
    """An image of that name with these packages of trixie. It takes minutes under emulation, so it is kept in
    PYBOX_TEST_CACHE, if that is set."""
    cache = os.environ.get("PYBOX_TEST_CACHE")
    kept = Path(cache) / f"{name}-trixie.tar" if cache else None
    if kept is not None and kept.exists():
        cli.ok("load", "-i", str(kept))
        return name
    cli.ok("image", "bootstrap", "-t", name, "--packages", ",".join(packages), timeout=1800)
    if kept is not None:
        unfinished = kept.with_suffix(".new")
        cli.ok("save", "-o", str(unfinished), name)
        unfinished.replace(kept)
    return name
