"""What a rank computes with, updates and stores of a network whose matrices ranks share.

Ranks are numbered row by row in the matrix (data parallel, model parallel). What a rank computes with is not
what its files hold of query, key and value and of SwiGLU's input, see
:mod:`glm3.domain.layout.tensor_parallel`: ranks exchange these when they are saved and restored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from attrs import field, frozen

from glm3.domain.errors import ConfigError, ParameterMismatchError
from glm3.domain.layout.boxes import Box, box_shape, relative_to, whole
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.layout.tensor_layout import Shape
from glm3.domain.layout.tensor_parallel import TensorParallel
from glm3.domain.lazy_arrays import LazyArrays
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes
from glm3.domain.ports.communicator import Communicator, SupportsGroups
from glm3.domain.tensors import Array
from glm3.domain.training.shares import parameter_of

__all__ = ["ModelShares"]

Parts = tuple[Box, ...]
"""Boxes of a complete tensor that are joined along axis 0."""


@frozen(eq=False)
class ModelShares:
    """One rank's shares, and what ranks exchange for them.

    ``world`` is the whole job, ``data`` the ranks that have this one's part of the matrices, ``model`` those
    that together have the network. ``itemsize`` is the bytes of a stored parameter's element, which decides
    what of the optimizer is shared out. Where a method says that ranks exchange, all must call it for the
    same parameters in the same order.
    """

    config: ModelConfig
    cut: NetworkCut
    itemsize: int
    world: Communicator
    data: Communicator
    model: Communicator
    ways: TensorParallel = field(init=False)
    shapes: Mapping[str, Shape] = field(init=False)

    @ways.default
    def _ways(self) -> TensorParallel:
        return TensorParallel(self.config, self.cut.model_parallel, self.cut.vocab_emb_dp)

    @shapes.default
    def _shapes(self) -> dict[str, Shape]:
        return parameter_shapes(self.config)

    @classmethod
    def among(
        cls, config: ModelConfig, cut: NetworkCut, itemsize: int, communicator: Communicator
    ) -> ModelShares:
        """Divide a job's ranks into groups; every rank must call it.

        Raises:
            ConfigError: the ranks are not as many as the cut asks for, or the network cannot be cut so.
        """
        TensorParallel(config, cut.model_parallel, cut.vocab_emb_dp)
        if cut.ranks_per_stage != communicator.world_size or cut.pipeline_stage != 1:
            raise ConfigError(
                "the cut is for another number of ranks",
                field="parallel_config",
                expected=f"data_parallel * model_parallel = {communicator.world_size}",
                found=cut.ranks_per_stage * cut.pipeline_stage,
            )
        if not isinstance(communicator, SupportsGroups):
            raise ConfigError(
                "one rank alone shares no matrices", field="parallel_config.model_parallel", expected=1
            )
        copy, place = divmod(communicator.rank, cut.model_parallel)
        data, model = communicator.split(place), communicator.split(copy)
        return cls(config, cut, itemsize, communicator, data, model)

    def held(self, name: str, rank: int | None = None) -> Parts:
        """Return what a rank, this one or another, computes with of a parameter."""
        rank = self.world.rank if rank is None else rank
        return self.ways.parts(name, self.shapes[name], rank % self.cut.model_parallel)

    def held_shape(self, name: str) -> Shape:
        """Return the shape of what a rank computes with, the same on each."""
        return _joined_shape(self.held(name))

    def updated_rows(self, name: str, rank: int | None = None) -> slice | None:
        """Return the rows of the held parameter that a rank updates, None where it updates all of them.

        Where a group of key and value is held by several ranks its rows may not divide: all are updated.
        """
        ranks, rows = self.cut.data_parallel, self.held_shape(name)[0]
        layout = self.cut.layout(name, self.shapes[name], self.itemsize)
        if layout.optimizer_shards == 1 or rows % ranks:
            return None
        copy = (self.world.rank if rank is None else rank) // self.cut.model_parallel
        return slice(copy * rows // ranks, (copy + 1) * rows // ranks)

    @property
    def rows(self) -> dict[str, slice]:
        """The rows of each held parameter whose update is shared out that this rank updates."""
        found = {name: self.updated_rows(name) for name in self.shapes}
        return {name: rows for name, rows in found.items() if rows is not None}

    def updated(self, name: str, rank: int | None = None) -> Parts:
        """Return the parts of the complete parameter that a rank updates."""
        rows = self.updated_rows(name, rank)
        return self.held(name, rank) if rows is None else _take_rows(self.held(name, rank), rows)

    def stored(self, name: str, rank: int | None = None, *, sharded: bool = True) -> Box:
        """Return what a rank's file holds; without ``sharded`` what those of its copies hold together."""
        rank, shape = self.world.rank if rank is None else rank, self.shapes[name]
        cut = (
            self.cut
            if sharded
            else NetworkCut(model_parallel=self.cut.model_parallel, vocab_emb_dp=self.cut.vocab_emb_dp)
        )
        ranks = cut.ranks_per_stage
        return cut.layout(name, shape, self.itemsize).slices(shape, rank % ranks)

    @property
    def stored_rows(self) -> dict[str, slice]:
        """The rows that this rank's file holds of each parameter's part, where copies share them out."""
        found = {}
        for name in self.shapes:
            own, all_copies = self.stored(name), self.stored(name, sharded=False)
            if own != all_copies:
                found[name] = relative_to(own, all_copies)[0]
        return found

    def copies(self, name: str) -> int:
        """Return how many ranks update the same numbers: those outside of key and value at least."""
        ranks = self.world.world_size
        held = self.cut.model_parallel if self.ways.is_cut(name, self.shapes[name]) else 1
        return ranks // held // (1 if self.updated_rows(name) is None else self.cut.data_parallel)

    def complete(self, name: str, held: Array) -> Array:
        """Return a complete parameter; ranks exchange where they have parts."""
        if not self.ways.is_cut(name, self.shapes[name]):
            return held
        first = self.world.rank - self.model.rank
        return self._joined(name, self.model.all_gather(held), lambda i: self.held(name, first + i))

    def to_store(self, name: str, held: Array) -> Array:
        """Return the part of the file, together with copies, from what is held; ranks may exchange."""
        part = self.stored(name, sharded=False)
        if self.held(name) == (part,):
            return held
        return np.array(self.complete(name, held)[part])

    def state_to_store(self, name: str, updated: Array) -> Array:
        """Return the part of the file from a state of what is updated; ranks may exchange."""
        part = self.stored(name)
        if self.updated(name) == (part,) and len(self.held(name)) == 1:
            return updated
        if self.updated_rows(name) is None:
            return np.array(self.complete(name, updated)[part])
        pieces = self.world.all_gather(updated)
        return np.array(self._joined(name, pieces, lambda rank: self.updated(name, rank))[part])

    def from_store(self, name: str, array: Array, state: str | None = None) -> Array:
        """Return what is held, or of a ``state`` what is updated, from a complete array or a file's part.

        Ranks exchange parts; see :meth:`complete_of_store`.
        """
        wanted = self.held(name) if state is None else self.updated(name)
        if len(self.held(name)) == 1 and wanted == (self._part_of(name, array.shape, state),):
            return array
        complete = self.complete_of_store(name, array, state)
        return np.concatenate([complete[box] for box in wanted])

    def complete_of_store(self, name: str, array: Array, state: str | None = None) -> Array:
        """Return a complete parameter, or a ``state`` of it, of which every rank has its file's part.

        Ranks exchange parts. They may have been stored with or without the optimizer, or the embedding,
        shared out.

        Raises:
            ParameterMismatchError: it is neither complete nor this rank's part.
        """
        if self._part_of(name, array.shape, state) == whole(self.shapes[name]):
            return array
        pieces = self.world.all_gather(array)
        return self._joined(
            name, pieces, lambda rank: (self._part_of(name, pieces[rank].shape, state, rank),)
        )

    def held_arrays(self, parameters: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return what is held of stored parameters, each made when it is looked up; ranks exchange."""
        return LazyArrays({name: partial(self._held_array, name, parameters) for name in parameters})

    def updated_arrays(self, states: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return what this rank updates of stored states; what belongs to no parameter is as it was."""
        return LazyArrays({name: partial(self._updated_array, name, states) for name in states})

    def _held_array(self, name: str, parameters: Mapping[str, Array]) -> Array:
        array = parameters[name]
        return self.from_store(name, array) if name in self.shapes else array

    def _updated_array(self, name: str, states: Mapping[str, Array]) -> Array:
        array, parameter = states[name], parameter_of(name)
        return self.from_store(parameter, array, name) if parameter in self.shapes else array

    def _part_of(
        self, name: str, shape: Sequence[int], state: str | None = None, rank: int | None = None
    ) -> Box:
        """Return the part of a complete parameter that a rank's array of this shape is."""
        complete = self.shapes[name]
        for box in (self.stored(name, rank), self.stored(name, rank, sharded=False), whole(complete)):
            if box_shape(box) == tuple(shape):
                return box
        wrong = (state or name, box_shape(self.stored(name, rank)), tuple(shape))
        raise ParameterMismatchError(mis_shaped=[wrong])

    def _joined(self, name: str, pieces: Sequence[Array], parts_of: Callable[[int], Parts]) -> Array:
        """Return the complete tensor of which ``parts_of`` an index ``pieces`` holds each, joined."""
        complete = np.zeros(self.shapes[name], pieces[0].dtype)
        for index, piece in enumerate(pieces):
            start = 0
            for box in parts_of(index):
                rows = box[0].stop - box[0].start
                complete[box] = piece[start : start + rows]
                start += rows
        return complete


def _joined_shape(parts: Parts) -> Shape:
    return (sum(box[0].stop - box[0].start for box in parts), *box_shape(parts[0])[1:])


def _take_rows(parts: Parts, rows: slice) -> Parts:
    """Return the parts of some rows of parts that are joined along axis 0."""
    taken, start = [], 0
    for own, *others in parts:
        size = own.stop - own.start
        first, last = max(rows.start - start, 0), min(rows.stop - start, size)
        if first < last:
            taken.append((slice(own.start + first, own.start + last), *others))
        start += size
    return tuple(taken)
