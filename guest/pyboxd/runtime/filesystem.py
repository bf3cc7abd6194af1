"""Operations on the container's file systems.

The order matters for safety: everything of the guest that the container gets is opened first, then the root is
entered and the guest's tree is gone from sight, and only then are paths of the container resolved. A link in the
image can lead to the image and to nothing else.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.linux import constants as k
from pyboxd.linux import mount as mounts
from pyboxd.linux import namespaces
from pyboxd.linux.inroot import make_in_root, open_in_root

from . import rootpath
from .operation import Context, Operation

PROPAGATIONS = {
    "private": k.MS_PRIVATE,
    "slave": k.MS_SLAVE,
    "shared": k.MS_SHARED,
}
# runc: files that may be mounted over inside /proc, for tools like lxcfs
PROC_EXCEPTIONS = frozenset(
    f"/proc/{name}" for name in ("cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo")
)


@frozen
class DetachFromHost(Operation):
    """Make the copied mounts independent of the guest's: "private", or "slave" to still receive its mounts."""

    propagation: str

    def describe(self) -> str:
        return f"make all mounts {self.propagation}"

    def execute(self, context: Context) -> None:
        mounts.mount("", "/", flags=k.MS_REC | PROPAGATIONS[self.propagation])


@frozen
class TakeNull(Operation):
    """Take the guest's /dev/null along, to mask files with: one that no image can have swapped."""

    def describe(self) -> str:
        return "take /dev/null along for masking"

    def execute(self, context: Context) -> None:
        context.null_fd = mounts.clone_tree("/dev/null")
        node = os.stat(context.null_fd)
        if not stat.S_ISCHR(node.st_mode) or node.st_rdev != os.makedev(1, 3):
            raise OSError(22, "the guest's /dev/null is no null device")


@frozen
class TakeBind(Operation):
    """Open the source of bind mount `number` as a mount of its own, with its flags set."""

    number: int
    source: str
    target: str
    recursive: bool
    add: int  # MOUNT_ATTR_…
    propagation: str

    def describe(self) -> str:
        return f"take {self.source} along{' with its mounts' if self.recursive else ''} for {self.target}"

    def failing(self) -> str:
        return _mounting(self.source, self.target)

    def execute(self, context: Context) -> None:
        tree = mounts.clone_tree(self.source, recursive=self.recursive)
        deep = self.recursive and self.propagation.startswith("r")
        kind = PROPAGATIONS[self.propagation.removeprefix("r")]
        mounts.set_attributes(tree, add=self.add, recursive=self.recursive)
        mounts.set_attributes(tree, propagation=kind, recursive=deep)
        context.binds[self.number] = tree


@frozen
class TakeSharedMemory(Operation):
    """Take the /dev/shm of the process whose ipc namespace is shared."""

    number: int
    pid: int

    def describe(self) -> str:
        return f"take /dev/shm of process {self.pid} along"

    def execute(self, context: Context) -> None:
        own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.enter_path(f"/proc/{self.pid}/ns/mnt", k.CLONE_NEWNS)
            try:
                root = os.open("/", os.O_PATH | os.O_CLOEXEC)
                found = rootpath.open_plain(root, "/dev/shm", os.O_PATH | os.O_DIRECTORY)
                context.binds[self.number] = mounts.clone_tree("", found)
                os.close(found)
                os.close(root)
            finally:
                namespaces.setns(own, k.CLONE_NEWNS)
        finally:
            os.close(own)


@frozen
class MountRoot(Operation):
    """Mount the overlay over an empty place that nobody else sees; from now on it is the root to be."""

    lower: tuple[str, ...]
    upper: str
    work: str
    place: str  # any directory: hidden in this mount namespace from now on
    volatile: bool = False

    def describe(self) -> str:
        return f"overlay of {len(self.lower)} layers, {'volatile ' if self.volatile else ''}changes in {self.upper}"

    def execute(self, context: Context) -> None:
        context.root_fd = mounts.make_overlay(self.lower, self.upper, self.work, volatile=self.volatile)
        place = os.open(self.place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts.attach(context.root_fd, place)
        os.close(place)


@frozen
class EnterRoot(Operation):
    """Make the new root the root, and the guest's tree invisible."""

    def describe(self) -> str:
        return "pivot into the new root, detach the old one"

    def execute(self, context: Context) -> None:
        os.fchdir(context.root_fd)
        mounts.pivot_root(".", ".")
        mounts.umount2(".", k.MNT_DETACH)
        os.chdir("/")


@frozen
class MountSpecial(Operation):
    """Mount one of the kernel's file systems, which must be on an ordinary directory.

    `keep` names the field of the context that its descriptor is kept in.
    """

    fstype: str
    target: str
    attributes: int
    options: tuple[mounts.Option, ...] = ()
    keep: str = ""

    def describe(self) -> str:
        options = ",".join(name if value is None else f"{name}={value}" for name, value in self.options)
        return f"{self.fstype} on {self.target}{f' ({options})' if options else ''}"

    def failing(self) -> str:
        return _mounting(self.fstype, self.target)

    def execute(self, context: Context) -> None:
        made = mounts.make_filesystem(self.fstype, self.options, self.attributes)
        _attach(made, rootpath.ordinary_directory(context.root_fd, self.target))
        if self.keep:
            setattr(context, self.keep, made)
        else:
            os.close(made)


@frozen
class MountTemporary(Operation):
    """A tmpfs that the user asked for; links to its place are followed inside the root."""

    target: str
    attributes: int
    options: tuple[mounts.Option, ...]

    def describe(self) -> str:
        options = ",".join(f"{name}={value}" for name, value in self.options)
        return f"tmpfs on {self.target}{f' ({options})' if options else ''}"

    def failing(self) -> str:
        return _mounting("tmpfs", self.target)

    def execute(self, context: Context) -> None:
        made = mounts.make_filesystem("tmpfs", self.options, self.attributes)
        place = make_in_root(context.root_fd, self.target)
        _refuse_proc(self.target, place)
        _attach(made, place)
        os.close(made)


@frozen
class PlaceBind(Operation):
    """Attach bind mount `number` where the container wants it."""

    number: int
    source: str
    target: str

    def describe(self) -> str:
        return f"bind {self.source} on {self.target}"

    def failing(self) -> str:
        return _mounting(self.source, self.target)

    def execute(self, context: Context) -> None:
        tree = context.binds.pop(self.number)
        is_directory = stat.S_ISDIR(os.stat(tree).st_mode)
        place = make_in_root(context.root_fd, self.target, directory=is_directory)
        if mounts.filesystem_magic(tree) != k.PROC_SUPER_MAGIC:
            _refuse_proc(self.target, place)
        _attach(tree, place)
        os.close(tree)


@frozen
class MaskPath(Operation):
    """Hide a file behind /dev/null, a directory behind an empty read-only one; nothing if it is not there."""

    path: str

    def describe(self) -> str:
        return f"mask {self.path}"

    def execute(self, context: Context) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            place = open_in_root(context.root_fd, self.path)
            node = os.stat(place)
            if stat.S_ISDIR(node.st_mode):
                if context.blank_fd < 0:
                    options = (("nr_inodes", "1"), ("mode", "755"))
                    context.blank_fd = mounts.make_filesystem("tmpfs", options, k.MOUNT_ATTR_RDONLY)
                _attach(_one_more(context, context.blank_fd), place)
            elif node.st_rdev != os.makedev(1, 3):  # masked already, by a mount of the user's
                _attach(_one_more(context, context.null_fd), place)


@frozen
class MakeReadonly(Operation):
    """Make a path read-only by mounting it on itself; nothing if it is not there."""

    path: str

    def describe(self) -> str:
        return f"make {self.path} read-only"

    def execute(self, context: Context) -> None:
        with suppress(FileNotFoundError, NotADirectoryError):
            place = open_in_root(context.root_fd, self.path)
            tree = mounts.clone_tree("", place, recursive=True)
            mounts.set_attributes(tree, add=k.MOUNT_ATTR_RDONLY, recursive=True)
            _attach(tree, place)
            os.close(tree)


@frozen
class MakeDirectory(Operation):
    """Make the working directory if the image has none."""

    path: str

    def describe(self) -> str:
        return f"make sure that {self.path} exists"

    def failing(self) -> str:
        return f'chdir to cwd ("{self.path}") set in config.json failed'

    def execute(self, context: Context) -> None:
        os.close(make_in_root(context.root_fd, self.path))


@frozen
class MakeRootReadonly(Operation):
    """`--read-only`: the root itself, not what is mounted in it."""

    def describe(self) -> str:
        return "make the root read-only"

    def execute(self, context: Context) -> None:
        mounts.set_attributes(context.root_fd, add=k.MOUNT_ATTR_RDONLY)


def _mounting(source: str, target: str) -> str:
    return f'error mounting "{source}" to rootfs at "{target}"'


def _attach(mount_fd: int, place_fd: int) -> None:
    try:
        mounts.attach(mount_fd, place_fd)
    finally:
        os.close(place_fd)


def _one_more(context: Context, mount_fd: int) -> int:
    """The mount itself the first time, then copies: the kernel copies only mounts that are attached."""
    if mount_fd in context.attached:
        return mounts.clone_tree("", mount_fd)
    context.attached.add(mount_fd)
    return mount_fd


def _refuse_proc(path: str, place_fd: int) -> None:
    """Whatever can be mounted inside /proc can lie to every program that trusts it."""
    if mounts.filesystem_magic(place_fd) == k.PROC_SUPER_MAGIC and path not in PROC_EXCEPTIONS:
        raise InvalidArgument(f'"{path}" cannot be mounted because it is inside /proc')
