"""What goes wrong outside of the machine is told in exact words, with the right status, and leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import os
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pybox.engine.client import EngineClient
from pybox.errors import EngineError
from tests.machine.test_machine import status
from tests.support.data_disk import untidy
from tests.support.image_lab import Sample, tar
from tests.support.pybox_cli import Cli
from tests.support.registry import Registry, running_registry
from tests.support.small_image import busybox, busybox_layer, image
from tests.support.wire import Wire

MIB = 1 << 20


@dataclass(frozen=True)
class Store:
    """A registry with the image team/app:1, the folder of its files, and the image's archive."""

    registry: Registry
    folder: Path
    archive: Path
    sample: Sample

    def blobs(self) -> list[Path]:
        """The files of all blobs, the largest last."""
        found = (self.folder / "data").glob("docker/registry/v2/blobs/sha256/*/*/data")
        return sorted(found, key=lambda path: path.stat().st_size)


@pytest.fixture(scope="module")
def base(other: Cli) -> bytes:
    return busybox_layer(busybox(other))


@pytest.fixture
def store(base: bytes, tmp_path: Path) -> Iterator[Store]:
    """For one test alone: it damages what is in it."""
    sample = image(base, 3 * MIB, name="app")
    archive = tmp_path / "app.tar"
    archive.write_bytes(sample.saved("app:1"))
    with running_registry(tmp_path / "registry") as registry:
        registry.push(archive, "team/app:1")
        yield Store(registry, tmp_path / "registry", archive, sample)


@pytest.fixture(autouse=True)
def nothing_is_left(other: Cli) -> Iterator[None]:
    """All tests here fail at something: afterwards the machine is as it was before."""
    before = (other.ok("images", "-aq", "--no-trunc"), other.ok("ps", "-aq", "--no-trunc"), other.ok("volume", "ls", "-q"))
    yield
    after = (other.ok("images", "-aq", "--no-trunc"), other.ok("ps", "-aq", "--no-trunc"), other.ok("volume", "ls", "-q"))
    assert after == before
    assert untidy(other) == []


def fails(cli: Cli, *args: str, words: str, code: int = 1, stdin: bytes = b"") -> None:
    """The command ends with this status, and standard error is this error and nothing else."""
    done = cli.run(*args, stdin=stdin)
    assert (done.status, done.err) == (code, f"Error: {words}\n"), f"{done}"


def refusal(cli: Cli, method: str, path: str, query: dict[str, str], body: object = None) -> tuple[int, str]:
    """The HTTP status and message of a request that is refused."""
    client = EngineClient(Path(str(status(cli)["api_socket"])))
    with pytest.raises(EngineError) as caught:
        client.call(method, path, dict(query), body)
    return caught.value.status, caught.value.brief


# -- registries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (4, "filesystem layer verification failed for digest {digest}"),  # in the archive's time stamp: the content is whole
        (MIB, "gzip data is damaged: Error -3 while decompressing data: incorrect data check"),
    ],
)
def test_a_layer_that_is_not_what_its_digest_says(other: Cli, store: Store, place: int, words: str) -> None:
    blob = store.blobs()[-1]
    data = bytearray(blob.read_bytes())
    data[place] ^= 1
    blob.write_bytes(data)
    reference = f"{store.registry.address}/team/app:1"
    fails(other, "pull", reference, words=words.format(digest=f"sha256:{blob.parent.name}"))


def test_a_registry_that_dies_half_way(other: Cli, store: Store) -> None:
    with Wire(int(store.registry.address.rpartition(":")[2]), 2 * MIB, cut=True) as wire:
        done = other.run("pull", f"localhost:{wire.port}/team/app:1")
    # Both layers were on their way: either may be the one whose end is told.
    layers = [blob.parent.name for blob in store.blobs()[-2:]]
    words = [f"Error: download of sha256:{layer} failed: connection refused\n" for layer in layers]
    assert done.status == 1 and done.err in words, f"{done}"


def test_unknown_names(other: Cli, store: Store) -> None:
    address = store.registry.address
    unknown = f"manifest for {address}/team/app:2 not found: manifest unknown: manifest unknown"
    fails(other, "pull", f"{address}/team/app:2", words=unknown)
    assert refusal(other, "POST", "/images/create", {"fromImage": f"{address}/team/app", "tag": "2"}) == (404, unknown)
    nobody = f"manifest for {address}/nobody/x:1 not found: manifest unknown: manifest unknown"
    assert refusal(other, "POST", "/images/create", {"fromImage": f"{address}/nobody/x", "tag": "1"}) == (404, nobody)


def test_a_wrong_password(other: Cli, store: Store, tmp_path: Path) -> None:
    with running_registry(tmp_path / "private", users={"ann": "secret"}) as private:
        private.push(store.archive, "team/app:1", "ann:secret")
        reference = f"{private.address}/team/app:1"
        client = Cli(other.home, other.machine)
        client.environment["HOME"] = str(tmp_path)
        configuration = tmp_path / ".docker" / "config.json"
        configuration.parent.mkdir()
        for login, accepted in (("ann:wrong", False), ("ann:secret", True)):
            configuration.write_text(json.dumps({"auths": {private.address: {"auth": b64encode(login.encode()).decode()}}}))
            if accepted:
                client.ok("pull", reference)
                client.ok("rmi", reference)
            else:
                fails(client, "pull", reference, words="unauthorized: authentication required")


# -- archives and builds ---------------------------------------------------------------------------


def test_archives_that_cannot_be_loaded(other: Cli, base: bytes) -> None:
    good = image(base, MIB, name="app")
    swapped = Sample((base, base), good.raw, good.id)
    damaged = Sample((base, gzip.compress(good.layers[1])[:-1000]), good.raw, good.id)
    hostile = Sample.of(base, tar({"../../etc/cron.d/x": b"* * * * * root true\n"}))
    whole = good.saved("app:1")
    found = []
    for data in (
        os.urandom(MIB),
        whole[: len(whole) // 2],
        tar({"x": b""}),
        swapped.saved("app:1"),
        damaged.saved("app:1"),
        hostile.saved("app:1"),
    ):
        done = other.run("load", stdin=data)
        assert done.status == 1 and "Loaded image" not in done.out, f"{done}"
        found.append(done.err)
    assert found == [
        "Error: invalid tar header\n",
        "Error: unexpected end of the archive\n",
        "Error: invalid archive: it has neither manifest.json nor index.json\n",
        f"Error: layer verification failed: expected diff id {layers(good)[1]}, got {layers(good)[0]}\n",
        "Error: gzip data is damaged: unexpected end\n",
        "Error: invalid name in archive: '../../etc/cron.d/x' leads out of its folder\n",
    ]


def layers(sample: Sample) -> list[str]:
    return [str(item) for item in json.loads(sample.raw)["rootfs"]["diff_ids"]]


def test_dockerfiles(other: Cli, tmp_path: Path) -> None:
    missing = (
        "unable to prepare context: unable to evaluate symlinks in Dockerfile path\n"
        f"  lstat {tmp_path}/Dockerfile: no such file or directory\n"
        "Write a Dockerfile there, or name another with -f."
    )
    fails(other, "build", str(tmp_path), words=missing, code=2)
    (tmp_path / "Dockerfile").write_text("FROM scratch\n\n# comment\nLABEL a=1\nFRM x\n")
    fails(other, "build", str(tmp_path), words="dockerfile parse error on line 5: unknown instruction: FRM")


# -- the machine -----------------------------------------------------------------------------------


def test_a_full_disk_during_a_pull(other: Cli, store: Store, base: bytes) -> None:
    """Also: on a full disk a container can run and end, and what fills the disk can be removed."""
    reference = f"{store.registry.address}/team/app:1"
    other.ok("load", stdin=image(base).saved("small:1"))
    fill = "n=0; for size in 1000 100 10 1; do while fallocate -l ${size}M /full/$n; do n=$((n+1)); done; done 2>/dev/null"
    try:
        other.ok(
            "run", "--rm", "-v", "full:/full", "small:1", "busybox", "sh", "-c", f"{fill}; cat /dev/zero >>/full/end || true"
        )
        done = other.run("pull", reference)
        assert (done.status, done.err) == (1, "Error: write layer: no space left on device\n"), f"{done}"
        assert untidy(other) == []
        assert other.run("run", "--rm", "small:1", "sh", "-c", "exit 3").status == 3
    finally:
        other.ok("volume", "rm", "full")
    other.ok("pull", reference)
    other.ok("rmi", reference, "small:1")


def test_delete_of_a_running_machine_is_asked_for(other: Cli) -> None:
    done = other.run("delete", stdin=b"n\n")
    assert done.status == 1 and done.err.endswith("Error: delete has been cancelled\n")
    assert 'Machine "other" and all its containers, images and volumes will be deleted. Continue? [y/N] ' in done.err
    assert status(other)["state"] == "running"
    other.ok("ps")
