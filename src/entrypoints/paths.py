"""Folders: the package's own resources, and the user's as the XDG base directory specification names them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder", "resources_folder", "state_folder"]


def cache_folder() -> Path:
    """Return where compiled kernels go: ``GLM3_CACHE``, or ``glm3`` in the user's cache."""
    if named := os.environ.get("GLM3_CACHE"):
        return Path(named)
    return _user_folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """Return where the chat's input history is kept."""
    return _user_folder("XDG_STATE_HOME", ".local/state")


def _user_folder(variable: str, usual: str) -> Path:
    named = os.environ.get(variable)
    return (Path(named) if named else Path.home() / usual) / "glm3"


def resources_folder() -> Path:
    """Return the folder of what ships with the package: the embedded model, its rows, the YAML files."""
    return Path(__file__).resolve().parents[1] / "resources"
