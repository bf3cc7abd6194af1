"""`docker compose` with a real application: a web server in Python, PostgreSQL and Redis, all from Debian packages.

By hand: `pytest -m slow tests/machine/test_compose_app.py`. The images take minutes under emulation.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine.test_ports import fetch
from tests.support import postgres
from tests.support.compose import Compose
from tests.support.debian_image import debian_image
from tests.support.postgres import Life
from tests.support.pybox_cli import ROOT, Cli

pytestmark = pytest.mark.slow
APP = ROOT / "tests" / "apps" / "guestbook"
PROJECT = "guestbook"
CONTAINERS = tuple(f"{PROJECT}-{service}-1" for service in ("cache", "db", "web"))
PATIENCE = 120.0


@pytest.fixture(scope="module")
def stack(cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The application, built and up; what is left of it is taken down afterwards."""
    settings = {
        "DB_BASE": postgres.image(cli),
        "CACHE_IMAGE": debian_image(cli, "redis-debian", "redis-server"),
        "WEB_BASE": debian_image(cli, "python-debian", "python3", "python3-psycopg2", "python3-redis"),
        "DB_PASSWORD": "a secret",
    }
    made = Compose(cli, APP / "compose.yaml", PROJECT, settings, tmp_path_factory.mktemp("guestbook"))
    assert "Successfully tagged guestbook-web:latest" in made.ok("build")
    made.ok("up", "-d", "--wait")
    yield made
    made.run("down", "-v", "--timeout", "2")


def visit(stack: Compose, index: int = 1) -> tuple[int, str]:
    """Call one of the web servers: the number of visits, and who answered. Each visit has its row."""
    seen = json.loads(fetch(stack.port("web", 8080, index), PATIENCE))
    assert seen["rows"] == seen["visits"]
    return seen["visits"], seen["host"]


def rows(stack: Compose) -> int:
    return int(stack.ok("exec", "-T", "db", "psql", "-U", "guest", "-d", "book", "-Atc", "SELECT count(*) FROM visits"))


def test_all_are_healthy(cli: Cli, stack: Compose) -> None:
    found = stack.listed()
    assert sorted(found) == sorted(CONTAINERS)
    assert {(item["State"], item["Health"]) for item in found.values()} == {("running", "healthy")}
    assert found[f"{PROJECT}-web-1"]["Publishers"][0]["TargetPort"] == 8080
    assert cli.json("inspect", f"{PROJECT}-web-1")[0]["HostConfig"]["Memory"] == 128 << 20
    began = [Life.of(cli, name).started_at for name in CONTAINERS]
    assert began[2] == max(began)  # web waited for the other two


def test_visits_are_counted_and_kept(stack: Compose) -> None:
    first, _ = visit(stack)
    assert [visit(stack)[0] for _ in range(3)] == [first + 1, first + 2, first + 3]
    assert rows(stack) == first + 3
    assert stack.ok("exec", "-T", "cache", "redis-cli", "get", "visits") == str(first + 3)


def test_up_again_changes_nothing(cli: Cli, stack: Compose) -> None:
    before = [Life.of(cli, name) for name in CONTAINERS]
    stack.ok("up", "-d")
    assert [Life.of(cli, name) for name in CONTAINERS] == before


def test_logs_top_and_images(stack: Compose) -> None:
    visit(stack)
    logs = stack.ok("logs", "--no-color")
    for line in ("web-1 .*The guestbook is open", "web-1 .*GET / ", "db-1 .*ready to accept", "cache-1 .*Ready to accept"):
        assert re.search(line, logs), logs
    assert len(stack.ok("logs", "--no-color", "--tail", "2", "db").splitlines()) == 2
    top = stack.ok("top", "db")
    assert f"{PROJECT}-db-1" in top and "postgres: checkpointer" in top
    images = json.loads(stack.ok("images", "--format", "json"))
    assert {item["Repository"] for item in images} == {"guestbook-web", "guestbook-db", "redis-debian"}
    assert re.search(rf"{PROJECT} +running\(3\)", stack.ok("ls"))


def test_copies_both_ways(stack: Compose, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("carried\n")
    stack.ok("cp", str(tmp_path / "there"), "web:/tmp/there")
    assert stack.ok("exec", "-T", "web", "cat", "/tmp/there") == "carried"
    stack.ok("cp", "web:/app/app.py", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == (APP / "web" / "app.py").read_text()


def test_run_once(stack: Compose) -> None:
    """It is in the networks of the others, its exit status comes back, and nothing of it stays."""
    ask = "import os, redis; print(redis.Redis(host=os.environ['CACHE']).ping())"
    assert stack.ok("run", "--rm", "-T", "web", "python3", "-c", ask) == "True"
    assert stack.run("run", "--rm", "-T", "--no-deps", "web", "sh", "-c", "exit 7").status == 7
    assert sorted(stack.listed()) == sorted(CONTAINERS)


def test_pause(stack: Compose) -> None:
    before, _ = visit(stack)
    stack.ok("pause", "cache")
    assert stack.listed()[f"{PROJECT}-cache-1"]["State"] == "paused"
    stack.ok("unpause", "cache")
    assert stack.listed()[f"{PROJECT}-cache-1"]["State"] == "running"
    assert visit(stack)[0] == before + 1


def test_events_of_a_kill_and_a_start(stack: Compose, tmp_path: Path) -> None:
    before, _ = visit(stack)
    with stack.in_background(tmp_path / "events", "events", "--json"):
        seen: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while "kill" not in seen:  # until the listener has begun, kills of nobody's interest are not told
            stack.ok("kill", "-s", "WINCH", "web")
            seen = actions(tmp_path / "events", "web")
            assert time.monotonic() < deadline
        stack.ok("kill", "web")
        assert stack.listed()[f"{PROJECT}-web-1"]["ExitCode"] == 137
        stack.ok("start", "web")
        while "start" not in (seen := actions(tmp_path / "events", "web")):
            assert time.monotonic() < deadline, seen
            time.sleep(0.2)
    assert [action for action in seen if action in ("die", "start")] == ["die", "start"]
    assert visit(stack)[0] > before


def actions(file: Path, service: str) -> list[str]:
    """What was told of a service, but for its execs. The last line may be half written."""
    lines = file.read_text().splitlines(keepends=True)
    events = [json.loads(line) for line in lines if line.endswith("\n")]
    return [event["action"] for event in events if event["service"] == service and not event["action"].startswith("exec_")]


def test_restart_keeps_the_content(cli: Cli, stack: Compose) -> None:
    before, _ = visit(stack)
    lives = [Life.of(cli, name) for name in CONTAINERS]
    stack.ok("restart", "db")
    now = [Life.of(cli, name) for name in CONTAINERS]
    assert now[0] == lives[0]
    assert now[1].started_at > lives[1].started_at
    assert now[2].started_at > lives[2].started_at  # it asked to be restarted with db
    stack.ok("up", "-d", "--wait")
    assert visit(stack)[0] == before + 1


def test_scale_and_round_robin(stack: Compose) -> None:
    stack.ok("up", "-d", "--wait", "--scale", "web=3")
    hosts = {visit(stack, index)[1] for index in (1, 2, 3)}
    assert len(hosts) == 3
    answers = [stack.ok("exec", "-T", "db", "getent", "ahostsv4", "web") for _ in range(3)]
    orders = [tuple(re.findall(r"(\S+) +STREAM", answer)) for answer in answers]
    assert {len(set(order)) for order in orders} == {3}
    assert {order[0] for order in orders} == set(orders[0])  # each is the first once
    stack.ok("up", "-d", "--scale", "web=1", "--timeout", "2")
    assert sorted(stack.listed()) == sorted(CONTAINERS)


def test_down(cli: Cli, stack: Compose) -> None:
    """The volumes outlive `down`, and nothing outlives `down -v`."""
    before, _ = visit(stack)
    volumes = {f"{PROJECT}_rows", f"{PROJECT}_visits"}
    stack.ok("down", "--timeout", "10")
    assert set(stack.left()) == volumes
    stack.ok("up", "-d", "--wait")
    assert visit(stack)[0] == before + 1
    stack.ok("down", "-v", "--timeout", "10")
    assert stack.left() == []
    assert not volumes & set(cli.ok("volume", "ls", "-q").split())
