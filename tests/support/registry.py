"""A real registry (Debian's docker-registry) on loopback, filled with skopeo."""

from __future__ import annotations

import http.client
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "docker-registry"


@dataclass(frozen=True)
class Registry:
    """A running registry; `address` is "localhost:PORT"."""

    address: str
    process: subprocess.Popen[bytes]

    def push(self, archive: Path, name: str, credentials: str = "") -> None:
        """Push an archive of `docker save`'s form as `name` ("library/node:20")."""
        login = ["--dest-creds", credentials] if credentials else []
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false", *login,
             f"docker-archive:{archive}", f"docker://{self.address}/{name}"],
            check=True,
            capture_output=True,
        )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_registry(folder: Path, *, users: dict[str, str] | None = None) -> Iterator[Registry]:
    """A registry with its files below `folder`; with `users` it wants a password (bcrypt hashes by htpasswd's rules)."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    lines = [
        "version: 0.1",
        "log: {level: error}",
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}, delete: {{enabled: true}}}}",
        f"http: {{addr: '127.0.0.1:{port}'}}",
    ]
    if users:
        import bcrypt

        secrets = folder / "htpasswd"
        secrets.write_text(
            "".join(f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}\n" for name, word in users.items())
        )
        lines.append(f"auth: {{htpasswd: {{realm: test, path: {secrets}}}}}")
    configuration = folder / "config.yml"
    configuration.write_text("\n".join(lines) + "\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "serve", str(configuration)], stdout=log, stderr=log)
    try:
        _wait(port, process)
        yield Registry(f"localhost:{port}", process)
    finally:
        process.kill()
        process.wait()


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        assert process.poll() is None, "the registry ended at once"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
    raise AssertionError("the registry does not answer")
