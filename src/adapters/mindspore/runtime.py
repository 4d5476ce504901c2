"""Prepare the process for MindSpore. Nothing here imports it before :func:`prepare` is called."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["graph_mode", "prepare"]

_prepared = False

_ENVIRONMENT = {
    "GLOG_v": "3",  # errors only; level 1 prints hundreds of lines
    # Without it idle OpenMP workers spin and take the cores from MindSpore's own pool: a training step of
    # 300 ms took 510 ms on 2 cores. Both libraries read their variable when they are loaded.
    "GOMP_SPINCOUNT": "1000",
}


def prepare(threads: int | None = None) -> None:
    """Import MindSpore and set it up for the CPU; what the user has set in the environment stays.

    ``threads`` limits the worker threads; by default MindSpore takes all cores. The first call decides:
    MindSpore does not let a running process change its mind, so later calls do nothing.
    """
    global _prepared
    if _prepared:
        return
    _prepared = True
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import mindspore

    mindspore.set_device("CPU")
    # Custom operators start their threads outside MindSpore's own queue: without blocking launches the
    # next operator may read a result before it is there.
    mindspore.runtime.launch_blocking()
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    if threads is not None:
        mindspore.runtime.dispatch_threads_num(threads)


@contextmanager
def graph_mode() -> Iterator[None]:
    """Compile the cells called inside the block as whole graphs: twice as fast for a training step."""
    prepare()
    import mindspore

    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    try:
        yield
    finally:
        mindspore.set_context(mode=before)
