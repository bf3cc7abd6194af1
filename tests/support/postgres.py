"""A real PostgreSQL in a container, and a second container that commits numbered rows to it as fast as it goes."""

from __future__ import annotations

import re
import socket
import time
from dataclasses import dataclass

from tests.support.debian_image import debian_image
from tests.support.pybox_cli import ROOT, Cli

IMAGE = "postgres"
CONFIGURED = "postgres-configured"
_PATIENCE = 120.0  # seconds for anything that goes on in the machine

_SERVE = """
set -e
as() { exec setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s /data/PG_VERSION ]; then
    chown postgres:postgres /data
    chmod 700 /data
    (as $bin/initdb -D /data --auth=trust --data-checksums)
    echo 'host all all all trust' >>/data/pg_hba.conf
fi
as $bin/postgres -D /data -c 'listen_addresses=*' -c unix_socket_directories=/tmp -c fsync=on \\
    -c log_connections=on -c log_disconnections=on
"""
_TABLE = """
CREATE TABLE numbers (
    number bigint PRIMARY KEY, session integer NOT NULL DEFAULT pg_backend_pid(), content text NOT NULL)
"""
# One session, one transaction a statement. psql says a number when its commit is acknowledged, and ends when the
# session is lost.
_WRITE = """
i=0
while :; do
    i=$((i+1))
    echo "INSERT INTO numbers (number, content) VALUES ($i, repeat(md5('$i'), 8)) RETURNING number;"
done | psql -h ADDRESS -U postgres -qAt -v ON_ERROR_STOP=1
"""
_SUMMARY = """
SELECT count(*), count(DISTINCT number), min(number), max(number), count(DISTINCT session),
    count(*) FILTER (WHERE content <> repeat(md5(number::text), 8)) FROM numbers
"""
_NO_INDEX = "PGOPTIONS=-c enable_indexscan=off -c enable_indexonlyscan=off -c enable_bitmapscan=off"
_SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
_BAD_WORDS = re.compile(r"PANIC|ERROR:|terminated by signal|was interrupted|not properly shut down|unexpected EOF")


def image(cli: Cli) -> str:
    """An image with Debian's PostgreSQL."""
    return debian_image(cli, IMAGE, "postgresql")


def configured_image(cli: Cli) -> str:
    """One that takes POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, as the official image does."""
    cli.ok("build", "-t", CONFIGURED, "--build-arg", f"BASE={image(cli)}", str(ROOT / "tests" / "apps" / "postgres"))
    return CONFIGURED


@dataclass(frozen=True)
class Life:
    """What changes when a container is started again."""

    running: bool
    started_at: str
    restarts: int
    pid: int

    @classmethod
    def of(cls, cli: Cli, name: str) -> Life:
        found = cli.json("inspect", name)[0]
        state = found["State"]
        return cls(state["Running"], state["StartedAt"], found["RestartCount"], state["Pid"])


@dataclass(frozen=True)
class Rows:
    """What is in the table, found without its index."""

    count: int
    distinct: int
    least: int
    most: int
    sessions: int
    damaged: int


class Postgres:
    """The server: data in a volume, port published."""

    name = "postgres"
    volume = "postgres-data"

    def __init__(self, cli: Cli) -> None:
        self._cli = cli
        cli.ok("run", "-d", "--name", self.name, "-p", "5432", "-v", f"{self.volume}:/data", IMAGE, "sh", "-c", _SERVE)
        deadline = time.monotonic() + _PATIENCE
        while self._psql("SELECT 1") != "1":
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.5)
        assert self._psql(_TABLE) == ""
        self.address = cli.ok("inspect", "-f", "{{.NetworkSettings.IPAddress}}", self.name)
        self._port = int(cli.ok("port", self.name).rpartition(":")[2])

    def _psql(self, statement: str) -> str:
        done = self._cli.run("exec", "-e", _NO_INDEX, self.name, "psql", "-h", "/tmp", "-U", "postgres", "-qAtc", statement)
        return done.out.strip() if done.status == 0 else done.err

    def dial(self) -> socket.socket:
        """A connection from this computer on which the server has said something."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            connection = socket.create_connection(("127.0.0.1", self._port), timeout=20)
            connection.sendall(_SSL_REQUEST)
            if connection.recv(1) == b"N":
                return connection
            connection.close()
            assert time.monotonic() < deadline

    def rows(self) -> Rows:
        return Rows(*map(int, self._psql(_SUMMARY).split("|")))

    def log(self) -> str:
        done = self._cli.run("logs", self.name).ok()
        return done.out + done.err

    def complaints(self) -> list[str]:
        """Lines of the log that must not be there."""
        return [line for line in self.log().splitlines() if _BAD_WORDS.search(line)]

    def sessions_of(self, application: str) -> tuple[int, int]:
        """How many sessions of a program have begun, and how many of these have ended."""
        processes = re.findall(rf"\[(\d+)\] LOG: +connection authorized: .*application_name={application}\b", self.log())
        ended = [pid for pid in processes if re.search(rf"\[{pid}\] LOG: +disconnection:", self.log())]
        return len(processes), len(ended)

    def check_tables(self) -> None:
        """Compare every table with its indexes, row by row."""
        command = "exec /usr/lib/postgresql/*/bin/pg_amcheck -h /tmp -U postgres --install-missing --heapallindexed postgres"
        assert self._cli.ok("exec", self.name, "sh", "-c", command, timeout=900) == ""

    def check_pages(self) -> str:
        """End the server in order, and compare the sum of every page of its files."""
        self._cli.ok("stop", "-t", "60", self.name)
        assert self._cli.json("inspect", self.name)[0]["State"]["ExitCode"] == 0
        command = (
            "exec setpriv --reuid=postgres --regid=postgres --clear-groups /usr/lib/postgresql/*/bin/pg_checksums -D /data"
        )
        return self._cli.ok("run", "--rm", "-v", f"{self.volume}:/data", IMAGE, "sh", "-c", command, timeout=900)


class Writer:
    """The one that commits."""

    name = "writer"

    def __init__(self, cli: Cli, address: str) -> None:
        self._cli = cli
        write = _WRITE.replace("ADDRESS", address)
        cli.ok("run", "-d", "--name", self.name, "-e", f"PGAPPNAME={self.name}", IMAGE, "sh", "-c", write)

    def last(self) -> int:
        """The last number that was acknowledged, 0 before the first."""
        return int(self._cli.ok("logs", "--tail", "1", self.name) or 0)

    def wait_beyond(self, number: int) -> int:
        """Wait until more than `number` was acknowledged; the last one."""
        deadline = time.monotonic() + _PATIENCE
        while (seen := self.last()) <= number:
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)
        return seen

    def end(self) -> list[int]:
        """Kill it; everything that was acknowledged."""
        self._cli.ok("kill", self.name)
        self._cli.ok("wait", self.name)
        return [int(line) for line in self._cli.ok("logs", self.name).split()]
