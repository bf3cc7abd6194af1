"""The parts of the boot that need no machine: parsing, orders, the judgement of disks, keys."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from pyboxd.boot import data, filesystems, modules, settle, start
from pyboxd.boot.configuration import Configuration, Moment, Proxies, parse
from pyboxd.boot.ssh import dropbear_key, has_sessions
from pyboxd.errors import InvalidArgument, SystemFailure
from pyboxd.runtime.spec import HelperResult

DEPENDENCIES = """\
kernel/net/802/stp.ko: kernel/net/llc/llc.ko
kernel/net/llc/llc.ko:
kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/crypto/some-thing.ko.xz:
"""


def test_modules_are_loaded_after_what_they_need() -> None:
    table = modules.parse_dependencies(DEPENDENCIES)
    order = modules.load_order(table, ["br_netfilter", "some_thing", "bridge"])
    names = [path.rsplit("/", 1)[1] for path in order]
    assert names == ["llc.ko", "stp.ko", "bridge.ko", "br_netfilter.ko", "some-thing.ko.xz"]
    with pytest.raises(KeyError, match="unknown"):
        modules.load_order(table, ["unknown"])


def test_built_in_modules_are_not_loaded(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text("")
    (tmp_path / "modules.builtin").write_text("kernel/fs/ext4/pybox-builtin.ko\n")
    modules.load(["pybox_builtin"], str(tmp_path))
    with pytest.raises(KeyError):
        modules.load(["pybox_missing"], str(tmp_path))


MOUNTINFO = r"""
22 1 0:20 / / ro - erofs /dev/vda ro
30 22 254:16 / /var/lib/pyboxd rw,noatime - ext4 /dev/vdb rw
31 30 0:40 / /var/lib/pyboxd/layers/a/mnt ro - erofs x ro
32 30 0:41 / /var/lib/pyboxd/with\040blank\134é rw - tmpfs tmpfs rw
33 22 0:42 / /var/lib/pyboxd-other rw - tmpfs tmpfs rw
""".strip()


def test_mounts_are_taken_away_from_the_inside_out() -> None:
    assert filesystems.mounts_below("/var/lib/pyboxd", MOUNTINFO) == [
        "/var/lib/pyboxd/with blank\\é",
        "/var/lib/pyboxd/layers/a/mnt",
        "/var/lib/pyboxd",
    ]
    assert filesystems.mounts_below("/nowhere", MOUNTINFO) == []


def test_phases_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_PHASES", str(tmp_path / "phases"))
    assert start.phases() == []
    first, second = start.mark_phase("init"), start.mark_phase("settled")
    assert start.phases() == [("init", round(first, 3)), ("settled", round(second, 3))]
    assert first <= second


def test_configure_without_params_has_defaults() -> None:
    configuration, moment = parse({})
    assert configuration == Configuration() and moment == Moment()
    assert configuration.api is None and configuration.default_host_ip == "127.0.0.1"
    assert parse({"ssh": None, "api": None, "later": 1})[0] == configuration


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"hostname": 3}, "hostname has a value of the wrong type"),
        ({"api": {"address": "x", "port": "x", "key": "A" * 24}}, "port has a value of the wrong type"),
        ({"api": {"address": "x", "port": True, "key": "A" * 24}}, "port has a value of the wrong type"),
        ({"api": {"address": "x", "port": 1, "key": "AAAA"}}, "the key of the API is too short"),
        ({"data_disk": 1}, "data_disk has a value of the wrong type"),
        ({"dns": [1]}, "dns is no list of texts"),
        ({"api": {"port": 1}}, "api: address is missing"),
        ({"api": []}, "api is no object"),
        ({"entropy": "!"}, "entropy is not base64"),
        ({"shares": [{"name": "a/b", "host_path": "/", "guest_path": "/"}]}, "no name for a shared folder"),
        ({"shares": [{"name": "..", "host_path": "/", "guest_path": "/"}]}, "no name for a shared folder"),
        ({"proxies": {"http": 1}}, "http has a value of the wrong type"),
    ],
)
def test_a_wrong_value_is_named(params: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse(params)


def test_the_moment_is_no_part_of_the_configuration() -> None:
    entropy = base64.b64encode(b"random").decode()
    first, moment = parse({"time": 12, "entropy": entropy, "proxies": {"https": "p"}})
    second, _ = parse({"time": 13.5, "proxies": {"https": "p"}})
    assert first == second and first.proxies == Proxies(https="p")
    assert moment == Moment(12, b"random")


class Helpers:
    """Runs helper programs for real, and remembers them."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    async def run_helper(self, args: Sequence[str], stdin: bytes | None = None, timeout: float = 60.0) -> HelperResult:
        self.commands.append(args[0].rsplit("/", 1)[-1])
        done = await asyncio.to_thread(subprocess.run, args, input=stdin, capture_output=True, timeout=timeout)
        return HelperResult(done.returncode, done.stdout, done.stderr)


def disk(tmp_path: Path, size: int = 64 * data.MIB) -> Path:
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(size)
    return path


def prepare(path: Path) -> list[str]:
    helpers = Helpers()
    asyncio.run(data.prepare(helpers, str(path)))
    return helpers.commands


def test_a_blank_disk_is_formatted_once(tmp_path: Path) -> None:
    path = disk(tmp_path)
    assert prepare(path) == ["mke2fs"]
    content = path.read_bytes()
    assert content[1024 + 56 : 1024 + 58] == data.EXT4_MAGIC
    assert not content[-data.MIB :].strip(b"\0")
    assert prepare(path) == []
    assert path.read_bytes() == content
    check = subprocess.run(["/usr/sbin/e2fsck", "-fn", path], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout


@pytest.mark.parametrize("offset", [0, 510, 4096, data.MIB - 1, -data.MIB + 700, -1])
def test_a_disk_that_somebody_wrote_to_is_left_alone(tmp_path: Path, offset: int) -> None:
    path = disk(tmp_path)
    content = bytearray(path.read_bytes())
    content[offset] = 0x55
    path.write_bytes(content)
    with pytest.raises(SystemFailure, match="left as it is"):
        prepare(path)
    assert path.read_bytes() == content


def test_a_disk_whose_formatting_was_cut_off_is_formatted_again(tmp_path: Path) -> None:
    path = disk(tmp_path)
    content = bytearray(path.read_bytes())
    content[5000:5010] = b"half done!"
    content[-data.MIB : -data.MIB + len(data.MARKER)] = data.MARKER
    path.write_bytes(content)
    assert prepare(path) == ["mke2fs"]
    assert prepare(path) == []


def test_a_disk_that_cannot_be_read_is_not_blank(tmp_path: Path) -> None:
    with pytest.raises(SystemFailure, match="cannot be read"):
        prepare(tmp_path / "missing")
    with pytest.raises(SystemFailure, match="cannot be read"):
        prepare(disk(tmp_path, size=1000))


def test_a_disk_with_errors_is_repaired(tmp_path: Path) -> None:
    path = disk(tmp_path)
    prepare(path)
    subprocess.run(["/usr/sbin/debugfs", "-w", "-R", "ssv state 2", path], check=True, capture_output=True)
    assert prepare(path) == ["e2fsck"]
    assert prepare(path) == []


def test_a_grown_disk_is_seen(tmp_path: Path) -> None:
    path = disk(tmp_path)
    prepare(path)
    with path.open("r+b") as file:
        file.truncate(96 * data.MIB)
    state = asyncio.run(data.prepare(Helpers(), str(path)))
    assert state.size - state.used == 33 * data.MIB


def host_key() -> tuple[str, bytes, bytes]:
    key = ed25519.Ed25519PrivateKey.generate()
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    ).decode()
    return text, key.private_bytes_raw(), key.public_key().public_bytes_raw()


def test_host_keys_are_converted_for_dropbear() -> None:
    text, private, public = host_key()
    assert dropbear_key(text) == b"\0\0\0\x0bssh-ed25519\0\0\0\x40" + private + public


@pytest.mark.parametrize(
    "text", ["", "nonsense", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----"]
)
def test_other_host_keys_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="ssh host key"):
        dropbear_key(text)


def test_cut_host_keys_are_refused() -> None:
    text, _, _ = host_key()
    lines = text.splitlines()
    for count in range(1, len(lines) - 1):
        with pytest.raises(InvalidArgument):
            dropbear_key("\n".join([*lines[:count], lines[-1]]))


def test_the_guests_network_is_qemus() -> None:
    assert settle.ADDRESS.rsplit(".", 1)[0] == settle.GATEWAY.rsplit(".", 1)[0] == settle.NAMESERVER.rsplit(".", 1)[0]


_CONNECTIONS = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0F02000A:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1003 1 0 100 0 0 10 0
   1: 0F02000A:C3A2 0202000A:8D6B 01 00000000:00000000 02:00000F1A 00000000     0        0 1034 2 0 23 4 30 10 -1
"""


def test_sessions_of_ssh(tmp_path: Path) -> None:
    table = tmp_path / "tcp"
    table.write_text(_CONNECTIONS)
    assert not has_sessions(str(table))
    table.write_text(_CONNECTIONS + _CONNECTIONS.splitlines()[2].replace("C3A2", "0016") + "\n")
    assert has_sessions(str(table))
