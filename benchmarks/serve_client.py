"""A client of the server that costs next to nothing, and the server's process.

Only the standard library's sockets are used: on a small machine a heavier client would take the cores that it
is meant to measure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from attrs import frozen

CHAT = "/v1/chat/completions"
_READY_SECONDS = 1800


@frozen
class Piece:
    """One event of a stream, and how long the reader waited for it."""

    text: str
    finish: str | None
    waited: float


@frozen
class Footprint:
    """What the server's process holds: resident bytes, open files, threads."""

    memory: int
    files: int
    threads: int


class Server:
    """A server to ask, and its process where it is ours."""

    def __init__(self, url: str, pid: int | None = None, token: str | None = None) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        self._token = token
        self._process = None if pid is None else psutil.Process(pid)

    def footprint(self) -> Footprint | None:
        """Return what the process holds, or None where it is not ours."""
        if self._process is None:
            return None
        with self._process.oneshot():
            memory = self._process.memory_info().rss
            return Footprint(memory, self._process.num_fds(), self._process.num_threads())

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a connection and say nothing."""
        return await asyncio.open_connection(self.host, self.port)

    async def ask(
        self, path: str, body: dict[str, Any] | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request, and return with the head of the response read.

        Raises:
            ConnectionError: the status is not 200.
        """
        data = b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{'GET' if body is None else 'POST'} {path} HTTP/1.1",
            f"Host: {self.host}",
            "Connection: close",
            *(("Content-Type: application/json", f"Content-Length: {len(data)}") if data else ()),
            *((f"Authorization: Bearer {self._token}",) if self._token else ()),
        ]
        reader, writer = await self.connect()
        try:
            writer.write("\r\n".join([*lines, "", ""]).encode() + data)
            status = (await reader.readline()).split()
            if status[1:2] != [b"200"]:
                raise ConnectionError(f"status {status}")
            while (await reader.readline()).strip():
                pass
        except BaseException:
            writer.close()
            raise
        return reader, writer

    async def get(self, path: str) -> str:
        """Return the body of a page."""
        reader, writer = await self.ask(path)
        try:
            return (await reader.read()).decode()
        finally:
            writer.close()

    async def whole(self, body: dict[str, Any]) -> str:
        """Return an answer that is not streamed."""
        reader, writer = await self.ask(CHAT, body)
        try:
            return str(json.loads(await reader.read())["choices"][0]["message"]["content"])
        finally:
            writer.close()

    async def stream(self, body: dict[str, Any]) -> AsyncIterator[Piece]:
        """Ask, and yield the pieces of the answer as they come.

        Raises:
            ConnectionError: the stream breaks off.
        """
        asked = time.perf_counter()
        reader, writer = await self.ask(CHAT, {**body, "stream": True})
        try:
            while line := await reader.readline():
                if not line.startswith(b"data: {"):
                    if line.startswith(b"data: [DONE]"):
                        return
                    continue
                now = time.perf_counter()
                event = json.loads(line[6:])
                if "error" in event:
                    raise ConnectionError(event["error"]["message"])
                choice = event["choices"][0]
                text = choice["delta"].get("content") or ""
                if text or choice["finish_reason"]:
                    yield Piece(text, choice["finish_reason"], now - asked)
                    asked = time.perf_counter()
            raise ConnectionError("the stream has no end")
        finally:
            writer.close()


@contextmanager
def server_of(arguments: argparse.Namespace) -> Iterator[Server]:
    """Start a server for the duration of the block, or use the one at ``--url``."""
    if arguments.url:
        yield Server(arguments.url, token=arguments.token)
        return
    command = [
        sys.executable,
        "-m",
        "glm3",
        "serve",
        "-m",
        arguments.model,
        "--http",
        "127.0.0.1:0",
        "--no-grpc",
    ]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen([*command, *arguments.serve], stdout=output, stderr=output)
        try:
            yield Server(_wait_ready(process, log), process.pid)
        finally:
            process.terminate()
            process.wait(60)


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + _READY_SECONDS
    while process.poll() is None and time.monotonic() < end:
        found = re.search(r" at (http://[^ ]+)/v1: ", log.read_text())
        if found:
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"the server does not start:\n{log.read_text()}")
