"""Settings of all tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

# Speed is measured by benchmarks; a deadline would only measure how busy the machine is.
settings.register_profile("glm3", deadline=None)
settings.load_profile("glm3")


@pytest.fixture(autouse=True, scope="module")
def own_logs() -> Iterator[None]:
    """Undo what a command that runs inside a test sets for the whole process."""
    configuration, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**configuration)
    root.handlers[:] = handlers
    root.setLevel(level)
