"""The ssh server for people: dropbear with the keys that the host made, no passwords."""

from __future__ import annotations

import base64
import binascii
import os
import signal
import struct

from pyboxd.boot.configuration import SshKeys
from pyboxd.boot.data import Helpers
from pyboxd.boot.settle import ADDRESS
from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.locations import RUN

FOLDER = f"{RUN}/ssh"
PID_FILE = f"{FOLDER}/dropbear.pid"
HOME = "/root/.ssh"
KIND = b"ssh-ed25519"
_MAGIC = b"openssh-key-v1\0"
TIMEOUT = 30.0  # seconds until dropbear must have gone to the background
_PORT = ":0016"  # 22
_ESTABLISHED = "01"


class _Reader:
    """Takes ssh's length-prefixed strings off the front of bytes (RFC 4251, section 5)."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def string(self) -> bytes:
        (length,) = struct.unpack_from(">I", self._data)
        if length > len(self._data) - 4:
            raise ValueError("too short")
        value, self._data = self._data[4 : 4 + length], self._data[4 + length :]
        return value

    def skip(self, count: int) -> None:
        self._data = self._data[count:]


def dropbear_key(openssh: str) -> bytes:
    """An unencrypted OpenSSH ed25519 private key (PROTOCOL.key) in dropbear's format. InvalidArgument otherwise."""
    lines = [line for line in openssh.split() if line]
    body = "".join(lines)
    begin, end = "-----BEGINOPENSSHPRIVATEKEY-----", "-----ENDOPENSSHPRIVATEKEY-----"
    try:
        if not body.startswith(begin) or not body.endswith(end):
            raise ValueError("not in OpenSSH's format")
        raw = base64.b64decode(body[len(begin) : -len(end)])
        if not raw.startswith(_MAGIC):
            raise ValueError("not in OpenSSH's format")
        outer = _Reader(raw[len(_MAGIC) :])
        if outer.string() != b"none":
            raise ValueError("encrypted")
        for _ in range(2):  # the name of the key derivation, and its options
            outer.string()
        outer.skip(4)  # number of keys, 1
        outer.string()  # the public key
        inner = _Reader(outer.string())
        inner.skip(8)  # the check numbers
        if inner.string() != KIND:
            raise ValueError("not an ed25519 key")
        inner.string()
        private = inner.string()  # seed and public key, 64 bytes: dropbear stores the same
    except (ValueError, struct.error, binascii.Error) as error:
        raise InvalidArgument(f"the ssh host key cannot be used: {error}") from error
    return b"".join(struct.pack(">I", len(part)) + part for part in (KIND, private))


def write_keys(keys: SshKeys) -> None:
    """Put the keys where the server looks for them. InvalidArgument when the host key cannot be used."""
    host_key = dropbear_key(keys.host_key)
    for folder in (FOLDER, HOME):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    _write(f"{FOLDER}/host_key", host_key)
    _write(f"{HOME}/authorized_keys", keys.authorized_key.strip().encode() + b"\n")


async def start(helpers: Helpers) -> None:
    """Start the server with the keys that were written. SystemFailure when it does not start."""
    listen = f"{ADDRESS}:22"  # the host's way in; containers have no business here
    command = ("/usr/sbin/dropbear", "-s", "-r", f"{FOLDER}/host_key", "-P", PID_FILE, "-p", listen)
    result = await helpers.run_helper(command, timeout=TIMEOUT)
    if result.status != 0:
        raise SystemFailure(f"the ssh server does not start: {result.stderr.decode(errors='replace').strip()}")


def stop() -> None:
    """End the server if it runs; sessions live on."""
    try:
        with open(PID_FILE) as file:
            os.kill(int(file.read()), signal.SIGTERM)
        os.unlink(PID_FILE)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        pass


def has_sessions(table: str = "/proc/net/tcp") -> bool:
    """Whether somebody is connected: a look into the kernel's table of connections (proc_net_tcp.txt)."""
    with open(table) as file:
        fields = [line.split()[1:4] for line in file]
    return any(local.endswith(_PORT) and state == _ESTABLISHED for local, _, state in fields)


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
