"""The engine's process, from its first step to the end of the machine.

It comes up without a data disk and without knowing its machine; the host's first `configure` completes it. A second
one (the hostagent was restarted, or settings changed) is applied on the fly. Ends with status 0 when the machine shall
be switched off; with any other it is started again, finds its containers running, and is configured anew.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import sys
import time
from contextlib import AsyncExitStack

from pyboxd import locations
from pyboxd.api.paths import HostPaths
from pyboxd.api.rooms import Rooms, prepare_directories
from pyboxd.api.schema.system import Release
from pyboxd.api.system import Surroundings
from pyboxd.boot import devices, ssh
from pyboxd.boot.configuration import Configuration, Moment
from pyboxd.boot.control import MANIFEST, ControlClient
from pyboxd.boot.data import mount_data_disk, unmount_data_disk
from pyboxd.boot.filesystems import unmount_below
from pyboxd.boot.start import mark_phase
from pyboxd.boot.system import System, wait_until_settled
from pyboxd.boot.trim import Trimmer
from pyboxd.database import Database
from pyboxd.engine.model import Record
from pyboxd.engine.store import Volume
from pyboxd.errors import PyboxdError
from pyboxd.image.layerstore import MOUNTS, LayerStore
from pyboxd.image.model import RegistrySettings
from pyboxd.image.room import ImageRoom
from pyboxd.linux.mount import mount
from pyboxd.network.bridge import Fabric
from pyboxd.network.namespaces import Namespaces
from pyboxd.network.networks import STATE_DATABASE, Networks
from pyboxd.runtime import codec
from pyboxd.runtime.client import Runtime
from pyboxd.server.dial import Dialer
from pyboxd.server.http import Application, Identity

VERSION = "0.1.0"
STOP_TIMEOUT = 10.0  # seconds for containers to end when a signal asks for the end
# Seconds that a thread computes while another one waits for its turn. Threads mostly ask the kernel for something here
# and have little to compute after each answer: with Python's own 5 ms they would wait longer than they work.
_SWITCH = 0.0005
_RESERVE = 1.0  # seconds after the start
log = logging.getLogger(__name__)


def run(runtime: Runtime) -> int:
    """Run the engine over a spawner that was forked before; its exit status."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    gc.freeze()
    sys.setswitchinterval(_SWITCH)
    return asyncio.run(Engine(runtime).run())


class Engine:
    """The process's state: unconfigured at first, then with all rooms."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._system = System(runtime)
        self._control = ControlClient(self._configure, self._stop, self._clients_wait, self._is_busy)
        self._paths = HostPaths()
        self._configuration = Configuration()
        self._database: Database | None = None
        self._ground: tuple[Database, Fabric, Namespaces] | None = None  # of the networks, prepared and not yet used
        self._networks: Networks | None = None
        self._rooms: Rooms | None = None
        self._application: Application | None = None
        self._dialer = Dialer()
        self._trimming: asyncio.Task[None] | None = None
        self._reserving: asyncio.TimerHandle | None = None
        self._over = asyncio.Event()
        self._status = 0
        self._stopping = False

    async def run(self) -> int:
        """Until the host, a signal or a failure ends it."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        await self._warm_up()
        self._control.open(devices.port(locations.CONTROL_PORT))
        mark_phase("engine")
        watching = asyncio.create_task(self._watch_spawner())
        await self._over.wait()
        watching.cancel()
        await self._control.flush()
        self._control.close()
        return self._status

    async def _warm_up(self) -> None:
        """All that can be done before anything is known of the machine: its state may be saved after this."""
        await wait_until_settled()
        _, fabric, namespaces = self._ground = _ground()
        fabric.prepare()
        await namespaces.fill()
        codec.prepare(Record, Volume)
        self._system.prepare()

    async def _watch_spawner(self) -> None:
        await self._runtime.wait_broken()
        log.error("the spawner has died; the engine starts again")
        self._end(1)

    def _terminate(self) -> None:
        self._stop_task = asyncio.create_task(self._stop(STOP_TIMEOUT))

    def _end(self, status: int) -> None:
        self._status = status
        self._over.set()

    # configure

    async def _configure(self, configuration: Configuration, moment: Moment) -> None:
        """All of `configuration` is in force when this returns. PyboxdError names the part that is not."""
        self._control.phase("configure")
        self._system.awake(moment)
        if self._rooms is None:
            await self._open(configuration)
        else:
            assert self._networks is not None
            await self._adopt(configuration)
            await self._networks.republish()
        assert self._rooms is not None
        self._rooms.images.registries = _registries(configuration)
        self._control.phase("ready")
        self._control.ready()

    async def _adopt(self, configuration: Configuration) -> None:
        """What needs no data disk."""
        if configuration.api is not None:
            self._dialer.open(configuration.api)
        await self._system.apply(configuration)
        self._configuration = configuration
        self._paths.replace(configuration.shares)
        self._control.phase("system")

    async def _open_disk(self, configuration: Configuration) -> Database:
        if configuration.data_disk:
            await mount_data_disk(self._runtime)
        elif not os.path.ismount(locations.DATA):  # a machine that shall forget everything
            mount("tmpfs", locations.DATA, "tmpfs")
        database = await asyncio.to_thread(_open_database)
        self._control.phase("disk")
        return database

    async def _open(self, configuration: Configuration) -> None:
        """Everything that needs the data disk. After a failure it can be tried again."""
        # Most of both is the kernel's work, and there is more than one processor.
        disk, others = asyncio.create_task(self._open_disk(configuration)), asyncio.create_task(self._adopt(configuration))
        await asyncio.gather(disk, others, return_exceptions=True)
        async with AsyncExitStack() as undo:
            database = disk.result()
            undo.callback(database.close)
            others.result()
            state, fabric, namespaces = self._ground or _ground()
            self._ground = None
            networks = Networks(database, self._control, state=state, fabric=fabric, namespaces=namespaces)
            undo.push_async_callback(networks.close)
            await networks.setup()
            await networks.republish()
            self._control.phase("networks")
            release = _release()
            images = ImageRoom(database, LayerStore(self._runtime), architecture=release.architecture)
            rooms = Rooms(database, self._runtime, images, networks, self._paths, release, self._surroundings)
            await rooms.recover()
            identity = Identity(f"pybox/{VERSION} (linux)", release.api_version, release.min_api_version)
            self._control.phase("rooms")
            application = Application(rooms.routes(), identity)
            await application.serve_unix(locations.API_SOCKET)
            undo.pop_all()
        self._database, self._networks, self._rooms, self._application = database, networks, rooms, application
        if configuration.data_disk:
            self._trimming = asyncio.create_task(Trimmer(locations.DATA).run())
        self._dialer.serve(application.protocol)
        # On a disk with room this can wait a second, and the first client cannot.
        self._reserving = asyncio.get_running_loop().call_later(_RESERVE, database.reserve)

    def _clients_wait(self, count: int) -> None:
        self._dialer.want(count)

    def _is_busy(self) -> bool:
        """Whether something goes on here that the host cannot see."""
        rooms = self._rooms
        return ssh.has_sessions() or (rooms is not None and any(found.state.running for found in rooms.containers))

    def _surroundings(self) -> Surroundings:
        known = self._configuration
        proxies = known.proxies
        return Surroundings(proxies.http, proxies.https, proxies.no, known.insecure_registries, known.registry_mirror)

    # stop

    async def _stop(self, timeout: float) -> None:
        """End the containers, close everything, unmount the data disk; the machine is switched off next."""
        if self._stopping:
            return
        self._stopping = True
        try:
            if self._rooms is not None:
                await self._rooms.supervisor.close(timeout)
            self._dialer.close()
            if self._application is not None:
                await self._application.close()
            if self._networks is not None:
                await self._networks.close()
            await self._runtime.close()
            if self._reserving is not None:
                self._reserving.cancel()
            if self._database is not None:
                self._database.close()
            if self._trimming is not None:
                self._trimming.cancel()
            if self._configuration.data_disk:
                unmount_below(MOUNTS)  # the layers, whose files are on that disk
                await asyncio.to_thread(unmount_data_disk)
        except (PyboxdError, OSError):
            log.exception("the machine could not be stopped properly")
        self._control.stopped()
        self._end(0)


def _open_database() -> Database:
    prepare_directories()
    return Database(locations.DATABASE)


def _ground() -> tuple[Database, Fabric, Namespaces]:
    """What the networks stand on, and what a machine can have before it knows whose it is."""
    return Database(STATE_DATABASE), Fabric(), Namespaces()


def _registries(configuration: Configuration) -> RegistrySettings:
    proxies = configuration.proxies
    return RegistrySettings(
        frozenset(configuration.insecure_registries),
        proxies.http,
        proxies.https,
        proxies.no,
        mirror=configuration.registry_mirror,
    )


def _release() -> Release:
    name = os.uname()
    return Release(
        version=VERSION,
        api_version=Identity().api_version,
        min_api_version=Identity().min_api_version,
        kernel=name.release,
        architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(name.machine, name.machine),
        started_at=time.time_ns(),
        image=_image_id(),
    )


def _image_id() -> str:
    """Id of the guest image; "" outside of one."""
    try:
        with open(MANIFEST, encoding="utf-8") as file:
            return str(json.load(file)["id"])
    except FileNotFoundError:
        return ""
