"""The communicator port over MindSpore's distributed runtime: HCCL on Ascend, its own TCP rings on the CPU.

Of the CPU's collectives only the sum of float32 and float16 is there, and for the whole job the gathering and
broadcasting of some element types. Everything else is composed of these: numbers that they cannot carry
travel as the bits of int32, other reductions gather first, and in a group of fewer ranks the gathering is a
sum to which every rank adds zeros but in its own place.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from glm3.adapters.mindspore.rendezvous import Hub, Rendezvous
from glm3.adapters.mindspore.runtime import prepare
from glm3.domain.collectives import combine, missing_ranks, part_of, require_axis, require_root
from glm3.domain.errors import BackendError, CommunicationError
from glm3.domain.ports.communicator import ReduceOp
from glm3.domain.tensors import Array

__all__ = ["WAIT_SECONDS", "MindSporeCommunicator", "device_of_job", "join_job", "serve_as_scheduler"]

WAIT_SECONDS = 1800.0
"""How long a rank waits for the others before it gives up; an evaluation on one rank must end in it."""

_ADDRESS_BYTES = 512
_RETRY = {"MS_RETRY_INTERVAL_LOWER": "1", "MS_RETRY_INTERVAL_UPPER": "1"}
"""Ranks that start before the scheduler ask again after a second: a start of 31 seconds took 6."""


class MindSporeCommunicator:
    """One rank of a group of MindSpore's processes; see :func:`join_job`.

    ``group`` is the runtime's name of the group, for collectives inside compiled graphs.
    """

    def __init__(self, group: str, members: Sequence[int], rank: int, rendezvous: Rendezvous) -> None:
        from mindspore import ops
        from mindspore.communication import GlobalComm

        self.group = group
        self._is_world = group == GlobalComm.WORLD_COMM_GROUP
        self._members = tuple(members)
        self._own = rank
        self._rendezvous = rendezvous
        self._sum = ops.AllReduce(group=group)
        self._gather_all = ops.AllGather(group=group)

    @property
    def rank(self) -> int:
        return self._members.index(self._own)

    @property
    def world_size(self) -> int:
        return len(self._members)

    def all_reduce(self, array: Array, op: ReduceOp = ReduceOp.SUM) -> Array:
        array = np.array(array)
        self._meet(f"all_reduce {op} {array.dtype} {array.shape}")
        if op is ReduceOp.MAX or array.dtype not in (np.float32, np.float16):
            return combine(self._gathered(array), op)
        total = self._native(self._sum, array.reshape(-1)).reshape(array.shape)
        return total / array.dtype.type(self.world_size) if op is ReduceOp.MEAN else total

    def all_gather(self, array: Array) -> list[Array]:
        array = np.array(array, order="C")
        facts = self._meet("all_gather", [array.dtype.str, array.shape])
        kinds = [np.dtype(name) for name, _ in facts]
        sizes = [int(np.prod(shape)) * kind.itemsize for kind, (_, shape) in zip(kinds, facts, strict=True)]
        parts = self._gather(_words(array, max(sizes)))
        return [
            _array(part, size, kind, shape)
            for part, size, kind, (_, shape) in zip(parts, sizes, kinds, facts, strict=True)
        ]

    def reduce_scatter(self, array: Array, op: ReduceOp = ReduceOp.SUM) -> Array:
        require_axis(array)
        return np.array(self.all_reduce(array, op)[part_of(len(array), self.rank, self.world_size)])

    def broadcast(self, array: Array, root: int = 0) -> Array:
        require_root(root, self.world_size)
        array = np.array(array, order="C")
        dtype, shape = self._meet(f"broadcast from {root}", [array.dtype.str, array.shape])[root]
        kind, size = np.dtype(dtype), int(np.prod(shape)) * np.dtype(dtype).itemsize
        words = _words(array, size) if root == self.rank else np.zeros(_words_of(size), np.int32)
        if self._is_world:
            received = self._native(_broadcast(root, self.group), words)
        else:
            received = self._gather(words)[root]
        return _array(received, size, kind, shape)

    def barrier(self) -> None:
        self._meet("barrier")

    def split(self, color: int) -> MindSporeCommunicator:
        """See :class:`glm3.domain.ports.communicator.SupportsGroups`."""
        from mindspore.communication import create_group

        colors = self._meet("split", color)
        members = [rank for rank, other in zip(self._members, colors, strict=True) if other == color]
        group = f"glm3-{secrets.token_hex(4)}" if members[0] == self._own else ""
        names = self._meet("split into groups", group)
        name = names[self._members.index(members[0])]
        with self.native(f"making the group {members}"):
            create_group(name, members)
        return MindSporeCommunicator(name, members, self._own, self._rendezvous)

    def meet(self, what: str) -> None:
        """Return once every rank is about to do ``what``: the runtime itself waits 30 seconds only.

        Raises:
            CommunicationError: ranks are missing.
        """
        self._meet(what)

    @contextmanager
    def native(self, what: str) -> Iterator[None]:
        """Turn the runtime's failures inside the block into errors that name who is missing."""
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, (BackendError, CommunicationError)):
                raise
            gone = self._rendezvous.gone()
            lost = f"{missing_ranks(gone)} missing: {what} failed" if gone else f"{what} failed"
            raise CommunicationError(lost, missing=gone, found=str(error).strip().split("\n")[0]) from error

    def _gathered(self, array: Array) -> list[Array]:
        parts = self._gather(_words(array, array.nbytes))
        return [_array(part, array.nbytes, array.dtype, array.shape) for part in parts]

    def _gather(self, words: Array) -> Array:
        """Return the words of every rank, as many of each, as rows."""
        if self._is_world:
            return self._native(self._gather_all, words).reshape(self.world_size, -1)
        halves = np.zeros((self.world_size, 2 * len(words)), np.float32)  # which holds 16 bits exactly
        halves[self.rank] = words.view(np.uint16)
        summed = self._native(self._sum, halves.reshape(-1))
        return summed.astype(np.uint16).view(np.int32).reshape(self.world_size, -1)

    def _native(self, collective: Callable[[Any], Any], array: Array) -> Array:
        import mindspore as ms

        if not array.size:
            return np.zeros((0,), array.dtype)
        with self.native("a collective"):
            return np.array(collective(ms.Tensor.from_numpy(array)).asnumpy())

    def _meet(self, call: str, fact: Any = None) -> list[Any]:
        return self._rendezvous.meet(self.group, self._members, call, fact)


def join_job(timeout: float = WAIT_SECONDS) -> MindSporeCommunicator:
    """Join the job that the environment describes, as msrun or a rank table does, and return its world.

    Raises:
        BackendError: the runtime refused.
        CommunicationError: the ranks did not come together.
    """
    for name, value in _RETRY.items():
        os.environ.setdefault(name, value)
    prepare(target=device_of_job(os.environ))
    import mindspore as ms
    from mindspore.communication import GlobalComm, get_group_size, get_rank, init  # after prepare

    try:
        init()
        rank, size, group = int(get_rank()), int(get_group_size()), str(GlobalComm.WORLD_COMM_GROUP)
    except (RuntimeError, ValueError, TypeError) as error:
        raise BackendError(
            "the job's ranks did not come together",
            found=str(error).strip().split("\n")[0],
            hint="start all ranks of the job at once, with one MS_SCHED_HOST and MS_SCHED_PORT: glm3 launch",
        ) from error
    card = np.zeros(_ADDRESS_BYTES, np.int32)
    hub: Hub | None = None
    if rank == 0:
        host, secret = _own_host(), secrets.token_hex(16)
        hub = Hub(host, secret)
        text = json.dumps([host, hub.port, secret]).encode()
        card[: len(text)] = np.frombuffer(text, np.uint8)
    sent = _broadcast(0, group)(ms.Tensor.from_numpy(card)).asnumpy()
    host, port, secret = json.loads(bytes(sent.astype(np.uint8)).rstrip(b"\0"))
    rendezvous = Rendezvous((host, port), secret, rank, timeout)

    def leave() -> None:
        rendezvous.close()
        if hub is not None:
            hub.wait_until_left()

    atexit.register(leave)
    return MindSporeCommunicator(group, range(size), rank, rendezvous)


def device_of_job(environment: Mapping[str, str]) -> str:
    """Return what the ranks of a job compute on: a rank table without a dynamic cluster means Ascend."""
    return "Ascend" if "RANK_TABLE_FILE" in environment and "MS_ROLE" not in environment else "CPU"


def serve_as_scheduler() -> None:
    """Keep the list of a dynamic cluster's ranks until they have ended: what MS_ROLE=MS_SCHED asks for.

    Raises:
        CommunicationError: a rank ended without saying goodbye.
    """
    prepare()
    from mindspore.communication import init

    try:
        init()
    except RuntimeError as error:
        raise CommunicationError(
            "the job broke off", found=str(error).strip().split("\n")[0], hint="see the logs of its ranks"
        ) from error


def _broadcast(root: int, group: str) -> Callable[[Any], Any]:
    from mindspore import ops

    send = ops.Broadcast(root, group=group)
    return lambda tensor: send((tensor,))[0]


def _own_host() -> str:
    """Return the address of this host as the others see it: that of the way to the scheduler."""
    scheduler = os.environ.get("MS_SCHED_HOST") or os.environ.get("MASTER_ADDR")
    if scheduler is None:
        return socket.gethostbyname(socket.gethostname())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((scheduler, int(os.environ.get("MS_SCHED_PORT", "1"))))
        return str(probe.getsockname()[0])


def _words_of(nbytes: int) -> int:
    return -(-nbytes // 4)


def _words(array: Array, nbytes: int) -> Array:
    """Return an array's bytes as int32, with zeros up to ``nbytes``."""
    words = np.zeros(_words_of(nbytes), np.int32)
    words.view(np.uint8)[: array.nbytes] = np.frombuffer(array.tobytes(), np.uint8)
    return words


def _array(words: Array, nbytes: int, dtype: np.dtype[Any], shape: Sequence[int]) -> Array:
    return np.frombuffer(words.tobytes()[:nbytes], dtype).reshape(tuple(shape)).copy()
