"""The command line as a person meets it, with no machine behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pybox.cli.main import COMMANDS, run


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYBOX_HOME", str(tmp_path))
    from pybox.app import compose

    compose.paths.cache_clear()


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: pybox")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["nosuch"], 2, "No such command"),
        (["ps"], 1, "pybox start"),
        (["run", "--nope", "x"], 125, "No such option"),
        (["config", "get", "colour"], 2, "there is no setting"),
        (["config", "set", "memory", "x"], 2, "memory"),
        (["--machine", "Not Good", "status"], 2, "cannot be the name of a machine"),
        (["delete", "--force"], 1, "There is no machine"),
    ],
)
def test_mistakes(arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == status
    assert words in capsys.readouterr().err


def test_settings_round_trip(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "set", "cpus", "3"]) == 0
    assert run(["config", "get", "cpus"]) == 0
    assert capsys.readouterr().out.strip() == "3"
    assert run(["config", "unset", "cpus"]) == 0
    assert run(["config"]) == 0
    assert "default" in capsys.readouterr().out


def test_shellinit_for_each_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["shellinit", "--shell", "bash"]) == 0
    assert capsys.readouterr().out.startswith("export DOCKER_HOST=unix://")
    assert run(["shellinit", "--shell", "fish", "--unset"]) == 0
    assert capsys.readouterr().out.startswith("set -e DOCKER_HOST")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    assert "_PYBOX_COMPLETE" in capsys.readouterr().out


def test_status_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status"]) == 3
    assert "missing" in capsys.readouterr().out
