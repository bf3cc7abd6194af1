"""The engine as its clients see it, over a real socket with real containers: what the docker CLI relies on."""

from __future__ import annotations

import base64
import gzip
import io
import json
import lzma
import os
import sqlite3
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyboxd import locations
from tests.guest.conftest import OUTSIDE
from tests.support.build_lab import Files, archive, entry, symlink
from tests.support.engine_lab import REFUSED_PORT, EngineLab, busybox_image, frames, image_archive, tar


@pytest.fixture(scope="module")
def lab() -> Iterator[EngineLab]:
    with EngineLab() as running:
        yield running


def test_a_run_as_the_docker_cli_does_it(lab: EngineLab) -> None:
    """Create, attach, wait (answered before the start), start; then output, status and removal."""
    container = lab.create("sh", "-c", "echo out; echo err >&2; exit 3", HostConfig={"AutoRemove": True})
    answers: list[int] = []
    with lab.upgrade(f"/containers/{container}/attach?stream=1&stdout=1&stderr=1") as stream:
        assert (stream.status, stream.headers["content-type"]) == (101, "application/vnd.docker.multiplexed-stream")
        waiting = threading.Thread(target=lambda: answers.append(lab.wait(container, "removed")))
        waiting.start()
        time.sleep(0.3)
        assert lab.post(f"/containers/{container}/start").status == 204
        assert sorted(frames(stream.read_all())) == [(1, b"out\n"), (2, b"err\n")]
    waiting.join()
    assert answers == [3]
    assert lab.get(f"/containers/{container}/json").status == 404


@pytest.mark.parametrize(
    ("command", "status", "code", "words"),
    [
        ("no-such-program", 400, 127, 'exec: "no-such-program": executable file not found in $PATH: unknown'),
        ("/etc/passwd", 400, 126, 'exec: "/etc/passwd": permission denied: unknown'),
        ("/etc", 400, 126, "is a directory: unknown"),
    ],
)
def test_a_start_that_fails(lab: EngineLab, command: str, status: int, code: int, words: str) -> None:
    container = lab.create(command)
    reply = lab.post(f"/containers/{container}/start")
    assert reply.status == status
    assert words in reply.message
    state = lab.state(container)
    assert (state["Status"], state["ExitCode"], state["Running"]) == ("created", code, False)
    assert lab.delete(f"/containers/{container}").status == 204


def test_statuses_and_words(lab: EngineLab) -> None:
    assert lab.post("/containers/create", {"Image": "nothing"}).message == "No such image: nothing:latest"
    assert lab.post("/containers/create", {"Image": "nothing"}).status == 404
    container = lab.start_container("sleep", "100", name="taken")
    clash = lab.post("/containers/create?name=taken", {"Image": "busybox"})
    assert clash.status == 409
    assert clash.message.startswith('Conflict. The container name "/taken" is already in use by container "')
    assert lab.post(f"/containers/{container}/start").status == 304
    assert lab.delete(f"/containers/{container}").status == 409
    assert lab.post(f"/containers/{container}/kill").status == 204
    assert lab.post(f"/containers/{container}/kill").status == 409
    assert lab.post(f"/containers/{container}/stop").status == 304
    assert lab.delete(f"/containers/{container}").status == 204
    assert lab.delete(f"/containers/{container}").status == 404


def test_input_ends_by_half_close(lab: EngineLab) -> None:
    container = lab.create("cat", OpenStdin=True, StdinOnce=True, AttachStdin=True)
    data = os.urandom(300_000)
    with lab.upgrade(f"/containers/{container}/attach?stream=1&stdin=1&stdout=1") as stream:
        lab.post(f"/containers/{container}/start")

        def write() -> None:
            stream.write(data)
            stream.write_eof()

        writing = threading.Thread(target=write)
        writing.start()
        assert b"".join(part for _, part in frames(stream.read_all())) == data
        writing.join()
    assert lab.wait(container) == 0
    lab.delete(f"/containers/{container}")


def test_a_terminal(lab: EngineLab) -> None:
    container = lab.create("sh", Tty=True, OpenStdin=True, HostConfig={"ConsoleSize": [33, 77]})
    with lab.upgrade(f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&stderr=1") as stream:
        assert stream.headers["content-type"] == "application/vnd.docker.raw-stream"
        lab.post(f"/containers/{container}/start")
        stream.write(b"stty size; tty\n")
        assert b"/dev/pts/0" in stream.read_until(b"/dev/pts/0")
        assert lab.post(f"/containers/{container}/resize?h=20&w=90").status == 200
        stream.write(b"stty size\n")
        stream.read_until(b"20 90")
        stream.write(b"\x10\x11")
        stream.read_all()  # detached: the connection ends, the container does not
    assert lab.state(container)["Running"]
    with lab.upgrade(f"/containers/{container}/attach?stream=1&stdin=1&stdout=1") as stream:
        stream.write(b"exit 9\n")
        stream.read_all()
    assert lab.wait(container) == 9
    assert b"20 90" in lab.get(f"/containers/{container}/logs?stdout=1").body
    lab.delete(f"/containers/{container}")


def test_exec(lab: EngineLab) -> None:
    container = lab.start_container("sleep", "100")
    assert lab.execute(container, "sh", "-c", "echo hi; echo no >&2; exit 4") == (4, b"hi\nno\n")
    assert lab.execute(container, "sh", "-c", "id -u; pwd; echo $A", User="user", WorkingDir="/tmp", Env=["A=b"]) == (
        0,
        b"1000\n/tmp\nb\n",
    )
    code, text = lab.execute(container, "nothing")
    assert code == 127
    assert text.startswith(b'OCI runtime exec failed: exec failed: unable to start container process: exec: "nothing"')
    assert lab.execute(container, "tty", Tty=True)[1].strip() == b"/dev/pts/0"
    assert lab.post(f"/containers/{container}/pause").status == 204
    assert lab.post(f"/containers/{container}/exec", {"Cmd": ["true"]}).status == 409
    assert lab.post(f"/containers/{container}/unpause").status == 204
    lab.delete(f"/containers/{container}?force=1")


def test_limits_reach_the_cgroup(lab: EngineLab) -> None:
    host = {"Memory": 32 << 20, "NanoCpus": 5 * 10**8, "PidsLimit": 20}
    container = lab.start_container("sleep", "100", HostConfig=host)
    files = [f"/sys/fs/cgroup/{name}" for name in ("memory.max", "cpu.max", "pids.max")]
    assert lab.execute(container, "cat", *files)[1] == b"33554432\n50000 100000\n20\n"
    assert lab.post(f"/containers/{container}/update", {"Memory": 64 << 20, "MemorySwap": -1}).status == 200
    assert lab.execute(container, "cat", files[0])[1] == b"67108864\n"
    stats = lab.get(f"/containers/{container}/stats?stream=0&one-shot=1").json
    assert stats["memory_stats"]["limit"] == 64 << 20
    assert stats["pids_stats"]["current"] == 1
    lab.delete(f"/containers/{container}?force=1")


def test_a_process_that_needs_too_much(lab: EngineLab) -> None:
    container = lab.start_container("sh", "-c", "tail /dev/zero", HostConfig={"Memory": 16 << 20, "MemorySwap": 16 << 20})
    assert lab.wait(container) == 137
    lab.until(container, OOMKilled=True)
    lab.delete(f"/containers/{container}")


def test_volumes(lab: EngineLab) -> None:
    binds = {"HostConfig": {"Binds": ["shared:/data"]}}
    assert lab.run("sh", "-c", "stat -c '%u %a' /data/hello; echo new > /data/new", **binds) == (0, b"1000 640\n")
    read_only = {"HostConfig": {"Binds": ["shared:/x:ro"]}}
    assert lab.run("sh", "-c", "cat /x/new; touch /x/y 2>&1 || echo refused", **read_only)[1].endswith(b"refused\n")
    not_copied = {"HostConfig": {"Mounts": [{"Type": "volume", "Target": "/data", "VolumeOptions": {"NoCopy": True}}]}}
    assert lab.run("ls", "/data", **not_copied) == (0, b"")
    user = lab.create("true", HostConfig={"Binds": ["shared:/x"]})
    assert lab.delete("/volumes/shared").status == 409
    lab.delete(f"/containers/{user}?v=1")
    assert [volume["Name"] for volume in lab.get("/volumes").json["Volumes"]] == ["shared"]
    assert lab.delete("/volumes/shared").status == 204


def test_anonymous_volumes_go_with_their_container(lab: EngineLab) -> None:
    lab.load(busybox_image("withvolume:latest", Volumes={"/data": {}}))
    container = lab.create("cat", "/data/hello", Image="withvolume")
    assert len(lab.get("/volumes").json["Volumes"]) == 1
    lab.post(f"/containers/{container}/start")
    lab.wait(container)
    assert lab.logs(container) == b"from the image\n"
    lab.delete(f"/containers/{container}?v=1")
    assert lab.get("/volumes").json["Volumes"] == []


def test_mounts_that_cannot_be(lab: EngineLab) -> None:
    for host, words in (
        ({"Binds": ["/not/shared:/x"]}, "Mounts denied: the path /not/shared is not shared from the host"),
        ({"Mounts": [{"Type": "bind", "Source": "/home/me/none", "Target": "/x"}]}, "bind source path does not exist"),
        ({"Binds": ["vv:/x", "vw:/x"]}, "Duplicate mount point: /x"),
    ):
        reply = lab.post("/containers/create", {"Image": "busybox", "HostConfig": host})
        assert reply.status == 400
        assert words in reply.message


def test_the_engines_socket_in_a_container(lab: EngineLab) -> None:
    for path in ("/var/run/docker.sock", "/home/me/.pybox/docker.sock"):
        assert lab.run("stat", "-c", "%F", "/s", HostConfig={"Binds": [f"{path}:/s"]}) == (0, b"socket\n")


def test_networks_and_names(lab: EngineLab) -> None:
    network = lab.post("/networks/create", {"Name": "own"}).json["Id"]
    first = lab.start_container("sleep", "100", name="first", HostConfig={"NetworkMode": "own"})
    config = {"HostConfig": {"NetworkMode": "own"}, "NetworkingConfig": {"EndpointsConfig": {"own": {"Aliases": ["al"]}}}}
    second = lab.start_container("sleep", "100", name="second", **config)
    assert lab.execute(first, "ping", "-c", "1", "al")[0] == 0
    settings = lab.get(f"/containers/{second}/json").json["NetworkSettings"]["Networks"]["own"]
    assert settings["IPAddress"]
    assert settings["Aliases"] == ["al"]
    assert set(lab.get(f"/networks/{network}").json["Containers"]) == {first, second}
    assert lab.post("/networks/own/disconnect", {"Container": "second"}).status == 200
    assert lab.execute(first, "ping", "-c", "1", "-W", "1", "second")[0] != 0
    shared = lab.run("hostname", HostConfig={"NetworkMode": f"container:{first}"})
    assert shared == (0, f"{first[:12]}\n".encode())
    for container in (first, second):
        lab.delete(f"/containers/{container}?force=1")
    assert lab.delete("/networks/own").status == 204


def test_a_port_that_the_host_cannot_have(lab: EngineLab) -> None:
    host = {"PortBindings": {"80/tcp": [{"HostPort": str(REFUSED_PORT)}]}}
    container = lab.create("sleep", "100", name="porty", HostConfig=host)
    reply = lab.post(f"/containers/{container}/start")
    assert reply.status == 500
    assert reply.message.startswith("driver failed programming external connectivity on endpoint porty (")
    assert "Ports are not available: exposing port TCP 0.0.0.0:666" in reply.message
    assert lab.state(container)["Status"] == "created"
    assert lab.get("/networks/bridge").json["Containers"] == {}
    lab.delete(f"/containers/{container}")


def test_published_ports_are_shown(lab: EngineLab) -> None:
    host = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    container = lab.start_container("sleep", "100", ExposedPorts={"80/tcp": {}, "81/tcp": {}}, HostConfig=host)
    ports = lab.get(f"/containers/{container}/json").json["NetworkSettings"]["Ports"]
    assert ports == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None}
    (entry,) = lab.get('/containers/json?filters={"publish":["80"]}').json
    assert entry["Id"] == container
    lab.delete(f"/containers/{container}?force=1")


def test_logs_follow_to_the_end(lab: EngineLab) -> None:
    container = lab.start_container("sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.3; done", Tty=True)
    lines = lab.stream(f"/containers/{container}/logs?stdout=1&follow=1")
    assert [line.strip() for line in lines] == [b"1", b"2", b"3", b"4"]
    assert lab.get(f"/containers/{container}/logs?stdout=1&tail=2").body == b"3\r\n4\r\n"
    assert lab.get(f"/containers/{container}/logs").status == 400
    lab.delete(f"/containers/{container}?force=1")


def test_events_of_a_run(lab: EngineLab) -> None:
    since = time.time()
    container = lab.create("true", HostConfig={"AutoRemove": True}, Labels={"k": "v"})
    lab.post(f"/containers/{container}/start")
    while lab.get(f"/containers/{container}/json").status != 404:
        time.sleep(0.05)
    query = f'/events?since={since:.6f}&until={time.time():.6f}&filters={{"container":["{container}"]}}'
    found = lab.get(query).lines
    assert [event["Action"] for event in found] == ["create", "start", "die", "destroy"]
    assert found[2]["Actor"]["Attributes"] == {
        "image": "busybox",
        "k": "v",
        "exitCode": "0",
        "execDuration": "0",
        "name": found[0]["Actor"]["Attributes"]["name"],
    }


def test_a_health_check(lab: EngineLab) -> None:
    check = {"Test": ["CMD-SHELL", "test -e /ok"], "Interval": 200_000_000, "Retries": 2}
    container = lab.start_container("sleep", "100", Healthcheck=check)
    health: dict[str, Any] = {}

    def until(status: str) -> None:
        deadline = time.monotonic() + 60
        while health.get("Status") != status:
            assert time.monotonic() < deadline, health
            health.update(lab.state(container)["Health"])
            time.sleep(0.1)

    until("unhealthy")
    assert health["FailingStreak"] >= 2
    assert health["Log"][-1]["ExitCode"] == 1
    lab.execute(container, "touch", "/ok")
    until("healthy")
    lab.delete(f"/containers/{container}?force=1")


@pytest.mark.parametrize("running", [False, True])
def test_copies(lab: EngineLab, running: bool) -> None:
    container = lab.create("sleep", "100", HostConfig={"Binds": ["cp:/vol"]})
    if running:
        lab.post(f"/containers/{container}/start")
    archive = tar([("in", None, 0o755), ("in/file", b"content", 0o600)])
    for place in ("/tmp", "/vol"):
        reply = lab.request("PUT", f"/containers/{container}/archive?path={place}&noOverwriteDirNonDir=1", archive)
        assert reply.status == 200, reply.body
        reply = lab.get(f"/containers/{container}/archive?path={place}/in/file")
        stat = json.loads(base64.b64decode(reply.headers["x-docker-container-path-stat"]))
        assert (stat["name"], stat["size"], stat["mode"]) == ("file", 7, 0o600)
        with tarfile.open(fileobj=io.BytesIO(reply.body)) as file:
            assert file.getnames() == ["file"]
    assert lab.request("HEAD", f"/containers/{container}/archive?path=/none").status == 404
    if not running:
        lab.post(f"/containers/{container}/start")
    assert lab.execute(container, "cat", "/tmp/in/file", "/vol/in/file") == (0, b"contentcontent")
    found = [change["Path"] for change in lab.get(f"/containers/{container}/changes").json]
    assert found == ["/tmp", "/tmp/in", "/tmp/in/file", "/vol"]
    lab.delete(f"/containers/{container}?force=1")
    lab.delete("/volumes/cp")


def test_a_copy_does_not_follow_links_out(lab: EngineLab) -> None:
    container = lab.start_container("sh", "-c", "ln -s /../../../../../etc /out; ln -s /run /run2; sleep 100")
    assert lab.request("PUT", f"/containers/{container}/archive?path=/out", tar([("victim", b"x", 0o644)])).status == 200
    assert not os.path.exists("/etc/victim")
    assert lab.execute(container, "cat", "/etc/victim")[1] == b"x"
    assert lab.get(f"/containers/{container}/archive?path=/run2/pyboxd").status == 404
    lab.delete(f"/containers/{container}?force=1")


def test_a_path_that_changes_while_it_is_copied(lab: EngineLab, outside: Path) -> None:
    """CVE-2018-15664: a part of the path is a directory when it is looked at and a link when it is used.

    So are its successors of 2026 (GHSA-rg2x-37c3-w2rh, GHSA-vp62-88p7-qqf5): there, the link leads to what is mounted.
    """
    script = (
        "mkdir -p /d /v/d; echo inside >/d/file; echo inside >/v/d/file;"
        f"ln -s {OUTSIDE} /l; ln -s {OUTSIDE} /v/l; touch /on;"
        "while :; do for p in '' /v; do mv $p/d $p/x; mv $p/l $p/d; mv $p/d $p/l; mv $p/x $p/d; done; done 2>/dev/null"
    )
    container = lab.start_container("sh", "-c", script, HostConfig={"Binds": ["flipped:/v"]})
    lab.until_exists(container, "/on")
    seen = set()
    for turn in range(40):
        folder = "/v/d" if turn % 2 else "/d"
        reply = lab.get(f"/containers/{container}/archive?path={folder}/file")
        seen.add(reply.status)
        if reply.status == 200:
            with tarfile.open(fileobj=io.BytesIO(reply.body)) as file:
                content = file.extractfile("file")
                assert content is not None and content.read() == b"inside\n"
        lab.request("PUT", f"/containers/{container}/archive?path={folder}", tar([("planted", b"x", 0o644)]))
    assert 200 in seen
    assert [path.name for path in outside.iterdir()] == ["file"] and (outside / "file").read_text() == "the guest's"
    lab.delete(f"/containers/{container}?force=1")
    lab.delete("/volumes/flipped")


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_a_containers_own_programs_unpack_nothing(lab: EngineLab, compress: Callable[[bytes], bytes]) -> None:
    """CVE-2019-14271, GHSA-x86f-5xw2-fm2r: whoever enters a container to copy must not run or load what lies there."""
    trap = "for n in xz unxz gzip gunzip unpigz pigz zstd bzip2 tar; do printf '#!/bin/sh\\ntouch /trapped\\n' >/trap; "
    trap += "chmod 755 /trap; cp /trap /bin/$n-; rm -f /bin/$n; mv /bin/$n- /bin/$n; done; mkdir -p /lib; "
    trap += "cp /trap /lib/libnss_files.so.2; touch /on; exec sleep 1000"
    container = lab.start_container("sh", "-c", trap)
    lab.until_exists(container, "/on")
    data = compress(tar([("file", b"unpacked", 0o644)]))
    assert lab.request("PUT", f"/containers/{container}/archive?path=/tmp", data).status == 200
    assert lab.get(f"/containers/{container}/archive?path=/tmp").status == 200
    assert lab.execute(container, "cat", "/tmp/file") == (0, b"unpacked")
    assert lab.execute(container, "test", "-e", "/trapped")[0] == 1
    lab.delete(f"/containers/{container}?force=1")


def test_an_archive_for_a_container_stays_inside(lab: EngineLab, outside: Path) -> None:
    """CVE-2026-17106, CVE-2025-4517: links that come in the archive itself, and names that climb."""
    container = lab.start_container("sleep", "1000")
    long = "/".join(["d" * 200] * 19)  # behind it, a name that is resolved by text alone is cut off
    attacks: list[Files] = [
        {"../../../../../../run/outside/planted": "x"},
        {f"{OUTSIDE}/planted": "x"},
        {"out": symlink(OUTSIDE), "out/planted": "x"},
        {"out": symlink("../" * 30 + OUTSIDE[1:]), "out/planted": "x"},
        {f"{long}/up": symlink("../" * 40 + OUTSIDE[1:]), f"{long}/up/planted": "x"},
        {"hard": entry(tarfile.LNKTYPE, f"{OUTSIDE}/file"), "hard2": "x"},
        {"hard": entry(tarfile.LNKTYPE, "../" * 30 + f"{OUTSIDE[1:]}/file")},
        {"out": symlink(OUTSIDE), "out/file": entry(tarfile.LNKTYPE, "out/file")},
    ]
    for entries in attacks:
        lab.request("PUT", f"/containers/{container}/archive?path=/tmp", archive(entries))
        assert [path.name for path in outside.iterdir()] == ["file"]
        assert (outside / "file").read_text() == "the guest's" and (outside / "file").stat().st_nlink == 1
    assert lab.execute(container, "sh", "-c", "cat /tmp/hard /tmp/out/file 2>/dev/null")[1] in (b"", b"x")
    lab.delete(f"/containers/{container}?force=1")


def test_commit(lab: EngineLab) -> None:
    container = lab.start_container("sh", "-c", "echo made > /made; sleep 100")
    lab.until(container, Running=True)
    lab.until_exists(container, "/made")
    reply = lab.post(f"/commit?container={container}&repo=made&comment=why&changes=CMD%20%5B%22cat%22%2C%22%2Fmade%22%5D")
    assert reply.status == 201, reply.body
    assert lab.run(Image="made", Cmd=None) == (0, b"made\n")
    assert lab.get("/images/made/json").json["Comment"] == "why"
    sizes = {str(item["RepoTags"]): item for item in lab.get("/system/df?type=image").json["Images"]}
    assert sizes["['made:latest']"]["SharedSize"] == sizes["['busybox:latest']"]["SharedSize"] > 0
    lab.delete(f"/containers/{container}?force=1")


def test_a_build(lab: EngineLab) -> None:
    dockerfile = b"FROM busybox\nCOPY file /file\nRUN cat /file && echo more >> /file\nRUN true\nCMD cat /file\n"
    context = tar([("Dockerfile", dockerfile, 0o644), ("file", b"text\n", 0o644)])
    reply = lab.request("POST", "/build?t=built&version=1", context, {"Content-Type": "application/x-tar"})
    assert reply.status == 200, reply.body
    said = "".join(line.get("stream", "") for line in reply.lines)
    assert "Successfully tagged built:latest" in said
    assert any("ID" in line.get("aux", {}) for line in reply.lines)
    assert lab.run(Image="built", Cmd=None) == (0, b"text\nmore\n")
    failing = tar([("Dockerfile", b"FROM busybox\nRUN exit 9\n", 0o644)])
    last = lab.request("POST", "/build?version=1", failing, {"Content-Type": "application/x-tar"}).lines[-1]
    assert last["errorDetail"]["code"] == 9


def small_image(lab: EngineLab, tag: str) -> str:
    """Load an image that nobody else's tests use; its layer's folder."""
    layer = tar([("file", tag.encode(), 0o644)])
    lab.load(image_archive(tag, layer, {"Cmd": ["none"]}))
    diff_id = lab.get(f"/images/{tag}/json").json["RootFS"]["Layers"][0]
    return f"{locations.LAYERS}/{diff_id.replace(':', '/')}"


def until_gone(path: str) -> None:
    deadline = time.monotonic() + 30
    while os.path.exists(path):
        assert time.monotonic() < deadline, f"{path} is still there"
        time.sleep(0.05)


def test_layers_go_with_the_last_container_of_a_removed_image(lab: EngineLab) -> None:
    folder = small_image(lab, "gone:1")
    first, second = lab.create("none", Image="gone:1"), lab.create("none", Image="gone:1")
    assert lab.delete("/images/gone:1?force=1").status == 200
    assert lab.get("/images/gone:1/json").status == 404
    assert lab.delete(f"/containers/{first}").status == 204
    assert os.path.exists(folder)
    assert lab.delete(f"/containers/{second}").status == 204
    until_gone(folder)


def test_layers_of_removed_images_go_after_a_crash(lab: EngineLab) -> None:
    """The engine is killed between the removal of a container and what follows from it, or was so of old."""
    folders = [small_image(lab, f"gone:{number}") for number in (2, 3, 4)]
    container = lab.create("none", Image="gone:2")
    assert lab.delete("/images/gone:2?force=1").status == 200
    assert lab.delete("/images/gone:3").status == 200  # the whole removal, for comparison
    lab.crash()
    database = sqlite3.connect(locations.DATABASE)
    with database:
        database.execute("DELETE FROM containers WHERE id = ?", (container,))
        database.execute("DELETE FROM image WHERE id = (SELECT image FROM image_tag WHERE reference LIKE '%gone:4')")
        database.execute("DELETE FROM image_tag WHERE reference LIKE '%gone:4'")
    database.close()
    lab.start()
    for folder in folders:
        until_gone(folder)
    assert lab.run("cat", "/data/hello") == (0, b"from the image\n")


def test_restart_policies(lab: EngineLab) -> None:
    host = {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}
    container = lab.start_container("sh", "-c", "echo run; exit 1", HostConfig=host)
    lab.until(container, Status="exited", Running=False)
    assert lab.get(f"/containers/{container}/json").json["RestartCount"] == 2
    assert lab.logs(container) == b"run\n" * 3
    lab.delete(f"/containers/{container}")


def test_containers_survive_the_engine(lab: EngineLab) -> None:
    living = lab.start_container("sh", "-c", "while :; do echo tick; sleep 0.2; done", name="living")
    ending = lab.start_container("sh", "-c", "sleep 2; exit 6", name="ending")
    gone = lab.start_container("sleep", "2", name="gone", HostConfig={"AutoRemove": True})
    lab.crash()
    time.sleep(3)
    lab.start()
    assert lab.state(living)["Running"]
    assert (lab.state(ending)["Status"], lab.state(ending)["ExitCode"]) == ("exited", 6)
    assert lab.get(f"/containers/{gone}/json").status == 404
    assert lab.execute(living, "echo", "still here") == (0, b"still here\n")
    assert lab.logs(living).count(b"tick") > 10
    assert lab.post(f"/containers/{living}/stop?t=1").status == 204
    for container in (living, ending):
        assert lab.delete(f"/containers/{container}").status == 204


def test_nothing_is_left(lab: EngineLab) -> None:
    """What all tests before have made is gone from the guest, and not only from the tables."""
    assert lab.get("/containers/json?all=1").json == []
    deadline = time.monotonic() + 30
    while any(os.listdir(folder) for folder in (locations.CONTAINERS, locations.CONTAINER_RUN)):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert os.listdir("/sys/fs/cgroup/docker") == [] or not any(
        os.path.isdir(f"/sys/fs/cgroup/docker/{name}") for name in os.listdir("/sys/fs/cgroup/docker")
    )
