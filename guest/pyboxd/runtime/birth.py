"""The parent's side of making a process: its cgroup, its stdio, its namespaces. Runs in the monitor."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator

from pyboxd import locations
from pyboxd.errors import Conflict
from pyboxd.frozen import frozen
from pyboxd.linux import constants as k
from pyboxd.linux import namespaces

from . import cgroup, devices, handshake, init, seccomp_profile
from .init import Birth
from .plan import Plan, ProcessSpec, filtered, make_exec_plan, make_plan
from .spec import ContainerSpec, ExecSpec


@frozen
class Child:
    """A first process that is following its plan; descriptors are -1 where there is none."""

    pid: int
    pidfd: int
    end: socket.socket  # of the handshake
    stdin: int
    stdout: int
    stderr: int
    cgroup: str


def start_container(spec: ContainerSpec) -> Child:
    """Make a container's cgroup and its first process in it. OSError, PyboxdError; nothing is left then."""
    plan = make_plan(spec)
    path = cgroup.path_of(spec.cgroup_parent, spec.id)
    descriptor = cgroup.create(path)
    try:
        cgroup.apply(path, spec.resources)
        if not spec.privileged:
            devices.restrict(descriptor, devices.allow_rules(spec))
        if not spec.root.lower:
            os.makedirs(f"{spec.run_dir}/empty", exist_ok=True)
        if plan.pid_namespace:
            namespaces.enter_path(plan.pid_namespace, k.CLONE_NEWPID)
        return _fork(spec, Birth(plan, _filter(spec), -1), path, descriptor)
    except BaseException:  # whatever it is, it is told to the engine; the group must not stay
        cgroup.remove(path)
        raise
    finally:
        os.close(descriptor)


def start_exec(spec: ExecSpec) -> Child:
    """Make a process for a running container. Conflict when the container is not there any more."""
    plan: Plan = make_exec_plan(spec)
    try:
        target = os.pidfd_open(spec.container_pid)
    except ProcessLookupError:
        raise Conflict(f"container {spec.container_id} is not running") from None
    try:
        if not cgroup.holds(spec.cgroup, spec.container_pid):
            raise Conflict(f"container {spec.container_id} is not running")
        birth = Birth(plan, _filter(spec), target)
        namespaces.setns(target, k.CLONE_NEWPID)
        with _opened(spec.cgroup) as descriptor:
            try:
                return _fork(spec, birth, spec.cgroup, descriptor)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
        # The container made groups of its own and hands controllers down to them, so the kernel wants no
        # process in the group above: go where its first process is.
        with _opened(locations.CGROUP + _place_of(spec.container_pid)) as descriptor:
            return _fork(spec, birth, spec.cgroup, descriptor)
    finally:
        os.close(target)


def _filter(spec: ProcessSpec) -> bytes:
    if not filtered(spec):
        return b""
    return seccomp_profile.program(spec.seccomp, spec.capabilities)


def _place_of(pid: int) -> str:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        return next((line[3:].strip() for line in file if line.startswith("0::")), "/")


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _fork(spec: ProcessSpec, birth: Birth, path: str, cgroup_fd: int) -> Child:
    """Fork the first process into its namespaces and cgroup."""
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:

        def keep(stack: contextlib.ExitStack, descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        null = keep(theirs, os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC))
        child = [null, null, null]
        parent = [-1, -1, -1]
        if not spec.terminal:
            for number in (0, 1, 2) if spec.open_stdin else (1, 2):
                read, write = os.pipe2(os.O_CLOEXEC)
                child[number] = keep(theirs, write if number else read)
                parent[number] = keep(ours, read if number else write)
        end, other = handshake.pair()
        theirs.callback(other.close)
        ours.callback(end.close)
        pid, pidfd = namespaces.clone(birth.plan.new_namespaces, cgroup_fd)
        if pid == 0:
            init.run(spec, birth, other, (child[0], child[1], child[2]))
        ours.pop_all()
        return Child(pid, pidfd, end, parent[0], parent[1], parent[2], path)
