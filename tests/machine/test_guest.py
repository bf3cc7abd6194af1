"""Runs tests/guest as root inside a machine of its own and shows what it printed."""

from __future__ import annotations

from pathlib import Path

from pybox import settings
from pybox.machine.bake import boot_for_bake
from pybox.model import Arch
from pybox.paths import Paths
from tests.support.guest_vm import run_guest_tests
from tests.support.pybox_cli import Cli

# The folder server runs on the host; its tests do too, over the host's own FUSE (scripts/test runs them).
IGNORED = tuple(f"--ignore=tests/guest/test_{name}.py" for name in ("share_posix", "share_relay"))


def test_guest_tests_pass(cli: Cli, home: Path) -> None:
    paths = Paths.from_environment({"PYBOX_HOME": str(home)})
    boot = boot_for_bake(settings.load(paths, environ={}), Arch.AMD64)
    status, text = run_guest_tests(paths.image_dir("amd64"), boot, home / "guest-vm", ["tests/guest", *IGNORED])
    print(text[-20_000:])
    assert status == 0
