"""Runs tests/guest as root inside a machine of its own: real kernel, real cgroups, the guest's own Python."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path

from pybox_image import cpio, guestcode
from pybox_image.bake import BakeBoot, BootFunction
from tests.support.guest_main import MARK
from tests.support.pybox_cli import ROOT

# pytest is pure Python: this computer's copy runs in the guest too.
MODULES = ("py", "pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "hypothesis", "sortedcontainers")
DISK = 8 << 30


def run_guest_tests(image: Path, boot: BootFunction, work: Path, arguments: list[str]) -> tuple[int, str]:
    """Boot `image`, run pytest with `arguments` there; (its exit status, what it printed)."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "initrd").write_bytes((image / "initrd").read_bytes() + cpio.pack(_entries(arguments)))
    data = work / "data.raw"
    with data.open("wb") as file:
        file.truncate(DISK)
    root = work / "root.erofs"  # a copy: a bake's disks are opened for writing, and others may run from the image
    shutil.copyfile(image / "root.erofs", root)
    kernel = image / "vmlinux" if (image / "vmlinux").exists() else image / "vmlinuz"
    log = work / "console.log"
    boot(
        BakeBoot(
            kernel=kernel,
            initrd=work / "initrd",
            append="console=ttyS0 quiet loglevel=3 mitigations=off panic=-1 no_timer_check nowatchdog tsc=reliable",
            disks=(root, data),
            memory_mib=1024,
            timeout=1200,
            console_log=log,
        )
    )
    data.unlink()
    root.unlink()
    text = log.read_text(errors="replace")
    found = re.search(rf"{MARK} (\d+)", text)
    return int(found.group(1)) if found else 255, text


def _entries(arguments: list[str]) -> list[cpio.Entry]:
    folder = guestcode.FOLDER
    entries = [entry for entry in guestcode.entries(ROOT / "guest") if entry.path != f"{folder}/__main__.py"]
    entries.append(cpio.file(f"{folder}/__main__.py", (ROOT / "tests/support/guest_main.py").read_bytes()))
    entries.append(cpio.file(f"{folder}/pytest-arguments", "\n".join(arguments).encode()))
    entries.append(cpio.folder(f"{folder}/tests"))
    entries.append(cpio.file(f"{folder}/tests/__init__.py", b""))
    for name in ("guest", "support"):
        entries += _tree(ROOT / "tests" / name, f"{folder}/tests/{name}")
    entries.append(cpio.folder(f"{folder}/site"))
    for name in MODULES:
        specification = importlib.util.find_spec(name)
        if specification is None or specification.origin is None:
            continue
        origin = Path(specification.origin)
        if origin.name == "__init__.py":
            entries += _tree(origin.parent, f"{folder}/site/{name}")
        else:
            entries.append(cpio.file(f"{folder}/site/{origin.name}", origin.read_bytes()))
    return entries


def _tree(source: Path, target: str) -> list[cpio.Entry]:
    entries = [cpio.folder(target)]
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if "__pycache__" in relative.parts or path.suffix == ".so":
            continue
        name = f"{target}/{relative.as_posix()}"
        if path.is_dir():
            entries.append(cpio.folder(name))
        elif path.is_file():
            entries.append(cpio.file(name, path.read_bytes()))
    return entries
