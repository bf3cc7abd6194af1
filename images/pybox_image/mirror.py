"""Which Debian mirror to read: a setting, else the one that apt on this host uses, else a public one.

apt's files are read, apt is not run: the same code works on hosts that have no apt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Plain HTTP, as in apt's own defaults: what counts is signed, and caches and proxies can help.
DEFAULT_ARCHIVE = "http://ftp.debian.org/debian"
DEFAULT_SECURITY = "http://security.debian.org/debian-security"

_APT = Path("/etc/apt")
# Only a source with Debian's own suites is a mirror of Debian; a host with Ubuntu's falls to the default.
_SUITE = re.compile(r"(old)*stable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke", re.ASCII)


@dataclass(frozen=True)
class Mirror:
    """Base addresses, without a slash at the end, of the archive and of its security updates."""

    archive: str = DEFAULT_ARCHIVE
    security: str = DEFAULT_SECURITY


def choose(archive: str = "", security: str = "", *, apt: Path = _APT) -> Mirror:
    """Return the mirror to use: what the settings say, completed from apt's files and the defaults."""
    configured = from_apt(apt)
    return Mirror(
        (archive or configured.archive).rstrip("/"),
        (security or configured.security).rstrip("/"),
    )


def from_apt(apt: Path = _APT) -> Mirror:
    """Return the Debian mirror in apt's configuration below `apt`; the default where there is none."""
    archive = security = ""
    for address, suite in _sources(apt):
        if not address.startswith(("http://", "https://")):
            continue
        name, _, kind = suite.partition("-")
        if not _SUITE.fullmatch(name.partition("/")[0]):
            continue
        if kind == "security" or suite.endswith("/updates"):
            security = security or address
        elif not kind:
            archive = archive or address
    return Mirror(archive or DEFAULT_ARCHIVE, security or DEFAULT_SECURITY)


def _sources(apt: Path) -> Iterator[tuple[str, str]]:
    """Yield (address, suite) of every enabled binary source."""
    folder = apt / "sources.list.d"
    for path in [apt / "sources.list", *sorted(folder.glob("*.list"))]:
        yield from _one_line_sources(_read(path))
    for path in sorted(folder.glob("*.sources")):
        yield from _deb822_sources(_read(path))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _one_line_sources(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        words = re.sub(r"\[.*?\]", "", line.partition("#")[0]).split()
        if len(words) >= 3 and words[0] == "deb":
            yield words[1], words[2]


def _deb822_sources(text: str) -> Iterator[tuple[str, str]]:
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
                continue
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        for address in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield address.rstrip("/"), suite
