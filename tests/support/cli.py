"""Run the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_SWITCHES = ("GLM3_", "ASCEND_", "FORCE_COLOR", "COLUMNS")


def glm3(
    *arguments: str,
    stdin: str = "",
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
    python_options: tuple[str, ...] = (),
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run ``glm3`` as a user does, without the settings of the shell that runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_SWITCHES)}
    return subprocess.run(
        [sys.executable, *python_options, "-m", "glm3", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
        cwd=cwd,
        env={**inherited, "PYTHONIOENCODING": "utf-8", **(environment or {})},
    )
