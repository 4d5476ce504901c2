"""A real Chromium without a window, and a page of it that tolerates no error."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import define, field
from playwright.sync_api import Browser, Page, sync_playwright

from support.packages import install_packages

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_path() -> str:
    """Return the browser's path; Debian's package is installed where it is missing and that is possible.

    The test is skipped where it is not.
    """
    found = _find()
    if found is None:
        reason = install_packages(["chromium"])
        found = _find()
        if found is None:
            pytest.skip(f"no Chromium here, and it cannot be installed: {reason}")
    return found


def _find() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser for the duration of the block."""
    path = chromium_path()
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@define
class Watched:
    """A page, and what it did that a test looks at.

    ``tolerated`` are patterns of the only errors that may appear on the console; ``asked`` are the bodies
    sent to the model; ``addresses`` is everything that was loaded.
    """

    page: Page
    errors: list[str] = field(factory=list)
    tolerated: list[str] = field(factory=list)
    asked: list[Any] = field(factory=list)
    addresses: list[str] = field(factory=list)

    def intolerable(self) -> list[str]:
        return [error for error in self.errors if not any(re.search(p, error) for p in self.tolerated)]


@contextmanager
def watched_page(browser: Browser, **context: Any) -> Iterator[Watched]:
    """Open a page in a context of its own; at the end no error may have appeared, and no dialog unasked."""
    made = browser.new_context(**{"locale": "en-US", "viewport": {"width": 1100, "height": 800}, **context})
    made.set_default_timeout(30_000)
    page = made.new_page()
    watched = Watched(page)

    def see_request(request: Any) -> None:
        watched.addresses.append(request.url)
        if request.url.endswith("/v1/chat/completions"):
            watched.asked.append(request.post_data_json)

    page.on("request", see_request)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("console", lambda said: said.type in ("error", "warning") and watched.errors.append(said.text))
    try:
        yield watched
        assert watched.intolerable() == []
    finally:
        made.close()
