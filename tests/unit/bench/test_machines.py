from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from pybox.errors import PyboxError
from pybox.model import Accelerator
from tests.bench.content import Image, build_context, busybox, digest, numbered_files, tar
from tests.bench.pybox_vm import PyboxVm, engine_memory
from tests.bench.stock.reference import full_flavour
from tests.bench.stock.vm import Size


def test_numbered_files_are_always_the_same() -> None:
    first, second = (tar(numbered_files(1_000_000, 200)) for _ in range(2))
    assert digest(first) == digest(second)
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        files = [member for member in archive if member.isreg()]
    assert len(files) == 200
    assert 990_000 < sum(member.size for member in files) <= 1_000_000


def test_archive_of_an_image_is_what_docker_save_writes() -> None:
    image = Image("some", tar(busybox(b"\x7fELF")))
    out = io.BytesIO()
    image.write_archive(out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        contents = {member.name: (archive.extractfile(member) or io.BytesIO()).read() for member in archive}
    (entry,) = json.loads(contents["manifest.json"])
    assert entry["RepoTags"] == ["some:latest"]
    assert json.loads(contents[entry["Config"]])["rootfs"]["diff_ids"] == [digest(contents[entry["Layers"][0]])]
    with tarfile.open(fileobj=io.BytesIO(image.layer)) as layer:
        assert layer.getmember("bin/busybox").mode == 0o755
        assert layer.getmember("bin/true").linkname == "busybox"


def test_build_context() -> None:
    with tarfile.open(fileobj=io.BytesIO(build_context())) as archive:
        names = archive.getnames()
    assert names[0] == "Dockerfile"
    assert len(names) == 2001


def test_memory_is_the_engines_own() -> None:
    text = """\
4000 0 1 pyboxd-init
30000 1 150 pyboxd-engine
6000 150 160 monitor
900 160 170 sleep
500 1 180 dropbear
700 180 181 dropbear
300 181 182 sh
200 182 183 cat
"""
    found = engine_memory(text)
    assert set(found.processes) == {"pyboxd-init", "pyboxd-engine", "monitor", "dropbear"}
    assert found.total == pytest.approx((4000 + 30000 + 6000 + 500) * 1024 / 1e6)


def test_both_machines_are_of_one_size() -> None:
    words = Size(Path("/usr/bin/qemu"), Accelerator.TCG, 1024, 2).words()
    options = dict(zip(words[::2], words[1::2], strict=True))
    assert options["-smp"] == "2"
    assert options["-m"] == "1024M"
    assert options["-accel"] == "tcg,thread=multi"
    assert "id=ram" in options["-object"] and "memory-backend=ram" in options["-machine"]


def test_settings_of_the_user_do_not_reach_the_measured_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYBOX_MEMORY", "9g")
    monkeypatch.setenv("PYBOX_DNS", "192.0.2.1")
    found = PyboxVm(tmp_path, 2048, 2).own_environment()
    assert found["PYBOX_MEMORY"] == "2048"
    assert found["PYBOX_HOME"] == str(tmp_path)
    assert "PYBOX_DNS" not in found


def test_kernel_of_the_reference() -> None:
    assert full_flavour("6.12.1+deb13-cloud-amd64") == "linux-image-6.12.1+deb13-amd64"
    with pytest.raises(PyboxError, match="not of the cloud flavour"):
        full_flavour("6.12.1-rt-amd64")
