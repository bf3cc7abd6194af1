"""Where files of pybox are on this host. No other module makes up a path.

`PYBOX_HOME` in the environment puts everything below one folder (tests, several installations side by side).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from pybox.errors import MachineError, UsageProblem
from pybox.frozen import frozen

APP = "pybox"
# macOS takes 104 bytes in a unix socket's address, Linux 108. Both count the byte after the last.
SOCKET_PATH_LIMIT = 103
LONGEST_SOCKET_NAME = len("control.sock")
_MACHINE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")


@frozen
class Paths:
    """The folders of one installation. They are made when something is written, not here."""

    config: Path
    state: Path
    cache: Path
    runtime: Path  # where sockets would be if their paths are short enough

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Paths:
        """Return the folders that this user's programs should use."""
        home = environ.get("PYBOX_HOME")
        if home:
            root = Path(home).expanduser().absolute()
            return cls(root / "config", root / "state", root / "cache", root / "run")
        import platformdirs  # most of its time goes into systems' special cases

        state = platformdirs.user_state_path(APP, appauthor=False)
        session = environ.get("XDG_RUNTIME_DIR")
        return cls(
            config=platformdirs.user_config_path(APP, appauthor=False),
            state=state,
            cache=platformdirs.user_cache_path(APP, appauthor=False),
            runtime=Path(session) / APP if session else state / "run",
        )

    @property
    def settings_file(self) -> Path:
        return self.config / "settings.toml"

    @property
    def logins_file(self) -> Path:
        """Return the file of logins to registries, which its owner alone can read."""
        return self.config / "logins.json"

    @property
    def accelerators_file(self) -> Path:
        """Return the file of verdicts on accelerators."""
        return self.state / "accelerators.json"

    @property
    def qemu_file(self) -> Path:
        """Return the file of what is known of QEMU programs."""
        return self.state / "qemu.json"

    @property
    def machines_dir(self) -> Path:
        return self.state / "machines"

    def image_dir(self, arch: str) -> Path:
        """Return the folder of the guest image for an architecture."""
        return self.state / "images" / arch

    @property
    def golden_dir(self) -> Path:
        """Return the folder of saved states that machines start from."""
        return self.state / "golden"

    @property
    def templates_dir(self) -> Path:
        """Return the folder of disks that throw-away machines stand on."""
        return self.state / "templates"

    @property
    def downloads(self) -> Path:
        return self.cache / "downloads"

    def machine_dir(self, machine: str) -> Path:
        """Return the folder of a machine: disk, keys, logs. Raises UsageProblem for a name that cannot be one."""
        check_machine_name(machine)
        return self.machines_dir / machine

    def socket_dir(self, machine: str) -> Path:
        """Return the folder of a machine's sockets; short enough for an address on every system.

        Where the ordinary place has a longer path, a folder of this user in /tmp takes its part.
        """
        check_machine_name(machine)
        wanted = self.runtime / machine
        if len(os.fsencode(wanted)) + 1 + LONGEST_SOCKET_NAME <= SOCKET_PATH_LIMIT:
            return wanted
        import hashlib

        digest = hashlib.sha256(os.fsencode(self.runtime)).hexdigest()[:8]
        return Path("/tmp") / f"{APP}-{_user_number()}" / digest / machine

    def make_socket_dir(self, machine: str) -> Path:
        """Make `socket_dir` so that nobody else can enter it.

        Raises MachineError when another user was there first: /tmp belongs to all.
        """
        folder = self.socket_dir(machine)
        shared = Path("/tmp") / f"{APP}-{_user_number()}"
        for path in (shared, folder.parent, folder) if shared in folder.parents else (folder,):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _require_private(path)
        return folder


def check_machine_name(name: str) -> None:
    """Raise UsageProblem when `name` cannot be the name of a machine."""
    if not _MACHINE_NAME.fullmatch(name):
        raise UsageProblem(
            f"{name!r} cannot be the name of a machine",
            "It becomes part of folder names and of the machine's host name.",
            "Take up to 31 of a-z, 0-9, - and _, beginning with a letter or digit.",
        )


def _user_number() -> int:
    # Windows has no such number, and no sockets in folders.
    return os.getuid() if hasattr(os, "getuid") else 0


def _require_private(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _user_number():
        raise MachineError(
            f"the folder for sockets, {folder}, belongs to somebody else",
            f"owner {found.st_uid}, mode {stat.filemode(found.st_mode)}",
            "Remove it, or set PYBOX_HOME to a folder with a short path.",
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        folder.chmod(0o700)
