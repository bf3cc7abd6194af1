"""The guest's program: which word starts what."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyboxd.__main__ import main
from pyboxd.runtime.codec import dumps
from pyboxd.runtime.plan import describe_plan
from pyboxd.runtime.spec import ContainerSpec, RootFilesystem


def test_plan_prints_what_a_container_would_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = RootFilesystem(lower=("/layers/b", "/layers/a"), upper="/upper", work="/work")
    spec = ContainerSpec(id="a" * 64, root=root, args=("/bin/true",), run_dir="/run/x")
    path = tmp_path / "spec.json"
    path.write_bytes(dumps(spec))
    assert main(["plan", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == describe_plan(spec)


@pytest.mark.parametrize("argv", [[], ["dance"], ["plan"], ["plan", "a", "b"]])
def test_anything_else_is_told_the_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("usage: pyboxd")
