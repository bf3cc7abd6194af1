"""Puts a configuration in force in the guest itself: name, clock, randomness, resolver, certificates, ssh.

Idempotent, part by part: what has not changed is not touched. The data disk is `data.py`, the rest of the
configuration (shares, proxies, registries) is the engine's.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import struct
import time

from pyboxd.boot import ssh
from pyboxd.boot.configuration import Configuration, Moment, SshKeys
from pyboxd.boot.data import Helpers
from pyboxd.boot.settle import NAMESERVER
from pyboxd.boot.start import SETTLED_VARIABLE, say
from pyboxd.errors import PyboxdError, SystemFailure
from pyboxd.linux import constants as k
from pyboxd.linux.process import sethostname
from pyboxd.locations import RUN

SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
CERTIFICATES = f"{RUN}/ca-certificates.crt"
"""Bundle of all roots that the engine's own connections trust: the image's and the host's."""

_GENERATION = f"{RUN}/generation"
SSH_DELAY = 0.5  # seconds: whatever waits for the engine's API comes first
CLOCK_TOLERANCE = 0.02  # seconds; a clock that is right within this is not moved


async def wait_until_settled() -> None:
    """Return when the slow part of the boot is done (at once after a restart of the engine).

    SystemFailure when it failed.
    """
    number = os.environ.pop(SETTLED_VARIABLE, "")
    if not number:
        return
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    with os.fdopen(int(number), "rb", 0) as pipe:
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
        text = (await reader.read()).decode(errors="replace")
        transport.close()
    if text:
        raise SystemFailure(f"the machine did not start properly: {text}")


def set_clock(seconds: float) -> None:
    """Set the clock to `seconds` since the epoch."""
    if abs(time.time() - seconds) > CLOCK_TOLERANCE:
        time.clock_settime(time.CLOCK_REALTIME, seconds)


def add_entropy(data: bytes) -> None:
    """Mix the host's random bytes into the kernel's pool, count them, and make the generator use them now.

    Machines that were restored from one saved state would otherwise draw the same numbers.
    """
    with open("/dev/random", "wb", buffering=0) as device:
        fcntl.ioctl(device, k.RNDADDENTROPY, struct.pack("ii", len(data) * 8, len(data)) + data)
        fcntl.ioctl(device, k.RNDRESEEDCRNG)
    random.seed()  # this process's own; that of OpenSSL is seeded where it is used (`image.trust`)


def generation() -> str:
    """What tells this life of the machine from all others; "" before its first `configure`.

    Not the kernel's boot id: that is drawn when it is first read, and must not be before a machine's state is saved.
    """
    try:
        with open(_GENERATION) as file:
            return file.read()
    except FileNotFoundError:
        return ""


class System:
    """The guest's own settings, as the last configuration left them."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers
        self._applied = Configuration(hostname="")
        self._ssh: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """What does not depend on whose machine it is."""
        _write_certificates("")

    def awake(self, moment: Moment) -> None:
        """Make this machine one of its own, at this time: before anything else that `configure` has it do."""
        if moment.entropy:
            add_entropy(moment.entropy)
        if not generation():
            _write(_GENERATION, os.urandom(16).hex())
        if moment.time is not None:
            set_clock(moment.time)

    async def apply(self, configuration: Configuration) -> None:
        """Bring the guest to `configuration`. PyboxdError names the part that could not be done.

        The ssh server starts beside what follows: nobody's first command waits for it.
        """
        before = self._applied
        if configuration.hostname != before.hostname:
            sethostname(configuration.hostname)
            _write(f"{RUN}/hostname", f"{configuration.hostname}\n")
        servers = configuration.dns or (NAMESERVER,)
        _write(f"{RUN}/resolv.conf", "".join(f"nameserver {server}\n" for server in servers))
        if configuration.certificates != before.certificates:
            _write_certificates(configuration.certificates)
        if configuration.ssh != before.ssh:
            await self._change_ssh(configuration.ssh)
        self._applied = configuration

    async def _change_ssh(self, keys: SshKeys | None) -> None:
        if self._ssh is not None:
            await self._ssh
        ssh.stop()
        if keys is not None:
            self._ssh = asyncio.create_task(self._start_ssh(keys))

    async def _start_ssh(self, keys: SshKeys) -> None:
        await asyncio.sleep(SSH_DELAY)
        try:
            ssh.write_keys(keys)
            await ssh.start(self._helpers)
        except PyboxdError as error:
            say(str(error))


def _write_certificates(extra: str) -> None:
    with open(SYSTEM_CERTIFICATES, "rb") as file:
        _write_bytes(CERTIFICATES, file.read() + extra.encode())


def _write(path: str, text: str) -> None:
    """Replace a file whole, so that a reader never sees half of it."""
    _write_bytes(path, text.encode())


def _write_bytes(path: str, data: bytes) -> None:
    temporary = f"{path}.new"
    with open(temporary, "wb", buffering=0) as file:
        file.write(data)
    os.rename(temporary, path)
