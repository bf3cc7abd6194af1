"""A small HTTP server whose answers a test makes, also broken ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Reply:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: int = -1  # bytes after which the connection ends


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""
    broken: bool = False  # the connection ended inside of the body; nobody gets an answer


class Server:
    """Answers with what `answer` makes of a request, and remembers the requests; `address` is "localhost:PORT".

    `patience`: bytes of a chunked body after which the connection ends, -1 for none.
    """

    def __init__(self, answer: Callable[[Seen], Reply]) -> None:
        self.seen: list[Seen] = []
        self.answer = answer
        self.patience = -1
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heads = {key.lower(): value for key, value in self.headers.items()}
                seen = Seen(self.command, self.path, heads)
                self._read(seen)
                outer.seen.append(seen)
                reply = outer.answer(seen)
                if seen.broken:
                    return
                self.send_response(reply.status)
                for key, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body if reply.cut < 0 else reply.body[: reply.cut])

            do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = do_CONNECT = do_GET

            def _read(self, seen: Seen) -> None:
                if "chunked" not in seen.headers.get("transfer-encoding", ""):
                    seen.body = self.rfile.read(int(seen.headers.get("content-length", "0")))
                    return
                while length := int(self.rfile.readline(), 16):
                    seen.body += self.rfile.read(length)
                    self.rfile.readline()
                    if 0 <= outer.patience <= len(seen.body):
                        seen.broken = True
                        return
                self.rfile.readline()

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"localhost:{self.server.server_port}"


@contextmanager
def serving(answer: Callable[[Seen], Reply]) -> Iterator[Server]:
    """Such a server inside the block."""
    found = Server(answer)
    thread = threading.Thread(target=found.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        found.server.shutdown()
        thread.join()
        found.server.server_close()
