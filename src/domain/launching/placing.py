"""Which ranks of a job run on this machine, and on which devices."""

from __future__ import annotations

from attrs import frozen

from glm3.domain.errors import UsageError
from glm3.domain.launching.rank_environment import RankPlace
from glm3.domain.rank_table import DeviceRange, RankTable, Server

__all__ = ["Placing", "place_ranks"]


@frozen(kw_only=True)
class Placing:
    """The ranks of this machine, of ``world_size`` in the whole job."""

    places: tuple[RankPlace, ...]
    world_size: int


def place_ranks(
    table: RankTable | None = None,
    *,
    devices: DeviceRange | None = None,
    workers: int | None = None,
    local_workers: int | None = None,
    node_rank: int | None = None,
    visible: tuple[int, ...] | None = None,
) -> Placing:
    """Return the ranks of this machine.

    ``devices`` alone are devices, and ranks count from 0. With ``workers``, the size of the whole job, they
    are ranks, and devices count from 0: so the model card's launcher reads DEVICE_RANGE and RANK_SIZE.
    Without them the server ``node_rank`` of the table decides, and without a table every machine has
    ``local_workers`` ranks. ``visible`` are the devices of the table that the numbers of this process mean.

    Raises:
        UsageError: the arguments contradict each other, or do not say enough.
    """
    if devices is not None:
        return _by_range(devices, workers)
    if table is not None:
        placing = _by_table(table, _server(table, node_rank), visible)
        _require_same("--workers", workers, placing.world_size)
        _require_same("--local-workers", local_workers, len(placing.places))
        return placing
    return _by_count(workers, local_workers, node_rank)


def _by_range(devices: DeviceRange, workers: int | None) -> Placing:
    if workers is None:
        places = [RankPlace(rank=device - devices.first, device=device) for device in devices.ids]
        return Placing(places=tuple(places), world_size=len(devices))
    if devices.last > workers:
        raise UsageError(
            "the range is one of ranks when RANK_SIZE is given, and leaves the job",
            field="DEVICE_RANGE",
            expected=f"within [0,{workers})",
            found=str(devices),
        )
    places = [RankPlace(rank=rank, device=rank - devices.first) for rank in devices.ids]
    return Placing(places=tuple(places), world_size=workers)


def _server(table: RankTable, node_rank: int | None) -> Server:
    count = len(table.servers)
    if node_rank is None and count > 1:
        raise UsageError(
            "the rank table does not say which of its servers this is",
            expected=f"--node-rank 0 to {count - 1}, or a range of ranks",
            found=f"{count} servers",
        )
    if node_rank is not None and node_rank >= count:
        raise UsageError(
            "no such server in the rank table",
            field="--node-rank",
            expected=f"below {count}",
            found=node_rank,
        )
    return table.servers[node_rank or 0]


def _by_table(table: RankTable, server: Server, visible: tuple[int, ...] | None) -> Placing:
    numbers = {physical: logical for logical, physical in enumerate(visible or ())}
    places = [
        RankPlace(rank=device.rank_id, device=numbers.get(device.device_id, device.device_id))
        for device in sorted(server.devices, key=lambda device: device.rank_id)
    ]
    return Placing(places=tuple(places), world_size=table.rank_count)


def _require_same(field: str, given: int | None, there: int) -> None:
    if given is not None and given != there:
        raise UsageError("the rank table has other ranks", field=field, expected=there, found=given)


def _by_count(workers: int | None, local_workers: int | None, node_rank: int | None) -> Placing:
    if workers is None:
        raise UsageError(
            "how many ranks?",
            expected="--workers N, or --rank-table FILE",
            hint="glm3 launch --workers 2 finetune --config FILE",
        )
    if local_workers is None and node_rank is not None:
        raise UsageError(
            "how many of the ranks run on this machine?",
            field="--local-workers",
            expected="as many on every machine",
        )
    local = workers if local_workers is None else local_workers
    first = (node_rank or 0) * local
    if first + local > workers:
        raise UsageError(
            "more ranks on the machines than in the job",
            field="--workers",
            expected=f"at least {first + local}: {local} on machine {node_rank or 0}, from rank {first}",
            found=workers,
        )
    if workers % local:
        raise UsageError(
            "the machines have different numbers of ranks",
            field="--local-workers",
            expected=f"a divisor of --workers {workers}",
            found=local,
        )
    if node_rank is None and local < workers:
        raise UsageError(
            "which of the machines is this?", field="--node-rank", expected=f"0 to {workers // local - 1}"
        )
    places = [RankPlace(rank=first + index, device=index) for index in range(local)]
    return Placing(places=tuple(places), world_size=workers)
