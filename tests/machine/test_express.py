"""The real thing: a Node/Express app, its base image from a real registry, built, run with a port, curled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.test_ports import fetch
from tests.support.pybox_cli import ROOT, Cli
from tests.support.registry import Registry, free_port, running_registry

APP = ROOT / "tests" / "apps" / "express"


@pytest.fixture(scope="module")
def registry(home: Path) -> Iterator[Registry]:
    with running_registry(home / "registry") as running:
        yield running


@pytest.fixture(scope="module")
def node(cli: Cli, home: Path, registry: Registry) -> str:
    """`node`: Debian's nodejs and npm's own package, pushed to the registry and pulled from it."""
    cli.ok("image", "bootstrap", "-t", "node-debian", "--packages", "nodejs,ca-certificates", timeout=1200)
    context = home / "node"
    context.mkdir()
    subprocess.run(["npm", "pack", "--silent", "npm@10"], cwd=context, check=True, capture_output=True)
    next(context.glob("npm-*.tgz")).rename(context / "npm.tgz")
    # A network that inspects TLS has a root of its own; the image trusts what this computer trusts.
    roots = Path(os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"))
    shutil.copy(roots, context / "ca-certificates.crt")
    (context / "Dockerfile").write_text(
        "FROM node-debian\n"
        "ADD npm.tgz /usr/local/lib/node_modules/\n"
        "COPY ca-certificates.crt /etc/ssl/certs/ca-certificates.crt\n"
        "RUN mv /usr/local/lib/node_modules/package /usr/local/lib/node_modules/npm && "
        "ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm && "
        "chmod 755 /usr/local/lib/node_modules/npm/bin/npm-cli.js && npm --version\n"
    )
    cli.ok("build", "-t", "node-made", str(context), timeout=600)
    archive = home / "node.tar"
    cli.ok("save", "-o", str(archive), "node-made")
    registry.push(archive, "library/node:20")
    cli.ok("rmi", "-f", "node-made", "node-debian")
    reference = f"{registry.address}/library/node:20"
    out = cli.ok("pull", reference, timeout=600)
    assert "Status: Downloaded newer image for" in out and "Digest: sha256:" in out
    cli.ok("tag", reference, "node")
    return "node"


def test_hello_from_express(cli: Cli, node: str, shared: Path, name: str) -> None:
    out = cli.ok("build", "-t", "helloexpress", str(APP), timeout=900)
    assert "Successfully tagged helloexpress:latest" in out
    port = free_port()
    logs = shared / "logs"
    logs.mkdir()
    cli.ok(
        "run", "-d", "--name", name, "-p", f"{port}:8080", "-v", f"{logs}:/var/log/app",
        "-m", "256m", "--cpus", "0.5", "--pids-limit", "100", "helloexpress",
    )  # fmt: skip
    assert fetch(port, 120) == "Hello from Express!\n"
    assert "GET /" in (logs / "requests.log").read_text()
    assert "Using cache" in cli.ok("build", "-t", "helloexpress", str(APP), timeout=300)


def test_second_pull_is_up_to_date(cli: Cli, node: str, registry: Registry) -> None:
    assert "Image is up to date" in cli.ok("pull", f"{registry.address}/library/node:20")


def test_private_registry_wants_the_password(cli: Cli, home: Path, node: str) -> None:
    with running_registry(home / "private", users={"ann": "secret"}) as private:
        private.push(home / "node.tar", "team/node:1", "ann:secret")
        done = cli.run("pull", f"{private.address}/team/node:1")
        assert done.status == 1
        assert "no basic auth credentials" in done.err or "unauthorized" in done.err


def test_registry_that_is_not_there(cli: Cli) -> None:
    done = cli.run("pull", f"localhost:{free_port()}/x:1")
    assert done.status == 1
    assert "connection refused" in done.err.lower()


def test_unknown_tag(cli: Cli, node: str, registry: Registry) -> None:
    done = cli.run("pull", f"{registry.address}/library/node:nope")
    assert done.status == 1 and "manifest unknown" in done.err
