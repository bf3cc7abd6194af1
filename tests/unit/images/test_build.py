"""From a mirror to the finished folder, with a bake that this test answers for the machine."""

from __future__ import annotations

import json
import lzma
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pysequoia
import pytest

from pybox_image import bake, build, cpio, download, manifest, packages, recipe
from pybox_image.__main__ import main
from pybox_image.bake import BakeBoot
from pybox_image.build import BuildOptions
from pybox_image.debian import release
from pybox_image.errors import ImageError
from pybox_image.manifest import Manifest
from pybox_image.mirror import Mirror as Addresses
from pybox_image.progress import Progress
from tests.unit.images.samples import Mirror, generate_key, module, public, serving, write

KERNEL = "6.12.1-cloud-amd64"
EROFS = struct.pack("<IIIB", 0xE0F5E1E2, 0, 0, 12)  # magic, checksum, features, log2 of the block size


@pytest.fixture(scope="module")
def key() -> pysequoia.Tsk:
    return generate_key()


@pytest.fixture
def mirror(key: pysequoia.Tsk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setattr(download, "_pause", lambda attempt: None)
    monkeypatch.setattr(release, "archive_keys", lambda: public(key))
    with serving() as server:
        yield Mirror(server, key)


def kernel_files(names: list[str]) -> dict[str, bytes | str]:
    base = f"lib/modules/{KERNEL}"
    files: dict[str, bytes | str] = {f"boot/vmlinuz-{KERNEL}": bzimage(), f"{base}/modules.builtin": b""}
    return files | {f"{base}/kernel/x/{name}.ko.xz": lzma.compress(module(depends="")) for name in names}


def bzimage() -> bytes:
    packed = b"\x28\xb5\x2f\xfd" + b"zstd" + struct.pack("<I", 100)
    image = bytearray(0x400)
    image[0x1F1] = 1
    image[0x202:0x206] = b"HdrS"
    image[0x248:0x250] = struct.pack("<II", 0, len(packed))
    return bytes(image) + packed


def fill(mirror: Mirror) -> None:
    """A Debian that has just what the recipe asks for."""
    plan = recipe.load("amd64")
    special: dict[str, dict[str, bytes | str]] = {
        "base-passwd": {
            "usr/share/base-passwd/passwd.master": b"root:*:0:0:root:/root:/bin/bash\n",
            "usr/share/base-passwd/group.master": b"root:*:0:\n",
        },
        "busybox-static": {"bin/busybox": b"busybox"},
        "ca-certificates": {
            "usr/share/ca-certificates/mozilla/b.crt": b"B",
            "usr/share/ca-certificates/mozilla/a.crt": b"A\n",
        },
    }
    for name in plan.packages:
        mirror.add("trixie", name, special.get(name))
    mirror.add("trixie", "busybox-static", {"bin/busybox": b"older"}, version="0.9")
    mirror.add("trixie", plan.kernel_package, Depends=f"linux-image-{KERNEL} (= 1)")
    named = [word for word in (*plan.initrd_modules, *plan.root_modules) if "/" not in word]
    mirror.add("trixie-security", f"linux-image-{KERNEL}", kernel_files(named))
    mirror.publish("trixie")


def options(mirror: Mirror, folder: Path) -> BuildOptions:
    write(folder / "guest/pyboxd/__init__.py", b"")
    address = mirror.server.address
    return BuildOptions("amd64", folder / "out/image", folder / "cache", folder / "guest", Addresses(address, address))


def good_boot(machine: BakeBoot) -> None:
    """What the guest does in the bake, as far as the host sees it."""
    disk, kernel_disk = machine.disks
    with disk.open("rb+") as stream:
        stream.write(bytes(1024) + EROFS.ljust(36, b"\0") + struct.pack("<I", 2) + b"root")
    with kernel_disk.open("rb+") as stream:
        stream.write(b"\x7fELF")
    machine.console_log.write_bytes(b"noise\r\nPYBOX-BAKE done\r\n")


def test_an_image_is_built(mirror: Mirror, tmp_path: Path) -> None:
    fill(mirror)
    machines: list[BakeBoot] = []
    raw: dict[str, cpio.Entry] = {}
    heard: list[Progress] = []

    def boot(machine: BakeBoot) -> None:
        machines.append(machine)
        raw.update({entry.path: entry for entry in cpio.unpack(machine.initrd.read_bytes())})
        good_boot(machine)

    wanted = options(mirror, tmp_path)
    made = build.build(wanted, boot, heard.append)

    assert manifest.read(wanted.out) == made
    assert {path.name for path in wanted.out.iterdir()} == {*made.files, manifest.FILE}
    assert made.files["root.erofs"][0] == 2 * 4096
    assert made.files["vmlinux"][0] == 100
    assert machines[0].append.startswith("console=ttyS0 ")
    assert [entry.name for entry in tmp_path.joinpath("out").iterdir()] == ["image"]  # no temporary folder is left
    assert {item.phase for item in heard} >= {"index", "download", "unpack", "bake", "done"}

    assert raw["tree/usr/bin/busybox"].data == b"busybox"
    assert raw["tree/etc/passwd"].data == b"root:x:0:0:root:/root:/bin/sh\n"
    assert raw["tree/etc/ssl/certs/ca-certificates.crt"].data == b"A\nB\n"
    assert raw["tree/etc/resolv.conf"].data == b"/run/pyboxd/resolv.conf"
    assert stat.S_IMODE(raw["tree/tmp"].mode) == 0o1777
    assert f"tree/usr/lib/modules/{KERNEL}/modules.dep" in raw
    assert json.loads(raw["tree/usr/lib/pybox/manifest.json"].data)["id"] == made.id
    assert raw["pyboxd-code/pyboxd/__init__.py"].data == b""

    initrd = {entry.path: entry for entry in cpio.unpack((wanted.out / "initrd").read_bytes())}
    assert initrd["init"].mode == stat.S_IFREG | 0o755
    order = initrd["modules/order"].data.decode().split()
    assert set(order) == {"virtio_rng.ko", "virtio_blk.ko", "erofs.ko"}
    assert all(f"modules/{name}" in initrd for name in order)


def test_the_id_does_not_depend_on_the_guest_code(mirror: Mirror, tmp_path: Path) -> None:
    fill(mirror)
    wanted = options(mirror, tmp_path)
    first = build.build(wanted, good_boot)
    write(tmp_path / "guest/pyboxd/__init__.py", b"# edited\n")
    assert build.build(wanted, good_boot).id == first.id
    mirror.add("trixie-updates", "netbase", {"etc/protocols": b"new"}, version="2")
    mirror.publish("trixie")
    assert build.build(wanted, good_boot).id != first.id


def silent_boot(machine: BakeBoot) -> None:
    machine.console_log.write_bytes(b"")


def failing_boot(machine: BakeBoot) -> None:
    machine.console_log.write_bytes(b"Traceback\nPYBOX-BAKE failed: bake.py\n")


def lying_boot(machine: BakeBoot) -> None:
    machine.console_log.write_bytes(b"PYBOX-BAKE done\n")


def kernelless_boot(machine: BakeBoot) -> None:
    good_boot(machine)
    machine.disks[1].write_bytes(bytes(100))


@pytest.mark.parametrize(
    ("boot", "seen"),
    [
        (silent_boot, "console stayed empty"),
        (failing_boot, "Traceback\nPYBOX-BAKE failed: bake.py"),
        (lying_boot, "no file system"),
        (kernelless_boot, "kernel was not unpacked"),
    ],
)
def test_a_failed_bake_leaves_the_image_as_it_was(
    mirror: Mirror, tmp_path: Path, boot: bake.BootFunction, seen: str
) -> None:
    fill(mirror)
    wanted = options(mirror, tmp_path)
    before = build.build(wanted, good_boot)
    with pytest.raises(ImageError) as caught:
        build.build(wanted, boot)
    assert seen in caught.value.details
    assert manifest.read(wanted.out) == before


def test_a_damaged_package_is_never_used(mirror: Mirror, tmp_path: Path) -> None:
    fill(mirror)
    mirror.server.files["/pool/netbase_1.deb"] += b"x"
    mirror.server.files["/pool/nftables_1.deb"] = mirror.server.files["/pool/iproute2_1.deb"]
    with pytest.raises(ImageError, match="cannot download"):
        build.fetch(options(mirror, tmp_path))


def test_an_index_that_was_not_signed_is_never_used(mirror: Mirror, tmp_path: Path) -> None:
    fill(mirror)
    signed = mirror.server.files["/dists/trixie-security/InRelease"]
    mirror.server.files["/dists/trixie-security/InRelease"] = signed.replace(b"Label", b"label").replace(b"main", b"nain")
    with pytest.raises(ImageError, match="signature"):
        build.fetch(options(mirror, tmp_path))


def test_an_index_of_another_suite_is_never_used(mirror: Mirror, tmp_path: Path) -> None:
    fill(mirror)
    mirror.server.files["/dists/trixie-security/InRelease"] = mirror.server.files["/dists/trixie/InRelease"]
    with pytest.raises(ImageError, match="not what it should be"):
        build.fetch(options(mirror, tmp_path))


def test_a_mirror_without_by_hash(mirror: Mirror, tmp_path: Path) -> None:
    fill(mirror)
    for path in [path for path in mirror.server.files if "by-hash" in path]:
        del mirror.server.files[path]
    mirror.publish("trixie", by_hash=False)
    assert build.fetch(options(mirror, tmp_path)).kernel_package.name == f"linux-image-{KERNEL}"


def test_packages_for_a_bootstrap(mirror: Mirror, tmp_path: Path) -> None:
    mirror.add("trixie", "base", Essential="yes", Depends="lib")
    mirror.add("trixie", "lib")
    mirror.add("trixie", "tool", Depends="lib")
    mirror.publish("trixie")
    addresses = Addresses(mirror.server.address, mirror.server.address)

    def fetched(essential: bool, dependencies: bool = True) -> set[bytes]:
        paths = packages.resolve_and_fetch(
            ["tool"],
            "trixie",
            "amd64",
            essential=essential,
            dependencies=dependencies,
            mirror=addresses,
            cache=tmp_path,
        )
        return {path.read_bytes() for path in paths}

    files = mirror.server.files
    tool, lib, base = (files[f"/pool/{name}_1.deb"] for name in ("tool", "lib", "base"))
    assert fetched(essential=True) == {tool, lib, base}
    assert fetched(essential=False) == {tool, lib}
    assert fetched(essential=False, dependencies=False) == {tool}


def test_the_command_unpacks_a_package(mirror: Mirror, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mirror.add("trixie", "docker-cli", {"usr/bin/docker": b"program"})
    mirror.publish("trixie")
    address = mirror.server.address
    common = ["--arch", "amd64", "--mirror", address, "--security-mirror", address, "--cache", str(tmp_path / "cache")]
    assert main(["unpack", "docker-cli", "--into", str(tmp_path / "tools"), *common]) == 0
    assert (tmp_path / "tools/usr/bin/docker").read_bytes() == b"program"
    assert main(["unpack", "missing", "--into", str(tmp_path / "tools"), *common]) == 1
    assert "error: Debian has no package missing" in capsys.readouterr().err


def test_unknown_architectures_are_refused() -> None:
    with pytest.raises(ImageError, match="s390x"):
        recipe.load("s390x")


def test_both_architectures_have_a_recipe() -> None:
    assert recipe.load("amd64").console == "ttyS0"
    assert recipe.load("arm64").console == "ttyAMA0"
    assert recipe.load("arm64").kernel_package == "linux-image-cloud-arm64"


@pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")
@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_scripts_can_be_parsed(architecture: str) -> None:
    plan = recipe.load(architecture)
    for script in (plan.initrd_init, plan.bake_init):
        subprocess.run(["sh", "-n"], input=script, check=True)
    compile(plan.bake_program, "bake.py", "exec")


def test_a_missing_or_damaged_manifest_is_named(tmp_path: Path) -> None:
    for content in (None, b"", b"[]", b'{"id": "x"}'):
        if content is not None:
            (tmp_path / manifest.FILE).write_bytes(content)
        with pytest.raises(ImageError, match="no usable guest image"):
            manifest.read(tmp_path)


def test_a_manifest_survives_its_file(tmp_path: Path) -> None:
    contents = manifest.Contents("1", "trixie", "amd64", "6.12", (manifest.PackageEntry("a", "1", "00"),))
    made = Manifest(contents, {"initrd": (3, "abc")})
    (tmp_path / manifest.FILE).write_bytes(manifest.to_json(made))
    assert manifest.read(tmp_path) == made
