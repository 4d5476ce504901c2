"""Prepare the process for MindSpore. Nothing here imports it before :func:`prepare` is called."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from glm3.domain.errors import BackendError

__all__ = ["forget_gradients", "graph_mode", "held_interrupts", "import_mindspore", "prepare"]

_prepared: str | None = None

_ENVIRONMENT = {
    "GLOG_v": "3",  # errors only; level 1 prints hundreds of lines
    # Without them idle OpenMP workers spin and take the cores from MindSpore's own pool: a training step of
    # 300 ms took 510 ms on 2 cores with g++'s, one of 230 ms took 280 to 410 ms with clang++'s. All libraries
    # read their variable when they are loaded.
    "GOMP_SPINCOUNT": "1000",
    "KMP_BLOCKTIME": "0",
}


_ASCEND_ENVIRONMENT = {
    # Both are what the model card exports before inference: operators of a graph are launched one by one,
    # and attention over blocks uses the kernels that know them.
    "GRAPH_OP_RUN": "1",
    "MS_ENABLE_INTERNAL_KERNELS": "on",
}


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends. Only the main thread can, and only it would be interrupted."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        signal.raise_signal(signal.SIGINT)


def import_mindspore() -> None:
    """Import MindSpore whole: half of it, as Ctrl-C would leave it, aborts the process at its end."""
    with held_interrupts():
        import mindspore  # noqa: F401


def prepare(threads: int | None = None, target: str = "CPU") -> None:
    """Import MindSpore and set it up for ``CPU`` or ``Ascend``; what the environment says already stays.

    ``threads`` limits the worker threads; by default MindSpore takes all cores. The first call decides:
    MindSpore does not let a running process change its mind, so later calls for the same device do nothing.

    Raises:
        BackendError: MindSpore cannot use the device, or this process uses another one.
    """
    global _prepared
    if _prepared is not None:
        if _prepared != target:
            raise BackendError("this process uses another device", expected=target, found=_prepared)
        return
    _prepared = target
    environment = _ENVIRONMENT if target == "CPU" else {**_ENVIRONMENT, **_ASCEND_ENVIRONMENT}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    if threads is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    import_mindspore()
    import mindspore

    try:
        if target == "CPU":
            mindspore.set_device(target)
        else:
            mindspore.set_device(target, int(os.environ.get("DEVICE_ID", "0")))
    except (RuntimeError, ValueError) as error:
        _prepared = None
        raise BackendError(
            f"MindSpore cannot use {target}",
            found=str(error).strip().splitlines()[0],
            hint="glm3 doctor says what is missing",
        ) from error
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
    if target != "CPU":
        return
    # Custom operators start their threads outside MindSpore's own queue: without blocking launches the
    # next operator may read a result before it is there.
    mindspore.runtime.launch_blocking()
    if threads is not None:
        mindspore.runtime.dispatch_threads_num(threads)


def forget_gradients() -> None:
    """End what an exception inside ``mindspore.grad`` left open: later operators gave wrong numbers."""
    from mindspore.graph.api import _pynative_executor

    _pynative_executor.clear_res()
    _pynative_executor.set_grad_flag(False)


@contextmanager
def graph_mode() -> Iterator[None]:
    """Compile the cells called inside the block as whole graphs: twice as fast for a training step."""
    prepare(target=_prepared or "CPU")
    import mindspore

    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    try:
        yield
    finally:
        mindspore.set_context(mode=before)
