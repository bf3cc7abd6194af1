"""Published ports: fixed, random, refused, released, and back after a restart of the machine."""

from __future__ import annotations

import json
import socket
import time
import urllib.request

import pytest

from tests.support.pybox_cli import Cli
from tests.support.registry import free_port


def fetch(port: int, seconds: float = 60) -> str:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def is_open(port: int, address: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        probe.settimeout(3)
        return probe.connect_ex((address, port)) == 0


def test_fixed_port_answers_and_is_released(cli: Cli, server_image: str, name: str) -> None:
    port = free_port()
    cli.ok("run", "-d", "--name", name, "-p", f"{port}:8080", server_image)
    assert fetch(port) == "hello\n"
    row = json.loads(cli.ok("ps", "--filter", f"name={name}", "--format", "json"))
    assert row["Ports"] == f"0.0.0.0:{port}->8080/tcp"
    assert cli.ok("port", name) == f"8080/tcp -> 0.0.0.0:{port}"
    cli.ok("rm", "-f", name)
    assert not is_open(port)
    cli.ok("run", "-d", "--name", name, "-p", f"127.0.0.1:{port}:8080", server_image)
    assert fetch(port) == "hello\n"


def test_random_port(cli: Cli, server_image: str, name: str) -> None:
    cli.ok("run", "-d", "--name", name, "-p", "8080", server_image)
    bindings = cli.json("inspect", name)[0]["NetworkSettings"]["Ports"]["8080/tcp"]
    assert fetch(int(bindings[0]["HostPort"])) == "hello\n"


def test_port_in_use_is_the_callers_error_and_leaves_nothing(cli: Cli, debian: str, name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli.run("run", "-d", "--name", name, "-p", f"{port}:80", debian, "sleep", "100")
        assert done.status == 125
        assert "Ports are not available: exposing port TCP" in done.err
        assert "bind: address already in use" in done.err
    state = cli.json("inspect", name)[0]["State"]
    assert state["Status"] == "created"
    cli.ok("start", name)  # the port is free now, and nothing of the first try is in the way


@pytest.fixture(scope="module")
def server_image(cli: Cli, debian: str) -> str:
    """A small HTTP server: perl-base is in every Debian image."""
    folder = cli.home / "server"
    folder.mkdir(exist_ok=True)
    (folder / "server.pl").write_text(
        "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die;"
        "$| = 1; while (my $c = $s->accept) { while (<$c>) { last if /^\\r?$/ } "
        'print $c "HTTP/1.0 200 OK\\r\\nContent-Length: 6\\r\\n\\r\\nhello\\n"; close $c }\n'
    )
    (folder / "Dockerfile").write_text(f'FROM {debian}\nCOPY server.pl /\nEXPOSE 8080\nCMD ["perl", "/server.pl"]\n')
    cli.ok("build", "-t", "server", str(folder))
    return "server"
