"""The command line as a person meets it, with no machine behind it."""

from __future__ import annotations

import io
from pathlib import Path

import click
import pytest

from pybox.cli.groups import COMMANDS as GROUPS
from pybox.cli.main import COMMANDS, run


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYBOX_HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    from pybox.app import compose

    compose.paths.cache_clear()


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: pybox")


@pytest.mark.parametrize("group", ["container", "image", "network", "volume", "system"])
def test_every_command_of_a_group_explains_itself(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = GROUPS[group]
    assert isinstance(found, click.Group)
    for name in found.list_commands(click.Context(found)):
        assert run([group, name, "--help"]) == 0
        assert capsys.readouterr().out.startswith(f"Usage: pybox {group} {name}")


def test_groups_know_dockers_other_names(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["container", "ps"], ["image", "list"], ["network", "remove"], ["volume", "list"]):
        assert run([*words, "--help"]) == 0
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
        (["cp", "a", "b"], 2, "must specify at least one container source"),
        (["cp", "a:/x", "b:/y"], 2, "pybox cp a:/x - | pybox cp - b:/y"),
        (["cp", "", "web:/"], 2, "source can not be empty"),
        (["update", "web"], 2, "you must provide one or more flags"),
        (["push", "-a", "app:1"], 2, "tag can't be used with --all-tags/-a"),
        (["login", "--password-stdin", "r.example"], 2, "requires --username"),
        (["login", "r.example"], 2, "non TTY"),
        (["system", "prune", "--volumes", "--filter", "until=1h"], 2, 'The "until" filter is not supported'),
        (["system", "df", "-v", "--format", "{{.Size}}"], 2, "conflict"),
        (["run", "-d", "-a", "stdout", "x"], 2, "both --attach and --detach"),
        (["volume", "prune"], 1, "volume prune has been cancelled"),
    ],
)
def test_mistakes(arguments: list[str], status: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == status
    assert words in capsys.readouterr().err


def test_a_login_that_was_never_made(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["logout", "https://r.example/v1/"]) == 0
    assert capsys.readouterr().out == "Not logged in to r.example\n"


def test_prune_says_what_it_will_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["system", "prune", "-a", "--volumes", "--filter", "label=x"]) == 1
    assert capsys.readouterr().err.startswith(
        "WARNING! This will remove:\n"
        "  - all stopped containers\n"
        "  - all networks not used by at least one container\n"
        "  - all anonymous volumes not used by at least one container\n"
        "  - all images without at least one container associated to them\n"
        "  - all build cache\n"
        "\n"
        "  Items to be pruned will be filtered with:\n"
        "  - label=x\n"
        "\n"
        "Are you sure you want to continue? [y/N] \n"
    )


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
