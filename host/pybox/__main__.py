"""`pybox` and `python -m pybox`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process."""
    from pybox.cli.main import run

    sys.exit(run())


if __name__ == "__main__":
    main()
