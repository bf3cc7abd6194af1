from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyboxd.errors import InvalidArgument
from pyboxd.image.config import decode, encode
from pyboxd.image.model import HistoryEntry, ImageDocument
from pyboxd.model import Healthcheck, ImageConfig

DIFF = "sha256:" + "1" * 64
FULL = ImageDocument(
    architecture="arm64",
    os="linux",
    variant="v8",
    config=ImageConfig(
        user="1000:1000",
        exposed_ports=("80/tcp",),
        env=("PATH=/bin", "ODD=ü\ud800"),
        entrypoint=("/init",),
        cmd=(),
        volumes=("/data",),
        working_dir="/srv",
        labels={"a": "b"},
        stop_signal="SIGINT",
        shell=("/bin/bash", "-c"),
        on_build=("RUN true",),
        healthcheck=Healthcheck(test=("CMD", "true"), interval=10**9, retries=3),
    ),
    layers=(DIFF,),
    history=(HistoryEntry("2024-01-01T00:00:00Z", "RUN x", "me", "note", True), HistoryEntry()),
    created="2024-01-01T00:00:00Z",
    author="me",
    comment="buildkit",
    docker_version="28",
)


def document(**fields: object) -> bytes:
    usual = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [DIFF]}}
    return json.dumps(usual | fields).encode()


def test_what_is_written_is_read_again() -> None:
    assert decode(encode(FULL)) == FULL
    assert encode(decode(encode(FULL))) == encode(FULL)
    assert decode(encode(ImageDocument("amd64", "linux"))) == ImageDocument("amd64", "linux")


def test_empty_and_missing_commands_are_told_apart() -> None:
    assert decode(document(config={"Cmd": []})).config.cmd == ()
    assert decode(document(config={"Cmd": None})).config.cmd is None
    assert decode(document(config={"Entrypoint": "echo hi"})).config.entrypoint == ("/bin/sh", "-c", "echo hi")


def test_unknown_and_null_fields_do_no_harm() -> None:
    nulls = {"Env": None, "Labels": None, "Volumes": None, "ExposedPorts": None, "Healthcheck": None, "New": [1]}
    found = decode(document(config=nulls, history=None, moby={"x": 1}, created=None, author=None))
    assert found.config == ImageConfig() and found.layers == (DIFF,)
    assert decode(document(config={"ExposedPorts": ["80/tcp"], "Labels": {"n": 5}})).config.labels == {"n": "5"}


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{", b"{}", b"\xff\xfe\xff", b"[" * 100_000,
        document(rootfs=None), document(rootfs={"diff_ids": ["sha256:../../etc"]}), document(rootfs={"diff_ids": [1]}),
        document(rootfs={"diff_ids": DIFF}), document(history={"a": 1}), document(history=[1]), document(config=[]),
        document(config={"Env": [1]}), document(config={"Cmd": {"a": 1}}), document(config={"User": 5}),
        document(config={"Healthcheck": {"Interval": "1s"}}), document(config={"Healthcheck": {"Retries": True}}),
        document(architecture=5), b" " * (9 << 20),
    ],
)  # fmt: skip
def test_odd_documents_are_refused(raw: bytes) -> None:
    with pytest.raises(InvalidArgument, match="invalid image configuration"):
        decode(raw)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(
    st.sampled_from(["config", "rootfs", "diff_ids", "Env", "history", "Healthcheck", "Test", "Labels"]), x)))  # fmt: skip
def test_no_json_leads_to_another_error(value: object) -> None:
    try:
        found = decode(json.dumps(value).encode())
    except InvalidArgument:
        return
    assert decode(encode(found)) == found
