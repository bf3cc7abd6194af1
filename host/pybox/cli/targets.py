"""Where archives are written: a file that is there only when it is whole, or standard output when that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pybox.errors import PyboxError, UsageProblem


@contextmanager
def archive_target(target: Path | None) -> Iterator[BinaryIO]:
    """A stream for an archive. Raises UsageProblem when it cannot go there, PyboxError when the disk takes no more."""
    if target is None:
        if sys.stdout.isatty():
            raise UsageProblem("cowardly refusing to save to a terminal", resolution="Use -o FILE, or redirect.")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if target.exists() and not target.is_file():  # a device, or a pipe that somebody reads
        if target.is_dir():
            raise PyboxError(f'invalid output path: "{target}" is a directory')
        with target.open("wb") as file:
            yield file
        return
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(target)
    except FileNotFoundError:
        raise PyboxError(f'invalid output path: directory "{target.parent}" does not exist') from None
    except OSError as error:
        raise PyboxError(f"{target} cannot be written", str(error.strerror or error)) from error
    finally:
        part.unlink(missing_ok=True)
