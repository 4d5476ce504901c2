"""Do slow things ahead of time in threads, and take their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order"]


_T = TypeVar("_T")


def in_order(jobs: Iterable[Callable[[], _T]], *, threads: int = 2, ahead: int = 4) -> Iterator[_T]:
    """Yield the result of every job in the order of the jobs, at most ``ahead`` of them finished and waiting.

    A job's exception is raised where its result would have come. Reading, writing and checksums let other
    threads run meanwhile.
    """
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[_T]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(job))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
