"""Builds through the command line: stages, cache, errors with their line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pybox_cli import Cli


def context(cli: Cli, name: str, dockerfile: str, files: dict[str, str] | None = None) -> str:
    folder = cli.home / "contexts" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    for path, text in (files or {}).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return str(folder)


def test_instructions(cli: Cli, debian: str) -> None:
    folder = context(
        cli,
        "all",
        f"""ARG BASE={debian}
FROM ${{BASE}} AS tools
ARG WORD=default
RUN echo "$WORD" >/word && mkdir /out && echo made >/out/file
FROM $BASE
LABEL a="1 2" b=3
ENV GREETING="hello world" TARGET=/app
WORKDIR $TARGET
COPY --from=tools /word /out/ ./
COPY src/ /src/
COPY ["with space.txt", "/dest dir/"]
ADD archive.tar /unpacked/
USER daemon
VOLUME /data
EXPOSE 80/tcp 53/udp
SHELL ["/bin/bash", "-c"]
RUN echo $BASH_VERSION >/tmp/shell
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat word file /src/a; id -un; echo $GREETING"]
""",
        {"src/a": "source\n", "with space.txt": "s", ".dockerignore": "src/secret\n", "src/secret": "no"},
    )
    import tarfile

    with tarfile.open(Path(folder) / "archive.tar", "w") as archive:
        archive.add(Path(folder) / "src" / "a", "inner")
    out = cli.ok("build", "-t", "all", "--build-arg", "WORD=given", folder)
    assert "Successfully tagged all:latest" in out
    assert cli.ok("run", "--rm", "all").splitlines() == ["given", "made", "source", "daemon", "hello world"]
    assert cli.ok("run", "--rm", "all", "ls '/dest dir' /unpacked; test -e /src/secret || echo left out").split("\n") == [
        "/dest dir:", "with space.txt", "", "/unpacked:", "inner", "left out",
    ]  # fmt: skip
    config = cli.json("image", "inspect", "all")[0]["Config"]
    assert config["Labels"] == {"a": "1 2", "b": "3"}
    assert config["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert (config["WorkingDir"], config["User"], config["StopSignal"]) == ("/app", "daemon", "SIGINT")
    assert config["Volumes"] == {"/data": {}}


def test_cache_follows_content(cli: Cli, debian: str) -> None:
    dockerfile = f"FROM {debian}\nCOPY f /f\nRUN cat /f >/g\n"
    folder = context(cli, "cache", dockerfile, {"f": "1"})
    first = cli.ok("build", "-q", folder)
    assert cli.ok("build", "-q", folder) == first
    assert cli.ok("build", folder).count("Using cache") == 2
    context(cli, "cache", dockerfile, {"f": "2"})
    assert cli.ok("build", folder).count("Using cache") == 0
    assert cli.ok("build", "--no-cache", folder).count("Using cache") == 0


@pytest.mark.parametrize(
    ("dockerfile", "words"),
    [
        ("FROM scratch\nFRM x\n", "dockerfile parse error on line 2: unknown instruction: FRM"),
        ("FROM scratch\nCOPY absent /\n", "absent"),
        ("FROM localhost:1/nothing:1\n", "connection refused"),
        ("RUN true\n", "no build stage in current context"),
        ("", "cannot be empty"),
    ],
)
def test_bad_dockerfiles(cli: Cli, dockerfile: str, words: str) -> None:
    done = cli.run("build", context(cli, "bad", dockerfile))
    assert done.status == 1, f"{done}"
    assert words in done.err


def test_failed_run_has_its_status_and_leaves_nothing(cli: Cli, debian: str) -> None:
    before = (cli.ok("ps", "-aq"), cli.ok("images", "-q"))
    done = cli.run("build", context(cli, "failing", f"FROM {debian}\nRUN exit 42\n"))
    assert done.status == 42
    assert "The command '/bin/sh -c exit 42' returned a non-zero code: 42" in done.err
    assert (cli.ok("ps", "-aq"), cli.ok("images", "-q")) == before


def test_no_dockerfile(cli: Cli, tmp_path: Path) -> None:
    done = cli.run("build", str(tmp_path))
    assert done.status != 0 and "Dockerfile" in done.err
