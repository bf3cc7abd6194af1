"""`python -m pybox_image`: packages without a machine. The image itself is built by `pybox`, which can boot the bake."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import platformdirs

from pybox_image import build, mirror, packages, recipe
from pybox_image.errors import ImageError
from pybox_image.progress import Progress


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
    except ImageError as error:
        parts = (f"error: {error.brief}", error.details, error.resolution)
        print("\n".join(part for part in parts if part), file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--arch", default=packages.host_architecture(), help="Debian's name, default: this computer's")
    common.add_argument("--mirror", default="", help="base address of a Debian mirror, default: the one apt uses")
    common.add_argument("--security-mirror", default="", help="base address of a mirror of the security updates")
    common.add_argument("--cache", type=Path, default=platformdirs.user_cache_path("pybox") / "downloads")
    parser = argparse.ArgumentParser(prog="pybox_image", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", parents=[common], help="download all that a guest image is made of")
    unpack = commands.add_parser("unpack", parents=[common], help="unpack packages into a folder")
    unpack.add_argument("packages", nargs="+", metavar="PACKAGE")
    unpack.add_argument("--suite", default=recipe.load("amd64").suite)
    unpack.add_argument("--into", type=Path, required=True, metavar="DIR")
    unpack.add_argument("--dependencies", action="store_true", help="unpack what the packages depend on too")
    return parser


def _mirror(options: argparse.Namespace) -> mirror.Mirror:
    return mirror.choose(options.mirror, options.security_mirror)


def _fetch(options: argparse.Namespace) -> None:
    wanted = build.BuildOptions(options.arch, Path(), options.cache, Path(), _mirror(options))
    fetched = build.fetch(wanted, _show)
    for package in [*fetched.packages, fetched.kernel_package]:
        print(package.name, package.version)


def _unpack(options: argparse.Namespace) -> None:
    debs = packages.resolve_and_fetch(
        options.packages,
        options.suite,
        options.arch,
        essential=False,
        dependencies=options.dependencies,
        mirror=_mirror(options),
        cache=options.cache,
        progress=_show,
    )
    packages.unpack(debs, options.into)


def _show(progress: Progress) -> None:
    if sys.stderr.isatty() and progress.total:
        end = "\n" if progress.done >= progress.total else ""
        print(f"\r{progress.phase} {100 * progress.done // progress.total}%", end=end, file=sys.stderr, flush=True)


_COMMANDS = {"fetch": _fetch, "unpack": _unpack}

if __name__ == "__main__":
    sys.exit(main())
