"""Find out, before anything is written, whether the slices of a checkpoint are what they should be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

from attrs import frozen

from glm3.application.in_order import in_order
from glm3.application.slice_sources import SliceSources
from glm3.domain.checksums import crc32, read_checksums, tensor_crc32
from glm3.domain.errors import CheckpointError, Glm3Error, MultipleFaultsError
from glm3.domain.tensors import row_slabs

__all__ = ["SliceCheck", "check_slices"]

_SAMPLE_BYTES, _SAMPLES = 4096, 16

Checked = Callable[[int, int, str], None]
"""Told the bytes read so far, the bytes to read, and the tensor."""


@frozen
class SliceCheck:
    """What was checked: slices compared with their copies, and slices compared with stored checksums."""

    copies: int = 0
    checksums: int = 0


def check_slices(sources: SliceSources, names: Sequence[str], report: Checked | None = None) -> SliceCheck:
    """Compare the copies of every slice with each other, and slices with the checksums beside their files.

    Raises:
        MultipleFaultsError: naming every rank and parameter that differs, and ranks whose files are the same
            although they should hold different slices.
    """
    faults: list[Glm3Error] = []
    stored = _stored_checksums(sources, faults)
    groups = {name: _copies(sources, name) for name in names}
    wanted = [
        (rank, name)
        for name in names
        for ranks in groups[name]
        for rank in ranks
        if len(ranks) > 1 or sources.stored[name] in stored.get(rank, {})
    ]
    sums = _checksums(sources, wanted, report)
    compared = 0
    wrong: dict[tuple[int, int], list[str]] = {}
    for name, ranks in ((name, ranks) for name, cells in groups.items() for ranks in cells):
        compared += len(ranks) if len(ranks) > 1 else 0
        for rank in ranks[1:]:
            if sums[rank, name] != sums[ranks[0], name]:
                wrong.setdefault((rank, ranks[0]), []).append(name)
    faults += _unlike_copies(sources, wrong) + _unlike_checksums(sources, wanted, sums, stored)
    faults += _twins(sources, [name for name in names if len(groups[name]) > 1])
    if faults:
        raise MultipleFaultsError("the slices are not what they should be:", faults)
    return SliceCheck(compared, sum(sources.stored[name] in stored.get(rank, {}) for rank, name in wanted))


def _stored_checksums(sources: SliceSources, faults: list[Glm3Error]) -> dict[int, Mapping[str, int]]:
    found: dict[int, Mapping[str, int]] = {}
    for rank, path in sources.paths.items():
        try:
            sums = read_checksums(path)
        except Glm3Error as fault:
            faults.append(fault)
            continue
        if sums is not None:
            found[rank] = sums
    return found


def _copies(sources: SliceSources, name: str) -> list[list[int]]:
    """Return the ranks that hold a tensor, those that hold the same part of it together."""
    shape, strategy = sources.tensors[name].shape, sources.strategy
    groups: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for rank in strategy.holders(name):
        box = strategy.slices(name, shape, rank)
        groups.setdefault(tuple((side.start, side.stop) for side in box or ()), []).append(rank)
    return list(groups.values())


def _checksums(
    sources: SliceSources, wanted: Sequence[tuple[int, str]], report: Checked | None
) -> dict[tuple[int, str], int]:
    total = sum(sources.slice_spec(rank, name).nbytes for rank, name in wanted)
    jobs = (partial(tensor_crc32, sources.readers[rank], sources.stored[name]) for rank, name in wanted)
    sums: dict[tuple[int, str], int] = {}
    done = 0
    for (rank, name), value in zip(wanted, in_order(jobs), strict=True):
        sums[rank, name] = value
        done += sources.slice_spec(rank, name).nbytes
        if report is not None:
            report(done, total, name)
    return sums


def _unlike_copies(
    sources: SliceSources, wrong: Mapping[tuple[int, int], Sequence[str]]
) -> list[CheckpointError]:
    uncut = not any(stage.layouts for stage in sources.strategy.stages)
    return [
        CheckpointError(
            f"rank {rank} differs from rank {other}, of which it should hold copies: {', '.join(names)}",
            path=sources.paths[rank],
            hint="these look like slices: name their strategy"
            if uncut
            else "one of the two files is damaged, or of another run or step",
        )
        for (rank, other), names in sorted(wrong.items())
    ]


def _unlike_checksums(
    sources: SliceSources,
    wanted: Iterable[tuple[int, str]],
    sums: Mapping[tuple[int, str], int],
    stored: Mapping[int, Mapping[str, int]],
) -> list[CheckpointError]:
    wrong: dict[int, list[str]] = {}
    for rank, name in wanted:
        expected = stored.get(rank, {}).get(sources.stored[name])
        if expected is not None and expected != sums[rank, name]:
            wrong.setdefault(rank, []).append(name)
    return [
        CheckpointError(
            f"rank {rank} is not what was saved; its checksums differ in: {', '.join(names)}",
            path=sources.paths[rank],
            hint="the file is damaged: copy it again",
        )
        for rank, names in sorted(wrong.items())
    ]


def _twins(sources: SliceSources, cut: Sequence[str]) -> list[CheckpointError]:
    """Name ranks that hold the same numbers where they should hold different slices: one file, twice there.

    A sample of each slice finds them; every byte of theirs is compared before one is called so.
    """
    sample = cut[:: max(1, len(cut) // _SAMPLES)]
    seen: dict[tuple[int, ...], int] = {}
    faults = []
    for rank in sources.readers:
        held = [name for name in sample if sources.stored[name] in sources.readers[rank].tensors]
        prints = tuple(chain.from_iterable(_sample(sources, rank, name) for name in held))
        if not prints:
            continue
        other = seen.setdefault(prints, rank)
        if other != rank and _same(sources, rank, other, cut):
            faults.append(
                CheckpointError(
                    f"rank {rank} has the slices of rank {other}: one file is there twice",
                    path=sources.paths[rank],
                    hint=f"copy the file of rank {rank} again",
                )
            )
    return faults


def _sample(sources: SliceSources, rank: int, name: str) -> Iterator[int]:
    """Yield the checksum of a slice's first rows; nothing for numbers that are all equal, such as zeros."""
    spec = sources.slice_spec(rank, name)
    rows = next(row_slabs(spec, _SAMPLE_BYTES))
    numbers = sources.readers[rank].read(sources.stored[name], rows).reshape(-1)
    if numbers.size and (numbers != numbers[0]).any():
        yield crc32(numbers)


def _same(sources: SliceSources, rank: int, other: int, names: Sequence[str]) -> bool:
    """Tell whether two ranks hold the same numbers of all tensors of which they should hold other parts."""

    def part(which: int, name: str) -> object:
        return sources.strategy.slices(name, sources.tensors[name].shape, which)

    different = [name for name in names if part(rank, name) != part(other, name)]
    return bool(different) and all(
        tensor_crc32(sources.readers[rank], sources.stored[name])
        == tensor_crc32(sources.readers[other], sources.stored[name])
        for name in different
    )
