"""COPY, ADD and WORKDIR into real images: where things land, whose they are, and what hostile images cannot do."""

from __future__ import annotations

import gzip
import os
import tarfile
from pathlib import Path

import pytest

from pyboxd.errors import InvalidArgument
from tests.support.build_lab import BuildLab, Files, archive, entry, in_build_lab, symlink

CONTEXT: Files = {
    "file": "file",
    "other": "other",
    "dir/a": "a",
    "dir/sub/b": "b",
    "dir2/c": "c",
    "link": symlink("dir"),
    "odd [1]": "odd",
    "tool": entry(tarfile.REGTYPE, mode=0o4711),
}

# instructions, and what `find` shows of /t afterwards
LANDINGS = [
    (["COPY file /t/x"], ["x"]),
    (["COPY file /t/x/"], ["x/", "x/file"]),
    (["WORKDIR /t", "COPY file ."], ["file"]),
    (["WORKDIR /t", "COPY file x"], ["x"]),
    (["WORKDIR /t", "COPY file ./x/"], ["x/", "x/file"]),
    (["WORKDIR /t/w", "COPY file .."], ["file", "w/"]),
    (["WORKDIR /t/x", "COPY file /t/x"], ["x/", "x/file"]),
    (["COPY file other /t/"], ["file", "other"]),
    (["COPY [\"odd [[]1]\", \"/t/\"]"], ["odd [1]"]),
    (["COPY dir /t"], ["a", "sub/", "sub/b"]),
    (["COPY dir /t/x"], ["x/", "x/a", "x/sub/", "x/sub/b"]),
    (["COPY dir file /t/"], ["a", "file", "sub/", "sub/b"]),
    (["COPY dir* /t/"], ["a", "c", "sub/", "sub/b"]),
    (["COPY dir*/[ac] /t/"], ["a", "c"]),
    (["COPY link /t/l"], ["l/", "l/a", "l/sub/", "l/sub/b"]),
    (["COPY . /t/"], sorted(["Dockerfile", "dir/", "dir/a", "dir/sub/", "dir/sub/b", "dir2/", "dir2/c", "file", "link",
                             "odd [1]", "other", "tool"])),
    (["COPY --exclude=sub dir /t"], ["a"]),
    (["COPY dir /t", "COPY dir2/c /t/a"], ["a", "sub/", "sub/b"]),
    (["RUN mkdir /t && ln -s real /t/l", "COPY file /t/l"], ["l", "real"]),
    (["RUN mkdir -p /t/real && ln -s /t/real /t/l", "COPY file /t/l/"], ["l", "real/", "real/file"]),
    (["RUN mkdir -p /t/real && ln -s /t/real /t/l", "COPY dir /t/l/new"], ["l", "real/", "real/new/", "real/new/a",
                                                                       "real/new/sub/", "real/new/sub/b"]),
    (["RUN mkdir /t && ln -s /t/later/dir /t/l", "COPY file /t/l/"], ["l", "later/", "later/dir/", "later/dir/file"]),
    (["RUN mkdir -p /t/sub && touch /t/sub/old", "COPY dir /t"], ["a", "sub/", "sub/b", "sub/old"]),
    (["ADD file /t/"], ["file"]),
    (["ADD dir /t"], ["a", "sub/", "sub/b"]),
]  # fmt: skip


LISTING = (
    'cd /t; find . -mindepth 1 | sort | while read -r f; do [ -d "$f" ] && [ ! -L "$f" ] && f=$f/; echo "${f#./}"; done'
)


def test_landings(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        for lines, expected in LANDINGS:
            built = await lab.build("FROM base\n" + "\n".join(lines), CONTEXT)
            assert (await lab.sh(built.image, LISTING)).splitlines() == expected, lines

    in_build_lab(tmp_path, scenario)


def test_owners_modes_and_times(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        built = await lab.build(
            "FROM base\nUSER user\nCOPY file tool /t/\nCOPY --chown=user dir /own/deep/\n"
            "COPY --chown=5:extra --chmod=640 file /m\n"
            "COPY --chmod=u=rwX,go= dir /x\nADD --chown=7 file /seven\nWORKDIR /w/deep\n",
            CONTEXT,
        )
        files = "/t /t/file /t/tool /own /own/deep/a /own/deep/sub /m /x /x/a /seven /w/deep"
        look = f"stat -c '%n %a %u:%g' {files}; stat -c %Y /t/file"
        assert (await lab.sh(built.image, look)).splitlines() == [
            "/t 755 0:0",
            "/t/file 644 0:0",
            "/t/tool 4711 0:0",
            "/own 755 1000:1000",
            "/own/deep/a 644 1000:1000",
            "/own/deep/sub 755 1000:1000",
            "/m 640 5:1001",
            "/x 700 0:0",
            "/x/a 600 0:0",
            "/seven 644 7:7",
            "/w/deep 755 0:0",
            "1600000000",
        ]
        with pytest.raises(InvalidArgument):
            await lab.build("FROM base\nCOPY --chown=nobody file /", CONTEXT)

    in_build_lab(tmp_path, scenario)


def test_archives(tmp_path: Path) -> None:
    inner = archive(
        {
            "bin/": entry(tarfile.DIRTYPE, mode=0o700, uid=3),
            "bin/new": entry(tarfile.REGTYPE, mode=0o4755, uid=5, gid=6),
            "lib/x": "x",
            "null": entry(tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666),
            "hard": entry(tarfile.LNKTYPE, "lib/x"),
            "far": symlink("/etc/passwd"),
        }
    )
    files: Files = {"a.tar": inner, "a.tgz": gzip.compress(inner), "text.tar": "no archive"}

    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        built = await lab.build(
            "FROM base\nRUN mkdir /real && ln -s real /lib && ln -s bin /sbin\n"
            "ADD a.tgz /\nADD a.tar text.tar /u/\n"
            "ADD --chown=9:9 a.tar /o\nADD --unpack=false a.tar /raw/\nCOPY a.tar /c/\n",
            files,
        )
        places = "/bin/new /lib /real/x /null /u/text.tar /u/bin /o/lib/x /raw/a.tar /c/a.tar"
        look = f"stat -c '%n %F %u:%g %a' {places}; ls /bin/busybox"
        assert (await lab.sh(built.image, look)).splitlines() == [
            "/bin/new regular empty file 5:6 4755",
            "/lib symbolic link 0:0 777",
            "/real/x regular file 4321:4321 644",
            "/null character special file 0:0 666",
            "/u/text.tar regular file 0:0 644",
            "/u/bin directory 3:0 700",
            "/o/lib/x regular file 9:9 644",
            "/raw/a.tar regular file 0:0 644",
            "/c/a.tar regular file 0:0 644",
            "/bin/busybox",
        ]

    in_build_lab(tmp_path, scenario)


def test_a_whole_system(tmp_path: Path) -> None:
    """A tree with everything in it goes from stage to stage as it is."""

    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        built = await lab.build(
            "FROM base AS system\n"
            "RUN mkdir -p /usr/lib /var/x /run && ln -s usr/lib /lib && echo l > /usr/lib/f && ln /usr/lib/f /var/x/hard"
            " && mkfifo /run/fifo && chmod 1777 /tmp"
            " && chown 12:34 /usr/lib/f && chmod 6755 /usr/lib/f && mknod /var/null c 1 3\n"
            "RUN rm -r /root && mkdir /root && touch /root/new\n"
            "FROM scratch\nCOPY --from=system / /\n"
            "FROM base\nCOPY --from=1 / /\n"
        )
        for image in (built.image, (await lab.build("FROM base AS system\nFROM scratch\nCOPY --from=system / /")).image):
            assert "busybox" in await lab.sh(image, "ls /bin")
        look = "stat -c '%n %F %a %u:%g %h' /lib /usr/lib/f /var/x/hard /run/fifo /var/null; stat -c %a /tmp; ls /root"
        assert (await lab.sh(built.image, look)).splitlines() == [
            "/lib symbolic link 777 0:0 1",
            "/usr/lib/f regular file 6755 12:34 2",
            "/var/x/hard regular file 6755 12:34 2",
            "/run/fifo fifo 644 0:0 1",
            "/var/null character special file 644 0:0 1",
            "1777",
            "new",
        ]

    in_build_lab(tmp_path, scenario)


def test_extended_attributes(tmp_path: Path) -> None:
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    info = entry(tarfile.REGTYPE)
    info.pax_headers = {"SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape")}

    async def scenario(lab: BuildLab) -> None:
        built = await lab.build(
            "FROM scratch AS a\nADD a.tar /\nFROM scratch\nCOPY --from=a /ping /there/", {"a.tar": archive({"ping": info})}
        )
        (lower,) = await lab.content(built.image)
        assert os.getxattr(f"{lower}/there/ping", "security.capability") == capability

    in_build_lab(tmp_path, scenario)


def test_hostile_images_and_contexts(tmp_path: Path) -> None:
    """Links in an image or a context mean places of the image or the context."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")

    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        up = "../" * 30
        evil = archive(
            {
                "abs": symlink(str(outside)),
                "rel": symlink(f"{up}{str(outside).lstrip('/')}"),
                "etc/": entry(tarfile.DIRTYPE),
                "etc/passwd": symlink("/proc/1/root/etc/shadow"),
                "proc": symlink("/proc/self/fd"),
            }
        )
        await lab.build("FROM base\nADD evil.tar /\n", {"evil.tar": evil}, tags=("evil",))
        for line in ("COPY file /abs/", "COPY file /rel/new", "COPY dir /abs/new", "WORKDIR /rel/new", "ADD a.tar /abs/"):
            await lab.build(f"FROM evil\n{line}\n", {**CONTEXT, "a.tar": archive({"x": "x"})})
        for line in (
            "COPY --from=evil /abs/secret /",
            "COPY --from=evil /proc/0 /",
            "COPY --chown=root2 file /",
            "COPY out /x",
            "COPY out/secret /x",
            "ADD bad.tar /",
        ):
            files = {**CONTEXT, "out": symlink(str(outside)), "bad.tar": archive({"../x": "x"})}
            with pytest.raises(InvalidArgument):
                await lab.build(f"FROM evil\n{line}\n", files)
        with pytest.raises(InvalidArgument):
            await lab.build("FROM base\n", {"d": symlink(str(outside)), "d/new": "x"})
        assert os.listdir(outside) == ["secret"]

    in_build_lab(tmp_path, scenario)


def test_copies_are_found_again(tmp_path: Path) -> None:
    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        text = "FROM base AS a\nCOPY dir /d\nFROM base\nCOPY --from=a /d /e\nCOPY --chown=1 file /\nRUN true\n"
        first = await lab.build(text, CONTEXT)
        assert (await lab.build(text, CONTEXT)).image.id == first.image.id
        touched = entry(tarfile.DIRTYPE, mtime=5)
        assert (await lab.build(text, {**CONTEXT, "dir": touched})).image.id == first.image.id
        assert (await lab.build(text, {**CONTEXT, "unused": "x"})).image.id == first.image.id
        assert (await lab.build(text, {**CONTEXT, "dir/a": "other"})).steps_cached == 0
        assert (await lab.build(text, {**CONTEXT, "file": "other"})).steps_cached == 2
        assert (await lab.build(text.replace("--chown=1", "--chown=2"), CONTEXT)).steps_cached == 2
        await lab.images.remove(first.image.id, force=True)
        assert (await lab.build(text, CONTEXT)).image.id != first.image.id

    in_build_lab(tmp_path, scenario)
