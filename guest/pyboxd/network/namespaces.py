"""Network namespaces with names, and a few spare ones that wait for the next container.

A namespace is made by a thread that leaves the guest's namespace, configures the new one and ends; the engine never
forks for it. A bind mount of the thread's /proc entry keeps the namespace under locations.NETNS.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import secrets
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from pyboxd import locations
from pyboxd.linux import libc, netlink

CLONE_NEWNET = 0x40000000  # <linux/sched.h>
MS_BIND = 0x1000  # <linux/mount.h>
MNT_DETACH = 2

SPARE = 2
# Seconds between taking a spare namespace and making the next: the container that took it starts meanwhile.
REFILL_DELAY = 0.25
# As Docker sets them for every container, and no IPv6 address on any interface but lo, because networks are IPv4.
SYSCTLS = (
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
)

T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Namespace:
    """A namespace that was taken, with a socket that configures it from any thread."""

    name: str
    path: str
    route: netlink.RouteSocket


class Namespaces:
    """The named network namespaces under `folder`. All methods are called on the event loop's thread."""

    def __init__(self, folder: str = locations.NETNS, spare: int = SPARE) -> None:
        self._folder = folder
        self._spare = spare
        self._ready: list[Namespace] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._refill: asyncio.TimerHandle | None = None
        os.makedirs(folder, mode=0o755, exist_ok=True)

    def path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    async def fill(self) -> None:
        """Make namespaces until the spare ones are all there. Raises OSError."""
        for _ in range(self._spare - len(self._ready)):
            await self._grow()

    async def take(self) -> Namespace:
        """A fresh namespace: lo is up, nothing else is in it. The caller closes its socket and removes it."""
        while not self._ready:
            # A caller that is cancelled leaves the namespace to the next one.
            await asyncio.shield(self._keep(asyncio.ensure_future(self._grow())))
        taken = self._ready.pop(0)
        if self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(REFILL_DELAY, self._start_refill)
        return taken

    async def run_in(self, name: str, function: Callable[[], T]) -> T:
        """What `function` returns when a thread of its own calls it inside the namespace. Raises OSError."""
        return await _in_own_thread(lambda: _enter_and_call(self.path(name), function))

    def remove(self, name: str) -> None:
        """Take the name away; the namespace ends with its last process. No error if there is none."""
        path = self.path(name)
        try:
            libc.umount(path, MNT_DETACH)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):  # EINVAL: a file, but nothing is mounted on it
                raise
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def remove_others(self, keep: Collection[str]) -> None:
        """Take away all names that are neither in `keep` nor spare: what an engine that crashed left behind."""
        spare = {namespace.name for namespace in self._ready}
        for name in os.listdir(self._folder):
            if name not in keep and name not in spare:
                self.remove(name)

    async def close(self) -> None:
        """Remove the spare namespaces and make no more."""
        self._spare = 0
        if self._refill is not None:
            self._refill.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._ready:
            namespace = self._ready.pop()
            namespace.route.close()
            self.remove(namespace.name)

    async def _grow(self) -> None:
        name = secrets.token_hex(8)
        path = self.path(name)
        self._ready.append(Namespace(name, path, await _in_own_thread(lambda: _make(path))))

    def _start_refill(self) -> None:
        self._refill = None
        self._keep(asyncio.ensure_future(self._fill_in_background()))

    async def _fill_in_background(self) -> None:
        try:
            await self.fill()
        except OSError as error:
            log.warning("no spare network namespaces: %s", error)

    def _keep(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        """Hold a reference to the task until it ends, as asyncio asks."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _in_own_thread(function: Callable[[], T]) -> T:
    """Like asyncio.to_thread, but the thread ends with the call: it may have changed its namespace."""
    executor = ThreadPoolExecutor(1, "netns")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, function)
    finally:
        executor.shutdown(wait=False)


def _make(path: str) -> netlink.RouteSocket:
    """Turn the calling thread's network namespace into a new one, kept under `path`."""
    libc.unshare(CLONE_NEWNET)
    for name, value in SYSCTLS:
        write_sysctl(name, value)
    route = netlink.RouteSocket()
    try:
        route.execute(netlink.set_up("lo"))
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        try:
            libc.mount("/proc/thread-self/ns/net", path, "", MS_BIND, "")
        except OSError:
            os.unlink(path)
            raise
    except OSError:
        route.close()
        raise
    return route


def _enter_and_call(path: str, function: Callable[[], T]) -> T:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(descriptor, CLONE_NEWNET)
    finally:
        os.close(descriptor)
    return function()


def write_sysctl(name: str, value: str) -> None:
    """Set a network sysctl of the calling thread's namespace; one that this kernel does not have (IPv6 switched
    off) is passed over."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
        file.write(value)
