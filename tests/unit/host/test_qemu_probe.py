"""Finding QEMU, with programs that behave like one and programs that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pybox.errors import MachineError
from pybox.model import Accelerator, Arch
from pybox.qemu import probe
from pybox.qemu.probe import Qemu


def program(folder: Path, version: str = "QEMU emulator version 7.2.22 (Debian 1:7.2)", status: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "qemu-system-x86_64"
    path.write_text(
        f"""#!/bin/sh
echo run >>{folder}/runs
[ "$1" = --version ] && echo '{version}'
[ "$1" = -accel ] && printf 'Accelerators supported in QEMU binary:\\ntcg\\nkvm\\n'
exit {status}
"""
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright", (7, 2, 22)),
        ("QEMU emulator version 10.0.50 (v10.0.0-1)", (10, 0, 50)),
        ("QEMU emulator version 11.1", (11, 1, 0)),
    ],
)
def test_versions(text: str, version: tuple[int, int, int]) -> None:
    assert probe.parse_version(text) == version


def test_a_program_that_is_something_else() -> None:
    with pytest.raises(MachineError):
        probe.parse_version("GNU bash, version 5.2")


def test_accelerators() -> None:
    assert probe.parse_accelerators("Accelerators supported in QEMU binary:\ntcg\nxen\nkvm\n") == {"tcg", "xen", "kvm"}


def test_the_one_on_path_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = program(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert probe.find(Arch.AMD64) == Qemu(path, (7, 2, 22), frozenset({"tcg", "kvm"}))


def test_one_that_is_too_old_or_broken_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = program(tmp_path / "old", "QEMU emulator version 6.0.0")
    with pytest.raises(MachineError, match=r"6\.0\.0 is too old"):
        probe.find(Arch.AMD64, str(old))
    broken = program(tmp_path / "broken", status=1)
    monkeypatch.setenv("PATH", str(broken.parent))
    with pytest.raises(MachineError) as caught:
        probe.find(Arch.AMD64)
    assert str(broken) in caught.value.details and "exit status 1" in caught.value.details


def test_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError) as caught:
        probe.find(Arch.ARM64)
    assert "qemu-system-aarch64" in caught.value.details and "Install" in caught.value.resolution


def test_a_proof_holds_until_the_program_changes(tmp_path: Path) -> None:
    path, memory = program(tmp_path / "bin"), tmp_path / "qemu.json"
    runs = tmp_path / "bin" / "runs"
    first = probe.find(Arch.AMD64, str(path), memory)
    count = len(runs.read_text().split())
    assert probe.find(Arch.AMD64, str(path), memory) == first
    assert len(runs.read_text().split()) == count
    program(tmp_path / "bin", "QEMU emulator version 10.0.2")
    assert probe.find(Arch.AMD64, str(path), memory).version == (10, 0, 2)
    memory.write_text("{ damaged")
    assert probe.find(Arch.AMD64, str(path), memory).version == (10, 0, 2)


@pytest.mark.parametrize(
    ("version", "arch", "accelerator", "refused"),
    [
        ((8, 0, 0), Arch.ARM64, Accelerator.TCG, True),
        ((9, 0, 3), Arch.ARM64, Accelerator.TCG, True),
        ((9, 0, 4), Arch.ARM64, Accelerator.TCG, False),
        ((7, 2, 22), Arch.ARM64, Accelerator.TCG, False),
        ((8, 2, 0), Arch.ARM64, Accelerator.HVF, False),
        ((8, 2, 0), Arch.AMD64, Accelerator.TCG, False),
    ],
)
def test_versions_that_crash(version: tuple[int, int, int], arch: Arch, accelerator: Accelerator, refused: bool) -> None:
    qemu = Qemu(Path("/q"), version, frozenset({"tcg"}))
    if refused:
        with pytest.raises(MachineError, match="cannot emulate"):
            probe.refuse_broken(qemu, arch, accelerator)
    else:
        probe.refuse_broken(qemu, arch, accelerator)
