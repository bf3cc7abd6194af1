"""`python -m pybox.hostagent MACHINE`: started by `machine.lifecycle`, in the background, once per running machine.

Its standard input and output are pipes to the start that waits for it: through the one comes the word to begin, the
other is given up when the machine runs.
"""

from __future__ import annotations

import gc
import sys


def run() -> int:
    """Run the hostagent; the exit status."""
    gc.disable()  # nothing that is imported is ever garbage; `main` enables it
    from pybox.hostagent.main import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
