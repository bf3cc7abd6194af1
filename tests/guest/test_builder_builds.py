"""Whole builds in the real store, with real containers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pyboxd.errors import InvalidArgument, PyboxdError
from pyboxd.image import transfer
from pyboxd.image.builder.doors import BuildFailed
from tests.support.build_lab import BuildLab, archive, in_build_lab, without_ids


def test_output_and_cache(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        text = 'FROM base\nENV A=1 B=$A\nRUN echo hello; echo $A-$B\nCOPY file /dir/\nCMD ["cat", "/dir/file"]\n'
        built = await lab.build(text, {"file": "content"}, tags=("x", "y:1"))
        assert without_ids(built.text) == (
            "Step 1/5 : FROM base\n ---> ID\n"
            "Step 2/5 : ENV A=1 B=$A\n ---> Running in ID\n ---> Removed intermediate container ID\n ---> ID\n"
            "Step 3/5 : RUN echo hello; echo $A-$B\n ---> Running in ID\nhello\n1-\n"
            " ---> Removed intermediate container ID\n ---> ID\n"
            "Step 4/5 : COPY file /dir/\n ---> ID\n"
            'Step 5/5 : CMD ["cat", "/dir/file"]\n ---> Running in ID\n ---> Removed intermediate container ID\n ---> ID\n'
            "Successfully built ID\nSuccessfully tagged x:latest\nSuccessfully tagged y:1\n"
        )
        assert [item.image_id for item in built.output if item.image_id] == [built.image.id]
        assert built.image.references == ("x:latest", "y:1")
        assert built.image.config.cmd == ("cat", "/dir/file")
        assert built.image.config.env == (
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "A=1",
            "B=",
        )
        again = await lab.build(text, {"file": "content"})
        assert again.image.id == built.image.id
        assert again.steps_cached == 4
        changed = await lab.build(text, {"file": "other"})
        assert changed.steps_cached == 2
        assert await lab.sh(changed.image, "cat /dir/file; ls -ln /dir/file") != ""
        fresh = await lab.build(text, {"file": "content"}, no_cache=True)
        assert fresh.steps_cached == 0

    in_build_lab(tmp_path, scenario)


def test_a_failed_command(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        with pytest.raises(BuildFailed) as caught:
            await lab.build("FROM base\nRUN echo out; echo err >&2; exit 3\n")
        assert str(caught.value) == "The command '/bin/sh -c echo out; echo err >&2; exit 3' returned a non-zero code: 3"
        assert caught.value.code == 3
        assert "out\n" in lab.last.text and "err\n" in lab.last.text

    in_build_lab(tmp_path, scenario)


def test_arguments(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        text = (
            "ARG tag=latest\nARG unused\nFROM base:${tag}\n"
            "ARG one=default\nARG tag\nARG TARGETARCH\nENV two=env\nARG two=arg\n"
            "RUN echo $one,$two,$tag,$TARGETARCH,$http_proxy > /seen\n"
        )
        built = await lab.build(text, args={"one": "given", "http_proxy": "proxy", "lost": "x"})
        assert await lab.sh(built.image, "cat /seen") == "given,env,latest,amd64,proxy\n"
        last = built.image.history[-1].created_by
        expected = "|3 TARGETARCH=amd64 one=given tag=latest /bin/sh -c echo $one,$two,$tag,$TARGETARCH,$http_proxy > /seen"
        assert last == expected
        assert "[Warning] One or more build-args [lost] were not consumed\n" in built.text
        other_proxy = await lab.build(text, args={"one": "given", "http_proxy": "other"})
        assert other_proxy.image.id == built.image.id
        other = await lab.build(text, args={"one": "new"})
        assert await lab.sh(other.image, "cat /seen") == "new,env,latest,amd64,\n"

    in_build_lab(tmp_path, scenario)


def test_stages(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        text = (
            "FROM base AS build\nWORKDIR /out\nRUN echo made > file && ln file hard && chown 7:8 file && chmod 4755 file\n"
            "FROM base AS unused\nRUN exit 1\n"
            "FROM scratch AS files\nCOPY --from=build /out /files\n"
            "FROM base\nCOPY --from=files / /got\nCOPY --from=0 --chown=user:extra /out/file /own\n"
        )
        built = await lab.build(text)
        seen = await lab.sh(built.image, "cd /got/files; stat -c '%n %a %u:%g %h' file hard; stat -c '%a %u:%g' /own")
        assert seen == "file 4755 7:8 2\nhard 4755 7:8 2\n4755 1000:1001\n"
        assert built.text.startswith("Step 1/8 : FROM base AS build\n")
        target = await lab.build(text, target="files")
        assert len(target.image.layers) == 1
        again = await lab.build(text)
        assert again.image.id == built.image.id

    in_build_lab(tmp_path, scenario)


def test_metadata(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        text = """FROM base
MAINTAINER Someone
LABEL a=b "c d"='e $f'
EXPOSE 80 8000-8002/udp
VOLUME /data $HOME/x
VOLUME ["/a b"]
USER user
WORKDIR sub
WORKDIR dir
ENTRYPOINT ["echo"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/busybox", "sh", "-c"]
CMD hi
ONBUILD RUN echo triggered as $(id -un)
ONBUILD COPY file /f
"""
        built = await lab.build(text, labels={"extra": "$x'y"})
        config = built.image.config
        assert built.image.author == "Someone"
        assert dict(config.labels) == {"a": "b", "c d": "e $f", "extra": "$x'y"}
        assert config.exposed_ports == ("80/tcp", "8000/udp", "8001/udp", "8002/udp")
        assert config.volumes == ("/data", "/x", "/a b")
        assert (config.user, config.working_dir, config.stop_signal) == ("user", "/sub/dir", "SIGINT")
        assert config.entrypoint == ("echo",)
        assert config.cmd == ("/bin/busybox", "sh", "-c", "hi")
        assert config.healthcheck is not None and config.healthcheck.test == ("CMD-SHELL", "true")
        assert config.on_build == ("RUN echo triggered as $(id -un)", "COPY file /f")
        assert await lab.sh(built.image, "stat -c %U:%a /sub/dir") == "root:755\n"
        lab.images.tag(built.image.id, "parent")
        child = await lab.build("FROM parent\nENTRYPOINT x", {"file": "f"})
        assert "# Executing 2 build triggers\n" in child.text
        assert child.image.config.on_build == ()
        assert child.image.config.cmd is None
        assert "triggered as user\n" in child.text
        assert await lab.sh(child.image, "cat /f") == "f"

    in_build_lab(tmp_path, scenario)


def test_heredocs_and_mounts(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        text = """FROM base
ARG who=me
RUN <<EOF
echo one > /a
echo "$who" >> /a
EOF
RUN <<EOF cat >> /a; echo end >> /a
text $who
EOF
RUN <<EOF
#!/bin/awk -f
BEGIN { print "awk" >> "/a" }
EOF
COPY <<a <<"b" /files/
hello ${who}
a
raw $who
b
RUN --mount=type=cache,target=/cache/deep echo x >> /cache/deep/log; wc -l < /cache/deep/log > /count
RUN --mount=type=bind,source=src,target=/src --mount=type=tmpfs,target=/t cp /src/x /x; touch /t/y /src/z || true
RUN --mount=from=base,source=/bin,target=/other ls /other/busybox
"""
        built = await lab.build(text, {"src/x": "X"})
        assert await lab.sh(built.image, "cat /a /files/a /files/b /count /x; ls /") == (
            "one\nme\ntext me\nend\nawk\nhello me\nraw $who\n1\nX"
            "a\nbin\ncount\ndev\netc\nfiles\nproc\nroot\nsys\ntmp\nvar\nx\n"
        )
        again = await lab.build(text, {"src/x": "X"}, no_cache=True)
        assert await lab.sh(again.image, "cat /count") == "2\n"

    in_build_lab(tmp_path, scenario)


def test_cache_from_an_image_that_came_from_elsewhere(tmp_path: Path) -> None:
    text = "FROM base\nENV A=1\nRUN date +%s%N > /when\nCOPY file /\nRUN cat /file > /again\n"
    saved: list[bytes] = []

    async def elsewhere(lab: BuildLab) -> None:
        await lab.base()
        await lab.build(text, {"file": "content"}, tags=("built",))
        saved.extend(lab.images.save(["built", "base"]))

    async def here(lab: BuildLab) -> None:
        async def chunks() -> AsyncIterator[bytes]:
            for piece in saved:
                yield piece

        await transfer.load(lab.images, chunks(), lambda _: None, temporary=str(lab.folder / "tmp"))
        source = lab.images.get("built")
        built = await lab.build(text, {"file": "content"}, cache_from=("built", "absent"))
        assert built.steps_cached == 4 and built.image.id == source.id
        assert "[Warning] absent serves as no cache: it is not here; pull it before the build\n" in built.text
        changed = await lab.build(text, {"file": "other"}, cache_from=("built",))
        assert changed.steps_cached == 2 and changed.image.layers[:2] == source.layers[:2]
        assert await lab.sh(changed.image, "cat /again") == "other"
        fresh = await lab.build(text, {"file": "content"}, cache_from=("built",), no_cache=True)
        assert fresh.steps_cached == 0

    in_build_lab(tmp_path / "elsewhere", elsewhere)
    in_build_lab(tmp_path / "here", here)


def test_mounts_of_images_with_several_layers(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        text = """FROM base AS tools
RUN echo one > /bin/one; mkdir /dir
RUN echo two > /dir/two
FROM base
RUN --mount=from=tools,target=/tools cat /tools/bin/one /tools/dir/two > /read; ! touch /tools/new
RUN --mount=from=tools,source=/dir,target=/dir,rw echo more >> /dir/two; cat /dir/two > /written
RUN --mount=from=tools,source=/dir/two,target=/two cat /two > /again
"""
        built = await lab.build(text)
        assert await lab.sh(built.image, "cat /read /written /again; ls /dir /tools 2>&1 | wc -l") == (
            "one\ntwo\ntwo\nmore\ntwo\n2\n"
        )

    in_build_lab(tmp_path, scenario)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "COPY absent /",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat absent: file does not exist",
        ),
        ("COPY ignored /", "COPY failed: file not found in build context or excluded by .dockerignore: stat ignored: "),
        ("COPY ../x /", "COPY failed: forbidden path outside the build context: ../x ()"),
        ("COPY no* /", "COPY failed: no source files were specified"),
        (
            "COPY a b /dir",
            "COPY failed: When using COPY with more than one source file, the destination must be a directory",
        ),
        ("COPY --from=base /absent /", "COPY failed: stat /absent: file does not exist"),
        ("COPY dir /bin/busybox", "COPY failed: cannot copy to non-directory: /bin/busybox"),
        ("COPY --chown=nobody a /", "no such user: nobody"),
        ("RUN --mount=type=secret,id=x cat", "RUN --mount=type=secret is not supported: it needs a BuildKit session"),
        ("COPY --chmod=9 a /", "invalid chmod parameter: '9'"),
    ],
)
def test_refusals(tmp_path: Path, line: str, message: str) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        files = {"a": "a", "b": "b", "dir/x": "x", "ignored": "i", ".dockerignore": "ignored\n"}
        with pytest.raises(PyboxdError) as caught:
            await lab.build(f"FROM base\n{line}\n", files)
        assert message in str(caught.value)

    in_build_lab(tmp_path, scenario)


def test_nothing_is_left_of_a_damaged_context(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        with pytest.raises(InvalidArgument):
            await lab.build_archive(b"no archive" * 100)
        with pytest.raises(InvalidArgument, match="Cannot locate specified Dockerfile: Dockerfile"):
            await lab.build_archive(bytes(1024))
        assert os.listdir(lab.folder / "tmp") == []

    in_build_lab(tmp_path, scenario)


def test_the_cache_knows_the_name_of_what_is_copied_into_a_folder(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        await lab.build("FROM base\nCOPY a.conf /etc/app/\n", {"a.conf": "same"})
        second = await lab.build("FROM base\nCOPY b.conf /etc/app/\n", {"b.conf": "same"})
        assert (await lab.sh(second.image, "ls /etc/app")).strip() == "b.conf"

    in_build_lab(tmp_path, scenario)


def test_the_cache_tells_an_unpacked_archive_from_a_copied_one(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        files = {"a.tar": archive({"inside": "x"})}
        await lab.build("FROM base\nADD --unpack=false a.tar /x/\n", files)
        second = await lab.build("FROM base\nADD a.tar /x/\n", files)
        assert (await lab.sh(second.image, "ls /x")).strip() == "inside"

    in_build_lab(tmp_path, scenario)


def test_a_whole_image_becomes_one_layer(tmp_path: Path) -> None:
    """`COPY --from=image / /` over nothing: the tree as it is, whatever layers it came from."""

    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        steps = (
            "RUN mkdir /d; echo one >/d/one && ln /d/one /d/again && ln -s one /d/link && chmod 4711 /d/one && touch /gone",
            "RUN rm /gone && echo two >/d/two && chown 7:8 /d/two && mkdir /empty && chmod 1777 /empty",
        )
        text = "FROM base AS a\n" + "\n".join(steps) + "\nFROM scratch\nCOPY --from=a / /\n"
        built = await lab.build(text)
        assert len(built.image.layers) == 1
        look = "cd /d; stat -c '%n %a %u:%g %h' one again two /empty; readlink link; cat again two; ls /gone 2>&1; true"
        assert (await lab.sh(built.image, look)).splitlines() == [
            *("one 4711 0:0 2", "again 4711 0:0 2", "two 644 7:8 1", "/empty 1777 0:0 2", "one", "one", "two"),
            "ls: /gone: No such file or directory",
        ]
        assert (await lab.build(text)).image.id == built.image.id
        changed = await lab.build(text.replace("echo two", "echo three"))
        assert await lab.sh(changed.image, "cat /d/two") == "three\n"

    in_build_lab(tmp_path, scenario)
