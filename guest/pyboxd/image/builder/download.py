"""ADD from an address: fetched into a file of the build, size and digest checked."""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import re
from collections.abc import Callable, Mapping
from typing import IO, TYPE_CHECKING, Any

from pyboxd.errors import InvalidArgument, NotImplementedHere
from pyboxd.image.builder.copystep import Extra
from pyboxd.image.workers import Stop, run_blocking

if TYPE_CHECKING:
    from urllib.parse import SplitResult

TIMEOUT = 60.0  # seconds without a byte
_PIECE = 256 * 1024
_CHECKSUM = re.compile(r"(sha256|sha384|sha512):([0-9a-f]+)\Z")


def is_remote(source: str) -> bool:
    """Whether a source of ADD is an address and no path."""
    return source.startswith(("http://", "https://", "git@", "git://", "ssh://"))


def split_address(address: str) -> SplitResult:
    """The parts of an address, in Go's words where it is none. InvalidArgument."""
    from urllib.parse import urlsplit  # seldom needed

    try:
        if re.search(r"[\x00-\x20\x7f]", address):
            raise ValueError("net/url: invalid control character in URL")
        found = urlsplit(address)
        _ = found.port  # raises
    except ValueError as error:
        raise InvalidArgument(f"parse {json.dumps(address)}: {error}") from error
    return found


async def fetch(
    address: str,
    target: str,
    folder: str,
    proxies: Mapping[str, str],
    checksum: str,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Extra:
    """Download into `folder`. The name is the address's last part, or `target`'s when that names a file.

    `report` is told in the thread that reads: bytes that are there, from 0 on, and how many there will be (0: unknown).
    """
    if not address.startswith(("http://", "https://")) or re.search(r"\.git(#|$)", address):
        raise NotImplementedHere(f"ADD of a git repository is not supported: {address}")
    if checksum and not _CHECKSUM.match(checksum):
        raise InvalidArgument(f"invalid checksum: {checksum}")
    from urllib.parse import unquote

    name = posixpath.basename(unquote(split_address(address).path))
    if target.endswith("/") and name in ("", ".", ".."):
        raise InvalidArgument(f"cannot determine filename for source {address}")
    path = f"{folder}/file"
    try:
        await run_blocking(lambda stop: _download(address, path, proxies, checksum, stop, report))
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors
        raise InvalidArgument(f"failed to download {address}: {error}") from error
    return Extra(name or "file", path, downloaded=True)


def _download(
    address: str, path: str, proxies: Mapping[str, str], checksum: str, stop: Stop, report: Callable[[int, int], None]
) -> None:
    import urllib.request
    from http.client import HTTPException

    from pyboxd.image.trust import tls_context

    chosen = {
        scheme: proxies.get(f"{scheme}_proxy") or proxies.get(f"{scheme.upper()}_PROXY") for scheme in ("http", "https")
    }
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=tls_context())]
    if any(chosen.values()):
        handlers.append(urllib.request.ProxyHandler({scheme: url for scheme, url in chosen.items() if url}))
    opener = urllib.request.build_opener(*handlers)
    digest = hashlib.new(checksum.partition(":")[0] or "sha256")
    try:
        with opener.open(address, timeout=TIMEOUT) as answer, open(path, "wb") as file:
            stop.on_stop(answer.close)
            total = int(answer.headers.get("Content-Length") or 0)
            _receive(answer, file, digest, stop, lambda done: report(done, total))
            modified = answer.headers.get("Last-Modified")
    except HTTPException as error:  # what is said is no HTTP, or ends too early
        raise ValueError(str(error) or type(error).__name__) from error
    found = f"{checksum.partition(':')[0]}:{digest.hexdigest()}"
    if checksum and found != checksum:
        raise InvalidArgument(f"digest mismatch {found}: {checksum}")
    os.chmod(path, 0o600)
    moment = _moment(modified)
    os.utime(path, (moment, moment))


def _receive(answer: IO[bytes], file: IO[bytes], digest: Any, stop: Stop, report: Callable[[int], None]) -> None:
    report(0)
    while data := answer.read(_PIECE):
        stop.check()
        digest.update(data)
        file.write(data)
        report(file.tell())


def _moment(modified: str | None) -> float:
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(modified).timestamp() if modified else 0.0
    except (ValueError, OverflowError):
        return 0.0
