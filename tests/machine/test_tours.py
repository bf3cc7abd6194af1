"""The tour of the docker CLI (tests/clients/tour.py) by Debian's clients and the one on PATH."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.clients.tour import Tour, groups, mistaken
from tests.clients.tour_compare import unpacked
from tests.support.pybox_cli import Cli


@pytest.fixture(
    scope="module",
    params=["trixie", pytest.param("bookworm", marks=pytest.mark.slow), pytest.param("PATH", marks=pytest.mark.slow)],
)
def docker(request: pytest.FixtureRequest, cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Clients 26, 20.10, and whatever is on PATH."""
    if request.param == "trixie":
        return str(request.getfixturevalue("trixie_docker"))
    if request.param == "bookworm":
        return unpacked("docker.io", "bookworm", tmp_path_factory.mktemp("docker"), cli.environment)
    found = shutil.which("docker")
    if found is None:
        pytest.skip("no docker CLI on PATH")
    return found


@pytest.mark.usefixtures("debian")
@pytest.mark.parametrize("group", groups())
def test_tour(cli: Cli, docker: str, shared: Path, group: str) -> None:
    address = cli.ok("shellinit", "--shell", "bash").splitlines()[0].partition("=")[2].strip("'\"")
    with tempfile.TemporaryDirectory(prefix="tour-", dir=shared) as folder:
        tour = Tour(docker, address, Path(folder))
        wrong = [text for seen in tour.walk(groups()[group]) if (text := mistaken(seen, tour.client, pybox=True))]
    assert not wrong, "\n".join(wrong)
