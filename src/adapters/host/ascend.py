"""Traces of an Ascend accelerator: device files, driver, CANN, its Python modules."""

from __future__ import annotations

import os
import re
import shutil
from importlib.util import find_spec
from pathlib import Path

from glm3.domain.host import AscendFacts

__all__ = ["read_ascend"]

TOOLKIT_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
TOOLKIT_VERSION_FILES = ("version.cfg", "compiler/version.info", "runtime/version.info", "version.info")
_VERSION = re.compile(r"^\s*\w*?version\w*\s*=\s*\[?(?:[\d.]*:)?([\w.\-]+)", re.IGNORECASE | re.MULTILINE)


def read_ascend(root: Path = Path("/")) -> AscendFacts:
    """Collect what is there below ``root``; on a machine without Ascend everything is empty."""
    install = root / "usr/local/Ascend"
    toolkit = _toolkit(install)
    return AscendFacts(
        device_files=tuple(sorted(f"/dev/{path.name}" for path in (root / "dev").glob("davinci[0-9]*"))),
        npu_smi=shutil.which("npu-smi"),
        driver_version=_version(install / "driver/version.info"),
        toolkit=None if toolkit is None else str(toolkit),
        toolkit_version=None
        if toolkit is None
        else next(filter(None, (_version(toolkit / name) for name in TOOLKIT_VERSION_FILES)), None),
        tbe_modules=frozenset(name for name in ("te", "tbe", "tvm") if find_spec(name) is not None),
    )


def _toolkit(install: Path) -> Path | None:
    named = [Path(os.environ[name]) for name in TOOLKIT_VARIABLES if os.environ.get(name)]
    usual = [install / "ascend-toolkit/latest", install / "latest", install / "nnae/latest"]
    return next((folder for folder in [*named, *usual] if folder.is_dir()), None)


def _version(path: Path) -> str | None:
    try:
        found = _VERSION.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found.group(1) if found else None
