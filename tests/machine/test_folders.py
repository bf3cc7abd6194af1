"""Shared folders and volumes, as a container sees them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.support.pybox_cli import Cli


def test_both_sides_see_what_the_other_writes(cli: Cli, debian: str, shared: Path, name: str) -> None:
    (shared / "from host").write_text("host\n")
    cli.ok("run", "-d", "--name", name, "-v", f"{shared}:/src", debian, "sleep", "1000")
    assert cli.ok("exec", name, "cat", "/src/from host") == "host"
    cli.ok("exec", name, "sh", "-c", "echo guest >'/src/from guest'; mkdir /src/d; ln -s d /src/link")
    assert (shared / "from guest").read_text() == "guest\n"
    assert os.readlink(shared / "link") == "d"
    (shared / "from host").write_text("changed and longer\n")
    deadline = time.monotonic() + 20
    while cli.ok("exec", name, "cat", "/src/from host") != "changed and longer":
        assert time.monotonic() < deadline


def test_read_only_is_enforced(cli: Cli, debian: str, shared: Path) -> None:
    done = cli.run("run", "--rm", "-v", f"{shared}:/src:ro", debian, "sh", "-c", "echo x >/src/no")
    assert done.status != 0 and "Read-only file system" in done.err
    assert not (shared / "no").exists()


def test_unshared_path_is_refused_with_the_way_out(cli: Cli, debian: str) -> None:
    done = cli.run("run", "--rm", "-v", "/usr/share:/src", debian, "true")
    assert done.status == 125
    assert "Mounts denied" in done.err and "pybox config set shares" in done.err


def test_missing_source(cli: Cli, debian: str, shared: Path) -> None:
    cli.ok("run", "--rm", "-v", f"{shared}/made/here:/x", debian, "true")
    assert (shared / "made" / "here").is_dir()
    done = cli.run("run", "--rm", "--mount", f"type=bind,source={shared}/absent,target=/x", debian, "true")
    assert done.status == 125 and "bind source path does not exist" in done.err


def test_posix_semantics(cli: Cli, debian: str, shared: Path) -> None:
    script = r"""
set -e; cd /src; mkdir posix; cd posix
echo a >f; exec 3<f; rm f; [ "$(cat <&3)" = a ]; exec 3<&-
echo b >x; ln x y; [ "$(stat -c %h x)" = 2 ]; mv x z; [ "$(cat y)" = b ]
echo old >t; echo new >t2; mv t2 t; [ "$(cat t)" = new ]
truncate -s 5G big; [ "$(stat -c %s big)" = 5368709120 ]; echo end | dd of=big bs=1 seek=5368709000 conv=notrunc 2>/dev/null
[ "$(dd if=big bs=1 skip=5368709000 count=3 2>/dev/null)" = end ]; rm big
exec 4>lock; flock -n 4; ! flock -n lock true; exec 4>&-; flock -n lock true
mkdir many; cd many; seq -f 'file %g "quoted" ü' 1000 | while read -r n; do : >"$n"; done
[ "$(ls | wc -l)" = 1000 ]; cd ..
perl -e 'open F, "+>", "m"; print F "x" x 8192; close F'
chmod 640 m; [ "$(stat -c %a m)" = 640 ]
chown 33:33 m; [ "$(stat -c %u:%g m)" = 33:33 ]
touch -d @1000000000 m; [ "$(stat -c %Y m)" = 1000000000 ]
echo fine
"""
    assert cli.ok("run", "--rm", "-v", f"{shared}:/src", debian, "sh", "-c", script).endswith("fine")
    assert len(os.listdir(shared / "posix" / "many")) == 1000


def test_ten_thousand_entries(cli: Cli, debian: str, shared: Path) -> None:
    folder = shared / "ten thousand"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"n{number}").touch()
    assert cli.ok("run", "--rm", "-v", f"{folder}:/src", debian, "sh", "-c", "ls /src | wc -l") == "10000"


def test_named_volume_keeps_and_gets_the_images_content(cli: Cli, debian: str) -> None:
    cli.ok("volume", "create", "vol")
    assert cli.ok("run", "--rm", "-v", "vol:/etc/apt", debian, "ls", "/etc/apt/sources.list.d") == "debian.sources"
    cli.ok("run", "--rm", "-v", "vol:/data", debian, "sh", "-c", "echo kept >/data/x")
    assert cli.ok("run", "--rm", "-v", "vol:/data", debian, "cat", "/data/x") == "kept"
    assert "vol" in cli.ok("volume", "ls", "-q").split()
    cli.ok("volume", "rm", "vol")
    assert cli.run("volume", "inspect", "vol").status == 1


def test_anonymous_volume_goes_with_rm_v(cli: Cli, debian: str, name: str) -> None:
    before = cli.ok("volume", "ls", "-q").split()
    cli.ok("run", "--name", name, "-v", "/data", debian, "touch", "/data/x")
    assert len(cli.ok("volume", "ls", "-q").split()) == len(before) + 1
    cli.ok("rm", "-v", name)
    assert cli.ok("volume", "ls", "-q").split() == before
