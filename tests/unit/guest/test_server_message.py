"""Queries, headers, bodies, routes, the table of statuses, frames: what the server does without a socket."""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyboxd import errors
from pyboxd.server.frames import STDERR, STDOUT, frame
from pyboxd.server.message import Empty, Headers, Query, Request, Response, percent_decode
from pyboxd.server.routes import Route, Routes, split_version, version_tuple
from pyboxd.server.status import status_of


@given(st.text())
def test_percent_decoding_undoes_quoting(text: str) -> None:
    quoted = urllib.parse.quote(text.encode("utf-8", "replace"), safe="/")
    assert percent_decode(quoted) == text.encode("utf-8", "replace").decode()


@given(st.text(alphabet="%+abcXYZ0123456789ÄF=", max_size=20))
def test_percent_decoding_agrees_with_the_standard_library(text: str) -> None:
    assert percent_decode(text) == urllib.parse.unquote(text, errors="replace")
    assert percent_decode(text, plus=True) == urllib.parse.unquote_plus(text, errors="replace")


def test_query_getters() -> None:
    query = Query("t=a%3Ab&t=c&q=1&rm=0&none=None&empty=&flag&tail=100&filters=%7B%22a%22%3A%5B%5D%7D&s=a+b")
    assert query.many("t") == ("a:b", "c")
    assert query.text("t") == "a:b"
    assert query.text("missing", "x") == "x"
    assert query.text("s") == "a b"
    assert query.text("filters") == '{"a":[]}'
    assert query.integer("tail") == 100
    assert query.integer("missing", 7) == 7
    assert query.integer("empty", 7) == 7
    assert "flag" in query and "missing" not in query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", False),
        ("0", False),
        ("no", False),
        ("False", False),
        ("none", False),
        (" 0 ", False),
        ("1", True),
        ("yes", True),
    ],
)
def test_docker_booleans(text: str, expected: bool) -> None:
    assert Query(f"x={text.replace(' ', '+')}").flag("x", default=not expected) is expected


def test_an_absent_boolean_is_the_default() -> None:
    assert Query("").flag("rm", default=True) is True
    assert Query("rm").flag("rm", default=True) is False


def test_a_wrong_number_is_the_clients_fault() -> None:
    with pytest.raises(errors.InvalidArgument, match="invalid value for h"):
        Query("h=tall").integer("h")


def test_headers_ignore_case_and_join_repeated_fields() -> None:
    headers = Headers([("Connection", "keep-alive"), ("connection", "Upgrade")])
    assert headers["CONNECTION"] == "keep-alive, Upgrade"
    assert headers.token("Connection", "upgrade")
    assert not headers.token("Connection", "close")
    assert headers.get("X-Registry-Auth") is None


def body_of(*parts: bytes) -> AsyncIterator[bytes]:
    async def parts_one_by_one() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return parts_one_by_one()


def json_request(*parts: bytes, kind: str = "application/json") -> Request:
    return Request("POST", "/x", headers=Headers([("Content-Type", kind)]), body=body_of(*parts))


def test_json_bodies() -> None:
    assert asyncio.run(json_request(b'{"a"', b": 1}").json()) == {"a": 1}
    assert asyncio.run(json_request(b"[]", kind="application/json; charset=utf-8").json()) == []
    assert asyncio.run(json_request().json()) is None


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (json_request(b"{"), "invalid JSON"),
        (json_request(b"\xff"), "invalid JSON"),
        (json_request(b"{}", kind="text/plain"), "unsupported Content-Type header"),
    ],
)
def test_wrong_bodies_are_the_clients_fault(request_: Request, words: str) -> None:
    with pytest.raises(errors.InvalidArgument, match=words):
        asyncio.run(request_.json())


def test_a_body_has_a_limit() -> None:
    with pytest.raises(errors.InvalidArgument, match="larger than 10 bytes"):
        asyncio.run(json_request(b"123456", b"123456").read(10))


def test_routes() -> None:
    async def named(_: Request) -> Response:
        return Empty()

    handlers = {
        pattern: Route(method, pattern, lambda request, p=pattern: named(request))  # type: ignore[misc]
        for method, pattern in [
            ("GET", "/containers/json"),
            ("GET", "/containers/{id}/json"),
            ("DELETE", "/containers/{id}"),
            ("GET", "/images/json"),
            ("GET", "/images/{name:path}/json"),
            ("POST", "/images/{name:path}/tag"),
            ("DELETE", "/images/{name:path}"),
        ]
    }
    routes = Routes(list(handlers.values()))

    def match(method: str, path: str) -> tuple[str, dict[str, str]] | None:
        found = routes.find(method, path)
        if found is None:
            return None
        name = next(pattern for pattern, route in handlers.items() if route.handler is found[0])
        return name, dict(found[1])

    assert match("GET", "/containers/json") == ("/containers/json", {})
    assert match("GET", "/containers/abc/json") == ("/containers/{id}/json", {"id": "abc"})
    assert match("GET", "/images/json") == ("/images/json", {})
    assert match("GET", "/images/a/json") == ("/images/{name:path}/json", {"name": "a"})
    assert match("GET", "/images/r.example/a/b:1/json") == (
        "/images/{name:path}/json",
        {"name": "r.example/a/b:1"},
    )
    assert match("POST", "/images/x/y/tag") == ("/images/{name:path}/tag", {"name": "x/y"})
    assert match("DELETE", "/images/x/y") == ("/images/{name:path}", {"name": "x/y"})
    assert match("DELETE", "/containers/a/b") is None
    assert match("GET", "/containers//json") is None
    assert match("PUT", "/containers/json") is None
    assert match("GET", "/") is None
    assert match("GET", "/nothing") is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1.44/info", ("1.44", "/info")),
        ("/v1.44/volumes/v1", ("1.44", "/volumes/v1")),
        ("/v1/info", ("1", "/info")),
        ("/info", ("", "/info")),
        ("/version", ("", "/version")),
        ("/volumes/x", ("", "/volumes/x")),
        ("/v1.44", ("", "/v1.44")),
        ("/", ("", "/")),
        ("", ("", "")),
    ],
)
def test_version_prefix(path: str, expected: tuple[str, str]) -> None:
    assert split_version(path) == expected


def test_versions_compare_as_numbers() -> None:
    assert version_tuple("1.9") < version_tuple("1.24") < version_tuple("2")
    assert version_tuple("1.24.3") == (1, 24)


def test_every_error_class_has_its_own_status() -> None:
    classes = [kind for kind in errors.PyboxdError.__subclasses__() if kind.__module__ == errors.__name__]
    statuses = [status_of(kind("x")) for kind in classes]
    assert len(set(statuses)) == len(statuses) == 9
    assert status_of(errors.NotFound("x")) == 404
    assert status_of(errors.PyboxdError("x")) == 500

    class Special(errors.Conflict):
        pass

    assert status_of(Special("x")) == 409


def test_frames() -> None:
    assert frame(STDOUT, b"hi\n") == b"\x01\0\0\0\0\0\0\x03hi\n"
    assert frame(STDERR, b"x" * 70000)[:8] == b"\x02\0\0\0\x00\x01\x11\x70"
