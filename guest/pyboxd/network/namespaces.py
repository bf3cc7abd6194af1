"""Network namespaces with names, and a few spare ones that wait for the next container.

A namespace is made by a thread that leaves the guest's namespace, configures the new one and ends; the engine never
forks for it. A bind mount of the thread's /proc entry keeps the namespace under locations.NETNS. A spare namespace
has its veth pair already, because making one is what takes the kernel longest; the guest's end is in no bridge yet.
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
from typing import TypeVar

from pyboxd import locations
from pyboxd.frozen import frozen
from pyboxd.linux import mount, namespaces, netlink
from pyboxd.linux.constants import CLONE_NEWNET, MNT_DETACH, MS_BIND

SPARE = 2
MTU = 1500  # of the guest's card, and so of everything behind it
INTERFACE = "eth0"  # the far end of a spare namespace's pair
# Seconds between taking a spare namespace and making the next: the container that took it starts meanwhile.
REFILL_DELAY = 0.25
# As Docker sets them for every container, and no IPv6 address on any interface but lo: networks with IPv6 switch it on.
SYSCTLS = (
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv6/conf/default/disable_ipv6", "1"),
)
# Of an interface in a network with IPv6, before it is set up. Nobody but the engine gives addresses and routes (no router
# advertisements), an address is used without a second of waiting for who else might have it, and neighbours are told of
# it, who may remember another container's hardware address for it.
IPV6_SYSCTLS = (("accept_ra", "0"), ("accept_dad", "0"), ("ndisc_notify", "1"), ("disable_ipv6", "0"))

T = TypeVar("T")
log = logging.getLogger(__name__)


@frozen
class Namespace:
    """A namespace that was taken, with a socket that configures it from any thread."""

    name: str
    path: str
    route: netlink.RouteSocket
    link: str = ""  # the guest's end of the pair whose other end is INTERFACE; "" if there is none


class Namespaces:
    """The named network namespaces under `folder`. Methods are called on the event loop's thread; `remove` on any."""

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

    def fill_soon(self) -> None:
        """Make the spare namespaces that are missing, in the background and not at once."""
        if self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(REFILL_DELAY, self._start_refill)

    async def take_bare(self) -> Namespace:
        """A fresh namespace: lo is up, nothing else is in it. The caller closes its socket and removes it."""
        name = secrets.token_hex(8)
        return Namespace(name, self.path(name), await _in_own_thread(lambda: _make(self.path(name))))

    async def take(self) -> Namespace:
        """A fresh namespace: lo is up, and INTERFACE, which is not up, is one end of a pair. The caller closes its
        socket and removes it."""
        while not self._ready:
            # A caller that is cancelled leaves the namespace to the next one.
            await asyncio.shield(self._keep(asyncio.ensure_future(self._grow())))
        taken = self._ready.pop(0)
        self.fill_soon()
        return taken

    async def run_in(self, name: str, function: Callable[[], T]) -> T:
        """What `function` returns when a thread of its own calls it inside the namespace. Raises OSError."""
        return await _in_own_thread(lambda: _enter_and_call(self.path(name), function))

    def remove(self, name: str) -> None:
        """Take the name away; the namespace ends with its last process. No error if there is none."""
        path = self.path(name)
        try:
            mount.umount2(path, MNT_DETACH)
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
        path, link = self.path(name), f"veth{name[:8]}"
        route = await _in_own_thread(lambda: _make(path, link))
        self._ready.append(Namespace(name, path, route, link))

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


def _make(path: str, link: str = "") -> netlink.RouteSocket:
    """Turn the calling thread's network namespace into a new one, kept under `path`; with a pair whose end `link`
    stays in the old one. A socket of the new namespace."""
    with netlink.RouteSocket() as guest, contextlib.ExitStack() as undo:
        namespaces.unshare(CLONE_NEWNET)
        for name, value in SYSCTLS:
            write_sysctl(name, value)
        route = netlink.RouteSocket()
        undo.callback(route.close)
        route.execute(netlink.set_up("lo"))
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        undo.callback(os.unlink, path)
        mount.mount("/proc/thread-self/ns/net", path, flags=MS_BIND)
        undo.callback(mount.umount2, path, MNT_DETACH)
        if link:
            plug(guest, link, path, INTERFACE)
        undo.pop_all()
    return route


def plug(guest: netlink.RouteSocket, link: str, path: str, interface: str, *, master: int = 0) -> None:
    """Make a veth pair: `link` in the guest, a port of the bridge with index `master` (0: of none), and `interface`
    in the namespace of that path, where it has to be set up."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        guest.execute(netlink.new_veth(link, mtu=MTU, peer=interface, peer_namespace=descriptor, master=master))
    finally:
        os.close(descriptor)


def enable_ipv6(interface: str) -> None:
    """Let an interface of the calling thread's namespace have IPv6 addresses."""
    for name, value in IPV6_SYSCTLS:
        write_sysctl(f"net/ipv6/conf/{interface}/{name}", value)


def _enter_and_call(path: str, function: Callable[[], T]) -> T:
    namespaces.enter_path(path, CLONE_NEWNET)
    return function()


def write_sysctl(name: str, value: str) -> None:
    """Set a network sysctl of the calling thread's namespace; one that this kernel does not have (IPv6 switched
    off) is passed over."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/sys/{name}", "w", encoding="ascii") as file:
        file.write(value)
