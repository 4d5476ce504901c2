"""Plan a job: which ranks run here, on which devices, with which environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from glm3.application.launch_checks import config_faults, device_notes, missing_files, table_faults
from glm3.application.rank_tables import check_tables
from glm3.domain.errors import Glm3Error, MultipleFaultsError, UsageError
from glm3.domain.launching.job import Job
from glm3.domain.launching.placing import Placing, place_ranks
from glm3.domain.launching.rank_environment import (
    Cluster,
    RankFolders,
    fair_shares,
    rank_environment,
    scheduler_environment,
)
from glm3.domain.ports.process_runner import ProcessSpec
from glm3.domain.rank_files import rank_folder
from glm3.domain.rank_table import DeviceRange, RankTable
from glm3.domain.run_config import RunConfig

__all__ = ["DEFAULT_PORT", "LaunchPlan", "LaunchPlanner", "LaunchRequest"]

DEFAULT_PORT = 8118
"""Where msrun's scheduler listens, and so ours when several machines must agree on it."""
LOG_NAME = "mindformer.log"


@frozen(kw_only=True)
class LaunchRequest:
    """A job as the user describes it.

    ``workers`` counts the ranks of all machines, ``local_workers`` those of this one, which is number
    ``node_rank``. ``devices`` are ids of devices, or ranks if ``workers`` is given too: the model card's
    DEVICE_RANGE. ``visible`` are the devices that the numbers of this process mean. ``faults`` were found
    while ``config`` was read.
    """

    command: tuple[str, ...]
    folder: Path
    folders: RankFolders
    config: RunConfig | None = None
    table: Path | None = None
    devices: DeviceRange | None = None
    workers: int | None = None
    local_workers: int | None = None
    node_rank: int | None = None
    master_host: str | None = None
    master_port: int | None = None
    join_seconds: int = 600
    visible: tuple[int, ...] | None = None
    faults: tuple[Glm3Error, ...] = ()


@frozen(kw_only=True)
class LaunchPlan:
    """What to start here, and what the ranks of the job are told of each other."""

    job: Job
    placing: Placing
    cluster: Cluster | None
    notes: tuple[str, ...] = ()

    @property
    def runs_scheduler(self) -> bool:
        return bool(self.job.helpers)


@frozen(kw_only=True)
class LaunchPlanner:
    """Check a job and say what to start.

    ``cores`` are shared out among the ranks. ``kept`` are the variables that the user has set.
    ``scheduler`` is the command of the process in which the ranks of a dynamic cluster find each other.
    ``rewrite_table`` returns a table that HCCL reads.
    """

    builtin_rows: Path
    cores: int
    free_port: Callable[[], int]
    scheduler: tuple[str, ...]
    kept: frozenset[str] = frozenset()
    rewrite_table: Callable[[Path], Path] = lambda path: path

    def plan(self, request: LaunchRequest) -> LaunchPlan:
        """Return what to start.

        Raises:
            MultipleFaultsError: everything that is wrong, in the command, the table and the configuration.
        """
        faults = list(request.faults)
        table: RankTable | None = None
        if request.table is not None:
            (checked,) = check_tables([request.table])
            faults += checked.faults
            table = None if checked.faults else checked.table
        placing: Placing | None = None
        try:
            if request.table is None or table is not None or request.devices is not None:
                placing = place_ranks(
                    table,
                    devices=request.devices,
                    workers=request.workers,
                    local_workers=request.local_workers,
                    node_rank=request.node_rank,
                    visible=request.visible,
                )
        except UsageError as error:
            faults.append(error)
        if placing is not None and table is not None and request.table is not None:
            faults += table_faults(table, request.table, placing)
        if request.config is not None:
            faults += config_faults(request.config, placing.world_size if placing else None)
            faults += missing_files(request.config, request.folder, self.builtin_rows)
        if faults or placing is None:
            raise MultipleFaultsError(f"no rank is started, faults: {len(faults)}", faults)
        return self._plan(request, placing, table)

    def _plan(self, request: LaunchRequest, placing: Placing, table: RankTable | None) -> LaunchPlan:
        cluster = self._cluster(request, placing, table)
        path = self.rewrite_table(request.table) if request.table is not None else None
        shares = fair_shares(self.cores, len(placing.places))
        members = tuple(
            ProcessSpec(
                name=f"rank {place.rank}",
                command=request.command,
                folder=request.folder,
                environment=rank_environment(
                    place,
                    placing.world_size,
                    request.folders,
                    table=path,
                    cluster=cluster,
                    threads=threads,
                    kept=self.kept,
                ),
                log=request.folders.log / rank_folder(place.rank) / LOG_NAME,
            )
            for place, threads in zip(placing.places, shares, strict=True)
        )
        helpers: tuple[ProcessSpec, ...] = ()
        if cluster is not None and placing.places[0].rank == 0:
            helpers = (
                ProcessSpec(
                    name="scheduler",
                    command=self.scheduler,
                    folder=request.folder,
                    environment=scheduler_environment(placing.world_size, cluster),
                    log=request.folders.log / "scheduler.log",
                ),
            )
        notes = device_notes(table, placing.places, request.visible) if table is not None else []
        return LaunchPlan(
            job=Job(members=members, helpers=helpers), placing=placing, cluster=cluster, notes=tuple(notes)
        )

    def _cluster(self, request: LaunchRequest, placing: Placing, table: RankTable | None) -> Cluster | None:
        """Return where the ranks meet: HCCL needs the table alone, the CPU knows no tables."""
        on_cpu = request.config is not None and request.config.context.device_target == "CPU"
        if placing.world_size == 1 or (table is not None and not on_cpu):
            return None
        alone = len(placing.places) == placing.world_size
        host = request.master_host
        if host is None:
            host = "127.0.0.1" if alone or table is None else table.servers[0].server_id
        port = request.master_port or (self.free_port() if alone else DEFAULT_PORT)
        return Cluster(host=host, port=port, join_seconds=request.join_seconds)
