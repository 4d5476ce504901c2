"""Which rows of a parameter a rank updates where ranks share the optimizer's work and states."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from glm3.domain.errors import ConfigError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.lazy_arrays import LazyArrays
from glm3.domain.parameters import OPTIMIZER_PREFIXES
from glm3.domain.ports.communicator import Communicator
from glm3.domain.tensors import Array

__all__ = ["complete_rows", "own_rows", "parameter_of", "require_plain", "shared_rows"]


def shared_rows(
    cut: NetworkCut, shapes: Mapping[str, tuple[int, ...]], itemsizes: Mapping[str, int], rank: int
) -> dict[str, slice]:
    """Return the rows that fall to ``rank`` of every parameter that is shared out; others it updates whole.

    Shapes are those of complete parameters, and ``itemsizes`` the bytes of their elements.
    """
    rows = {}
    for name, shape in shapes.items():
        layout = cut.layout(name, shape, itemsizes[name])
        if layout.optimizer_shards > 1:
            rows[name] = layout.slices(shape, rank)[0]
    return rows


def require_plain(cut: NetworkCut, world_size: int) -> None:
    """Check that every rank has the whole network, and that the cut is for so many ranks.

    Raises:
        ConfigError: layers or matrices are cut as well.
    """
    for name, ranks in (("model_parallel", cut.model_parallel), ("pipeline_stage", cut.pipeline_stage)):
        if ranks > 1:
            raise ConfigError(
                "every rank must have the whole network here",
                field=f"parallel_config.{name}",
                expected=1,
                found=ranks,
                hint="raise data_parallel and set parallel.enable_parallel_optimizer=True to save memory",
            )
    if cut.data_parallel != world_size:
        raise ConfigError(
            "the cut is for another number of ranks",
            field="parallel_config.data_parallel",
            expected=world_size,
            found=cut.data_parallel,
        )


def own_rows(
    arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], rows: Mapping[str, slice]
) -> Mapping[str, Array]:
    """Return arrays with those that are complete cut to a rank's ``rows``.

    Names are those of parameters or of states of theirs; ``shapes`` are those of complete parameters.
    """

    def cut(name: str, own: slice, whole: tuple[int, ...]) -> Array:
        array = arrays[name]
        return array[own] if array.shape == whole else array

    lazy = {}
    for name in arrays:
        parameter = parameter_of(name)
        if parameter in rows:
            lazy[name] = partial(cut, name, rows[parameter], shapes[parameter])
        else:
            lazy[name] = partial(arrays.__getitem__, name)
    return LazyArrays(lazy)


def complete_rows(
    parameters: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
    rows: Mapping[str, slice],
    communicator: Communicator,
) -> Mapping[str, Array]:
    """Return complete parameters, where each rank may have its ``rows`` of them only.

    Every rank must call it, all with rows or all with complete ones. What is not shared stays where it is
    until it is looked up.
    """
    makers = {name: partial(parameters.__getitem__, name) for name in parameters}
    for name, own in rows.items():
        part = parameters.get(name)
        if part is not None and part.shape == (own.stop - own.start, *shapes[name][1:]):
            makers[name] = partial(_same, np.concatenate(communicator.all_gather(part)))
    return LazyArrays(makers)


def _same(array: Array) -> Array:
    return array


def parameter_of(name: str) -> str:
    """Return the parameter whose state has this name; other names are returned as they are."""
    for prefix in OPTIMIZER_PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
