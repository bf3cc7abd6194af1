"""`pybox image bootstrap`: a base image straight from Debian's signed packages.

The host resolves, downloads and verifies; unpacking and configuring run in the machine, as one build whose context
holds the packages, so that maintainer scripts run as on Debian. The last stage copies the finished tree into one
layer without the packages.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pybox.app.build import follow
from pybox.engine.client import EngineClient
from pybox.errors import EngineError
from pybox.frozen import frozen

# A build step of dpkg prints hundreds of lines; they matter only when it fails.
KEPT_LINES = 25

BASE_PACKAGES = ("apt", "debian-archive-keyring")
COMMANDS = {"python3": "python3", "nodejs": "node"}

DPKG_CONFIGURATION = b"""force-unsafe-io
path-exclude /usr/share/doc/*
path-include /usr/share/doc/*/copyright
path-exclude /usr/share/man/*
path-exclude /usr/share/info/*
path-exclude /usr/share/locale/*
path-exclude /usr/share/lintian/*
"""

# Run three times: with the packages that every image has (a step that later bootstraps find in the cache), with those
# that were asked for, and to tidy up.
INSTALL = b"""set -e
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C LANGUAGE=C LANG=C
case $1 in
finish)
    dpkg --audit
    rm -rf /.packages /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/*.log /var/log/apt /var/cache/debconf/*-old
    rm -f /usr/sbin/policy-rc.d /var/lib/dpkg/*-old /etc/machine-id
    ;;
*)
    mkdir -p /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers /var/log /var/cache /run /tmp
    [ -e /var/lib/dpkg/status ] || : >/var/lib/dpkg/status
    [ -e /var/lib/dpkg/available ] || : >/var/lib/dpkg/available
    printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    dpkg --install --force-depends /.packages/$1/*.deb
    dpkg --configure --pending
    ;;
esac
"""

Progress = Callable[[str, int, int], None]


@frozen
class BootstrapRequest:
    """`name` is the image's name, `packages` go on top of Debian's essential ones, apt and its keyring."""

    name: str
    packages: tuple[str, ...] = ()
    suite: str = "trixie"


@frozen
class Packages:
    """Verified .deb files on the host, in an order in which they can be unpacked."""

    essential: tuple[Path, ...]
    base: tuple[Path, ...]  # what every image has besides
    more: tuple[Path, ...]  # what was asked for
    sources: bytes  # content of /etc/apt/sources.list.d/debian.sources


Fetch = Callable[[BootstrapRequest, str, Progress], Packages]


def bootstrap(
    client: EngineClient,
    request: BootstrapRequest,
    progress: Progress,
    fetch: Fetch | None = None,
) -> str:
    """Make the image; its id. `fetch` brings the packages (tests give their own)."""
    from pybox.app.debian_packages import fetch_packages, seed_tree

    architecture = str(client.get("/version")["Arch"])
    packages = (fetch or fetch_packages)(request, architecture, progress)
    progress("Installing packages in the machine", 0, 0)
    kept: list[str] = []

    def show(text: str) -> None:
        kept.append(text)
        del kept[:-KEPT_LINES]
        if text.startswith(("Setting up ", "Unpacking ")):
            progress(f"Installing: {text.split(' (')[0].strip().lower()}", 0, 0)

    lines = client.json_lines(
        "POST",
        "/build",
        {"t": request.name, "rm": True, "dockerfile": "Dockerfile", "version": 1},
        _context(request, packages, seed_tree),
        {"Content-Type": "application/x-tar"},
    )
    try:
        return follow(lines, show)
    except EngineError as error:
        error.details = "".join(kept)
        raise


def _dockerfile(request: BootstrapRequest, *, more: bool) -> bytes:
    command = next((COMMANDS[name] for name in request.packages if name in COMMANDS), "bash")
    return "\n".join(
        [
            "FROM scratch AS system",
            "ADD seed.tar /",
            "COPY install /.packages/install",
            "COPY base /.packages/base",
            'RUN ["/bin/sh", "/.packages/install", "base"]',
            *(["COPY more /.packages/more", 'RUN ["/bin/sh", "/.packages/install", "more"]'] if more else []),
            'RUN ["/bin/sh", "/.packages/install", "finish"]',
            "FROM scratch",
            "COPY --from=system / /",
            f'CMD ["{command}"]',
        ]
    ).encode()


def _context(
    request: BootstrapRequest, packages: Packages, seed_tree: Callable[[tuple[Path, ...]], Iterator[bytes]]
) -> Iterator[bytes]:
    """The build context as a tar stream; nothing of it is held in memory but one file at a time."""
    small = {
        "Dockerfile": _dockerfile(request, more=bool(packages.more)),
        "install": INSTALL,
    }
    for name, data in small.items():
        yield from _member(name, data)
    extra = {
        "etc/dpkg/dpkg.cfg.d/container": DPKG_CONFIGURATION,
        "etc/apt/sources.list.d/debian.sources": packages.sources,
    }
    seed = io.BytesIO()
    for piece in seed_tree(packages.essential):
        seed.write(piece)
    with tarfile.open(fileobj=seed, mode="w|") as archive:
        for name, data in extra.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    yield from _member("seed.tar", seed.getvalue())
    for folder, paths in (("base", packages.essential + packages.base), ("more", packages.more)):
        for number, path in enumerate(paths):
            yield from _member(f"{folder}/{number:03}_{path.name}.deb", path.read_bytes())
    yield b"\0" * 1024


def _member(name: str, data: bytes) -> Iterator[bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    yield info.tobuf(tarfile.PAX_FORMAT)
    yield data
    yield b"\0" * (-len(data) % 512)
