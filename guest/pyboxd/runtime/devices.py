"""Operations on devices and the terminal, and the rules that say which devices a container may use."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

from pyboxd.frozen import frozen
from pyboxd.linux import bpf_devices
from pyboxd.linux import constants as k
from pyboxd.linux import mount as mounts
from pyboxd.linux.bpf_devices import AllowRule
from pyboxd.linux.inroot import make_in_root

from . import handshake, rootpath
from .operation import Context, Operation
from .spec import ContainerSpec

_NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
)
# Nodes of any kind may be made; they can be used only if a rule below says so.
_BASE_RULES = (
    AllowRule("c", None, None, "m"),
    AllowRule("b", None, None, "m"),
    *(AllowRule("c", major, minor) for _, major, minor in _NODES),
    AllowRule("c", 5, 1),  # console
    AllowRule("c", 5, 2),  # ptmx
    AllowRule("c", 136, None),  # pts
)
_SKIPPED_HOST_NODES = frozenset({"pts", "shm", "mqueue", "fd", "console"})


def allow_rules(spec: ContainerSpec) -> tuple[AllowRule, ...]:
    """The devices that the container's cgroup may use; a privileged one may use all. Looks the nodes up. OSError."""
    if spec.privileged:
        return ()
    rules = list(_BASE_RULES)
    for device in spec.devices:
        for _, node in _nodes_below(device.path_in_guest, device.path):
            kind = "b" if stat.S_ISBLK(node.st_mode) else "c"
            major, minor = os.major(node.st_rdev), os.minor(node.st_rdev)
            rules.append(AllowRule(kind, major, minor, device.permissions))
    rules += [AllowRule(rule.kind, rule.major, rule.minor, rule.permissions) for rule in spec.device_rules]
    return tuple(rules)


_loaded: dict[tuple[AllowRule, ...], int] = {}  # programs that this process has loaded, for itself and its children


def restrict(cgroup_fd: int, rules: tuple[AllowRule, ...]) -> None:
    """Allow the processes of a cgroup these devices and no others. OSError."""
    program = _loaded.get(rules)
    if program is not None:
        bpf_devices.attach(program, cgroup_fd)
        return
    program = bpf_devices.load(bpf_devices.assemble(rules))
    try:
        bpf_devices.attach(program, cgroup_fd)
    finally:
        os.close(program)


def prepare() -> None:
    """Load the program of a container without devices of its own: almost all containers share it."""
    with contextlib.suppress(OSError):  # then it fails again, and is told, when a container wants it
        _loaded[_BASE_RULES] = bpf_devices.load(bpf_devices.assemble(_BASE_RULES))


def _nodes_below(source: str, target: str) -> Iterator[tuple[str, os.stat_result]]:
    """The device at `source`, or all below it if it is a directory, with their paths in the container."""
    node = os.stat(source)
    if stat.S_ISDIR(node.st_mode):
        with os.scandir(source) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) or _is_device(entry.stat(follow_symlinks=False)):
                    yield from _nodes_below(entry.path, f"{target}/{entry.name}")
    elif _is_device(node):
        yield target, node
    else:
        raise OSError(errno.ENOTTY, f"error gathering device information: {source} is not a device node")


def _is_device(node: os.stat_result) -> bool:
    return stat.S_ISCHR(node.st_mode) or stat.S_ISBLK(node.st_mode)


@frozen
class FindDevice(Operation):
    """Look at a device of the guest, or a folder of devices, before the guest is out of sight."""

    source: str
    target: str

    def describe(self) -> str:
        return f"look at device {self.source}"

    def execute(self, context: Context) -> None:
        context.nodes += _nodes_below(self.source, self.target)


@frozen
class FindAllDevices(Operation):
    """What `--privileged` gives: every device node of the guest."""

    def describe(self) -> str:
        return "look at all devices of the guest"

    def execute(self, context: Context) -> None:
        with os.scandir("/dev") as entries:
            for entry in entries:
                node = entry.stat(follow_symlinks=False)
                if entry.name in _SKIPPED_HOST_NODES or stat.S_ISLNK(node.st_mode):
                    continue
                if stat.S_ISDIR(node.st_mode) or _is_device(node):
                    context.nodes += _nodes_below(entry.path, entry.path)


@frozen
class MakeNodes(Operation):
    """Fill the container's new /dev; the file system is ours, so no path of the image is involved."""

    def describe(self) -> str:
        names = ", ".join([name for name, _, _ in _NODES] + [name for name, _ in _LINKS])
        return f"make {names} in /dev"

    def execute(self, context: Context) -> None:
        for name, major, minor in _NODES:
            os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=context.dev_fd)
        for name, text in _LINKS:
            os.symlink(text, name, dir_fd=context.dev_fd)


@frozen
class CopyNodes(Operation):
    """Make the nodes of the devices that were looked at."""

    def describe(self) -> str:
        return "make the nodes of these devices"

    def execute(self, context: Context) -> None:
        for path, node in context.nodes:
            folder, name = os.path.split(path)
            above = make_in_root(context.root_fd, folder)
            try:
                os.mknod(name, node.st_mode, node.st_rdev, dir_fd=above)
                os.chown(name, node.st_uid, node.st_gid, dir_fd=above, follow_symlinks=False)
            except FileExistsError:
                continue
            finally:
                os.close(above)


@frozen
class OpenTerminal(Operation):
    """Make a pseudo-terminal of the container's own, hand its master to the monitor and keep the slave.

    The slave comes from the master by an ioctl, not by a path that the container could have replaced.
    """

    rows: int
    columns: int
    console: bool  # mount it on /dev/console

    def describe(self) -> str:
        place = " on /dev/console" if self.console else ""
        return f"terminal{place}, {self.rows} rows of {self.columns}"

    def execute(self, context: Context) -> None:
        pts = context.pts_fd
        if pts < 0:  # joined, or a /dev that the user mounted
            pts = rootpath.open_plain(context.root_fd, "/dev/pts", os.O_PATH | os.O_DIRECTORY)
        if mounts.filesystem_magic(pts) != k.DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "/dev/pts is no devpts file system")
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NOFOLLOW
        master = os.open("ptmx", flags, dir_fd=pts)
        fcntl.ioctl(master, k.TIOCSPTLCK, struct.pack("i", 0))
        context.terminal_fd = fcntl.ioctl(master, k.TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        if self.rows and self.columns:
            set_size(master, self.rows, self.columns)
        handshake.send(context.handshake, "terminal", descriptor=master)
        os.close(master)
        if self.console:
            self._mount_console(context)

    def _mount_console(self, context: Context) -> None:
        os.close(os.open("console", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=context.dev_fd))
        place = os.open("console", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=context.dev_fd)
        tree = mounts.clone_tree("", context.terminal_fd)
        mounts.attach(tree, place)
        os.close(tree)
        os.close(place)


def set_size(terminal_fd: int, rows: int, columns: int) -> None:
    """Tell a terminal how large its window is."""
    fcntl.ioctl(terminal_fd, k.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))
