"""What the guest is told, from settings and this host's environment; and the clock."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest

from pybox import hostos
from pybox.errors import MachineError, UsageProblem
from pybox.hostagent import configuration
from pybox.hostagent.clock import keep_time
from pybox.hostagent.pool import Pool
from pybox.hostagent.preparation import default_cpus, default_memory_mib
from pybox.machine import keys
from pybox.model import Share
from pybox.paths import Paths
from pybox.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(Paths.from_environment({"PYBOX_HOME": str(tmp_path)}))


def test_everything_of_the_specification(settings: Settings, tmp_path: Path) -> None:
    made = keys.ensure(tmp_path / "keys")
    share = Share("home", "/home/x", "/home/x")
    pool = Pool(lambda _count: None)
    params = configuration.configuration("default", settings, made, [share], "PEM", {}, pool)
    assert set(json.loads(json.dumps(params))) == {
        "hostname", "time", "entropy", "api", "dns", "proxies", "certificates",
        "shares", "insecure_registries", "registry_mirror", "data_disk", "ssh", "default_host_ip",
    }  # fmt: skip
    assert len(base64.b64decode(params["entropy"])) == 64
    again = configuration.configuration("work", settings, made, [], "", {}, pool)
    assert again["entropy"] != params["entropy"] and again["hostname"] == "pybox-work"
    assert params["shares"] == [{"name": "home", "host_path": "/home/x", "guest_path": "/home/x", "readonly": False}]
    assert base64.b64decode(params["api"]["key"]) == pool.key and len(pool.key) == 32
    assert pool.key != Pool(lambda _count: None).key


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("", ""),
        ("http://proxy.test:3128", "http://proxy.test:3128"),
        ("http://localhost:3128/", "http://10.0.2.2:3128/"),
        ("http://user:pw@127.0.0.1:3128", "http://user:pw@10.0.2.2:3128"),
        ("http://[::1]:3128", "http://10.0.2.2:3128"),
    ],
)
def test_a_proxy_on_this_host(url: str, seen: str) -> None:
    assert configuration.seen_by_guest(url) == seen


def test_proxies_of_the_environment(settings: Settings) -> None:
    environ = {"http_proxy": "http://a.test", "HTTPS_PROXY": "http://b.test", "no_proxy": "c.test"}
    assert configuration.proxies(settings, environ) == {"http": "http://a.test", "https": "http://b.test", "no": "c.test"}
    own = settings.with_values({"http-proxy": "http://own.test"})
    assert configuration.proxies(own, environ)["http"] == "http://own.test"


def test_certificates(settings: Settings, tmp_path: Path) -> None:
    root = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (tmp_path / "root.pem").write_text(root)
    good = settings.with_values({"certificates": str(tmp_path / "root.pem")})
    assert root in configuration.certificates(good, hostos.current())
    (tmp_path / "text").write_text("hello")
    for name in ("text", "missing"):
        with pytest.raises(UsageProblem, match=name):
            configuration.certificates(settings.with_values({"certificates": str(tmp_path / name)}), hostos.current())


def test_shares_have_names_of_their_own(settings: Settings, tmp_path: Path) -> None:
    for name in ("one/data", "two/data", "three/home", "four/ö ü"):
        (tmp_path / name).mkdir(parents=True)
    wanted = ",".join(["~", *(f"{tmp_path}/{name}" for name in ("one/data:ro", "two/data", "three/home", "four/ö ü"))])
    found = configuration.shares(settings.with_values({"shares": wanted}), hostos.current())
    assert [share.name for share in found] == ["home", "data", "data-2", "home-2", "folder"]
    assert [share.readonly for share in found] == [False, True, False, False, False]
    assert found[0].host_path == os.path.realpath(Path.home())


def test_a_share_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="cannot be shared"):
        configuration.shares(settings.with_values({"shares": str(tmp_path / "missing")}), hostos.current())


def test_defaults_follow_the_host() -> None:
    assert [default_memory_mib(total) for total in (2048, 16384, 65536)] == [2048, 4096, 8192]
    assert [default_cpus(total) for total in (1, 2, 4, 32)] == [1, 1, 2, 4]


class Clock:
    """Both clocks of a host on which a second passes at every sleep, until 25 have passed."""

    def __init__(self, naps: dict[int, float]) -> None:
        self.steady = 0.0
        self.wall = 1000.0
        self._naps = naps  # seconds for which the host sleeps, by the steady time at which it does
        self.told: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds + self._naps.get(int(self.steady), 0.0)
        if self.steady > 25:
            raise asyncio.CancelledError

    async def tell(self, seconds: float) -> None:
        self.told.append(seconds)
        raise MachineError("the engine is busy")


def times_told(naps: dict[int, float], monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = Clock(naps)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await keep_time(clock.tell, lambda: clock.wall, lambda: clock.steady)

    asyncio.run(main())
    return clock.told


def test_the_guest_is_told_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times_told({}, monkeypatch) == [1010.0, 1020.0]


def test_the_guest_is_told_at_once_after_a_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times_told({3: 3600.0}, monkeypatch) == [4603.0, 4613.0, 4623.0]


def test_a_clock_that_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert times_told({3: -60.0}, monkeypatch)[0] == 943.0
