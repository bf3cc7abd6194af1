"""A loop over epoll, as small as a monitor needs: descriptors with handlers, and one deadline."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
Handler = Callable[[int], None]


class EventLoop:
    """Calls a descriptor's handler with the events that epoll reports for it."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._masks: dict[int, int] = {}
        self._deadline: tuple[float, Callable[[], None]] | None = None
        self.running = True

    def watch(self, descriptor: int, mask: int, handler: Handler) -> None:
        """Watch for `mask`, or for nothing if it is 0: then not even the other end's closing is reported."""
        known = self._masks.get(descriptor, 0)
        self._handlers[descriptor] = handler
        self._masks[descriptor] = mask
        if mask == known:
            return
        if not known:
            self._epoll.register(descriptor, mask)
        elif not mask:
            self._epoll.unregister(descriptor)
        else:
            self._epoll.modify(descriptor, mask)

    def forget(self, descriptor: int) -> None:
        """Stop watching; to be called before the descriptor is closed."""
        if self._masks.pop(descriptor, 0):
            self._epoll.unregister(descriptor)
        self._handlers.pop(descriptor, None)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Call `action` once in so many seconds."""
        self._deadline = (time.monotonic() + seconds, action)

    def run(self) -> None:
        """Until `running` is false."""
        while self.running:
            timeout = -1.0
            if self._deadline:
                timeout = max(0.0, self._deadline[0] - time.monotonic())
            for descriptor, events in self._epoll.poll(timeout):
                handler = self._handlers.get(descriptor)  # an earlier handler may have forgotten it
                if handler:
                    handler(events)
            if self._deadline and time.monotonic() >= self._deadline[0]:
                action = self._deadline[1]
                self._deadline = None
                action()

    def close(self) -> None:
        self._epoll.close()
