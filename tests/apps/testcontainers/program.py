"""What a user of testcontainers writes: `program.py web|postgres IMAGE leave|stay`.

It starts the service in a network of its own, talks to it, makes a volume and an image with the session's labels, and
says in one line of JSON what it saw. Then it leaves everything in order, or stays until it is killed.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
from docker import DockerClient
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.labels import SESSION_ID, create_labels
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

NAME = "service"  # in its network


@dataclass(frozen=True)
class Seen:
    """What the service answered: to `exec` in its container, over the published port, to a neighbour in the network."""

    session: str
    by_exec: str
    by_port: str
    by_name: str


def said(container: DockerContainer, *command: str) -> str:
    """What a command in the container says."""
    done = container.exec(list(command))
    assert done.exit_code == 0, done.output
    return done.output.decode().strip()


@contextmanager
def web(image: str, network: Network) -> Iterator[tuple[DockerContainer, Seen]]:
    """busybox's web server. Its page is put into the container before it starts, and read back from it."""
    serve = ["sh", "-c", "echo The server begins; exec httpd -f -p 80 -h /srv"]
    made = DockerContainer(image, network=network, network_aliases=[NAME]).with_exposed_ports(80).with_command(serve)
    made.with_copy_into_container(b"a page", "/srv/index.html").waiting_for(LogMessageWaitStrategy("The server begins"))
    with made as container:
        address = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(80)}/"
        with urllib.request.urlopen(address, timeout=30) as answer:
            by_port = answer.read().decode()
        by_exec = said(container, "wget", "-qO-", "http://127.0.0.1/")
        with TemporaryDirectory() as folder:
            container.copy_from_container("/srv/index.html", Path(folder) / "page")
            assert (Path(folder) / "page").read_text() == "a page"
        neighbour = DockerContainer(image, network=network).with_command(["wget", "-qO-", f"http://{NAME}/"])
        with neighbour as other:
            assert other.wait() == 0, other.get_logs()
            by_name = other.get_logs()[0].decode()
        yield container, Seen(SESSION_ID, by_exec, by_port, by_name)


@contextmanager
def postgres(image: str, network: Network) -> Iterator[tuple[DockerContainer, Seen]]:
    """Debian's PostgreSQL. A table is made over the published port and read in the two other ways."""
    ask = "SELECT sum(number) FROM numbers"
    made = PostgresContainer(image, username="ann", password="se'cret", dbname="orders", driver=None)
    with made.with_network(network).with_network_aliases(NAME) as database:
        with psycopg.connect(database.get_connection_url(host="127.0.0.1")) as connection:
            connection.execute("CREATE TABLE numbers (number integer)")
            connection.execute("INSERT INTO numbers SELECT generate_series(1, 100)")
            connection.commit()
            row = connection.execute(ask).fetchone()
        by_exec = said(database, "psql", "-U", "ann", "-d", "orders", "-Atc", ask)
        neighbour = DockerContainer(image, network=network, env={"PGPASSWORD": "se'cret"})
        with neighbour.with_command(["psql", "-h", NAME, "-U", "ann", "-d", "orders", "-Atc", ask]) as other:
            assert other.wait() == 0, other.get_logs()
            by_name = other.get_logs()[0].decode()
        yield database, Seen(SESSION_ID, by_exec, str(row[0] if row else ""), by_name.strip())


def main(service: str, image: str, end: str) -> None:
    labels = create_labels(image, None)
    client = DockerClient.from_env()
    with Network() as network, {"web": web, "postgres": postgres}[service](image, network) as (container, seen):
        volume = client.volumes.create(labels=labels)
        copy = container.get_wrapped_container().commit(conf={"Labels": labels})
        print(json.dumps(asdict(seen)), flush=True)
        while end == "stay":
            time.sleep(1)
        volume.remove()
        client.images.remove(str(copy.id))
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
