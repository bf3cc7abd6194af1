from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pybox_image import download
from pybox_image.download import Cache, Download
from pybox_image.errors import ImageError
from pybox_image.progress import Progress
from tests.unit.images.samples import Server, serving

DATA = bytes(range(256)) * 4000


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "_pause", lambda attempt: None)
    with serving() as running:
        running.files["/file"] = DATA
        yield running


def wanted(server: Server, data: bytes = DATA, path: str = "/file") -> Download:
    return Download(server.address + path, hashlib.sha256(data).hexdigest(), len(data))


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    heard: list[Progress] = []
    cache = Cache(tmp_path, progress=heard.append)
    (path,) = cache.fetch([wanted(server)])
    assert path.read_bytes() == DATA
    assert heard[-1] == Progress("download", len(DATA), len(DATA))
    assert cache.fetch([wanted(server)]) == [path]
    assert server.requests == [("/file", "")]
    assert not list((tmp_path / "partial").iterdir())


def test_an_interrupted_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.fail_after = [300_000, 500_000]
    heard: list[Progress] = []
    (path,) = Cache(tmp_path, progress=heard.append).fetch([wanted(server)])
    assert path.read_bytes() == DATA
    first, second, third = [int(start[6:-1] or 0) for _path, start in server.requests]
    assert first == 0 < second <= 300_000 < third
    assert heard[-1].done == len(DATA)


def test_a_download_of_an_earlier_process_goes_on(server: Server, tmp_path: Path) -> None:
    item = wanted(server)
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / item.sha256).write_bytes(DATA[:1000])
    heard: list[Progress] = []
    (path,) = Cache(tmp_path, progress=heard.append).fetch([item])
    assert path.read_bytes() == DATA
    assert server.requests == [("/file", "bytes=1000-")]
    assert heard[-1].done == len(DATA)


def test_a_server_without_ranges_starts_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.fail_after = [1000]
    heard: list[Progress] = []
    (path,) = Cache(tmp_path, progress=heard.append).fetch([wanted(server)])
    assert path.read_bytes() == DATA
    assert heard[-1].done == len(DATA)


def test_wrong_content_never_appears_under_the_hash(server: Server, tmp_path: Path) -> None:
    item = wanted(server)
    server.files["/file"] = DATA[:-1] + b"x"
    with pytest.raises(ImageError) as caught:
        Cache(tmp_path).fetch([item])
    assert item.sha256 in caught.value.details
    assert not (tmp_path / item.sha256[:2]).exists()


def test_a_damaged_partial_file_is_thrown_away(server: Server, tmp_path: Path) -> None:
    item = wanted(server)
    (tmp_path / "partial").mkdir()
    for content in (b"y" * 1000, b"y" * len(DATA), b"y" * (len(DATA) + 5)):
        (tmp_path / "partial" / item.sha256).write_bytes(content)
        (path,) = Cache(tmp_path).fetch([item])
        assert path.read_bytes() == DATA
        path.unlink()


def test_a_cached_file_that_was_damaged_is_fetched_again(server: Server, tmp_path: Path) -> None:
    (path,) = Cache(tmp_path).fetch([wanted(server)])
    path.write_bytes(b"damaged")
    assert Cache(tmp_path).fetch([wanted(server)]) == [path]
    assert path.read_bytes() == DATA


def test_what_does_not_exist_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        Cache(tmp_path).fetch([wanted(server, path="/nothing")])
    assert "404" in caught.value.details
    assert len(server.requests) == 1
    with pytest.raises(ImageError):
        Cache(tmp_path).text(server.address + "/nothing")


def test_many_files_keep_their_order(server: Server, tmp_path: Path) -> None:
    contents = [f"file {number}".encode() * 100 for number in range(30)]
    for number, data in enumerate(contents):
        server.files[f"/{number}"] = data
    items = [wanted(server, data, f"/{number}") for number, data in enumerate(contents)]
    assert [path.read_bytes() for path in Cache(tmp_path).fetch(items)] == contents
