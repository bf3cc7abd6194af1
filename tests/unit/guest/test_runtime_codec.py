"""Specs as JSON and back."""

from __future__ import annotations

import json

import pytest

from pyboxd.errors import InvalidArgument
from pyboxd.frozen import frozen
from pyboxd.runtime import codec
from pyboxd.runtime.failure import Failure
from pyboxd.runtime.spec import ContainerSpec, Exit, IoLimit, Mount, Resources, Rlimit, RootFilesystem
from pyboxd.runtime.wire import Answer, Request

SPEC = ContainerSpec(
    id="c",
    root=RootFilesystem(("/a", "/b"), "/u", "/w", readonly=True),
    args=("sh", "-c", "é\udcff"),
    run_dir="/run/c",
    env=("A=1",),
    console_size=(24, 80),
    mounts=(Mount("bind", "/s", "/t", options=("noexec",)), Mount("tmpfs", "", "/tmp")),
    capabilities=frozenset({"CAP_KILL", "CAP_CHOWN"}),
    rlimits=(Rlimit("nofile", 1, -1),),
    sysctls=(("net.core.somaxconn", "1"),),
    resources=Resources(memory=1 << 30, io=(IoLimit("/dev/vda", read_bps=5),)),
)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "value",
    [SPEC, Exit(3, True, 1.5), Answer(failure=Failure("x", plain=True)), Request("create", container=SPEC)],
)
def test_what_is_written_is_read_again(value: object, sparse: bool) -> None:
    assert codec.loads(type(value), codec.dumps(value, sparse)) == value


def test_sparse_text_leaves_out_defaults_and_full_text_does_not() -> None:
    assert json.loads(codec.dumps(Answer(pid=3), sparse=True)) == {"pid": 3}
    assert set(json.loads(codec.dumps(Answer(pid=3)))) == {"failure", "pid", "cgroup", "started"}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[]", "ContainerSpec: object expected"),
        ('{"id": "c"}', "ContainerSpec: unknown or missing: args, root, run_dir"),
        ("nonsense", "not JSON"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_what_is_not_a_spec_is_refused(text: str | bytes, place: str) -> None:
    with pytest.raises(InvalidArgument, match=place):
        codec.loads(ContainerSpec, text.encode() if isinstance(text, str) else text)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"terminal": 1}, "ContainerSpec.terminal: bool expected, not int"),
        ({"oom_score_adj": True}, "ContainerSpec.oom_score_adj: int expected, not bool"),
        ({"mounts": [{"kind": "bind", "source": "/", "target": 5}]}, r"ContainerSpec.mounts\[0\].target: str"),
        ({"console_size": [1]}, "ContainerSpec.console_size: 2 items expected, not 1"),
        ({"capabilities": "CAP_KILL"}, "ContainerSpec.capabilities: list expected"),
        ({"nonsense": 1}, "unknown or missing: nonsense"),
    ],
)
def test_the_wrong_place_is_named(change: dict[str, object], place: str) -> None:
    text = json.dumps({**codec.encode(SPEC), **change})
    with pytest.raises(InvalidArgument, match=place):
        codec.loads(ContainerSpec, text.encode())


def test_a_kind_that_json_has_no_word_for_is_a_bug() -> None:
    @frozen
    class Odd:
        data: bytes

    with pytest.raises(TypeError):
        codec.decoder(Odd)
    with pytest.raises(TypeError):
        codec.dumps(Odd(b""))
