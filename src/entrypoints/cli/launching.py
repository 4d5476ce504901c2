"""Start a job and stay with it until it ends."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from glm3.entrypoints.cli.launch_command import RankCommand, resolve_command
from glm3.entrypoints.cli.output import answer, note
from glm3.entrypoints.cli.settings import Settings

if TYPE_CHECKING:
    from glm3.application.supervise_job import JobSupervisor
    from glm3.domain.launching.job import Job
    from glm3.domain.launching.rank_environment import RankFolders

__all__ = ["SSH", "LaunchOptions", "run_launch"]

SSH = "ssh -o BatchMode=yes -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
"""A host that does not answer for 15 seconds is given up."""
TABLE_SECONDS = 300.0
"""How long ModelArts may take to complete the table of a job."""


@frozen(kw_only=True)
class LaunchOptions:
    """The options of ``glm3 launch``, as given."""

    command: Sequence[str]
    folder: Path = field(factory=Path.cwd)
    workers: int | None = None
    local_workers: int | None = None
    devices: str | None = None
    rank_table: Path | None = None
    master_addr: str | None = None
    master_port: int | None = None
    node_rank: int | None = None
    join_timeout: int = 600
    stop_timeout: float = 10.0
    last_timeout: float = 600.0
    silence_timeout: float = 0.0
    log_dir: Path | None = None
    hosts: str | None = None
    ssh: str = SSH
    uses_table: bool = True
    attached: bool = False
    detach: bool = False


def run_launch(settings: Settings, options: LaunchOptions) -> int:
    """Check everything, start the job, and return its exit code when all of it is gone.

    Raises:
        Glm3Error: it cannot be started; nothing runs then.
    """
    from glm3.application.supervise_job import JobSupervisor
    from glm3.domain.launching.job import Patience
    from glm3.domain.launching.runtime_lines import is_runtime_talk, wants_runtime_talk
    from glm3.entrypoints.cli.loading import container

    command = resolve_command(options.command, settings)
    job = _job_of_hosts(options, command) if options.hosts else _job_here(options, command)
    if options.detach and not _continue_in_background(job, _folders(options, command).log):
        return 0
    shown = _shown_ranks(os.environ.get("STDOUT_DEVICES"))
    talk = wants_runtime_talk(os.environ)

    def show(name: str, text: str) -> None:
        if (shown is None or name in shown) and (talk or not is_runtime_talk(text)):
            answer(f"[{name}] {text}")

    supervisor = JobSupervisor(
        runner=container(settings).process_runner(),
        clock=time.monotonic,
        show=show,
        note=note,
        patience=Patience(
            stop=options.stop_timeout,
            last=options.last_timeout or None,
            silence=options.silence_timeout or None,
        ),
    )
    if options.attached:
        Thread(target=_take_orders, args=(supervisor,), daemon=True).start()
    with _handling_signals(supervisor):
        result = supervisor.run(job)
    if result.failure is not None and not result.interrupted:
        for line in result.failure.lines():
            note(line)
        note(f"all processes were gone {result.ending_seconds:.1f} s later")
    return result.exit_code


def _continue_in_background(job: Job, logs: Path) -> bool:
    """Go on in a process without terminal; False in the one that was called, which is done.

    Nothing was started yet, so there are no threads that a fork would lose.
    """
    from glm3.domain.positional_io import storage_errors

    log = logs / f"launcher_{job.members[0].name.replace(' ', '_')}.log"
    with storage_errors(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    launcher = os.fork()
    if launcher:
        os.close(output)
        answer(f"launcher {launcher} runs in the background; log saved in {log}")
        note(f"kill {launcher} lets its ranks finish what they are at, twice ends them")
        return False
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    return True


def _job_here(options: LaunchOptions, command: RankCommand) -> Job:
    from glm3.adapters.host.cpu import usable_cores
    from glm3.adapters.process.free_port import free_port, require_free
    from glm3.application.launch import LaunchPlanner, LaunchRequest
    from glm3.application.rank_tables import usable_table
    from glm3.domain.rank_table.device_range import parse_launch_range
    from glm3.entrypoints.paths import resources_folder

    folders = _folders(options, command)
    table = _table(options)
    request = LaunchRequest(
        command=command.words,
        folder=options.folder,
        folders=folders,
        config=command.config,
        table=table,
        devices=parse_launch_range(options.devices) if options.devices is not None else None,
        workers=options.workers,
        local_workers=options.local_workers,
        node_rank=options.node_rank,
        master_host=options.master_addr and _resolved(options.master_addr),
        master_port=options.master_port,
        join_seconds=options.join_timeout,
        visible=_visible(os.environ.get("ASCEND_RT_VISIBLE_DEVICES")),
        faults=command.faults,
    )
    planner = LaunchPlanner(
        builtin_rows=resources_folder() / "data",
        cores=usable_cores(),
        kept=frozenset(os.environ),
        free_port=free_port,
        scheduler=(sys.executable, "-m", "glm3.adapters.mindspore.scheduler"),
        rewrite_table=lambda path: usable_table(path, folders.log),
    )
    plan = planner.plan(request)
    if plan.runs_scheduler and plan.cluster is not None:
        require_free(plan.cluster.port)
    for text in plan.notes:
        note(f"note: {text}")
    for place in plan.placing.places:
        where = f"rank {place.rank} of {plan.placing.world_size}, device {place.device}"
        note(f"start {where}; log saved in {folders.log / f'rank_{place.rank}'}")
    return plan.job


def _job_of_hosts(options: LaunchOptions, command: RankCommand) -> Job:
    from glm3.application.launch_checks import config_faults
    from glm3.application.launch_hosts import HostsRequest, plan_hosts
    from glm3.application.rank_tables import check_tables
    from glm3.domain.errors import MultipleFaultsError

    path = _table(options)
    table, faults = None, list(command.faults)
    if path is not None:
        (checked,) = check_tables([path])
        table, faults = checked.table, [*faults, *checked.faults]
    if command.config is not None:
        ranks = table.rank_count if table is not None else options.workers
        faults += config_faults(command.config, ranks)
    if faults:
        raise MultipleFaultsError(f"no rank is started, faults: {len(faults)}", faults)
    told = ["--join-timeout", str(options.join_timeout), "--last-timeout", str(options.last_timeout)]
    told += ["--silence-timeout", str(options.silence_timeout), "--stop-timeout", str(options.stop_timeout)]
    if options.log_dir is not None:
        told += ["--log-dir", str(options.log_dir.absolute())]
    python, *words = command.words
    if words[:2] == ["-m", "glm3"]:
        words = words[2:]
    request = HostsRequest(
        hosts=tuple(name.strip() for name in (options.hosts or "").split(",")),
        ssh=tuple(shlex.split(options.ssh)),
        launcher=(python, "-m", "glm3", "launch"),
        options=tuple(told),
        command=tuple(words),
        folder=options.folder,
        workers=options.workers,
        table=path,
        master_host=options.master_addr,
        master_port=options.master_port,
    )
    return plan_hosts(request, table)


def _table(options: LaunchOptions) -> Path | None:
    """Return the table to use; counting workers means to do without one."""
    from glm3.application.rank_tables import MODELARTS_TABLE, await_table, find_table

    if not options.uses_table:
        return None
    if options.rank_table is not None:
        path: Path | None = find_table({"RANK_TABLE_FILE": str(options.rank_table)})
    else:
        path = find_table(os.environ) if options.workers is None else None
    if path is not None and path.name == MODELARTS_TABLE.name:
        await_table(path, TABLE_SECONDS, time.sleep)
    return path.absolute() if path is not None else None


def _folders(options: LaunchOptions, command: RankCommand) -> RankFolders:
    """Return where the job writes; logs go where LOG_MF_PATH says, as the model card's launcher has it."""
    from glm3.domain.launching.rank_environment import RankFolders

    root = options.folder

    def named(variable: str, usual: Path) -> Path:
        value = os.environ.get(variable)
        return Path(value).expanduser().absolute() if value else usual

    output = root / (command.config.output_dir if command.config is not None else "output")
    log = options.log_dir.absolute() if options.log_dir else named("LOG_MF_PATH", output / "log")
    return RankFolders(
        output=output,
        log=log,
        download=named("CHECKPOINT_DOWNLOAD_FOLDER", root / "checkpoint_download"),
        save=named("CHECKPOINT_SAVE_FOLDER", root / "checkpoint_save"),
    )


def _resolved(host: str) -> str:
    """Return the address of a host: MindSpore wants numbers."""
    from glm3.domain.errors import UsageError

    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise UsageError(f"no such host: {error}", field="--master-addr", found=host) from None


def _visible(text: str | None) -> tuple[int, ...] | None:
    numbers = (text or "").replace(" ", "").split(",")
    return tuple(map(int, numbers)) if all(number.isdecimal() for number in numbers) else None


def _shown_ranks(text: str | None) -> set[str] | None:
    """Return the names of the ranks that print here: those in STDOUT_DEVICES, or all."""
    ranks = re.findall(r"\d+", text or "")
    return {f"rank {rank}" for rank in ranks} | {"scheduler"} if ranks else None


def _take_orders(supervisor: JobSupervisor) -> None:
    """Do what the launcher that started this one says; without it there is no job."""
    for line in sys.stdin:
        if line.strip() == "stop":
            supervisor.interrupt()
    supervisor.terminate()


@contextmanager
def _handling_signals(supervisor: JobSupervisor) -> Iterator[None]:
    def ask(_number: int, _frame: Any) -> None:
        supervisor.interrupt()

    def end(_number: int, _frame: Any) -> None:
        supervisor.terminate()

    handlers = {signal.SIGINT: ask, signal.SIGTERM: ask, signal.SIGHUP: end}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
