"""ADD from an address, against a server on this computer."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pyboxd.errors import InvalidArgument, NotImplementedHere
from pyboxd.image import trust
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


@contextmanager
def running(context: ssl.SSLContext | None = None) -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.fixture
def server() -> Iterator[str]:
    with running() as port:
        yield f"http://127.0.0.1:{port}"


def company(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A root that only the user's computer knows: its file, and the context of a server that it vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "company")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    root, private = folder / "root.pem", folder / "key.pem"
    root.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(root, private)
    return root, context


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
    for address in (f"{server}/a b", f"{server}/a\nb", f"{server}/\x7f", "http://[::1", "http://host:99999/x"):
        with pytest.raises(InvalidArgument, match=r"^parse"):
            fetch(address, tmp_path)


def test_the_roots_of_the_users_computer_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, context = company(tmp_path)
    with running(context) as port:
        address = f"https://127.0.0.1:{port}/files/x"
        monkeypatch.setattr(trust, "CERTIFICATES", str(tmp_path / "absent"))
        with pytest.raises(InvalidArgument, match="certificate verify failed"):
            fetch(address, tmp_path)
        monkeypatch.setattr(trust, "CERTIFICATES", str(root))
        assert Path(fetch(address, tmp_path).path).read_bytes() == CONTENT


def test_what_is_an_address() -> None:
    assert [download.is_remote(text) for text in ("http://x", "https://x", "git@x:y", "http", "./http://x")] == [
        True,
        True,
        True,
        False,
        False,
    ]
