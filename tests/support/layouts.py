"""Random cuts for property tests, and an oracle of who holds what that shares no code with the product."""

from __future__ import annotations

from itertools import product

from hypothesis import strategies as st

from glm3.domain.layout.strategy import JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import TensorLayout

MAX_RANKS = 1024


@st.composite
def layouts(
    draw: st.DrawFn, num_ranks: int | None = None, axes: int | None = None, *, optimizer_shard: bool = True
) -> tuple[TensorLayout, tuple[int, ...]]:
    """Draw a layout and a shape that it fits."""
    matrix = tuple(draw(factors(num_ranks) if num_ranks else matrices()))
    axes = draw(st.integers(0, 3)) if axes is None else axes
    order = draw(st.permutations([*range(len(matrix)), *[-1] * axes]))
    tensor_map = tuple(order[:axes])
    free = [at for at in range(len(matrix)) if len(matrix) - 1 - at not in tensor_map and matrix[at] > 1]
    step = size = shards = 0
    if optimizer_shard and axes and free and draw(st.booleans()):
        step = 1
        for count in matrix[free[-1] + 1 :]:
            step *= count
        filled = draw(st.integers(0, len(free) - 1))  # whole axes of copies, from the right
        shards = draw(
            st.sampled_from(
                [n for n in range(1, matrix[free[-1 - filled]] + 1) if matrix[free[-1 - filled]] % n == 0]
            )
        )
        for at in free[len(free) - filled :]:
            shards *= matrix[at]
        size = shards
        if draw(st.booleans()):
            size, shards = -1, 1
            for at in free:
                shards *= matrix[at]
    cuts = [1 if at == -1 else matrix[len(matrix) - 1 - at] for at in tensor_map]
    shape = [cut * draw(st.integers(1, 3)) for cut in cuts]
    if shape:
        shape[0] *= shards or 1
    return TensorLayout(matrix, tensor_map, step, size), tuple(shape)


def matrices() -> st.SearchStrategy[list[int]]:
    """Draw a device matrix of at most 1,024 ranks."""
    size = st.sampled_from([1, 2, 2, 3, 4, 5, 8])
    return st.lists(size, min_size=1, max_size=5).filter(lambda sizes: _product(sizes) <= MAX_RANKS)


@st.composite
def factors(draw: st.DrawFn, number: int) -> list[int]:
    """Draw a device matrix of ``number`` ranks."""
    parts: list[int] = []
    while number > 1 and len(parts) < 4:
        part = draw(st.sampled_from([n for n in range(1, number + 1) if number % n == 0]))
        parts.append(part)
        number //= part
    return [*parts, number]


def owned_elements(layout: TensorLayout, shape: tuple[int, ...]) -> list[set[int]]:
    """Return, for every rank, the flat indices of its elements, from the coordinates of all ranks."""
    matrix = layout.device_matrix
    coordinates = list(product(*map(range, matrix)))  # by rank
    used = [len(matrix) - 1 - at for at in layout.tensor_map if at != -1]
    free = [at for at in range(len(matrix)) if at not in used]
    families: dict[tuple[int, ...], list[int]] = {}  # ranks that hold copies, in order
    for rank, place in enumerate(coordinates):
        families.setdefault(tuple(place[at] for at in used), []).append(rank)
    shards = 1
    if layout.optimizer_shard_size and layout.optimizer_shard_step:
        shards = layout.optimizer_shard_size
        if shards == -1:
            shards = _product([matrix[at] for at in free])
    owned: list[set[int]] = [set() for _ in coordinates]
    for family in families.values():
        for order, rank in enumerate(family):
            axes = []
            for axis, size in enumerate(shape):
                at = layout.tensor_map[axis]
                indices = list(range(size))
                if at != -1:
                    parts = matrix[len(matrix) - 1 - at]
                    mine = coordinates[rank][len(matrix) - 1 - at]
                    indices = [i for i in indices if i * parts // size == mine]
                if axis == 0:
                    indices = [
                        i for n, i in enumerate(indices) if n * shards // len(indices) == order % shards
                    ]
                axes.append(indices)
            for place in product(*axes):
                flat = 0
                for index, size in zip(place, shape, strict=True):
                    flat = flat * size + index
                owned[rank].add(flat)
    return owned


@st.composite
def jobs(draw: st.DrawFn, shape: tuple[int, ...], name: str = "w", *, max_ranks: int = 64) -> JobStrategy:
    """Draw a job that holds one tensor of ``shape``, in one or several stages, or in none."""
    ranks = draw(
        st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 256, 1024]).filter(lambda n: n <= max_ranks)
    )
    stages = draw(st.integers(1, 3))
    layout = draw(layouts(ranks, len(shape)).map(lambda case: case[0]).filter(lambda one: _fits(one, shape)))
    holding = draw(st.sets(st.integers(0, stages - 1)))
    return JobStrategy(
        tuple(
            Strategy({name: layout} if stage in holding else {}, num_ranks=ranks, stage=stage)
            for stage in range(stages)
        )
    )


def _fits(layout: TensorLayout, shape: tuple[int, ...]) -> bool:
    return all(size % parts == 0 for size, parts in zip(shape, layout.grid, strict=True))


def _product(numbers: list[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
