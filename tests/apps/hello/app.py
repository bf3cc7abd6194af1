"""The demo: answers every request, and writes a line for each into the shared folder when there is one."""

import http.server
import pathlib

LOG = pathlib.Path("/var/log/app")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if LOG.is_dir():
            with (LOG / "requests.log").open("a") as log:
                log.write(f"{self.command} {self.path}\n")
        body = b"Hello from pybox!\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    print("Listening on port 8080", flush=True)
    http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
