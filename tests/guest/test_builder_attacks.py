"""Published ways out of a build through the mounts of its commands."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from pyboxd.errors import InvalidArgument
from tests.guest.conftest import OUTSIDE
from tests.support.build_lab import BuildLab, in_build_lab, symlink


def test_a_build_mounts_nothing_of_the_guest(tmp_path: Path, outside: Path) -> None:
    """CVE-2024-23651, CVE-2024-1753, CVE-2024-11218: sources that climb out of the context or the image."""

    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        await lab.build(f"FROM base\nRUN ln -s {OUTSIDE} /link\n", tags=("linked",))
        sources = ("../../../../../../run/outside", "link", "link/file", "/../../run/outside")
        for source, options in product(sources, ("", "from=linked,", "from=linked,rw,")):
            text = (
                f"FROM base\nRUN --mount=type=bind,{options}source={source},target=/seen cat /seen/file /seen; echo done\n"
            )
            try:
                await lab.build(text, {"link": symlink(OUTSIDE)})
            except InvalidArgument:
                continue
            assert "the guest's" not in lab.last.text and "done" in lab.last.text
        assert (outside / "file").read_text() == "the guest's"

    in_build_lab(tmp_path, scenario)


def test_a_builds_cache_is_a_folder_of_its_own(tmp_path: Path, outside: Path) -> None:
    """CVE-2024-9675: the name of a cache is no path."""

    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        for name in ("../" * 30 + OUTSIDE[1:], OUTSIDE, ".", ".."):
            await lab.build(
                f"FROM base\nRUN --mount=type=cache,id={name},target=/cache ls -A /cache; touch /cache/planted\n"
            )
            assert "file" not in lab.last.text.replace("Dockerfile", "")
        assert [path.name for path in outside.iterdir()] == ["file"]
        caches = lab.folder / "caches"
        assert len(list(caches.iterdir())) == 4 and all(path.is_dir() and not path.is_symlink() for path in caches.iterdir())

    in_build_lab(tmp_path, scenario)


def test_places_of_a_builds_mounts_are_made_and_removed_inside(tmp_path: Path, outside: Path) -> None:
    """CVE-2024-23652, CVE-2024-9407: what was made to mount something on is taken away again, and nothing else."""

    async def scenario(lab: BuildLab) -> None:
        await lab.base()
        await lab.build(f"FROM base\nRUN ln -s /run /up; ln -s {OUTSIDE} /link\n", tags=("linked",))
        text = "FROM linked\nRUN --mount=type=tmpfs,target=/{0} true\nRUN ls -d /run/outside/* || true\n"
        for target in ("link/made", "up/outside/made", "link", "../../run/outside/made"):
            await lab.build(text.format(target), no_cache=True)
            assert [path.name for path in outside.iterdir()] == ["file"]
        # the command puts a link in the place of a folder above the one that was made for it
        swap = (
            f"RUN --mount=type=tmpfs,target=/a/b/file mkdir /old; mv /a /old/a; ln -s /run/outside /a; ln -s {OUTSIDE} /b\n"
        )
        await lab.build("FROM base\n" + swap)
        assert [path.name for path in outside.iterdir()] == ["file"]

    in_build_lab(tmp_path, scenario)
