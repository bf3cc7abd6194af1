from __future__ import annotations

from pathlib import Path

from pybox_image.mirror import DEFAULT_ARCHIVE, DEFAULT_SECURITY, Mirror, choose, from_apt
from tests.unit.images.samples import write


def test_deb822_sources(tmp_path: Path) -> None:
    write(
        tmp_path / "sources.list.d/debian.sources",
        b"""\
Types: deb deb-src
# a comment
URIs: http://mirror.example.org/debian/
Suites: bookworm bookworm-updates
Components: main
 contrib

Types: deb
URIs: https://mirror.example.org/debian-security
Suites: bookworm-security

Types: deb
URIs: https://packages.example.com/tool
Suites: nodistro

Types: deb
URIs: https://off.example.org/debian
Suites: sid
Enabled: no
""",
    )
    assert from_apt(tmp_path) == Mirror("http://mirror.example.org/debian", "https://mirror.example.org/debian-security")


def test_one_line_sources(tmp_path: Path) -> None:
    write(
        tmp_path / "sources.list",
        b"""\
# deb http://old.example.org/debian buster main
deb-src http://source.example.org/debian trixie main
deb cdrom:[Debian]/ trixie main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] http://mirror.example.org/debian trixie main # comment
deb http://mirror.example.org/security trixie-security main
""",
    )
    assert from_apt(tmp_path) == Mirror("http://mirror.example.org/debian", "http://mirror.example.org/security")


def test_a_host_without_debian_uses_the_public_mirror(tmp_path: Path) -> None:
    assert from_apt(tmp_path / "missing") == Mirror(DEFAULT_ARCHIVE, DEFAULT_SECURITY)
    write(tmp_path / "sources.list", b"deb http://archive.example.com/ubuntu noble main\n")
    write(tmp_path / "sources.list.d/other.list", b"deb http://apt.example.org/pg noble-pgdg main\n")
    assert from_apt(tmp_path) == Mirror(DEFAULT_ARCHIVE, DEFAULT_SECURITY)


def test_settings_come_first(tmp_path: Path) -> None:
    write(tmp_path / "sources.list", b"deb http://mirror.example.org/debian trixie main\n")
    assert choose("http://set.example.org/debian/", apt=tmp_path) == Mirror(
        "http://set.example.org/debian", DEFAULT_SECURITY
    )
    assert choose(security="http://set.example.org/s", apt=tmp_path) == Mirror(
        "http://mirror.example.org/debian", "http://set.example.org/s"
    )
