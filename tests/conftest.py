"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

# Speed is measured by benchmarks; a deadline would only measure how busy the machine is.
settings.register_profile("glm3", deadline=None)
settings.load_profile("glm3")
