"""Files: written so that nobody sees half of one, and logs read from their end."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_TAIL_BYTES = 64 * 1024


def write_atomically(path: Path, data: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Put `data` into `path` so that a crash leaves either the old or the new file, whole.

    Makes the folder. The file never has more rights than `mode`. One that is not `durable` may be anything after a crash
    of the whole computer, and is there sooner.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        with open(temporary, "xb", opener=_private) as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def sync(path: Path) -> None:
    """Make a file's content durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; systems that cannot open a folder keep names durable by themselves."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_folder(folder: Path) -> None:
    """Remove a folder with everything in it, as far as that can be done; nothing happens when it is not there."""
    if folder.exists():
        import shutil  # brings three compressions with it, and there is rarely anything to remove

        shutil.rmtree(folder, ignore_errors=True)


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log, "" when it cannot be read."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(line.rstrip() for line in text.splitlines()[-lines:])
