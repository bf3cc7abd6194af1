"""`pybox ssh`: a shell or a command in the machine, over paramiko. The machine's host key is known and checked."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pybox.errors import MachineError
from pybox.frozen import frozen
from pybox.hostos.interface import Console

if TYPE_CHECKING:
    from collections.abc import Iterator

    import paramiko

CHUNK = 32 * 1024
_PATIENCE = 15.0  # seconds for the server to start


@frozen
class SshEndpoint:
    """Where the machine's ssh server listens. `host_key` is a line "ssh-ed25519 AAAA…", `key` the private key's file."""

    host: str
    port: int
    user: str
    key: Path
    host_key: str


def run_in_machine(endpoint: SshEndpoint, command: tuple[str, ...], console: Console) -> int:
    """Run `command` (joined by spaces, as ssh does) or a login shell; its exit status."""
    with _connected(endpoint) as client:
        channel = client.get_transport().open_session()  # type: ignore[union-attr]
        terminal = not command and console.is_terminal()
        if terminal:
            rows, columns = console.size() or (24, 80)
            channel.get_pty("xterm-256color", columns, rows)
        if command:
            channel.exec_command(" ".join(command))
        else:
            channel.invoke_shell() if terminal else channel.exec_command("/bin/sh")

        def resize(rows: int, columns: int) -> None:
            channel.resize_pty(columns, rows)

        with console.session(raw=terminal, resize=resize if terminal else None, signal=None):
            _pump(channel, console)
        return channel.recv_exit_status()


def _pump(channel: paramiko.Channel, console: Console) -> None:
    def send() -> None:
        try:
            while data := console.read():
                channel.sendall(data)
            channel.shutdown_write()
        except OSError:
            return  # the command ended first

    def errors() -> None:
        while data := channel.recv_stderr(CHUNK):
            console.write(data, error=True)

    threading.Thread(target=send, daemon=True).start()
    reader = threading.Thread(target=errors, daemon=True)
    reader.start()
    while data := channel.recv(CHUNK):
        console.write(data, error=False)
    reader.join()


@contextmanager
def _connected(endpoint: SshEndpoint) -> Iterator[paramiko.SSHClient]:
    import paramiko

    kind, _, encoded = endpoint.host_key.partition(" ")
    client = paramiko.SSHClient()
    known = paramiko.PKey.from_type_string(kind, base64.b64decode(encoded.split(" ")[0]))
    client.get_host_keys().add(f"[{endpoint.host}]:{endpoint.port}", kind, known)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    try:
        _connect(client, endpoint)
        yield client
    except (OSError, paramiko.SSHException) as error:
        raise MachineError(
            "The machine's ssh server does not answer.", str(error), "See: pybox status; pybox restart"
        ) from error
    finally:
        client.close()


def _connect(client: paramiko.SSHClient, endpoint: SshEndpoint) -> None:
    """Log in. The server starts a moment after the engine: until then QEMU accepts connections, and cuts them."""
    import logging

    import paramiko

    # It writes a traceback for every attempt that fails. Here one is tried again, and the last failure told.
    logging.getLogger("paramiko.transport").setLevel(logging.CRITICAL)
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            client.connect(
                endpoint.host,
                endpoint.port,
                username=endpoint.user,
                pkey=_private_key(endpoint.key),
                allow_agent=False,
                look_for_keys=False,
                timeout=30,
            )
        except (paramiko.AuthenticationException, paramiko.BadHostKeyException):
            raise
        except (OSError, EOFError, paramiko.SSHException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


def _private_key(path: Path) -> paramiko.PKey:
    import paramiko

    text = path.read_text()
    readers: tuple[Callable[[io.StringIO], paramiko.PKey], ...] = (
        paramiko.Ed25519Key.from_private_key,
        paramiko.ECDSAKey.from_private_key,
    )
    for reader in readers:
        try:
            return reader(io.StringIO(text))
        except paramiko.SSHException:
            continue
    raise MachineError("The machine's ssh key cannot be read.", str(path), "Remove it and restart the machine.")


def configuration(machine: str, endpoint: SshEndpoint) -> str:
    """A Host block for ssh_config(5), complete with the checked host key."""
    known = endpoint.key.with_name("known_hosts")
    return "\n".join(
        [
            f"Host pybox{'' if machine == 'default' else '-' + machine}",
            f"  HostName {endpoint.host}",
            f"  Port {endpoint.port}",
            f"  User {endpoint.user}",
            f'  IdentityFile "{endpoint.key}"',
            "  IdentitiesOnly yes",
            f'  UserKnownHostsFile "{known}"',
            "  StrictHostKeyChecking yes",
        ]
    )
