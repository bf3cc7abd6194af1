"""Logins to registries: pybox's own file, docker's file and its helper programs."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest

from pybox.app.logins import HUB, Login, Logins, registry_name, registry_of

HELPER = """#!/bin/sh
case "$1" in
get) read -r registry
     case "$registry" in
     helped.example) echo '{"ServerURL":"helped.example","Username":"ann","Secret":"s3cret"}' ;;
     token.example) echo '{"ServerURL":"token.example","Username":"<token>","Secret":"tok"}' ;;
     *) echo "credentials not found in native keychain"; exit 1 ;;
     esac ;;
list) echo '{"helped.example":"ann","token.example":"<token>"}' ;;
esac
"""


@pytest.fixture
def logins(tmp_path: Path) -> Logins:
    return Logins(tmp_path / "config" / "logins.json", tmp_path / "docker.json")


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "docker-credential-drawer"
    program.parent.mkdir()
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")


def write_docker(tmp_path: Path, value: object) -> None:
    (tmp_path / "docker.json").write_text(json.dumps(value))


def decoded(header: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(header))


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", HUB),
        ("docker.io", HUB),
        ("https://index.docker.io/v1/", HUB),
        ("localhost:5000", "localhost:5000"),
        ("https://registry.example/v2/", "registry.example"),
    ],
)
def test_names_of_registries(text: str, name: str) -> None:
    assert registry_name(text) == name


@pytest.mark.parametrize(
    ("image", "registry"),
    [
        ("debian", HUB),
        ("team/app", HUB),
        ("docker.io/library/debian", HUB),
        ("localhost/app", "localhost"),
        ("localhost:5000/app", "localhost:5000"),
        ("registry.example/team/app", "registry.example"),
    ],
)
def test_the_registry_of_an_image(image: str, registry: str) -> None:
    assert registry_of(image) == registry


def test_a_login_is_kept_for_its_owner_alone_and_forgotten(logins: Logins, tmp_path: Path) -> None:
    login = Login("localhost:5000", "ann", "pass:word")
    logins.keep(login)
    logins.keep(Login(HUB, "bob", token="tok"))
    path = tmp_path / "config" / "logins.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert logins.find("localhost:5000") == login
    assert logins.find(HUB) == Login(HUB, "bob", token="tok")
    assert logins.forget("localhost:5000")
    assert not logins.forget("localhost:5000")
    assert logins.find("localhost:5000") is None
    assert not (tmp_path / "docker.json").exists()


def test_dockers_file_is_read_and_never_written(logins: Logins, tmp_path: Path) -> None:
    write_docker(tmp_path, {"auths": {"https://old.example/v1/": auth("ann", "x"), "empty.example": {}}})
    before = (tmp_path / "docker.json").read_bytes()
    assert logins.find("old.example") == Login("old.example", "ann", "x")
    assert logins.find("empty.example") is None
    logins.keep(Login("old.example", "mine", "y"))
    assert logins.find("old.example") == Login("old.example", "mine", "y")
    assert (tmp_path / "docker.json").read_bytes() == before


@pytest.mark.usefixtures("helper")
def test_helpers_are_asked(logins: Logins, tmp_path: Path) -> None:
    write_docker(
        tmp_path,
        {"credsStore": "drawer", "credHelpers": {"other.example": "missing"}, "auths": {"plain.example": auth("a", "b")}},
    )
    assert logins.find("helped.example") == Login("helped.example", "ann", "s3cret")
    assert logins.find("token.example") == Login("token.example", token="tok")
    assert logins.find("plain.example") == Login("plain.example", "a", "b")
    assert logins.find("other.example") is None
    assert {login.registry for login in logins.all()} == {"helped.example", "token.example", "plain.example"}


def test_headers(logins: Logins) -> None:
    assert decoded(logins.header("nowhere.example")) == {}
    assert decoded(logins.configuration_header()) == {}
    logins.keep(Login("r.example", "ann", "x"))
    body = {"username": "ann", "password": "x", "serveraddress": "r.example"}
    assert decoded(logins.header("r.example")) == body
    assert decoded(logins.configuration_header()) == {"r.example": body}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"auths": 3}', '{"auths": {"r.example": {"auth": "%%"}}}'])
def test_what_cannot_be_read_is_no_login(logins: Logins, tmp_path: Path, content: str) -> None:
    (tmp_path / "docker.json").write_text(content)
    assert logins.find("r.example") is None
    assert logins.all() == []
