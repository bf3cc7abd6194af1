"""Counts its visits in Redis and keeps a row for each in PostgreSQL: `GET /` says how many, and which of us answered."""

import http.server
import json
import os
import signal
import socket

import psycopg2
import redis

TABLE = "CREATE TABLE IF NOT EXISTS visits (number bigint PRIMARY KEY, host text NOT NULL, at timestamptz DEFAULT now())"
LOCK = 1  # of PostgreSQL: several of us may begin at the same time
CACHE = redis.Redis(host=os.environ["CACHE"])


def database() -> psycopg2.extensions.connection:
    return psycopg2.connect(os.environ["DATABASE"], connect_timeout=20)


def visit() -> dict[str, int | str]:
    """Count this one; what is known of all."""
    number = CACHE.incr("visits")
    with database() as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO visits VALUES (%s, %s)", (number, socket.gethostname()))
        cursor.execute("SELECT count(*) FROM visits")
        (rows,) = cursor.fetchone()
    return {"visits": number, "rows": rows, "host": socket.gethostname()}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps(visit() if self.path == "/" else {"health": "good"}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with database() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        cursor.execute(TABLE)
    print("The guestbook is open", flush=True)
    http.server.ThreadingHTTPServer(("", 8080), Handler).serve_forever()
