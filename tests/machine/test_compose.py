"""`docker compose` of trixie (2.26) against the engine: a web server that waits for a healthy store."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from tests.clients.images import base_layer
from tests.support.image_lab import Sample
from tests.support.pybox_cli import Cli

PROJECT = "composed"
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
Compose = Callable[..., str]


@pytest.fixture(scope="module")
def compose(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """`docker-compose ARGUMENTS`: its standard output; what it leaves is taken down afterwards."""
    tools = cli.home / "docker-compose"
    subprocess.run(
        [sys.executable, "-m", "pybox_image", "unpack", "docker-compose", "--suite", "trixie", "--into", str(tools)],
        check=True,
        env=cli.environment,
    )
    program = str(tools / "usr/libexec/docker/cli-plugins/docker-compose")
    folder = tmp_path_factory.mktemp("compose")
    (folder / "compose.yaml").write_text(FILE)
    cli.ok("load", stdin=Sample.of(base_layer(cli)).saved("busybox:latest"))

    def run(*args: str) -> str:
        return cli.docker(program, "-f", str(folder / "compose.yaml"), "-p", PROJECT, *args).ok().out.strip()

    yield run
    run("down", "-v", "--timeout", "0")


def test_up_scale_and_down(cli: Cli, compose: Compose, trixie_docker: str) -> None:
    compose("up", "-d")
    found = {item["Service"]: item for item in map(json.loads, compose("ps", "--format", "json").splitlines())}
    assert found["store"]["Health"] == "healthy" and found["web"]["State"] == "running"
    with urllib.request.urlopen(f"http://{compose('port', 'web', '8080').replace('0.0.0.0', '127.0.0.1')}/") as answer:
        assert answer.read() == b"kept\n"
    assert "the store is ready" in compose("logs", "store")
    assert compose("exec", "-T", "store", "wget", "-qO-", "http://web:8080/") == "kept"
    compose("up", "-d", "--scale", "web=3", "--timeout", "0")
    found_by_dns = compose("exec", "-T", "store", "nslookup", "web")
    assert len(re.findall(r"^Address: ", found_by_dns, re.MULTILINE)) == 3, found_by_dns
    compose("up", "-d", "--scale", "web=1", "--timeout", "0")
    assert len(compose("ps", "-q", "web").split()) == 1
    compose("down", "-v", "--timeout", "0")
    label = f"label=com.docker.compose.project={PROJECT}"
    for kind in (("ps", "-aq"), ("volume", "ls", "-q"), ("network", "ls", "-q")):
        assert cli.docker(trixie_docker, *kind, "--filter", label).ok().out == ""
