"""What clients and damaged files may say, at the doors that read it: a value, or the error that the door promises."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import tempfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyboxd import jsontext
from pyboxd.api import build, filters, listing, registry
from pyboxd.api.schema import config as config_schema
from pyboxd.api.schema import exec as exec_schema
from pyboxd.api.schema import networks as network_schema
from pyboxd.api.schema import volumes as volume_schema
from pyboxd.engine import (
    cpus,
    expressions,
    logconfig,
    logs,
    mountspec,
    networking,
    security,
    signals,
    streams,
    timestamps,
    validate,
)
from pyboxd.engine.containers import Container
from pyboxd.engine.logs import LogQuery
from pyboxd.engine.model import ContainerConfig, CreateRequest, HostConfig, Record
from pyboxd.errors import Conflict, InvalidArgument, NotFound, NotImplementedHere
from pyboxd.server.message import Query

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
refused = (InvalidArgument, NotFound, Conflict, NotImplementedHere)

texts = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="0123456789", min_size=1, max_size=30),
    st.sampled_from(
        [
            "9" * 5000, "²", "٣", "-1", "+5", "1_0", " 5", "1e9", "0x10", "1.5", "80/tcp", "80-90/udp", "90-80", "70000",
            "0-8191", "0-4000000000", ",".join(["0-8191"] * 2000), "\0", "a\0b", "\ud800", "é", "x" * 5000, "true", "none",
            "container:x", "host", "bridge", "default", "private", "shareable", "service:x", "always", "on-failure",
            "json-file", "10m", "9" * 400 + "m", "1h30m", "9" * 400 + "h", "(", "a{99999999999}", "(a+)+$", "(a|a)*b",
            "2020-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2020-13-01", "/", "..", ":",
            "a:b", "/a:/b", "/a:/b:ro", "/a:/b:xyz,ro", "c:\\x:/y", "a *:* rwm", "c 1:3 rwm", "b 99999999999:1 r", "SIGKILL",
            "RTMIN+3", "RTMIN+" + "9" * 5000, "ctrl-a", "ctrl-", "ctrl-p,ctrl-q", ",", "seccomp=unconfined", "apparmor=x",
            "no-new-privileges", "no-new-privileges:maybe", "label=disable", "systempaths=unconfined", "CAP_NET_ADMIN",
            "ALL", "size=1g", "size=x", "mode=999", "rslave", "rprivate",
        ]
    ),
)  # fmt: skip
numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 1 << 31, 1 << 63, -(1 << 63), 1 << 64, 1e300, 10**400])
)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)), max_leaves=6
)


def keys_of(*tables: Any) -> list[str]:
    return sorted({field.key for table in tables for field in table._fields})


CONFIG_KEYS = keys_of(config_schema.CONFIG)
HOST_KEYS = keys_of(config_schema.HOST_CONFIG, config_schema.LIMITS)
INNER_KEYS = (
    "Aliases", "BindOptions", "CgroupPermissions", "Config", "Gateway", "Hard", "HostIp", "HostPort",
    "IPAMConfig", "IPRange", "IPv4Address", "Interval", "Links", "MaximumRetryCount", "Name", "Path",
    "PathInContainer", "PathOnHost", "Rate", "Retries", "Soft", "Source", "Subnet", "Target", "Test",
    "TmpfsOptions", "Type", "VolumeOptions", "Weight",
)  # fmt: skip
objects = st.dictionaries(st.sampled_from(INNER_KEYS), values, max_size=4)
contents = st.one_of(values, objects, st.lists(objects, max_size=2), st.dictionaries(texts, objects, max_size=2))


def refusing(call: Callable[[], object], *errors: type[Exception]) -> object:
    """What a call returns, None when it refuses (InvalidArgument, if nothing else is said); another error fails the test."""
    expected = errors or (InvalidArgument,)
    try:
        return call()
    except expected:
        return None


# -- JSON ------------------------------------------------------------------------------------------


@relaxed
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200), values.map(lambda value: json.dumps(value))))
def test_json_is_a_value_that_can_be_written_again_or_a_value_error(data: str | bytes) -> None:
    found = refusing(lambda: jsontext.loads(data), ValueError)
    json.dumps(found, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a":' * 200_000, "9" * 5000, "NaN", "-Infinity", '"\\ud800', "", "\ufeff1"]
)
def test_json_that_is_none(text: str) -> None:
    for data in (text, text.encode("utf-8", "surrogatepass")):
        with pytest.raises(ValueError):
            jsontext.loads(data)


def test_halves_of_pairs_become_replacement_characters() -> None:
    text = '{"\\uD83D": ["\\ud83d\\ude00 \\udc00x", "\\\\ud800"]}'
    assert jsontext.loads(text) == {"\ufffd": ["\U0001f600 \ufffdx", "\\ud800"]}
    assert jsontext.loads(b'["\xff", "\xed\xa0\x80"]') == ["\ufffd", "\ufffd\ufffd\ufffd"]


bodies = st.builds(
    lambda config, host, networks: {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": networks}},
    st.dictionaries(st.sampled_from(CONFIG_KEYS), contents, max_size=4),
    st.dictionaries(st.sampled_from(HOST_KEYS), contents, max_size=4),
    st.dictionaries(texts, contents, max_size=2),
)
DOORS: list[Callable[[Any], object]] = [
    lambda value: config_schema.decode_create(value, "n", ""),
    config_schema.decode_limits_update,
    lambda value: config_schema.decode_endpoint("n", value),
    exec_schema.decode_config,
    exec_schema.decode_start,
    network_schema.decode_create,
    lambda value: network_schema.decode_connect(value, "n"),
    network_schema.decode_disconnect,
    volume_schema.decode_create,
]


@relaxed
@given(st.one_of(values, contents, bodies), st.sampled_from(range(len(DOORS))))
def test_any_body_is_read_or_refused(value: object, door: int) -> None:
    refusing(lambda: DOORS[door](value))


@settings(relaxed, max_examples=400)
@given(st.dictionaries(st.sampled_from(CONFIG_KEYS), contents, max_size=2), st.data())
def test_what_is_read_is_checked_or_refused(config: dict[str, Any], data: st.DataObject) -> None:
    host = data.draw(st.dictionaries(st.sampled_from(HOST_KEYS), contents, max_size=2))
    request = refusing(lambda: config_schema.decode_create({**config, "Image": "x", "HostConfig": host}, "", ""))
    if not isinstance(request, CreateRequest):
        return

    def check() -> None:
        validate.check_create(request.config, request.host)
        host = validate.with_defaults(request.host)
        logconfig.check(host.log_config)
        security.work_out(host)
        for entry in host.port_bindings:
            networking.parse_port(entry.port)
        for text in host.binds or ():
            mountspec.parse_bind(text)
        for mount in host.mounts:
            mountspec.from_request(mount)
        for target, options in host.tmpfs:
            mountspec.from_tmpfs(target, options)

    refusing(check, *refused)
    json.dumps(config_schema.encode_host_config(request.host), ensure_ascii=False).encode("utf-8", "surrogatepass")


# -- texts -----------------------------------------------------------------------------------------

READERS: dict[str, Callable[[str], object]] = {
    "filters": lambda text: filters.parse(text, ("label", "name")),
    "listing": listing.parse,
    "prune": listing.parse_prune,
    "time": timestamps.parse,
    "date": timestamps.parse_rfc3339,
    "duration": timestamps.duration,
    "signal": signals.parse,
    "keys": streams.parse_detach_keys,
    "port": networking.parse_port,
    "ports": networking.parse_range,
    "size": logconfig.parse_size,
    "bind": mountspec.parse_bind,
    "target": mountspec.check_target,
    "volumes-from": mountspec.parse_volumes_from,
    "expression": lambda text: expressions.check(text, "filter"),
    "integer": lambda text: Query(f"n={text}").integer("n"),
}


@pytest.mark.parametrize("name", READERS)
@relaxed
@given(text=texts)
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    found = refusing(lambda: READERS[name](text))
    if isinstance(found, int) and name in ("time", "date", "duration", "integer"):
        assert abs(found) < 10**28


@relaxed
@given(texts)
def test_any_list_of_processors_is_read_or_refused(text: str) -> None:
    refusing(lambda: cpus.parse_list(text), ValueError)


@relaxed
@given(st.dictionaries(st.sampled_from(listing._KNOWN), st.one_of(st.lists(texts, max_size=3), contents), max_size=3))
def test_any_filter_is_read_or_refused(value: dict[str, Any]) -> None:
    found = refusing(lambda: listing.parse(json.dumps(value)))
    if isinstance(found, dict):
        refusing(lambda: listing.old_enough(found, 0, ()))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@relaxed
@given(st.text(alphabet="ab.*+?{}()[]|^$\\1,", max_size=24))
def test_expressions_that_are_taken_end_soon(text: str) -> None:
    """One that does not would hang this test."""
    import re

    with contextlib.suppress(InvalidArgument):
        expressions.check(text, "filter")
        re.search(text, "a" * 60 + "!")


@pytest.mark.parametrize(
    "text", ["(a+)+$", "(a*)*b", "(a|a)*b", "(a|aa)+$", "a?" * 30 + "a" * 30, "a*" * 20 + "b", "(.*a){12}"]
)
def test_expressions_that_would_not_end_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="repeats too much"):
        expressions.check(text, "filter")


@pytest.mark.parametrize("text", ["web", "^/web$", "^(web|db)$", "web_[0-9]+_1", "a.*b.*c", "(foo-)?bar", "^/?compose_web"])
def test_expressions_of_everyday_use_are_taken(text: str) -> None:
    expressions.check(text, "filter")


@relaxed
@given(st.one_of(st.text(max_size=80), values.map(lambda value: base64.b64encode(json.dumps(value).encode()).decode())))
def test_any_login_is_read_or_is_none(text: str) -> None:
    registry.decode_auth(text)
    refusing(lambda: build.decode_request(Query(), text), *refused)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("padded", [True, False])
def test_logins_come_in_either_alphabet_padded_or_not(encode: Callable[[bytes], bytes], padded: bool) -> None:
    login = {"username": "ann", "password": "ÿ>?þ~~"}
    raw = json.dumps({"r.example:5000": login}, ensure_ascii=False).encode()
    text = encode(raw).decode()
    assert set(text) & set("+/-_")
    request = build.decode_request(Query(), text if padded else text.rstrip("="))
    found = request.auth("r.example:5000")
    assert found is not None and (found.username, found.password) == ("ann", login["password"])


BUILD_KEYS = ("dockerfile", "t", "q", "nocache", "pull", "rm", "memory", "shmsize", "buildargs", "labels", "cachefrom",
    "target", "networkmode", "platform", "extrahosts", "remote", "version", "squash", "ulimits", "outputs")  # fmt: skip


@relaxed
@given(st.dictionaries(st.sampled_from(BUILD_KEYS), st.one_of(texts, values.map(json.dumps)), max_size=4))
def test_any_query_of_a_build_is_read_or_refused(query: dict[str, str]) -> None:
    from urllib.parse import urlencode

    refusing(lambda: build.decode_request(Query(urlencode(query, errors="replace")), ""), *refused)


# -- logs ------------------------------------------------------------------------------------------


def read_log(data: bytes, query: LogQuery) -> list[logs.LogEntry]:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/log"
        Path(path).write_bytes(data)
        container = Container(Record("c" * 64, "n", 1, "i", "i", "linux", ContainerConfig(), HostConfig()))

        async def collect() -> list[logs.LogEntry]:
            return [entry async for entry in logs.read(container, path, query)]

        return asyncio.run(collect())


def stored(text: str, stream: str = "stdout") -> bytes:
    return json.dumps({"log": text, "stream": stream, "time": "2026-01-02T03:04:05.6Z"}).encode() + b"\n"


log_lines = st.one_of(
    st.text(max_size=20).map(stored),
    st.binary(max_size=60).map(lambda data: data + b"\n"),
    st.dictionaries(st.sampled_from(["log", "stream", "time", "attrs"]), values, max_size=4).map(
        lambda value: json.dumps(value).encode() + b"\n"
    ),
    st.just(b"[" * 100_000 + b"\n"),
    st.just(b"\0" * 5000),
    st.just(b"\n\n"),
)
queries = st.builds(
    LogQuery,
    stdout=st.booleans(),
    stderr=st.booleans(),
    since=st.sampled_from([0, 1, 1 << 62]),
    until=st.sampled_from([0, 1, 1 << 62]),
    tail=st.integers(-1, 5),
)


@relaxed
@given(st.lists(log_lines, max_size=6).map(b"".join), queries)
def test_damaged_logs_are_read_as_far_as_they_are_whole(data: bytes, query: LogQuery) -> None:
    for entry in read_log(data, query):
        assert entry.stream in (1, 2) and isinstance(entry.text, bytes) and entry.padded_time.endswith("Z")


def test_whole_lines_around_damage_are_kept() -> None:
    damage = b'{"log":"half a li' + b"\n" + b"\xff\xfe\n" + b"{}x\n" + bytes(3000)
    data = stored("before\n") + damage + stored("after\n", "stderr")
    assert [(entry.stream, entry.text) for entry in read_log(data, LogQuery())] == [(1, b"before\n"), (2, b"after\n")]


def test_a_file_without_line_ends_costs_no_memory() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/log"
        with open(path, "wb") as file:
            file.truncate(96 << 20)
            file.seek(0, os.SEEK_END)
            file.write(b"\n" + stored("the end\n"))
        container = Container(Record("c" * 64, "n", 1, "i", "i", "linux", ContainerConfig(), HostConfig()))

        async def collect() -> list[bytes]:
            return [entry.text async for entry in logs.read(container, path, LogQuery())]

        tracemalloc.start()
        assert asyncio.run(collect()) == [b"the end\n"]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8 << 20
