"""`pybox` and `python -m pybox`."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line of this process."""
    # Nothing that is imported is ever garbage: neither looked through while it comes, nor at the end.
    gc.disable()
    from pybox.cli.main import run

    gc.freeze()
    gc.enable()
    status = run()
    gc.freeze()
    sys.exit(status)


if __name__ == "__main__":
    main()
