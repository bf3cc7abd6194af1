"""The file systems that the guest needs before anything else runs, and taking mounts away again."""

from __future__ import annotations

import os

from pyboxd.linux import constants as k
from pyboxd.linux.mount import mount, umount2
from pyboxd.locations import CGROUP

ENGINE_CGROUP = f"{CGROUP}/pyboxd"  # the leaf of everything of ours; containers are beside it


SAFE = k.MS_NOSUID | k.MS_NODEV | k.MS_NOEXEC
MOUNTS = (  # file system, target, flags, data
    ("tmpfs", "/tmp", k.MS_NOSUID | k.MS_NODEV, "mode=1777"),
    ("tmpfs", "/root", k.MS_NOSUID | k.MS_NODEV, "mode=700"),  # the root disk is read-only; ssh needs a home
    ("devpts", "/dev/pts", k.MS_NOSUID | k.MS_NOEXEC, "mode=620,gid=5,ptmxmode=666"),
    ("tmpfs", "/dev/shm", k.MS_NOSUID | k.MS_NODEV, "mode=1777"),
    ("mqueue", "/dev/mqueue", SAFE, ""),
    ("cgroup2", CGROUP, SAFE, "nsdelegate,memory_recursiveprot"),
)


def mount_all() -> None:
    """Mount `MOUNTS`. OSError names the first that fails."""
    for fstype, target, flags, data in MOUNTS:
        os.makedirs(target, exist_ok=True)
        mount(fstype, target, fstype, flags, data)


def enter_cgroup() -> None:
    """Allow every controller to containers, and move this process to the engine's own leaf."""
    with open(f"{CGROUP}/cgroup.controllers") as file:
        controllers = file.read().split()
    _write(f"{CGROUP}/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))
    os.makedirs(ENGINE_CGROUP, exist_ok=True)
    _write(f"{ENGINE_CGROUP}/cgroup.procs", "0")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def mounts_below(folder: str, mountinfo: str) -> list[str]:
    """Mount points at and below `folder`, innermost first, from the text of /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        escaped = line.split()[4]  # blanks and backslashes as octal numbers
        point = os.fsdecode(escaped.encode().decode("unicode_escape").encode("latin-1"))
        if point == folder or point.startswith(folder + "/"):
            found.append(point)
    return found[::-1]


def unmount_below(folder: str) -> list[str]:
    """Unmount everything at and below `folder`; the mount points that would not go."""
    with open("/proc/self/mountinfo") as file:
        points = mounts_below(folder, file.read())
    busy = []
    for point in points:
        try:
            umount2(point, k.UMOUNT_NOFOLLOW)
        except OSError:
            busy.append(point)
    return busy
