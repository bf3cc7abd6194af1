"""What the tests of the image builder are made of: packages, kernel modules and a small Debian mirror, all made here."""

from __future__ import annotations

import hashlib
import io
import lzma
import struct
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pysequoia


def tar(files: Mapping[str, bytes | str]) -> bytes:
    """A tar archive: bytes are files, strings are link targets, names that end with a slash are folders."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo("./" + name)
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size, info.mode = len(content), 0o755 if "/bin/" in name else 0o644
                archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def ar(members: Mapping[str, bytes]) -> bytes:
    """An ar archive as dpkg-deb writes it."""
    parts = [b"!<arch>\n"]
    for name, content in members.items():
        parts.append(f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode())
        parts.append(content + b"\n" * (len(content) % 2))
    return b"".join(parts)


def make_deb(files: Mapping[str, bytes | str]) -> bytes:
    """A .deb with these files."""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": lzma.compress(tar({"control": b""})),
        "data.tar.xz": lzma.compress(tar(files)),
    }
    return ar(members)


def module(**info: str | list[str]) -> bytes:
    """A kernel module that is an ELF file with nothing but a `.modinfo` section."""
    lines = [(key, text) for key, value in info.items() for text in ([value] if isinstance(value, str) else value)]
    strings = b"".join(f"{key}={text}".encode() + b"\0" for key, text in lines)
    names = b"\0.modinfo\0.shstrtab\0"
    header_size, section_size = 64, 64
    content = strings + names
    table = header_size + len(content)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, table, 0, header_size, 0, 0, section_size, 3, 2)
    sections = bytes(section_size)
    for name, offset, size in ((1, header_size, len(strings)), (10, header_size + len(strings), len(names))):
        sections += struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, size, 0, 0, 1, 0)
    return header + content + sections


@dataclass
class Server:
    """An HTTP server on loopback. `files` by path; `requests` as (path, Range header); `fail_after` cuts the
    connection of the next answers after so many bytes of content; `ranges` off means the server ignores Range."""

    files: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    fail_after: list[int] = field(default_factory=list)
    ranges: bool = True
    address: str = ""


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server for the length of a test."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.requests.append((self.path, wanted))
            if self.path not in state.files:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data, start = state.files[self.path], 0
            if wanted and state.ranges:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(data) - start))
            self.end_headers()
            body = data[start:]
            if state.fail_after:
                body = body[: state.fail_after.pop(0)]
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def generate_key() -> pysequoia.Tsk:
    """A signing key."""
    return pysequoia.Tsk.generate("Archive of a test <archive@example.org>")


def public(key: pysequoia.Tsk) -> bytes:
    """The keyring that holds the public part of a key."""
    return bytes(key.extract_certificate())


def sign(text: str, key: pysequoia.Tsk) -> bytes:
    """Sign a text as `InRelease` is signed."""
    return bytes(pysequoia.sign(key.signer(), text.encode(), mode=pysequoia.SignatureMode.CLEAR))


def paragraph(name: str, deb: bytes = b"", version: str = "1", architecture: str = "amd64", **fields: str) -> str:
    """One paragraph of `Packages`; underscores in field names stand for hyphens."""
    lines = [
        f"Package: {name}",
        f"Version: {version}",
        f"Architecture: {architecture}",
        *(f"{key.replace('_', '-')}: {value}" for key, value in fields.items()),
        "Description: a package",
        " with Provides: nothing, in a continuation line",
        f"Filename: pool/{name}_{version}.deb",
        f"Size: {len(deb)}",
        f"SHA256: {hashlib.sha256(deb).hexdigest()}",
    ]
    return "\n".join(lines) + "\n"


@dataclass
class Mirror:
    """A Debian mirror in the making: packages by suite, written to a server and signed by `publish`."""

    server: Server
    key: pysequoia.Tsk
    architecture: str = "amd64"
    suites: dict[str, list[str]] = field(default_factory=dict)

    def add(
        self, suite: str, name: str, files: Mapping[str, bytes | str] | None = None, version: str = "1", **fields: str
    ) -> None:
        """Add a package with these files to a suite."""
        deb = make_deb(files or {f"usr/share/doc/{name}/copyright": b"free"})
        self.server.files[f"/pool/{name}_{version}.deb"] = deb
        self.suites.setdefault(suite, []).append(paragraph(name, deb, version, self.architecture, **fields))

    def publish(self, codename: str, *, by_hash: bool = True) -> None:
        """Write the indexes of the three suites of a release."""
        for suite in (codename, f"{codename}-updates", f"{codename}-security"):
            packed = lzma.compress("\n".join(self.suites.get(suite, [])).encode())
            digest = hashlib.sha256(packed).hexdigest()
            folder = f"main/binary-{self.architecture}"
            place = f"{folder}/by-hash/SHA256/{digest}" if by_hash else f"{folder}/Packages.xz"
            self.server.files[f"/dists/{suite}/{place}"] = packed
            text = release_text(suite, {f"{folder}/Packages.xz": packed}, by_hash=by_hash)
            self.server.files[f"/dists/{suite}/InRelease"] = sign(text, self.key)


def release_text(codename: str, files: Mapping[str, bytes], *, by_hash: bool = True, until: str = "") -> str:
    """The text of a `Release` file."""
    lines = [
        "Origin: Debian",
        "Suite: stable",
        f"Codename: {codename}",
        "Date: Sat, 21 Nov 2026 09:15:44 UTC",
        *([f"Valid-Until: {until}"] if until else []),
        f"Acquire-By-Hash: {'yes' if by_hash else 'no'}",
        "MD5Sum:",
        " d41d8cd98f00b204e9800998ecf8427e 0 main/binary-amd64/Packages",
        "SHA256:",
        *(f" {hashlib.sha256(data).hexdigest()} {len(data)} {path}" for path, data in files.items()),
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, data: bytes) -> Path:
    """Write a file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
