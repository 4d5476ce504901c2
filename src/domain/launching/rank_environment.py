"""The environment of each rank.

Sources: ``RANK_*``, ``DEVICE_ID`` and the folders are what MindFormers' launcher exports; ``MS_*`` is what
MindSpore's ``msrun`` sets for its dynamic cluster.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from attrs import frozen

__all__ = ["Cluster", "RankFolders", "RankPlace", "fair_shares", "rank_environment", "scheduler_environment"]

_CLUSTER = ("MS_ROLE", "MS_NODE_ID", "MS_WORKER_NUM", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_TOPO_TIMEOUT")


@frozen(kw_only=True)
class RankPlace:
    """A rank of the job and the device of this machine that it takes."""

    rank: int
    device: int


@frozen(kw_only=True)
class Cluster:
    """Where the ranks find each other: MindSpore's scheduler, which the first machine runs."""

    host: str
    port: int
    join_seconds: int = 600


@frozen(kw_only=True)
class RankFolders:
    """Where a job writes and keeps its weights."""

    output: Path
    log: Path
    download: Path
    save: Path


def fair_shares(cores: int, ranks: int) -> list[int]:
    """Return how many threads each rank of a machine gets: at least one, and the first ones the rest.

    >>> fair_shares(7, 3), fair_shares(2, 4)
    ([3, 2, 2], [1, 1, 1, 1])
    """
    share, rest = divmod(cores, ranks)
    return [max(1, share + (rank < rest)) for rank in range(ranks)]


def rank_environment(
    place: RankPlace,
    world_size: int,
    folders: RankFolders,
    *,
    table: Path | None,
    cluster: Cluster | None,
    threads: int,
    kept: Container[str] = (),
) -> dict[str, str | None]:
    """Return what to set; None takes a variable of the launcher's own environment away.

    The number of threads and MindSpore's log level are left alone where they are among the ``kept`` names.
    """
    return {
        **{name: value for name, value in _defaults(threads).items() if name not in kept},
        "RANK_ID": str(place.rank),
        "RANK_SIZE": str(world_size),
        "DEVICE_ID": str(place.device),
        "RANK_TABLE_FILE": None if table is None else str(table),
        "LOCAL_DEFAULT_PATH": str(folders.output),
        "LOG_MF_PATH": str(folders.log),
        "CHECKPOINT_DOWNLOAD_FOLDER": str(folders.download),
        "CHECKPOINT_SAVE_FOLDER": str(folders.save),
        "PYTHONUNBUFFERED": "1",  # lines appear when they are printed
        **_cluster_environment("MS_WORKER", place.rank, world_size, cluster),
    }


def scheduler_environment(world_size: int, cluster: Cluster) -> dict[str, str | None]:
    """Return what to set for the scheduler's process, which takes part in no computation."""
    return {
        "RANK_ID": "0",
        "RANK_SIZE": str(world_size),
        **_defaults(threads=1),
        "PYTHONUNBUFFERED": "1",
        **_cluster_environment("MS_SCHED", None, world_size, cluster),
    }


def _defaults(threads: int) -> dict[str, str | None]:
    return {"OMP_NUM_THREADS": str(threads), "GLOG_v": "3"}  # errors only: level 2 prints every connection


def _cluster_environment(
    role: str, node: int | None, world_size: int, cluster: Cluster | None
) -> dict[str, str | None]:
    if cluster is None:
        return dict.fromkeys(_CLUSTER)
    return {
        "MS_ROLE": role,
        "MS_NODE_ID": None if node is None else str(node),
        "MS_WORKER_NUM": str(world_size),
        "MS_SCHED_HOST": cluster.host,
        "MS_SCHED_PORT": str(cluster.port),
        "MS_TOPO_TIMEOUT": str(cluster.join_seconds),
    }
