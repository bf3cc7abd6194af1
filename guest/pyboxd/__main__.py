"""`pyboxd init | serve | relay | plan`: the programs of the guest.

Each imports its own part only, because an import costs ten times as much in an emulated guest.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = "usage: pyboxd init | serve | relay | plan SPEC.json"


def main(argv: Sequence[str]) -> int:
    """Run one program; its exit status."""
    command, *arguments = argv or ("",)
    if command == "init":
        from pyboxd.boot import init

        return init.main(lambda: _serve(()))
    if command == "serve":
        return _serve(arguments)
    if command == "relay":
        from pyboxd.boot import relay

        return relay.main(arguments)
    if command == "plan" and len(arguments) == 1:
        return _plan(arguments[0])
    sys.stderr.write(f"{USAGE}\n")
    return 2


def _plan(path: str) -> int:
    """Print what the first process of the container in a spec file would do."""
    from pyboxd.runtime.codec import loads
    from pyboxd.runtime.plan import describe_plan
    from pyboxd.runtime.spec import ContainerSpec

    with open(path, "rb") as file:
        spec = loads(ContainerSpec, file.read())
    sys.stdout.write("".join(f"{line}\n" for line in describe_plan(spec)))
    return 0


def _serve(arguments: Sequence[str]) -> int:
    from pyboxd.server import main as engine  # what process 1 shall not keep

    return engine.serve(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
