"""`InRelease`: the signed table of a suite's index files. Nothing in it is used before its signature is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import resources

import pysequoia

from pybox_image.errors import ImageError

_KEYRING = "debian-archive-keyring.gpg"


@dataclass(frozen=True)
class IndexFile:
    """One line of the `SHA256` table."""

    path: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Release:
    """A verified `InRelease`. `suite` and `codename` are its own words; `date` is when it was made (RFC 2822)."""

    suite: str
    codename: str
    date: str
    by_hash: bool
    files: dict[str, IndexFile]


def archive_keys() -> bytes:
    """Return the keyring of Debian's archive that this package carries."""
    return resources.files("pybox_image").joinpath("keys", _KEYRING).read_bytes()


def verify(signed: bytes, keyring: bytes, *, codename: str, now: datetime | None = None) -> Release:
    """Check the signature of an `InRelease` and return what it says.

    Raises ImageError when no key of `keyring` signed it, when it belongs to another suite than `codename`
    (a mirror, or someone between, could serve an older or a different suite), or when it has expired.
    """
    release = _parse(_signed_content(signed, pysequoia.Cert.split_bytes(keyring)), codename, now or datetime.now(UTC))
    if codename not in (release.codename, release.suite):
        raise ImageError(
            f"the index of {codename} is not what it should be",
            f"it says it is {release.codename} ({release.suite})",
            "Choose another mirror.",
        )
    return release


def _signed_content(signed: bytes, certificates: Sequence[pysequoia.Cert]) -> bytes:
    """Return only the bytes that the signature covers: text before and after it never gets any further."""
    try:
        result = pysequoia.verify(signed, store=lambda _keys: list(certificates))
    except Exception as error:  # noqa: BLE001  # the library raises plain exceptions of several kinds
        raise ImageError(
            "the signature of Debian's index is not valid",
            str(error).partition("\n")[0],
            "Choose another mirror, or update pybox if Debian changed its keys.",
        ) from None
    content = result.bytes
    if not content or not result.valid_sigs:
        raise ImageError("the signature of Debian's index is not valid", "no content was signed")
    return bytes(content)


def _parse(content: bytes, codename: str, now: datetime) -> Release:
    fields: dict[str, str] = {}
    files: dict[str, IndexFile] = {}
    name = ""
    for line in content.decode("utf-8").splitlines():
        if line.startswith(" "):
            if name == "SHA256":
                sha256, size, path = line.split()
                files[path] = IndexFile(path, sha256, int(size))
            continue
        name, _, value = line.partition(":")
        fields[name] = value.strip()
    until = fields.get("Valid-Until")
    if until and parsedate_to_datetime(until) < now:
        raise ImageError(
            f"the index of {codename} is out of date",
            f"it was valid until {until}",
            "Check this computer's clock, or choose another mirror.",
        )
    return Release(
        fields.get("Suite", ""),
        fields.get("Codename", ""),
        fields.get("Date", ""),
        fields.get("Acquire-By-Hash", "").lower() == "yes",
        files,
    )
