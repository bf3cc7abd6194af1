"""Owners that no extended attribute can hold."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pybox.share.notes import Key, Notes, Owner, key_of

ONE, TWO = Key("/share", 1, stat.S_IFLNK, 0), Key("/share", 2, stat.S_IFREG, 5)


def test_owners_outlive_the_server(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    notes = Notes(path)
    assert not notes and notes.get(ONE) is None
    notes.put(ONE, Owner(33, 44))
    notes.put(TWO, Owner(1, 2, 0o640))
    notes.put(ONE, Owner(33, 55))
    again = Notes(path)
    assert again and again.get(ONE) == Owner(33, 55) and again.get(TWO) == Owner(1, 2, 0o640)
    again.put(TWO, None)
    again.put(TWO, None)
    assert Notes(path).get(TWO) is None and Notes(path).get(ONE) == Owner(33, 55)


def test_torn_line_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    notes = Notes(path)
    notes.put(ONE, Owner(1, 1))
    with path.open("a") as file:
        file.write('[["/share", 2, 3')
    again = Notes(path)
    again.put(TWO, Owner(2, 2))
    last = Notes(path)
    assert last.get(ONE) == Owner(1, 1) and last.get(TWO) == Owner(2, 2)


def test_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    notes = Notes(path)
    for number in range(1500):
        notes.put(ONE, Owner(number, 0))
    assert Notes(path).get(ONE) == Owner(1499, 0)
    assert len(path.read_text().splitlines()) == 1


def test_without_a_file_they_are_kept_in_memory() -> None:
    notes = Notes(None)
    notes.put(ONE, Owner(1, 1))
    assert notes.get(ONE) == Owner(1, 1)


def test_key_tells_kinds_of_files_apart(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.symlink("file", tmp_path / "link")
    keys = [key_of("/share", (tmp_path / name).lstat()) for name in ("file", "link")]
    assert keys[0] != keys[1] and keys[0].format == stat.S_IFREG
