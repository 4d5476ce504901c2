"""``glm3 serve`` in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from attrs import define

_SWITCHES = ("GLM3_", "ASCEND_", "FORCE_COLOR", "COLUMNS")


@define
class ServeProcess:
    """A running server; ``log`` is what it writes to standard error."""

    process: subprocess.Popen[bytes]
    log_path: Path
    url: str = ""
    grpc: str = ""

    @property
    def log(self) -> str:
        return self.log_path.read_text(encoding="utf-8")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 30) -> int:
        return self.process.wait(timeout)


@contextmanager
def serve_process(
    *arguments: str,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Iterator[ServeProcess]:
    """Run ``glm3 serve`` at a free port until the end of the block; it is ready inside.

    ``arguments`` stand before the command's name, its own ``options`` behind it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SWITCHES)}
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "glm3",
                    *arguments,
                    "serve",
                    "--http",
                    "127.0.0.1:0",
                    "--grpc",
                    "127.0.0.1:0",
                    *options,
                ],
                stdout=log,
                stderr=log,
                env={**inherited, "PYTHONIOENCODING": "utf-8", **(environment or {})},
            )
        server = ServeProcess(process, log_path)
        try:
            end = time.monotonic() + timeout
            while not server.url:
                assert process.poll() is None, server.log
                assert time.monotonic() < end, server.log
                time.sleep(0.05)
                if found := re.search(r" at (http://127\.0\.0\.1:\d+)/v1: ", server.log):
                    server.url = found[1]
            if found := re.search(r" at grpc://(127\.0\.0\.1:\d+)", server.log):
                server.grpc = found[1]
            yield server
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(timeout=10)
