"""The build context that `pybox build` sends: contents, .dockerignore, a Dockerfile outside."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pybox.app.build import BuildRequest, _dockerfile, _stream, follow
from pybox.app.ignore import IgnoreRules
from pybox.errors import EngineError, UsageProblem


def names(request: BuildRequest) -> dict[str, tarfile.TarInfo]:
    name, extra = _dockerfile(request)
    data = b"".join(_stream(request, name, extra))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_context_holds_files_links_and_empty_folders(tmp_path: Path) -> None:
    make(tmp_path, {"Dockerfile": "FROM x", "a/b c": "1", "a/ü": "2"})
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("a")
    found = names(BuildRequest(tmp_path))
    assert set(found) == {"Dockerfile", "a", "a/b c", "a/ü", "empty", "link"}
    assert found["link"].issym() and found["link"].linkname == "a"
    assert {(member.uid, member.gid) for member in found.values()} == {(0, 0)}


def test_ignored_files_stay_behind_but_not_the_dockerfile(tmp_path: Path) -> None:
    make(
        tmp_path,
        {
            "Dockerfile": "FROM x",
            ".dockerignore": "*\n!keep\nkeep/**/*.log\n",
            "drop/x": "",
            "keep/a.txt": "",
            "keep/deep/b.log": "",
            "keep/deep/c.txt": "",
        },
    )
    assert set(names(BuildRequest(tmp_path))) == {
        "Dockerfile", ".dockerignore", "keep", "keep/a.txt", "keep/deep", "keep/deep/c.txt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("*.md", "README.md", True),
        ("*.md", "docs/README.md", False),
        ("**/*.md", "docs/README.md", True),
        ("**/*.md", "README.md", True),
        ("node_modules", "node_modules/a/b", True),
        ("/node_modules/", "node_modules", True),
        ("a?c", "abc", True),
        ("a?c", "a/c", False),
        ("[a-c]x", "bx", True),
        ("# comment", "# comment", False),
        ("foo/**", "foo/bar", True),
        ("./foo", "foo", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
    ],
)
def test_patterns(pattern: str, path: str, excluded: bool) -> None:
    assert IgnoreRules(pattern).excludes(path) is excluded


def test_dockerfile_outside_and_missing(tmp_path: Path) -> None:
    context = make(tmp_path / "context", {"x": ""})
    outside = tmp_path / "Other"
    outside.write_text("FROM scratch")
    assert ".dockerfile.outside" in names(BuildRequest(context, dockerfile=str(outside)))
    assert ".dockerfile.stdin" in names(BuildRequest(context, dockerfile_text=b"FROM scratch"))
    with pytest.raises(UsageProblem, match="unable to evaluate symlinks in Dockerfile path"):
        names(BuildRequest(context))
    with pytest.raises(UsageProblem, match="unable to prepare context"):
        names(BuildRequest(tmp_path / "absent"))


def test_failed_step_carries_its_status() -> None:
    shown: list[str] = []
    lines: list[dict[str, Any]] = [
        {"stream": "Step 1/1 : RUN false\n"},
        {"error": "returned 3", "errorDetail": {"code": 3, "message": "x"}},
    ]
    with pytest.raises(EngineError) as caught:
        follow(iter(lines), shown.append)
    assert caught.value.exit_code == 3
    assert shown == ["Step 1/1 : RUN false\n"]
    assert follow(iter([{"aux": {"ID": "sha256:1"}}]), shown.append) == "sha256:1"
