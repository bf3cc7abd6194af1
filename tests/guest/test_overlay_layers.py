"""Layers are strangers' work: overlayfs's own attributes in them must not lead anywhere. Needs root."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyboxd.frozen import replace
from pyboxd.image.builder.places import Root, open_layers, writable
from pyboxd.linux.mount import make_filesystem
from pyboxd.runtime.spec import RootFilesystem
from tests.support.build_lab import BuildLab, in_build_lab
from tests.support.container_lab import Lab, in_lab

REDIRECT = "trusted.overlay.redirect"
METACOPY = "trusted.overlay.metacopy"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def bottom(folder: Path) -> str:
    (folder / "hidden").mkdir(parents=True)
    (folder / "hidden/secret").write_text("secret")
    (folder / "shown").mkdir()
    return str(folder)


def crafted(folder: Path) -> str:
    """A directory that claims to be another one, and a file whose content is claimed to be elsewhere."""
    (folder / "shown").mkdir(parents=True)
    os.setxattr(folder / "shown", REDIRECT, b"/hidden")
    (folder / "file").write_text("own")
    os.setxattr(folder / "file", METACOPY, b"")
    os.setxattr(folder / "file", REDIRECT, b"/hidden/secret")
    return str(folder)


def check(root: Root) -> None:
    with pytest.raises(PermissionError):
        root.open("shown/secret")
    with pytest.raises(PermissionError):
        root.open_directory("shown")
    with pytest.raises(PermissionError):
        root.open("file", os.O_RDONLY)


def test_the_attribute_works_where_it_is_allowed_to(tmp_path: Path) -> None:
    """What the other tests refuse is real."""
    layers = [("lowerdir+", crafted(tmp_path / "top")), ("lowerdir+", bottom(tmp_path / "bottom"))]
    mount = make_filesystem("overlay", [*layers, ("redirect_dir", "follow"), ("metacopy", "off")])
    with Root(mount) as root:
        assert root.read_file("shown/secret", 100) == b"secret"


def test_in_a_lower_layer(tmp_path: Path) -> None:
    layers = (crafted(tmp_path / "top"), bottom(tmp_path / "bottom"))
    with open_layers(layers, str(tmp_path)) as root:
        check(root)


def test_in_an_upper_directory(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    upper = crafted(tmp_path / "upper")
    with writable((bottom(tmp_path / "bottom"),), upper, str(tmp_path / "work"), "") as root:
        check(root)


def test_in_the_layers_of_a_container(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        script = "cat /shown/secret; ls /shown; mkdir /old && mv /old /new && ls -d /new; cat /file"
        spec = lab.script(script)
        layers = (crafted(tmp_path / "top"), bottom(tmp_path / "bottom"), *spec.root.lower)
        result = await lab.run(replace(spec, root=RootFilesystem(layers, spec.root.upper, spec.root.work)))
        assert result.text == "/new\n"
        assert result.stderr.count(b"Operation not permitted") == 3

    in_lab(tmp_path, scenario)


def test_in_a_layer_that_came_as_an_archive(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        attribute = f"SCHILY.xattr.{REDIRECT}"
        paths = []
        for attributes, name in (({attribute: "/hidden"}, "shown"), ({}, "hidden"), ({}, "shown")):
            paths.append(await _layer(lab, name, attributes))
        assert os.getxattr(f"{paths[0]}/shown", REDIRECT) == b"/hidden"  # the index keeps it
        with open_layers(tuple(paths), "") as root:
            with pytest.raises(PermissionError):
                root.open("shown/inside")
            assert root.read_file("hidden/inside", 100) == b"hidden"

    in_build_lab(tmp_path, scenario)


async def _layer(lab: BuildLab, name: str, attributes: dict[str, str]) -> str:
    """The mounted layer of a directory with a file in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.pax_headers = tarfile.DIRTYPE, 0o755, attributes
        tar.addfile(info)
        if not attributes:
            info = tarfile.TarInfo(f"{name}/inside")
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))

    async def chunks() -> AsyncIterator[bytes]:
        yield buffer.getvalue()

    layer = await lab.images.layers.add_stream(chunks())
    return lab.images.layers.mount(layer.diff_id)
