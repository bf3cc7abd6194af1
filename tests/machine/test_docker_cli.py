"""The ordinary docker CLI against the engine: trixie's (unpacked by the project's own downloader) and any on PATH."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.pybox_cli import Cli


@pytest.fixture(scope="module", params=["trixie", "PATH"])
def docker(request: pytest.FixtureRequest) -> str:
    if request.param == "PATH":
        found = shutil.which("docker")
        if found is None:
            pytest.skip("no docker CLI on PATH")
        return found
    return str(request.getfixturevalue("trixie_docker"))


def test_tour(cli: Cli, docker: str, debian: str, tmp_path: Path) -> None:
    def ok(*args: str, stdin: bytes = b"") -> str:
        return cli.docker(docker, *args, stdin=stdin).ok().out.strip()

    assert json.loads(ok("version", "--format", "json"))["Server"]["ApiVersion"] == "1.51"
    assert ok("run", "--rm", debian, "echo", "hi") == "hi"
    assert cli.docker(docker, "run", "--rm", debian, "sh", "-c", "exit 4").status == 4
    assert cli.docker(docker, "run", "--rm", debian, "nosuch").status == 127
    assert ok("run", "--rm", "-i", debian, "cat", stdin=b"piped") == "piped"
    identity = ok("run", "-d", "--name", "tour", debian, "sh", "-c", "echo logged; exec sleep 1000")
    assert identity[:12] in ok("ps", "-q")
    assert "tour" in ok("ps")
    assert ok("exec", "tour", "echo", "inside") == "inside"
    assert cli.docker(docker, "exec", "tour", "sh", "-c", "exit 9").status == 9
    assert ok("logs", "tour") == "logged"
    assert ok("inspect", "-f", "{{.State.Running}}", "tour") == "true"
    assert ok("rm", "-f", "tour") == "tour"
    (tmp_path / "Dockerfile").write_text(f"FROM {debian}\nRUN echo built >/x\nCMD cat /x\n")
    cli.docker(docker, "build", "-t", "toured", str(tmp_path)).ok()
    assert ok("run", "--rm", "toured") == "built"
    assert "toured" in ok("images")
    ok("rmi", "toured")
    assert "toured" not in ok("images")


def test_buildkit_is_refused_with_the_way_out(cli: Cli) -> None:
    """What a client with the buildx plugin sends first."""
    import http.client
    import socket

    address = cli.ok("shellinit", "--shell", "bash").splitlines()[0].partition("unix://")[2].strip("'\"")
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(address)
    connection.request("POST", "/grpc", headers={"Connection": "Upgrade", "Upgrade": "h2c"})
    answer = connection.getresponse()
    message = json.loads(answer.read())["message"]
    connection.close()
    assert answer.status >= 400 and "DOCKER_BUILDKIT=0" in message


def test_docker_py(cli: Cli, debian: str) -> None:
    import docker as sdk

    address = cli.ok("shellinit", "--shell", "bash").splitlines()[0].partition("=")[2].strip("'\"")
    client = sdk.DockerClient(base_url=address)
    try:
        assert client.containers.run(debian, "echo hi", remove=True) == b"hi\n"
        container = client.containers.run(debian, "sleep 1000", detach=True)
        try:
            assert container.exec_run("echo there").output == b"there\n"
            assert [item.id for item in client.containers.list()] == [container.id]
        finally:
            container.remove(force=True)
        assert any(debian in image.tags for image in client.images.list())
    finally:
        client.close()
