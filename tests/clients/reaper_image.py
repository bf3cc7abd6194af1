"""The image of `reaper/`: the guest's busybox and Debian's Python, unpacked on this computer, over the base image."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.pybox_cli import ROOT, Cli
from tests.support.small_image import busybox

IMAGE = "reaper:1"
SOURCE = ROOT / "tests" / "clients" / "reaper"
PACKAGES = ("python3.13-minimal", "libpython3.13-minimal", "libpython3.13-stdlib", "libexpat1")


def make(cli: Cli, base: str, folder: Path) -> str:
    """Build it over `base`, an image of Debian trixie, in `folder`, which is not there yet; its name."""
    shutil.copytree(SOURCE, folder)
    subprocess.run(
        [sys.executable, "-m", "pybox_image", "unpack", *PACKAGES, "--suite", "trixie", "--into", str(folder / "python")],
        check=True,
        env=cli.environment,
    )
    (folder / "busybox").write_bytes(busybox(cli))
    (folder / "busybox").chmod(0o755)
    cli.ok("build", "-t", IMAGE, "--build-arg", f"BASE={base}", str(folder))
    return IMAGE
