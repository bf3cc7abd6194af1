"""load and save: Docker's archives and OCI layouts in, archives that skopeo reads out."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import zstandard

from pyboxd.errors import InvalidArgument
from pyboxd.image import transfer
from tests.support.image_lab import ImageLab, Sample, chunked, tar

BASE, TOP = tar({"base": b"1" * 3000}), tar({"top": b"2"})


def load(lab: ImageLab, data: bytes) -> list[str]:
    return asyncio.run(transfer.load(lab.images, chunked(data), lab.said.append, temporary=str(lab.temporary)))


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def layout(sample: Sample, *, name: str = "", compress: bool = False, nested: bool = False) -> dict[str, bytes]:
    """The files of an OCI layout that holds the image, without manifest.json."""
    files: dict[str, bytes] = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def put(data: bytes) -> dict[str, object]:
        files[f"blobs/sha256/{digest(data)[7:]}"] = data
        return {"digest": digest(data), "size": len(data), "mediaType": "x"}

    layers = [put(gzip.compress(layer) if compress else layer) for layer in sample.layers]
    manifest = put(json.dumps({"schemaVersion": 2, "config": put(sample.raw), "layers": layers}).encode())
    if nested:
        absent = {"digest": digest(b"absent"), "size": 6}
        proof = absent | {"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
        manifest = put(json.dumps({"schemaVersion": 2, "manifests": [manifest, absent, proof]}).encode())
    if name:
        manifest["annotations"] = {"org.opencontainers.image.ref.name": name}
    return files | {"index.json": json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()}


def test_dockers_old_form(lab: ImageLab) -> None:
    sample = Sample.of(BASE, TOP)
    assert load(lab, sample.saved("app:1", "localhost:5000/app")) == ["app:1", "localhost:5000/app:latest"]
    image = lab.images.get("app:1")
    assert image.id == sample.id and image.raw_config == sample.raw and image.size == 3001
    assert Path(lab.layers.archive(image.layers[0])).read_bytes() == BASE
    assert [step.status for step in lab.said] == ["Loading layer"] * 4
    lab.said.clear()
    assert load(lab, sample.saved("app:1")) == ["app:1"] and lab.said == [], "what is here is not read again"
    assert load(lab, sample.saved()) == [sample.id]
    lab.assert_tidy()


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.ZstdCompressor().compress])
def test_archives_and_layers_may_be_compressed(lab: ImageLab, compress: object) -> None:
    assert callable(compress)
    sample = Sample.of(BASE, TOP)
    packed = Sample(tuple(compress(layer) for layer in sample.layers), sample.raw, sample.id)
    assert load(lab, compress(packed.saved("app:1"))) == ["app:1"]
    assert Path(lab.layers.archive(digest(BASE))).read_bytes() == BASE
    lab.assert_tidy()


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_oci_layouts(lab: ImageLab, compress: bool, nested: bool) -> None:
    sample = Sample.of(BASE, TOP)
    assert load(lab, tar(layout(sample, name="me/app:3", compress=compress, nested=nested))) == ["me/app:3"]
    assert lab.images.get("me/app:3").id == sample.id
    assert load(lab, tar(layout(sample))) == [sample.id]
    lab.assert_tidy()


@pytest.mark.parametrize("order", [("amd64", "arm64"), ("arm64", "amd64")])
def test_of_several_platforms_this_machines_is_taken(lab: ImageLab, order: tuple[str, ...]) -> None:
    files: dict[str, bytes] = {}
    items = []
    for architecture in order:
        one = layout(Sample.of(BASE, architecture=architecture))
        [item] = json.loads(one["index.json"])["manifests"]
        items.append(item | {"platform": {"os": "linux", "architecture": architecture}})
        files |= one
    inner = json.dumps({"schemaVersion": 2, "manifests": items}).encode()
    files[f"blobs/sha256/{digest(inner)[7:]}"] = inner
    notes = {"io.containerd.image.name": "docker.io/library/app:1"}
    index = {"digest": digest(inner), "size": len(inner), "annotations": notes}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [index]}).encode()
    assert load(lab, tar(files)) == ["app:1"]
    assert [image.architecture for image in lab.images.list()] == ["amd64"]


def test_an_index_that_holds_itself_is_refused(lab: ImageLab) -> None:
    name = digest(b"liar")
    index = json.dumps({"schemaVersion": 2, "manifests": [{"digest": name, "size": 1}]}).encode()
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        load(lab, tar({"index.json": index, f"blobs/sha256/{name[7:]}": index}))
    lab.assert_empty()


def test_a_layer_may_be_there_twice_or_be_a_link(lab: ImageLab) -> None:
    sample = Sample.of(BASE, TOP, BASE)
    assert load(lab, sample.saved("twice")) == ["twice:latest"]
    lab.assert_tidy()
    asyncio.run(lab.images.remove("twice"))
    lab.assert_empty()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        files = {"c.json": sample.raw, "x/layer.tar": BASE, "y/layer.tar": TOP, "manifest.json": json.dumps(
            [{"Config": "c.json", "Layers": ["x/layer.tar", "./y/layer.tar", "z/layer.tar"]}]).encode()}  # fmt: skip
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("z/layer.tar")
        link.type, link.linkname = tarfile.SYMTYPE, "../x/layer.tar"
        archive.addfile(link)
    assert load(lab, out.getvalue()) == [sample.id]
    lab.assert_tidy()


def manifest(value: object) -> bytes:
    return tar({"manifest.json": json.dumps(value).encode()})


GOOD = Sample.of(BASE, TOP)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"garbage", b"garbage" * 1000, tar({}), tar({"x": b"1"}), GOOD.saved("a")[:-12_000],
        manifest({}), manifest([]), manifest([1]), manifest([{"Config": "c"}]), manifest([{"Config": 5}]),
        tar({"manifest.json": b"{"}), tar({"manifest.json": b"[" * 50_000}), tar({"index.json": b"[]"}),
        tar({"index.json": b'{"manifests": [{"digest": 5}]}'}), tar({"index.json": b'{"manifests": 5}'}),
        tar({"c": GOOD.raw, "manifest.json": b'[{"Config": "c", "Layers": ["no", "no"]}]'}),
        tar({"c": GOOD.raw, "manifest.json": b'[{"Config": "c", "Layers": [1, 2]}]'}),
        tar({"c": GOOD.raw, "manifest.json": b'[{"Config": "c", "Layers": ["../../etc/passwd", "/etc/passwd"]}]'}),
        tar({"c": GOOD.raw, "b": BASE, "manifest.json": b'[{"Config": "c", "Layers": ["b"]}]'}),
        Sample((BASE, BASE), GOOD.raw, GOOD.id).saved("a"), Sample((BASE, b"no tar"), GOOD.raw, GOOD.id).saved("a"),
        Sample((BASE, gzip.compress(TOP)[:-9]), GOOD.raw, GOOD.id).saved("a"),
        GOOD.saved("Not A Name"), tar({"../x": b""}), Sample.of(tar({"../../x": b""})).saved("a"),
        tar({name: data for name, data in layout(GOOD).items() if data != TOP}),
    ],
)  # fmt: skip
def test_what_is_no_good_archive_leaves_nothing(lab: ImageLab, data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        load(lab, data)
    lab.assert_empty()


def test_a_layer_other_than_promised_is_named(lab: ImageLab) -> None:
    with pytest.raises(
        InvalidArgument, match=f"layer verification failed: expected diff id {digest(TOP)}, got {digest(BASE)}"
    ):
        load(lab, Sample((BASE, BASE), GOOD.raw, GOOD.id).saved("a"))


def test_a_client_that_goes_away_leaves_nothing(lab: ImageLab) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield GOOD.saved("a")[:3000]
        await asyncio.sleep(60)

    async def broken() -> AsyncIterator[bytes]:
        yield GOOD.saved("a")[:3000]
        raise ConnectionResetError

    async def run() -> None:
        task = asyncio.ensure_future(transfer.load(lab.images, stalled(), lab.said.append, temporary=str(lab.temporary)))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ConnectionResetError):
            await transfer.load(lab.images, broken(), lab.said.append, temporary=str(lab.temporary))

    asyncio.run(run())
    lab.assert_empty()


def test_save_and_load_give_the_same_images(lab: ImageLab, tmp_path: Path) -> None:
    other = Sample.of(BASE)
    load(lab, GOOD.saved("app:1", "app:2"))
    load(lab, other.saved("other"))
    archive = b"".join(lab.images.save(["app", "other", other.id[7:19], "app:1"]))
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        names = files.getnames()
        found = files.extractfile("manifest.json")
        assert found is not None
        value = json.loads(found.read())
    assert len(names) == len(set(names)), "shared layers are there once"
    assert [item["RepoTags"] for item in value] == [["app:1", "app:2"], ["other:latest"]]
    (tmp_path / "second").mkdir()
    second = ImageLab(tmp_path / "second")
    assert load(second, archive) == ["app:1", "app:2", "other:latest"]
    assert [image.raw_config for image in second.images.list()] == [image.raw_config for image in lab.images.list()]
    assert b"".join(second.images.save(["app", "other"])) == archive
    second.close()


def test_skopeo_reads_what_is_saved(lab: ImageLab, tmp_path: Path) -> None:
    load(lab, GOOD.saved("app:1"))
    path = tmp_path / "saved.tar"
    path.write_bytes(b"".join(lab.images.save(["app:1"])))

    def skopeo(*arguments: str) -> str:
        command = ["skopeo", "--insecure-policy", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    for source in (f"docker-archive:{path}:app:1", f"oci-archive:{path}:1"):
        found = json.loads(skopeo("inspect", "--config", source))
        assert found["rootfs"]["diff_ids"] == [digest(BASE), digest(TOP)]
    skopeo("copy", f"docker-archive:{path}", f"dir:{tmp_path / 'out'}")
    assert (tmp_path / "out" / digest(TOP)[7:]).exists() or any((tmp_path / "out").iterdir())
    skopeo("copy", f"docker-archive:{path}", f"docker-archive:{tmp_path / 'theirs.tar'}:app:9")
    assert load(lab, (tmp_path / "theirs.tar").read_bytes()) == ["app:9"]
    assert lab.images.get("app:9").layers == lab.images.get("app:1").layers
