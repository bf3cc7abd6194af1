"""The guest image on this host's disk: the folder that a machine boots from."""

from __future__ import annotations

import json
from pathlib import Path

from pybox.errors import MachineError
from pybox.frozen import frozen
from pybox.model import Arch

_REBUILD = "Build it: pybox machine build-image"


@frozen
class GuestImage:
    """A guest image whose files are all there, with the sizes that its manifest says."""

    folder: Path
    id: str
    arch: Arch
    kernel: Path
    initrd: Path
    root_disk: Path

    @classmethod
    def open(cls, folder: Path) -> GuestImage:
        """Look at the image in `folder`. Raises MachineError when it is missing, incomplete or of another kind."""
        manifest = folder / "manifest.json"
        try:
            found = json.loads(manifest.read_bytes())
            sizes = {str(name): int(item["size"]) for name, item in found["files"].items()}
            arch, identity = Arch(found["architecture"]), str(found["id"])
        except FileNotFoundError:
            raise MachineError("there is no guest image", f"{manifest} does not exist", _REBUILD) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MachineError("the guest image cannot be used", f"{manifest}: {error!r}", _REBUILD) from None
        for name, size in sizes.items():
            _require(folder / name, size)
        # QEMU boots an ELF kernel at once; a compressed one unpacks itself first, with the guest's CPU.
        kernel = "vmlinux" if "vmlinux" in sizes and arch is Arch.AMD64 else "vmlinuz"
        for name in (kernel, "initrd", "root.erofs"):
            if name not in sizes:
                raise MachineError("the guest image cannot be used", f"{manifest} names no {name}", _REBUILD)
        return cls(folder, identity, arch, folder / kernel, folder / "initrd", folder / "root.erofs")


def _require(path: Path, size: int) -> None:
    try:
        seen = path.stat().st_size
    except OSError as error:
        raise MachineError("the guest image cannot be used", f"{path}: {error.strerror}", _REBUILD) from None
    if seen != size:
        raise MachineError("the guest image cannot be used", f"{path} has {seen} bytes, not {size}", _REBUILD)
