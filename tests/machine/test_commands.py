"""Commands of docker in pybox's own command line: what they do, and that docker does and shows the same."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import select
import shutil
import stat
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_server import Reply, serving
from tests.support.pybox_cli import Cli, Finished
from tests.support.registry import Registry, running_registry

pytestmark = pytest.mark.slow  # five minutes
SLEEP = ("sleep", "100000")
# A tree that both programs copy: a folder with files, links and a folder in it.
TREE = "mkdir -p {0}/src/sub {0}/there && echo file >{0}/src/file && chmod 640 {0}/src/file && echo deep >{0}/src/sub/deep"
TREE += " && ln -s file {0}/src/link && ln -s src {0}/way && echo old >{0}/plain && ln -s there {0}/to-there"
TREE += " && ln -s nowhere {0}/dangling"


@pytest.fixture(scope="module")
def docker(request: pytest.FixtureRequest) -> str:
    return shutil.which("docker") or str(request.getfixturevalue("trixie_docker"))


@pytest.fixture(scope="module")
def web(cli: Cli, debian: str) -> Iterator[str]:
    cli.ok("run", "-d", "--name", "web", debian, *SLEEP)
    yield "web"
    cli.run("rm", "-f", "-v", "web")


def shell(cli: Cli, container: str, script: str) -> str:
    return cli.ok("exec", container, "sh", "-c", script)


def seen(folder: Path) -> dict[str, tuple[str, ...]]:
    """What is in a folder: kind, permissions and content of each file."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else path.read_text() if path.is_file() else ""
        mode = "" if path.is_symlink() else oct(stat.S_IMODE(status.st_mode))
        found[str(path.relative_to(folder))] = (oct(stat.S_IFMT(status.st_mode)), mode, content)
    return found


# -- cp ---------------------------------------------------------------------------------------------

COPIES = [
    ("src", "new"),
    ("src", "there"),
    ("src", "there/"),
    ("src/", "new/"),
    ("src/.", "new"),
    ("src/.", "there"),
    ("src", "plain"),
    ("src", "no/new"),
    ("src", "to-there"),
    ("src/file", "new"),
    ("src/file", "new/"),
    ("src/file", "there"),
    ("src/file", "plain"),
    ("src/file", "plain/"),
    ("src/file", "dangling"),
    ("src/link", "there"),
    ("way", "there"),
    ("way/", "there"),
    ("way/.", "there"),
    ("-L way", "there"),
    ("-L src/link", "there"),
    ("-L src/link", "new"),
    ("nothing", "there"),
]


@pytest.mark.parametrize(("source", "target"), COPIES)
def test_cp_out_ends_where_dockers_does(cli: Cli, docker: str, web: str, tmp_path: Path, source: str, target: str) -> None:
    shell(cli, web, f"test -e /out || {{ {TREE.format('/out')}; }}")
    options, path = (["-L"], source.removeprefix("-L ")) if source.startswith("-L ") else ([], source)
    for name in ("ours", "theirs"):
        subprocess.run(["sh", "-c", TREE.format(tmp_path / name)], check=True)
    theirs = cli.docker(docker, "cp", *options, f"{web}:/out/{path}", f"{tmp_path}/theirs/{target}")
    ours = cli.run("cp", *options, f"{web}:/out/{path}", f"{tmp_path}/ours/{target}")
    assert ours.status == theirs.status, f"{ours}{theirs}"
    assert seen(tmp_path / "ours") == seen(tmp_path / "theirs")


@pytest.mark.parametrize(("source", "target"), COPIES)
def test_cp_in_ends_where_dockers_does(cli: Cli, docker: str, web: str, tmp_path: Path, source: str, target: str) -> None:
    options, path = (["-L"], source.removeprefix("-L ")) if source.startswith("-L ") else ([], source)
    subprocess.run(["sh", "-c", TREE.format(tmp_path)], check=True)
    os.chown(tmp_path / "src" / "file", 1234, 4321)
    shell(cli, web, f"rm -rf /ours /theirs; {TREE.format('/ours')}; {TREE.format('/theirs')}")
    theirs = cli.docker(docker, "cp", *options, f"{tmp_path}/{path}", f"{web}:/theirs/{target}")
    ours = cli.run("cp", *options, f"{tmp_path}/{path}", f"{web}:/ours/{target}")
    assert ours.status == theirs.status, f"{ours}{theirs}"
    look = r"cd /{} && find . ! -type d -printf '%P %y %m %U:%G %l ' -exec sh -c 'test -L {{}} || cat {{}}' \; -printf '\n'"
    look += r" | sort; find . -type d -printf '%P %m\n' | sort"
    assert shell(cli, web, look.format("ours")) == shell(cli, web, look.format("theirs"))


def test_cp_of_much_and_of_streams(cli: Cli, web: str, tmp_path: Path) -> None:
    data = os.urandom(8_000_000)
    (tmp_path / "big").write_bytes(data)
    assert cli.ok("cp", str(tmp_path / "big"), f"{web}:/big") == ""
    assert shell(cli, web, "sha256sum </big").split()[0] == hashlib.sha256(data).hexdigest()
    cli.ok("cp", f"{web}:/big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data

    out = subprocess.run(cli.command("cp", f"{web}:/big", "-"), env=cli.environment, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(out.stdout)) as archive:
        assert archive.getnames() == ["big"]
    cli.ok("exec", web, "mkdir", "-p", "/streamed")
    cli.run("cp", "-", f"{web}:/streamed", stdin=out.stdout).ok()
    assert shell(cli, web, "cmp /big /streamed/big && echo same") == "same"
    assert 'destination "web:/big" must be a directory' in cli.run("cp", "-", f"{web}:/big", stdin=out.stdout).err


def test_cp_gives_files_to_the_containers_user(cli: Cli, debian: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    cli.ok("create", "--name", name, "-u", "1:1", debian, "stat", "-c", "%u:%g", "/tmp/plain", "/tmp/given")
    cli.ok("cp", str(tmp_path / "f"), f"{name}:/tmp/plain")
    cli.ok("cp", "-a", str(tmp_path / "f"), f"{name}:/tmp/given")
    assert cli.ok("start", "-a", name).splitlines() == [f"{os.getuid()}:{os.getgid()}", "1:1"]


def test_cp_says_what_is_wrong(cli: Cli, web: str, tmp_path: Path) -> None:
    for arguments, words in [
        ((f"{web}:/nope", "."), "Could not find the file /nope in container"),
        (("nope:/x", "."), "No such container: nope"),
        ((str(tmp_path), "nope:/"), "No such container: nope"),
        ((f"{web}:/etc/hostname", f"{tmp_path}/no/x"), "invalid output path: directory"),
        ((f"{web}:/etc/hostname", "/dev/null"), "must be a directory or a regular file"),
        ((str(tmp_path), f"{web}:/dev/null"), "must be a directory or a regular file"),
        ((f"{tmp_path}/no", f"{web}:/"), f"{tmp_path}/no: no such file or directory"),
    ]:
        done = cli.run("cp", *arguments)
        assert done.status == 1 and words in done.err, f"{done}"


# -- a container's tree -----------------------------------------------------------------------------


def test_diff_commit_export_import(cli: Cli, debian: str, name: str, tmp_path: Path) -> None:
    cli.ok("run", "--name", name, debian, "sh", "-c", "echo new >/etc/made; rm /etc/issue; echo x >>/etc/motd")
    assert set(cli.ok("diff", name).splitlines()) >= {"A /etc/made", "D /etc/issue", "C /etc/motd", "C /etc"}
    identity = cli.ok("commit", "-a", "ann", "-m", "words", "-c", 'CMD ["cat", "/etc/made"]', name, "made:here")
    assert cli.ok("run", "--rm", "made:here") == "new"
    assert cli.ok("inspect", "-f", "{{.Id}} {{.Author}}", "made:here") == f"{identity} ann"

    target = tmp_path / "tree.tar"
    cli.ok("export", "-o", str(target), name)
    with tarfile.open(target) as archive:
        names = {member.name.removeprefix("./") for member in archive}
    assert "etc/made" in names and "etc/issue" not in names
    assert cli.run("export", "-o", str(tmp_path / "no" / "x"), name).status == 1
    assert "No such container" in cli.run("export", "-o", str(tmp_path / "none"), "nope").err
    assert {path.name for path in tmp_path.iterdir()} == {"tree.tar"}

    imported = cli.ok("import", "-c", 'CMD ["cat", "/etc/made"]', "-m", "from a file", str(target), "made:file")
    assert imported.startswith("sha256:") and cli.ok("run", "--rm", "made:file") == "new"
    cli.run("import", "-", "made:stream", stdin=target.read_bytes()).ok()
    with serving(lambda seen: Reply(200, target.read_bytes())) as server:
        assert "Downloading from" in cli.ok("import", f"http://{server.address}/tree.tar", "made:address")
    assert cli.ok("run", "--rm", "made:address", "cat", "/etc/made") == "new"
    assert f"open {tmp_path}/none: no such file" in cli.run("import", str(tmp_path / "none")).err
    cli.ok("rmi", *(f"made:{tag}" for tag in ("here", "file", "stream", "address")))


def test_update(cli: Cli, debian: str, name: str) -> None:
    cli.ok("run", "-d", "--name", name, debian, *SLEEP)
    assert cli.ok("update", "-m", "100m", "--cpus", "0.5", "--pids-limit", "50", "--restart", "on-failure:3", name) == name
    found = cli.json("inspect", name)[0]["HostConfig"]
    assert (found["Memory"], found["NanoCpus"], found["PidsLimit"]) == (100 << 20, 500_000_000, 50)
    assert found["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert shell(cli, name, "cat /sys/fs/cgroup/memory.max") == str(100 << 20)
    done = cli.run("update", "-m", "80m", "nope", name)
    assert (done.status, done.out) == (1, f"{name}\n") and "No such container: nope" in done.err


# -- lists and figures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "ps -a --filter name=web",
        "ps --no-trunc --filter name=web",
        "ps -q -l",
        "ps --format table{{.Names}}\t{{.Labels}}\t{{.LocalVolumes}}\t{{.Networks}}\t{{.State}}",
        "images --digests",
        "images -q --no-trunc",
        "history -q --no-trunc debian:trixie-slim",
        "history -H=false debian:trixie-slim",
        "network ls --no-trunc",
        "network ls --filter driver=bridge -q",
        "volume ls",
        "volume ls --format json",
        "top web",
        "port web",
        "diff web",
        "inspect web",
        "inspect -f json web",
        "container inspect nope web -f {{.Id}}",
        "image inspect nope",
        "network inspect bridge",
        "inspect nope",
        "stats --no-stream --format {{.Name}}:{{.PIDs}}",
        "events --since 10m --until 0s --filter container=web --format {{.TimeNano}}{{.Action}}",
    ],
)
def test_lists_are_dockers(cli: Cli, docker: str, web: str, arguments: str) -> None:
    words = arguments.split(" ")
    theirs, ours = cli.docker(docker, *words), cli.run(*words)
    assert ours.status == theirs.status, f"{ours}{theirs}"
    assert [line.rstrip() for line in ours.out.splitlines()] == [line.rstrip() for line in theirs.out.splitlines()]


def test_stats_live_on_a_terminal(cli: Cli, web: str) -> None:
    master, slave = pty.openpty()
    environment = {**cli.environment, "PYTHONIOENCODING": "utf-8"}
    process = subprocess.Popen(cli.command("stats", web), stdin=slave, stdout=slave, stderr=slave, env=environment)
    os.close(slave)
    text = b""
    deadline = time.monotonic() + 60
    try:
        while text.count(b"\x1b[H") < 3 or b"web " not in text:
            assert time.monotonic() < deadline, text
            if select.select([master], [], [], 1)[0]:
                text += os.read(master, 65536)
    finally:
        process.terminate()
        process.wait()
        os.close(master)
    assert b"CONTAINER ID" in text and b"\x1b[J" in text


def test_system(cli: Cli, web: str) -> None:
    rows = [json.loads(line) for line in cli.ok("system", "df", "--format", "json").splitlines()]
    assert [row["Type"] for row in rows] == ["Images", "Containers", "Local Volumes", "Build Cache"]
    details = cli.json("system", "df", "-v", "--format", "json")
    assert "web" in {row["Names"] for row in details["Containers"]}
    assert "Local Volumes space usage:" in cli.ok("system", "df", "-v")
    assert "\n Server Version: " in cli.ok("system", "info")
    assert cli.ok("info", "-f", "{{.OSType}}") == "linux"


# -- what is unused ---------------------------------------------------------------------------------


def test_prunes(cli: Cli, debian: str) -> None:
    def create() -> None:
        cli.ok("create", "--label", "mine", debian)
        cli.ok("volume", "create", "--label", "mine", "prunable")
        cli.ok("network", "create", "--label", "mine", "prunable")

    mine = ("--filter", "label=mine")
    create()
    done = cli.run("container", "prune", *mine, stdin=b"n\n")
    assert done.status == 1 and "WARNING! This will remove all stopped containers." in done.err
    assert cli.ok("ps", "-aq", *mine)
    assert cli.run("container", "prune", *mine, stdin=b"y\n").ok().out.startswith("Deleted Containers:\n")
    assert cli.ok("ps", "-aq", *mine) == ""
    assert cli.ok("volume", "prune", "-f", *mine) == "Total reclaimed space: 0B"  # it has a name
    assert cli.ok("volume", "prune", "-af", *mine).startswith("Deleted Volumes:\nprunable\n")
    assert cli.ok("network", "prune", "-f", *mine).startswith("Deleted Networks:\nprunable")
    create()
    text = cli.ok("system", "prune", "-f", *mine)
    assert "Deleted Containers:" in text and "Deleted Networks:\nprunable" in text and "Deleted Volumes" not in text
    assert cli.ok("volume", "ls", "-q", *mine) == "prunable"
    cli.ok("volume", "rm", "prunable")

    for tag in ("a", "b"):
        cli.run("import", "-c", "LABEL mine=1", "-", f"prunable:{tag}", stdin=small_tree(tag)).ok()
    cli.ok("rmi", "--no-prune", "prunable:a")
    assert cli.ok("image", "prune", "-f", *mine).startswith("Total reclaimed space:")
    text = cli.ok("image", "prune", "-a", "-f", *mine)
    assert "untagged: prunable:b" in text and "deleted: sha256:" in text
    assert cli.ok("images", "-q", "debian:trixie-slim")


def small_tree(content: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content.encode()))
    return data.getvalue()


# -- networks and volumes ---------------------------------------------------------------------------


def test_networks(cli: Cli, debian: str, name: str) -> None:
    cli.ok("network", "create", "--subnet", "10.77.0.0/16", "--gateway", "10.77.0.9", "--ip-range", "10.77.1.0/24",
           "--aux-address", "kept=10.77.1.1", "--internal", "--attachable", "--label", "a=b", "room")  # fmt: skip
    try:
        found = cli.json("network", "inspect", "room")[0]
        (pool,) = found["IPAM"]["Config"]
        assert (pool["Subnet"], pool["Gateway"], pool["IPRange"]) == ("10.77.0.0/16", "10.77.0.9", "10.77.1.0/24")
        assert (found["Internal"], found["Attachable"], found["Labels"]) == (True, True, {"a": "b"})
        cli.ok("run", "-d", "--name", name, debian, *SLEEP)
        cli.ok("network", "connect", "--ip", "10.77.1.77", "--alias", "other-name", "room", name)
        endpoint = cli.json("inspect", name)[0]["NetworkSettings"]["Networks"]["room"]
        assert endpoint["IPAddress"] == "10.77.1.77" and "other-name" in endpoint["Aliases"]
        address = cli.ok("run", "--rm", "--network", "name=room,ip=10.77.1.80", debian, "cat", "/etc/hosts")
        assert "10.77.1.80" in address
        assert "has active endpoints" in cli.run("network", "rm", "room").err
        cli.ok("network", "disconnect", "room", name)
        assert cli.run("network", "disconnect", "room", name).status == 1
        assert cli.ok("network", "disconnect", "-f", "room", "nope") == ""
    finally:
        cli.run("network", "disconnect", "-f", "room", name)
        assert cli.ok("network", "rm", "room") == "room"
    assert cli.run("network", "rm", "room").status == 1
    assert cli.ok("network", "rm", "-f", "room") == ""


def test_volumes(cli: Cli, debian: str, name: str) -> None:
    assert cli.ok("volume", "create", "--label", "kind=test", "drawer") == "drawer"
    cli.ok("run", "-d", "--name", name, "-v", "drawer:/d", debian, *SLEEP)
    assert cli.ok("volume", "ls", "-q", "--filter", "label=kind=test") == "drawer"
    assert cli.ok("volume", "ls", "-q", "--filter", "label=kind=test", "--filter", "dangling=true") == ""
    assert cli.ok("volume", "inspect", "-f", "{{.Labels.kind}}", "drawer") == "test"
    assert "volume is in use" in cli.run("volume", "rm", "drawer").err
    cli.ok("rm", "-f", name)
    assert cli.ok("volume", "rm", "drawer") == "drawer"
    assert cli.run("volume", "rm", "drawer").status == 1
    assert cli.ok("volume", "rm", "-f", "drawer") == "drawer"


# -- registries -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(home: Path) -> Iterator[Registry]:
    with running_registry(home / "registry-of-commands", users={"ann": "secret"}) as running:
        yield running


def test_login_push_pull_run_build(
    cli: Cli, debian: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.environment, "DOCKER_CONFIG", str(tmp_path / "docker"))
    name = f"{registry.address}/team/commands"

    def refused(*arguments: str, words: str = "no basic auth credentials") -> None:
        done = cli.run(*arguments)
        assert done.status != 0 and words in done.err, f"{done}"

    def login(user: str, password: bytes) -> Finished:
        return cli.run("login", "-u", user, "--password-stdin", registry.address, stdin=password)

    cli.ok("tag", debian, f"{name}:1")
    cli.ok("tag", debian, f"{name}:2")
    refused("push", f"{name}:1")
    assert "401 Unauthorized" in login("ann", b"wrong").err
    assert login("ann", b"secret\n").ok().out == "Login Succeeded\n"
    kept = cli.home / "config" / "logins.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600

    first = cli.ok("push", f"{name}:1")
    assert f"The push refers to repository [{name}]" in first and "1: digest: sha256:" in first
    assert cli.ok("push", "-q", "-a", name) == name
    assert "tag does not exist" in cli.run("push", f"{name}:nope").err
    cli.ok("rmi", f"{name}:1", f"{name}:2")

    done = cli.run("run", "--rm", f"{name}:1", "echo", "ran").ok()
    assert done.out == "ran\n" and f"Unable to find image '{name}:1' locally" in done.err
    cli.ok("rmi", f"{name}:1")
    assert cli.ok("pull", f"{name}:2").splitlines()[-1] == f"{name}:2"
    assert cli.ok("pull", "-q", f"{name}:1") == f"{name}:1"
    cli.ok("rmi", f"{name}:1", f"{name}:2")
    (tmp_path / "Dockerfile").write_text(f"FROM {name}:1\nRUN true\n")
    assert cli.ok("build", "-q", "-t", "built", str(tmp_path)).startswith("sha256:")
    cli.ok("rmi", "built")

    assert cli.ok("login", registry.address) == "Login Succeeded"  # with what is kept
    assert cli.ok("logout", registry.address) == f"Removing login credentials for {registry.address}"
    refused("pull", f"{name}:1")
    helper = tmp_path / "docker-credential-drawer"
    helper.write_text('#!/bin/sh\necho \'{"Username":"ann","Secret":"secret"}\'\n')
    helper.chmod(0o755)
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"credHelpers": {registry.address: "drawer"}}))
    monkeypatch.setitem(cli.environment, "PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert cli.ok("pull", "-q", f"{name}:1") == f"{name}:1"
    cli.ok("rmi", f"{name}:1")


def test_search(cli: Cli) -> None:
    found = {"name": "team/app", "description": "words " * 20, "star_count": 2, "is_official": True}
    with serving(lambda seen: Reply(200, json.dumps({"results": [found]}).encode())) as server:
        term = f"{server.address}/app"
        heading, row = cli.ok("search", "--limit", "5", term).splitlines()
        assert heading.split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
        assert row.startswith("team/app   words words") and row.endswith("…   2         [OK]")
        assert server.seen[-1].path == "/v1/search?q=app&n=5"
        assert cli.ok("search", "--filter", "is-official=false", "-f", "stars=1", "--format", "{{.Name}}", term) == ""
        assert cli.ok("search", "--no-trunc", "--format", "{{.Description}}", term) == ("words " * 20).strip()
