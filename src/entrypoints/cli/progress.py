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
    """Lend a function to report bytes to; what it shows goes to standard error."""
    if quiet:
        yield lambda _done, _total, _name: None
    elif sys.stderr.isatty():
        with _bar(what, of_bytes=True) as show:
            yield lambda done, total, _name: show(done, total)
    else:
        yield _plain(what)


@contextmanager
def _bar(what: str, *, of_bytes: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Lend a function that draws a bar, from the first report until all is done."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amounts = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(),)
    drawn: list[Progress] = []

    def show(done: int, total: int | None) -> None:
        if not drawn:  # nothing is drawn for work that turns out to be done already
            columns = (TextColumn("{task.description}"), BarColumn(), *amounts, TimeRemainingColumn())
            drawn.append(Progress(*columns, console=Console(stderr=True)))
            drawn[0].start()
            drawn[0].add_task(what, total=None)
        drawn[0].update(drawn[0].task_ids[0], completed=done, total=total)
        if total is not None and done >= total:
            stop()

    def stop() -> None:
        """Leave the terminal to what comes next."""
        if drawn:
            drawn.pop().stop()

    try:
        yield show
    finally:
        stop()


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
    """Lend a function that shows, on standard error, how many of how many are done."""
    if quiet:
        yield lambda _done, _total: None
    elif sys.stderr.isatty():
        with _bar(what, of_bytes=False) as show:
            yield show
    else:
        yield _plain_count(what)


def _plain_count(what: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= PLAIN_SECONDS:
            last = time.monotonic()
            note(f"{done} of {total} {what}")

    return report


def size(nbytes: int) -> str:
    """Write a number of bytes for people, in powers of 1000."""
    value = float(nbytes)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
