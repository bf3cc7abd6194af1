"""Docker's flags: what is written after them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from pybox.app import options
from pybox.errors import UsageProblem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("256m", 256 << 20),
        ("2g", 2 << 30),
        ("512", 512),
        ("1.5k", 1536),
        ("1gib", 1 << 30),
        ("-1", -1),
        ("10MB", 10 << 20),
    ],
)
def test_size(text: str, expected: int) -> None:
    assert options.size(text) == expected


@pytest.mark.parametrize("text", ["", "m", "1x", "1 2", "ten"])
def test_size_refuses(text: str) -> None:
    with pytest.raises(UsageProblem, match="invalid size"):
        options.size(text)


def test_ports_fixed_random_ranges_and_addresses() -> None:
    exposed, bindings = options.ports(
        ["8080:80", "127.0.0.1:53:53/udp", "9000", "7000-7001:6000-6001", "[::1]:81:81"], ["1234", "99/udp"]
    )
    assert bindings["80/tcp"] == [{"HostIp": "", "HostPort": "8080"}]
    assert bindings["53/udp"] == [{"HostIp": "127.0.0.1", "HostPort": "53"}]
    assert bindings["9000/tcp"] == [{"HostIp": "", "HostPort": ""}]
    assert bindings["6000/tcp"][0]["HostPort"] == "7000"
    assert bindings["6001/tcp"][0]["HostPort"] == "7001"
    assert bindings["81/tcp"] == [{"HostIp": "::1", "HostPort": "81"}]
    assert set(exposed) == {*bindings, "1234/tcp", "99/udp"}


@pytest.mark.parametrize("text", ["a:b", "1:2:3:4", "80/sctp", "0:0", "70000", "1-2:5-9", "9-8"])
def test_ports_refuse(text: str) -> None:
    with pytest.raises(UsageProblem, match="invalid publish value"):
        options.ports([text], [])


def test_volume_resolves_relative_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert options.volume("./logs:/var/log:ro") == f"{tmp_path}/logs:/var/log:ro"
    assert options.volume(".:/src") == f"{tmp_path}:/src"
    assert options.volume("data:/var/lib/data") == "data:/var/lib/data"
    assert options.volume("/abs:/x") == "/abs:/x"
    assert options.volume(r"C:\work:/src") == r"C:\work:/src"
    assert options.volume("/only/target") == "/only/target"


def test_mount() -> None:
    assert options.mount("type=bind,source=/a,target=/b,readonly") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
    }
    assert options.mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700") == {
        "Type": "tmpfs",
        "Target": "/t",
        "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700},
    }
    with pytest.raises(UsageProblem, match="unexpected key 'colour'"):
        options.mount("type=bind,colour=red,target=/x")
    with pytest.raises(UsageProblem, match="target is required"):
        options.mount("type=bind,source=/x")


def test_environment_takes_values_of_the_host(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nA=1\n  B=2\nHOME_ONLY\n")
    host = {"HOME_ONLY": "h", "TOKEN": "t"}
    assert options.environment(["C=3", "TOKEN", "ABSENT"], [str(file)], host) == [
        "A=1",
        "B=2",
        "HOME_ONLY=h",
        "C=3",
        "TOKEN=t",
    ]


def test_small_forms() -> None:
    assert options.ulimit("nofile=10:20") == {"Name": "nofile", "Soft": 10, "Hard": 20}
    assert options.ulimit("nproc=5") == {"Name": "nproc", "Soft": 5, "Hard": 5}
    assert options.restart_policy("on-failure:3") == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert options.throttle("/dev/vdb:1mb") == {"Path": "/dev/vdb", "Rate": 1 << 20}
    assert options.device("/dev/a")["PathInContainer"] == "/dev/a"
    assert options.device("/dev/a:/dev/b:r") == {
        "PathOnHost": "/dev/a",
        "PathInContainer": "/dev/b",
        "CgroupPermissions": "r",
    }
    assert options.device("/dev/a:rw")["CgroupPermissions"] == "rw"
    assert options.duration("1m30s") == 90_000_000_000
    assert options.duration("500ms") == 500_000_000
    assert options.nano_cpus("0.5") == 500_000_000
    for text in ("", "5", "5 s"):
        with pytest.raises(UsageProblem):
            options.duration(text)
    with pytest.raises(UsageProblem, match="unknown policy"):
        options.restart_policy("sometimes")
