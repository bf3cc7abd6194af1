"""Between monitor and the container's first process: one packet per message, descriptors along with it.

    | init → monitor | `terminal` + descriptor | master of the pseudo-terminal; only when one was asked for |
    | init → monitor | `ready`                 | all is set up but the program itself                       |
    | monitor → init | `start`                 | execute it                                                 |
    | init → monitor | `executing`             | the next thing is execve; EOF after this is success        |
    | init → monitor | `failed` + `Failure`    | in any state; the process ends after it                    |

EOF at any other place is an error. The socket is close-on-exec, so a successful execve is its end.
"""

from __future__ import annotations

import array
import socket

from pyboxd.frozen import frozen

from . import codec
from .failure import Failure

_MAX_MESSAGE = 65536


@frozen
class Message:
    """One message of the table; `descriptor` is -1 when none came along."""

    name: str
    failure: Failure | None = None
    descriptor: int = -1


@frozen
class Packet:
    """A message as it is sent."""

    name: str
    failure: Failure | None = None


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends; packets keep their boundaries."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(end: socket.socket, name: str, failure: Failure | None = None, descriptor: int = -1) -> None:
    """Send one message."""
    packet = codec.dumps(Packet(name, failure), sparse=True)[:_MAX_MESSAGE]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))] if descriptor >= 0 else []
    end.sendmsg([packet], rights)


def receive(end: socket.socket) -> Message | None:
    """The next message, None at EOF; a peer that died with unread messages counts as that."""
    space = socket.CMSG_SPACE(array.array("i").itemsize)
    try:
        packet, rights, _, _ = end.recvmsg(_MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    descriptor = -1
    for level, kind, data in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptor = array.array("i", data)[0]
    if not packet:
        return None
    content = codec.loads(Packet, packet)
    return Message(content.name, content.failure, descriptor)
