"""What other clients than the docker CLI do first; that one has a tour of its own (test_tours.py)."""

from __future__ import annotations

import json

from tests.support.pybox_cli import Cli


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
