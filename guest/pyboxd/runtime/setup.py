"""Operations on the container's namespaces and on the process itself: everything but files and devices."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import socket
import struct

from pyboxd.frozen import frozen
from pyboxd.linux import caps, namespaces, process
from pyboxd.linux import constants as k
from pyboxd.linux.inroot import open_in_root
from pyboxd.linux.mount import openat2

from . import users
from .operation import Context, Operation

NAMESPACES = {
    "network": k.CLONE_NEWNET,
    "ipc": k.CLONE_NEWIPC,
    "uts": k.CLONE_NEWUTS,
    "cgroup": k.CLONE_NEWCGROUP,
    "pid": k.CLONE_NEWPID,
}
_JOINED = k.CLONE_NEWNS | k.CLONE_NEWUTS | k.CLONE_NEWIPC | k.CLONE_NEWNET | k.CLONE_NEWCGROUP
_IFREQ = struct.Struct("16sH14x")
_PROC_SYS_RULES = k.RESOLVE_NO_SYMLINKS | k.RESOLVE_BENEATH | k.RESOLVE_NO_XDEV


@frozen
class Harden(Operation):
    """Be out of reach for processes that may already be in the namespaces that are entered."""

    def describe(self) -> str:
        return "forbid tracing and dumping until the program runs"

    def execute(self, context: Context) -> None:
        process.prctl(k.PR_SET_DUMPABLE, 0)


@frozen
class EnterNamespace(Operation):
    """Enter a namespace that exists."""

    kind: str
    path: str

    def describe(self) -> str:
        return f"enter the {self.kind} namespace {self.path}"

    def execute(self, context: Context) -> None:
        namespaces.enter_path(self.path, NAMESPACES[self.kind])


@frozen
class JoinContainer(Operation):
    """Enter all namespaces of a running container but its pid namespace, which the monitor chose for us."""

    pid: int

    def describe(self) -> str:
        return f"enter the namespaces of process {self.pid}"

    def execute(self, context: Context) -> None:
        namespaces.setns(context.container_fd, _JOINED)
        context.root_fd = os.open("/", os.O_PATH | os.O_CLOEXEC)


@frozen
class NewCgroupNamespace(Operation):
    """Make the container's cgroup the top of all cgroups it can see."""

    def describe(self) -> str:
        return "make a cgroup namespace"

    def execute(self, context: Context) -> None:
        namespaces.unshare(k.CLONE_NEWCGROUP)


@frozen
class SetNames(Operation):
    """Host name and domain name."""

    hostname: str
    domainname: str

    def describe(self) -> str:
        return f"host name {self.hostname or '-'}, domain name {self.domainname or '-'}"

    def execute(self, context: Context) -> None:
        if self.hostname:
            process.sethostname(self.hostname)
        if self.domainname:
            process.setdomainname(self.domainname)


@frozen
class LoopbackUp(Operation):
    """Bring the loopback interface up."""

    def describe(self) -> str:
        return "bring lo up"

    def execute(self, context: Context) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            answer = fcntl.ioctl(probe, k.SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
            _, flags = _IFREQ.unpack(answer)
            fcntl.ioctl(probe, k.SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | k.IFF_UP))


@frozen
class SetSysctl(Operation):
    """Write a kernel parameter through the container's own /proc, mounted a moment ago by ourselves."""

    name: str
    value: str

    def describe(self) -> str:
        return f"sysctl {self.name}={self.value}"

    def execute(self, context: Context) -> None:
        path = "sys/" + self.name.replace(".", "/")
        descriptor = openat2(context.proc_fd, path, os.O_WRONLY, _PROC_SYS_RULES)
        try:
            os.write(descriptor, self.value.encode())
        finally:
            os.close(descriptor)


@frozen
class SetRlimit(Operation):
    """A resource limit under getrlimit(2)'s name; -1 is no limit."""

    name: str
    soft: int
    hard: int

    def describe(self) -> str:
        return f"limit {self.name} {self.soft}:{self.hard}"

    def failing(self) -> str:
        return f"error setting rlimit type {self.name}"

    def execute(self, context: Context) -> None:
        kind: int = getattr(resource, self.name)
        try:
            resource.setrlimit(kind, (self.soft, self.hard))
        except ValueError as error:
            raise OSError(22, str(error)) from error


@frozen
class SetOomScore(Operation):
    """How willingly the kernel kills this process when memory is short, -1000 to 1000."""

    score: int

    def describe(self) -> str:
        return f"oom_score_adj {self.score}"

    def execute(self, context: Context) -> None:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, str(self.score).encode())
        finally:
            os.close(descriptor)


@frozen
class FindUser(Operation):
    """Look the user up in the container's own files."""

    user: str
    groups_add: tuple[str, ...]

    def describe(self) -> str:
        groups = f" and groups {', '.join(self.groups_add)}" if self.groups_add else ""
        return f"find user {self.user or 'root'}{groups} in /etc/passwd and /etc/group"

    def execute(self, context: Context) -> None:
        passwd = users.read_account_file(context.root_fd, "/etc/passwd")
        group = users.read_account_file(context.root_fd, "/etc/group")
        context.identity = users.resolve(self.user, self.groups_add, passwd, group)


@frozen
class EnterDirectory(Operation):
    """Go to the working directory, by a way that no magic link of /proc can be on."""

    path: str

    def describe(self) -> str:
        return f"working directory {self.path}"

    def failing(self) -> str:
        return f'chdir to cwd ("{self.path}") set in config.json failed'

    def execute(self, context: Context) -> None:
        directory = open_in_root(context.root_fd, self.path, os.O_PATH | os.O_DIRECTORY)
        os.fchdir(directory)
        os.close(directory)
        if not os.getcwd().startswith("/"):
            raise OSError(2, "the working directory is outside the container's root")


@frozen
class TakeTerminal(Operation):
    """Start a session with the terminal as its controlling terminal, and as stdin, stdout and stderr."""

    def describe(self) -> str:
        return "make the terminal the controlling terminal"

    def execute(self, context: Context) -> None:
        os.setsid()
        fcntl.ioctl(context.terminal_fd, k.TIOCSCTTY, 0)
        for descriptor in range(3):
            os.dup2(context.terminal_fd, descriptor)
        os.close(context.terminal_fd)


@frozen
class NewSession(Operation):
    """Start a session without a terminal."""

    def describe(self) -> str:
        return "start a session"

    def execute(self, context: Context) -> None:
        os.setsid()


@frozen
class CloseDescriptors(Operation):
    """Close all that is open but stdio and the handshake: nothing of the guest is left to climb out by."""

    def describe(self) -> str:
        return "close all descriptors of the guest"

    def execute(self, context: Context) -> None:
        process.close_from(3, keep=context.handshake.fileno())
        context.root_fd = os.open("/", os.O_PATH | os.O_CLOEXEC)


@frozen
class BecomeUser(Operation):
    """Give stdio to the user, limit what any program can ever be allowed, become the user.

    `bounding` is the mask of capabilities that stay possible. CAP_SYS_ADMIN is kept until the system call
    filter is loaded; `init` takes it away then.
    """

    bounding: int
    filtered: bool  # a filter is going to be loaded
    no_new_privileges: bool

    def describe(self) -> str:
        names = [name for name, number in caps.NUMBERS.items() if self.bounding & (1 << number)]
        extra = ", no new privileges" if self.no_new_privileges else ""
        return f"become the user, at most {' '.join(names) or 'no capabilities'}{extra}"

    def execute(self, context: Context) -> None:
        who = context.identity
        if who.uid:
            for descriptor in range(3):
                _give(descriptor, who.uid)
        with contextlib.suppress(OSError):  # a kernel without keyrings has none to share
            process.new_session_keyring()
        possible = self.bounding & caps.permitted()  # the engine itself may have less than all
        caps.drop_bounding(possible)
        process.prctl(k.PR_SET_KEEPCAPS, 1)
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
        process.prctl(k.PR_SET_KEEPCAPS, 0)
        if self.no_new_privileges:
            process.prctl(k.PR_SET_NO_NEW_PRIVS, 1)
        needed = 0 if self.no_new_privileges or not self.filtered else 1 << caps.NUMBERS["CAP_SYS_ADMIN"]
        caps.set_effective(needed | (0 if who.uid else possible))
        process.prctl(k.PR_SET_DUMPABLE, 0)


def _give(descriptor: int, uid: int) -> None:
    """Let the user open /dev/stdout again: pipes and terminals belong to whoever made them."""
    if os.fstat(descriptor).st_rdev != os.makedev(1, 3):
        os.fchown(descriptor, uid, -1)
