"""What the guest's kernel knows of the folders, from one life of the server to the next: for a machine that is suspended.

Open files are not kept: they are opened again by their names. One that had lost its last name is lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pybox.files import write_atomically
from pybox.model import Share
from pybox.share.nodes import Node, NodeTable

log = logging.getLogger(__name__)
_FORMAT = 1
_NAMES = "latin-1"  # names are bytes; this text has each of them as one character


def save(table: NodeTable, path: Path) -> None:
    """Write the table down, durably. Raises OSError."""
    nodes = [
        (node.id, node.share, node.ident, [(parent, name.decode(_NAMES)) for parent, name in node.places], node.lookups, own)
        for node, own in table.known()
    ]
    content = {"format": _FORMAT, "devices": _devices(table.shares), "nodes": nodes}
    write_atomically(path, json.dumps(content, separators=(",", ":")).encode(), 0o600)


def load(table: NodeTable, path: Path) -> None:
    """Take over what `save` has written, for the same shares. What cannot be read leaves the guest with stale nodes."""
    try:
        content = json.loads(path.read_bytes())
        if content["format"] != _FORMAT:
            raise ValueError("it is of another version")
        # Disks may get other numbers when the host is started again.
        moved = [dict([pair]) for pair in zip(content["devices"], _devices(table.shares), strict=True)]
        nodes = [(_node(item, moved), bool(item[5])) for item in content["nodes"]]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as problem:
        log.error("what the guest knows of the folders cannot be read, files in use are stale: %s", problem)
        return
    for node, is_of_file in nodes:
        table.adopt(node, is_of_file)


def _devices(shares: Sequence[Share]) -> list[int]:
    """The number of each share's disk; 0 for a folder that is not there."""
    found = [0] * len(shares)
    for index, share in enumerate(shares):
        with suppress(OSError):
            found[index] = Path(share.host_path).stat().st_dev
    return found


def _node(item: Sequence[Any], moved: Sequence[dict[int, int]]) -> Node:
    number, share, (_, device, inode, kind), places, lookups, _ = item
    ident = (share, moved[share].get(device, device), inode, kind)
    return Node(number, share, ident, [(parent, name.encode(_NAMES)) for parent, name in places], lookups)
