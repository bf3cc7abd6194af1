"""The other folder servers on this computer: virtiofsd for QEMU's device, an sftp server for sshfs. Loopback only."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pybox import hostos
from pybox.errors import PyboxError
from pybox_image import mirror, packages
from pybox_image.errors import ImageError

_VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")  # the one in Rust; QEMU's own until 7.2
_SFTP = tuple(f"/usr/{folder}/sftp-server" for folder in ("lib/openssh", "libexec/openssh", "lib/ssh", "lib", "libexec"))
_PATIENCE = 10.0  # seconds


@contextmanager
def virtiofsd(folder: Path, work: Path) -> Iterator[list[str]]:
    """Serve a folder; QEMU's words for the device, tag `fs`. Raises PyboxError when that cannot be."""
    program = next((path for path in _VIRTIOFSD if Path(path).exists()), shutil.which("virtiofsd"))
    if program is None:
        raise PyboxError("virtiofsd is missing", "", "apt-get install -y virtiofsd")
    if os.geteuid() != 0:
        raise PyboxError("virtiofsd wants root")
    address = work / "virtiofsd.sock"
    options = (
        ["-o", f"source={folder}", "-o", "cache=auto"]
        if program.startswith("/usr/lib/qemu")
        else [f"--shared-dir={folder}", "--cache=auto"]
    )
    log = work / "virtiofsd.log"
    with log.open("wb") as stream:
        command = hostos.current().with_parent([program, f"--socket-path={address}", *options])
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not address.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise PyboxError("virtiofsd does not start", log.read_text(errors="replace")[-500:])
            time.sleep(0.05)
        yield ["-chardev", f"socket,id=fs,path={address}", "-device", "vhost-user-fs-pci,chardev=fs,tag=fs"]
    finally:
        process.kill()
        process.wait()


@contextmanager
def sftp(downloads: Path, work: Path) -> Iterator[int]:
    """Serve sftp, without ssh around it, to whoever connects to a port of 127.0.0.1; the port."""
    program = _sftp_program(downloads, work)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        children: list[subprocess.Popen[bytes]] = []
        thread = threading.Thread(target=_accept, args=(listener, program, children), daemon=True)
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for child in children:
                child.kill()
                child.wait()


def _accept(listener: socket.socket, program: Path, children: list[subprocess.Popen[bytes]]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # shut down
            return
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            children.append(subprocess.Popen([program], stdin=connection.fileno(), stdout=connection.fileno()))


def _sftp_program(downloads: Path, work: Path) -> Path:
    """Return this system's sftp-server, or the one of its Debian package, unpacked."""
    found = next((path for path in map(Path, _SFTP) if path.exists()), None)
    if found is not None:
        return found
    try:
        with open("/etc/os-release") as file:
            system = dict(line.strip().split("=", 1) for line in file if "=" in line)
        if system.get("ID") != "debian":
            raise PyboxError("sftp-server is missing", "", "Install openssh's sftp server.")
        debs = packages.resolve_and_fetch(
            ["openssh-sftp-server"],
            system["VERSION_CODENAME"],
            packages.host_architecture(),
            essential=False,
            mirror=mirror.choose(),
            cache=downloads,
            dependencies=False,
        )
        packages.unpack(debs, work / "sftp")
    except (OSError, KeyError, ImageError) as error:
        raise PyboxError("sftp-server is missing", str(error), "apt-get install -y openssh-sftp-server") from None
    return work / "sftp" / "usr/lib/openssh/sftp-server"
