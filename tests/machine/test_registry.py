"""The docker CLI and docker-py at a real registry with passwords: login, push, pull, and what is asked of registries."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker as sdk
import pytest

from tests.support.http_server import Reply, serving
from tests.support.pybox_cli import Cli, Finished
from tests.support.registry import Registry, running_registry

LOGIN = {"username": "ann", "password": "secret"}


@pytest.fixture(scope="module")
def registry(home: Path) -> Iterator[Registry]:
    with running_registry(home / "registry-with-login", users={"ann": "secret"}) as running:
        yield running


@pytest.fixture
def client(cli: Cli) -> Iterator[Any]:
    address = cli.ok("shellinit", "--shell", "bash").splitlines()[0].partition("=")[2].strip("'\"")
    found = sdk.DockerClient(base_url=address)
    yield found
    found.close()


@pytest.fixture
def app(cli: Cli, registry: Registry, debian: str, tmp_path: Path) -> Iterator[str]:
    """A repository of the registry whose image is made here: a layer over the base image."""
    repository = f"{registry.address}/team/app"
    (tmp_path / "Dockerfile").write_text(f"FROM {debian}\nCOPY Dockerfile /made-here\n")
    cli.ok("build", "-t", f"{repository}:1", str(tmp_path))
    yield repository
    cli.run("rmi", "-f", f"{repository}:1")


def test_login_push_and_pull(cli: Cli, trixie_docker: str, registry: Registry, app: str) -> None:
    def run(*args: str, stdin: bytes = b"") -> Finished:
        return cli.docker(trixie_docker, *args, stdin=stdin)

    refused = run("push", f"{app}:1")
    assert refused.status == 1 and "no basic auth credentials" in refused.err
    wrong = run("login", "--username", "ann", "--password-stdin", registry.address, stdin=b"no")
    assert wrong.status == 1 and "failed with status: 401 Unauthorized" in wrong.err
    right = run("login", "--username", "ann", "--password-stdin", registry.address, stdin=b"secret").ok()
    assert "Login Succeeded" in right.out

    first = run("push", f"{app}:1").ok().out
    assert first.count(": Pushed") == 2 and "1: digest: sha256:" in first
    second = run("push", f"{app}:1").ok().out
    assert second.count(": Layer already exists") == 2 and second.splitlines()[-1] == first.splitlines()[-1]
    for tag in ("2", "3"):
        run("tag", f"{app}:1", f"{app}-more:{tag}").ok()
    every = run("push", "--all-tags", f"{app}-more").ok().out
    assert every.count("Mounted from team/app") == 2 and "2: digest: " in every and "3: digest: " in every
    missing = run("push", f"{app}:nope")
    assert missing.status == 1 and f"tag does not exist: {app}:nope" in missing.err

    digest = first.rpartition("digest: ")[2].split()[0]
    assert f"{app}@{digest}" in run("inspect", "--format", "{{json .RepoDigests}}", f"{app}:1").ok().out
    run("rmi", "-f", f"{app}:1", f"{app}-more:2", f"{app}-more:3").ok()
    run("pull", f"{app}@{digest}").ok()
    assert run("run", "--rm", f"{app}@{digest}", "cat", "/made-here").ok().out
    removed = run("rmi", f"{app}@{digest}").ok().out
    assert f"Untagged: {app}@{digest}" in removed and "Deleted: sha256:" in removed
    run("logout", registry.address).ok()


def test_what_is_behind_a_name(cli: Cli, client: Any, app: str) -> None:
    said = [json.loads(line) for line in client.images.push(app, "1", auth_config=LOGIN).splitlines()]
    aux = said[-1]["aux"]
    found = client.images.get_registry_data(f"{app}:1", auth_config=LOGIN)
    assert found.id == aux["Digest"] and found.attrs["Descriptor"]["size"] == aux["Size"]
    assert found.has_platform("linux/amd64")
    with pytest.raises(sdk.errors.NotFound):
        client.images.get_registry_data(f"{app}:nope", auth_config=LOGIN)
    with pytest.raises(sdk.errors.APIError, match="unauthorized"):
        client.images.get_registry_data(f"{app}:1", auth_config=LOGIN | {"password": "no"})


def test_search(client: Any, registry: Registry) -> None:
    results = {"results": [{"name": "team/app", "description": "d", "star_count": 2, "is_official": False}]}
    with serving(lambda seen: Reply(200, json.dumps(results).encode())) as server:
        (found,) = client.images.search(f"{server.address}/app")
        assert (found["name"], found["star_count"]) == ("team/app", 2)
        assert server.seen[-1].path == "/v1/search?q=app&n=25"
    with pytest.raises(sdk.errors.APIError, match="unexpected status code 404"):
        client.images.search(f"{registry.address}/app")


def test_import_from_an_address(cli: Cli, trixie_docker: str) -> None:
    tree = io.BytesIO()
    with tarfile.open(fileobj=tree, mode="w:gz") as archive:
        entry = tarfile.TarInfo("etc/motd")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    with serving(lambda seen: Reply(200, tree.getvalue()) if seen.path == "/tree" else Reply(404)) as server:
        address = f"http://{server.address}/tree"
        done = cli.docker(trixie_docker, "import", address, "from-an-address").ok()
        assert f"Downloading from {address}" in done.out and "sha256:" in done.out
        assert cli.docker(trixie_docker, "import", f"{address}-not").status == 1
    assert f"Imported from {address}" in cli.docker(trixie_docker, "history", "from-an-address").ok().out
    cli.ok("rmi", "from-an-address")
