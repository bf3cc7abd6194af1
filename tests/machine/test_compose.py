"""`docker compose` of trixie (2.26) against the engine: a web server that waits for a healthy store."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.clients.images import base_layer
from tests.machine.test_ports import fetch
from tests.support.compose import Compose
from tests.support.image_lab import Sample
from tests.support.pybox_cli import Cli

FILE = """
services:
  store:
    image: busybox
    command: ["sh", "-c", "echo kept >/srv/index.html; echo the store is ready; exec sleep 1000"]
    volumes: ["data:/srv"]
    healthcheck: {test: ["CMD", "test", "-f", "/srv/index.html"], interval: 1s, timeout: 5s, retries: 30}
  web:
    image: busybox
    command: ["httpd", "-f", "-p", "8080", "-h", "/srv"]
    volumes: ["data:/srv:ro"]
    ports: ["8080"]
    environment: {MODE: "${MODE:-plain}"}
    depends_on: {store: {condition: service_healthy}}
volumes: {data: {}}
"""


@pytest.fixture(scope="module")
def compose(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The project; what is left of it is taken down afterwards."""
    folder = tmp_path_factory.mktemp("compose")
    (folder / "compose.yaml").write_text(FILE)
    cli.ok("load", stdin=Sample.of(base_layer(cli)).saved("busybox:latest"))
    made = Compose(cli, folder / "compose.yaml", "composed", {}, folder)
    yield made
    made.run("down", "-v", "--timeout", "0")


def test_up_scale_and_down(compose: Compose) -> None:
    compose.ok("up", "-d")
    found = compose.listed()
    assert found["composed-store-1"]["Health"] == "healthy" and found["composed-web-1"]["State"] == "running"
    assert fetch(compose.port("web", 8080)) == "kept\n"
    assert "the store is ready" in compose.ok("logs", "store")
    assert compose.ok("exec", "-T", "store", "wget", "-qO-", "http://web:8080/") == "kept"
    compose.ok("up", "-d", "--scale", "web=3", "--timeout", "0")
    found_by_dns = compose.ok("exec", "-T", "store", "nslookup", "web")
    assert len(re.findall(r"^Address: ", found_by_dns, re.MULTILINE)) == 3, found_by_dns
    compose.ok("up", "-d", "--scale", "web=1", "--timeout", "0")
    assert len(compose.ok("ps", "-q", "web").split()) == 1
    compose.ok("down", "-v", "--timeout", "0")
    assert compose.left() == []
