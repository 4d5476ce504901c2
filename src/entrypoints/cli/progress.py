"""Show how far a long job is: a bar at a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from glm3.entrypoints.cli.output import note

__all__ = ["Report", "counting", "progress", "size"]

Report = Callable[[int, int | None, str], None]
"""Bytes done, bytes in all if that is known, and the name of what is worked on."""

PLAIN_SECONDS = 5.0
"""Between two plain lines: a log file should stay readable."""


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator[Report]:
    """Lend a function to report to; what it shows goes to standard error."""
    if quiet:
        yield lambda _done, _total, _name: None
    elif sys.stderr.isatty():
        with _bar(what) as report:
            yield report
    else:
        yield _plain(what)


@contextmanager
def _bar(what: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        Speed(),
        TimeRemainingColumn(),
    )
    tasks: list[TaskID] = []

    def report(done: int, total: int | None, _name: str) -> None:
        if not tasks:  # nothing is drawn for work that turns out to be done already
            bars.start()
            tasks.append(bars.add_task(what, total=None))
        bars.update(tasks[0], completed=done, total=total)

    bars = Progress(*columns, console=Console(stderr=True))
    try:
        yield report
    finally:
        bars.stop()


def _plain(what: str) -> Report:
    last = time.monotonic()

    def report(done: int, total: int | None, _name: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PLAIN_SECONDS or (done == total and now - last >= 1):
            last = now
            share = f"{100 * done // total} %, {size(done)} of {size(total)}" if total else size(done)
            note(f"{what}: {share}")

    return report


@contextmanager
def counting(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Lend a function that says now and then, on standard error, how many of how many are done."""
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            note(f"{done} of {total} {what}")

    yield report


def size(nbytes: int) -> str:
    """Write a number of bytes for people, in powers of 1000."""
    value = float(nbytes)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
