"""Settings: where values come from, what they may be, and that the file survives mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pybox import settings, settings_values
from pybox.errors import UsageProblem
from pybox.model import Accelerator, Arch
from pybox.paths import Paths
from pybox.settings import KEYS, Settings, SettingsFile


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths.from_environment({"PYBOX_HOME": str(tmp_path)})


@pytest.fixture
def file(paths: Paths) -> SettingsFile:
    return SettingsFile(paths.settings_file)


def test_without_a_file_everything_is_left_to_pybox(paths: Paths) -> None:
    found = settings.load(paths, environ={})
    assert found == Settings(paths)
    assert found.memory_mib is None and found.shares == ("~",)


def test_machine_wins_over_file_and_environment_over_both(paths: Paths, file: SettingsFile) -> None:
    file.set("memory", "2G")
    file.set("cpus", "2")
    file.set("memory", "3072", machine="work")
    assert settings.load(paths, "default", {}).memory_mib == 2048
    assert settings.load(paths, "work", {}).memory_mib == 3072
    assert settings.load(paths, "work", {}).cpus == 2
    assert settings.load(paths, "work", {"PYBOX_MEMORY": "1G"}).memory_mib == 1024


def test_lists_have_commas_outside_and_brackets_inside_the_file(paths: Paths, file: SettingsFile) -> None:
    file.set("insecure-registries", "localhost:5000, registry.test")
    assert 'insecure-registries = ["localhost:5000", "registry.test"]' in file.path.read_text()
    assert file.get("insecure-registries") == "localhost:5000,registry.test"
    assert settings.load(paths, environ={}).insecure_registries == ("localhost:5000", "registry.test")
    assert settings.load(paths, environ={"PYBOX_SHARES": "~,/srv/data:ro"}).shares == ("~", "/srv/data:ro")
    assert settings.load(paths, environ={"PYBOX_SHARES": "[]"}).shares == ()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory", "100"),
        ("memory", "much"),
        ("cpus", "0"),
        ("cpus", "many"),
        ("disk-size", "10M"),
        ("arch", "mips"),
        ("accelerator", "warp"),
        ("qemu", "qemu-system-x86_64"),
        ("mirror", "ftp://example.org"),
        ("shares", "relative/path"),
        ("default-host-ip", "localhost"),
        ("dns", "8.8.8"),
        ("ssh", "maybe"),
        ("idle", "suspend"),
        ("idle", "suspend:0s"),
        ("idle", "delete:1h"),
        ("colour", "blue"),
    ],
)
def test_a_wrong_value_changes_nothing(file: SettingsFile, name: str, value: str) -> None:
    file.set("cpus", "3")
    before = file.path.read_bytes()
    with pytest.raises(UsageProblem) as caught:
        file.set(name, value)
    assert name in caught.value.brief and caught.value.resolution
    assert file.path.read_bytes() == before


def test_a_wrong_value_in_the_file_is_named_with_its_place(paths: Paths, file: SettingsFile) -> None:
    file.path.parent.mkdir(parents=True)
    file.path.write_text('[machine.work]\nmemory = "lots"\n')
    assert settings.load(paths, "default", {}).memory_mib is None
    with pytest.raises(UsageProblem) as caught:
        settings.load(paths, "work", {})
    assert "[machine.work]" in caught.value.brief


def test_a_file_that_is_no_toml_is_an_error_and_stays(paths: Paths, file: SettingsFile) -> None:
    file.path.parent.mkdir(parents=True)
    file.path.write_text("memory = = 3")
    for action in (lambda: settings.load(paths, environ={}), lambda: file.set("cpus", "2")):
        with pytest.raises(UsageProblem, match="not TOML"):
            action()
    assert file.path.read_text() == "memory = = 3"


def test_unset_takes_a_value_out(paths: Paths, file: SettingsFile) -> None:
    file.set("memory", "2G", machine="work")
    file.unset("memory", machine="work")
    file.unset("memory", machine="work")
    assert file.get("memory", machine="work") is None and "work" not in file.path.read_text()


def test_the_file_is_private(file: SettingsFile) -> None:
    file.set("http-proxy", "http://user:secret@proxy.test:3128")
    assert file.path.stat().st_mode & 0o777 == 0o600


def test_a_start_request_carries_all_of_them(paths: Paths) -> None:
    wanted = Settings(
        paths,
        memory_mib=1024,
        cpus=3,
        arch=Arch.ARM64,
        accelerator=Accelerator.TCG,
        shares=("~", "/srv:ro"),
        http_proxy="http://proxy.test",
        ssh=False,
        idle=settings_values.idle("stop:2h"),
    )
    assert Settings.from_json(paths, json.loads(json.dumps(wanted.as_json()))) == wanted
    assert Settings.from_json(paths, json.loads(json.dumps(Settings(paths).as_json()))) == Settings(paths)


def test_every_setting_has_its_field(paths: Paths) -> None:
    assert set(Settings(paths).as_json()) == set(KEYS)


def test_values_of_the_command_line(paths: Paths) -> None:
    changed = Settings(paths).with_values({"memory": "4G", "default-host-ip": "0.0.0.0"})
    assert (changed.memory_mib, changed.default_host_ip) == (4096, "0.0.0.0")
    with pytest.raises(UsageProblem):
        Settings(paths).with_values({"nonsense": "1"})


def test_what_an_idle_machine_does(paths: Paths, file: SettingsFile) -> None:
    file.set("idle", "suspend:15m")
    assert file.get("idle") == "suspend:15m"
    assert settings.load(paths, environ={}).idle == settings_values.Idle(True, 900, "suspend:15m")
    assert settings.load(paths, environ={"PYBOX_IDLE": "stop:2h"}).idle == settings_values.Idle(False, 7200, "stop:2h")
    file.set("idle", "off")
    assert settings.load(paths, environ={}).idle is None


@given(st.integers(min_value=1, max_value=4096))
def test_sizes_with_and_without_units(number: int) -> None:
    assert settings_values.memory(f"{number + 512}M") == number + 512
    assert settings_values.memory(number + 512) == number + 512
    assert settings_values.disk_size(f"{number}G") == settings_values.disk_size(f"{number} GiB") == number << 30


@hypothesis_settings(deadline=None)  # it waits for the disk
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters=",\n", exclude_categories=["C", "Z"]), min_size=1)))
def test_text_is_written_as_toml_reads_it(tmp_path_factory: pytest.TempPathFactory, items: list[str]) -> None:
    file = SettingsFile(tmp_path_factory.mktemp("settings") / "settings.toml")
    file.set("insecure-registries", ",".join(items))
    assert file.get("insecure-registries") == ",".join(item for item in items if items != ["[]"])
