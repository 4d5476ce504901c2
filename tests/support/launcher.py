"""Run ``glm3 launch`` in a process of its own, with ranks that are small scripts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

SSH = '#!/bin/sh\n# As ssh: HOST COMMAND.\nexec sh -c "$2"\n'


def write_table(folder: Path, servers: int = 1, devices: int = 2) -> Path:
    """Write a sound rank table: with one, ranks of any script start without MindSpore."""
    listed = [
        {
            "server_id": f"10.0.0.{s}",
            "device": [
                {"device_id": str(d), "device_ip": f"192.0.{s}.{d}", "rank_id": str(s * devices + d)}
                for d in range(devices)
            ],
        }
        for s in range(servers)
    ]
    table = {
        "version": "1.0",
        "server_count": str(servers),
        "server_list": listed,
        "status": "completed",
    }
    path = folder / f"hccl_{servers}s_{servers * devices}p.json"
    path.write_text(json.dumps(table))
    return path


def write_ssh(folder: Path) -> Path:
    """Write a stand-in for ssh that runs the command here."""
    path = folder / "ssh.sh"
    path.write_text(SSH)
    path.chmod(0o755)
    return path


class Launched:
    """A running launcher; whatever happens, nothing of it is left."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        own = ("GLM3_", "RANK_", "MS_", "LOG_MF")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "glm3", "launch", *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            env={**inherited, **variables},
        )
        self.lines: list[str] = []

    def __enter__(self) -> Launched:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()  # its ranks die with it
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def read(self) -> Iterator[str]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            yield self.lines[-1]

    def until(self, *parts: str) -> list[str]:
        """Read until each of the parts has been printed; return the first line with each."""
        found: dict[str, str] = {}
        for line in self.read():
            for part in parts:
                if part in line:
                    found.setdefault(part, line)
            if len(found) == len(parts):
                return [found[part] for part in parts]
        raise AssertionError(f"ended without {set(parts) - set(found)}: {self.lines}")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """Return exit code and everything that was printed."""
        for _ in self.read():
            pass
        return self.process.wait(timeout=30), "\n".join(self.lines)


def gone(pid: int, seconds: float = 10) -> bool:
    """Tell whether a process ends in time; it is killed if it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return False
