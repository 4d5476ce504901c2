"""A real HTTP server on loopback that misbehaves on request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FileServer:
    """Serve ``content`` at any path.

    ``cut_after`` ends each connection after so many bytes; ``lose`` leaves bytes away at the end without
    saying so; ``ranges`` honours Range; ``shift`` answers with a part that many bytes further on;
    ``failures`` answers so many requests with status 503 first; ``etag`` names the version, which If-Range
    asks for.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.cut_after: int | None = None
        self.lose = 0
        self.ranges = True
        self.shift = 0
        self.etag: str | None = None
        self.failures = 0
        self.requests: list[str | None] = []
        self.url = ""


@contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """Run a server for the duration of the block."""
    state = FileServer(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            state.requests.append(asked)
            if self.path.startswith("/missing"):
                self.send_error(404)
                return
            if self.path.startswith("/moved"):
                self.send_response(302)
                self.send_header("Location", "ftp://127.0.0.1/file" if "ftp" in self.path else "/file")
                self.end_headers()
                return
            if state.failures > 0:
                state.failures -= 1
                self.send_error(503)
                return
            body = state.content[: len(state.content) - state.lose]
            same = self.headers.get("If-Range", state.etag) == state.etag
            wanted = asked and state.ranges and same
            start = int(asked.removeprefix("bytes=").rstrip("-")) + state.shift if asked and wanted else 0
            if start >= len(body) and start:
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if state.etag is not None:
                self.send_header("ETag", state.etag)
            self.end_headers()
            self.wfile.write(body[start:][: state.cut_after])
            self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/file"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
