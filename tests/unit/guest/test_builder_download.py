"""ADD from an address, against a server on this computer."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pyboxd.errors import InvalidArgument, NotImplementedHere
from pyboxd.image.builder import download
from pyboxd.image.builder.copystep import Extra

CONTENT = b"downloaded" * 100_000


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path.startswith("/files/")
        self.send_response(200 if found else 404)
        self.send_header("Last-Modified", "Sun, 13 Sep 2020 12:26:40 GMT")
        self.send_header("Content-Length", str(len(CONTENT) if found else 0))
        self.end_headers()
        if found:
            self.wfile.write(CONTENT)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def fetch(address: str, folder: Path, target: str = "/t/", checksum: str = "") -> Extra:
    return asyncio.run(download.fetch(address, target, str(folder), {}, checksum))


def test_a_file_is_fetched(server: str, tmp_path: Path) -> None:
    extra = fetch(f"{server}/files/a%20b?x=y", tmp_path, checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    assert (extra.name, extra.downloaded) == ("a b", True)
    status = Path(extra.path).stat()
    assert (status.st_size, status.st_mode & 0o777, status.st_mtime) == (len(CONTENT), 0o600, 1_600_000_000)


def test_failures(server: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="failed to download"):
        fetch(f"{server}/absent", tmp_path)
    with pytest.raises(InvalidArgument, match="digest mismatch"):
        fetch(f"{server}/files/x", tmp_path, checksum="sha256:" + "0" * 64)
    with pytest.raises(InvalidArgument, match="invalid checksum: md5:00"):
        fetch(f"{server}/files/x", tmp_path, checksum="md5:00")
    with pytest.raises(InvalidArgument, match="cannot determine filename for source"):
        fetch(f"{server}/", tmp_path)
    with pytest.raises(NotImplementedHere, match="git repository"):
        fetch("https://example.invalid/project.git#main", tmp_path)


def test_what_is_an_address() -> None:
    assert [download.is_remote(text) for text in ("http://x", "https://x", "git@x:y", "http", "./http://x")] == [
        True,
        True,
        True,
        False,
        False,
    ]
