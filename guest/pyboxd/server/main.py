"""`pyboxd serve`: the fork of the spawner, then the engine.

The spawner is forked while this process has imported next to nothing: it and every monitor keep what is in memory at
this moment for as long as they live.
"""

from __future__ import annotations

from collections.abc import Sequence


def serve(arguments: Sequence[str]) -> int:
    """Run the engine; its exit status."""
    from pyboxd.runtime import spawner

    channel = spawner.fork()  # before there is a thread, a loop or a secret

    from pyboxd.runtime.client import Runtime
    from pyboxd.server.program import run

    return run(Runtime(channel))
