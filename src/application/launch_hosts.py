"""Start a job on several machines: a launcher on each of them, over ssh."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.launch import DEFAULT_PORT
from glm3.domain.errors import Glm3Error, MultipleFaultsError, UsageError
from glm3.domain.launching.job import Job
from glm3.domain.ports.process_runner import ProcessSpec
from glm3.domain.rank_table import RankTable

__all__ = ["HostsRequest", "plan_hosts"]


@frozen(kw_only=True)
class HostsRequest:
    """A job of several machines.

    ``ssh`` is the command that runs another one on a host, ``launcher`` how this program's launcher is called
    there, ``options`` what each of them is told, ``command`` what the ranks run. The folder is the same on
    every machine. The first host runs the scheduler, where there is one.
    """

    hosts: tuple[str, ...]
    ssh: tuple[str, ...]
    launcher: tuple[str, ...]
    options: tuple[str, ...]
    command: tuple[str, ...]
    folder: Path
    workers: int | None = None
    table: Path | None = None
    master_host: str | None = None
    master_port: int | None = None


def plan_hosts(request: HostsRequest, table: RankTable | None) -> Job:
    """Return the job whose members are the launchers of the hosts; ``table`` is the one that is named.

    Raises:
        MultipleFaultsError: the hosts do not fit the ranks or the table.
    """
    faults = _faults(request, table)
    if faults:
        raise MultipleFaultsError(f"no rank is started, faults: {len(faults)}", faults)
    count = len(request.hosts)
    if request.table is not None:
        shared = ["--rank-table", str(request.table)]
    else:
        workers = request.workers or 0
        shared = ["--workers", str(workers), "--local-workers", str(workers // count)]
    if request.master_host is not None or request.table is None:
        host = request.master_host or request.hosts[0].rpartition("@")[2]
        shared += ["--master-addr", host]
    shared += ["--master-port", str(request.master_port or DEFAULT_PORT)]
    members = []
    for node, host in enumerate(request.hosts):
        words: Sequence[str] = [
            *request.launcher,
            "--attached",
            "--node-rank",
            str(node),
            *shared,
            *request.options,
            "--",
            *request.command,
        ]
        remote = f"cd {shlex.quote(str(request.folder))} && exec {shlex.join(words)}"
        members.append(
            ProcessSpec(
                name=host, command=(*request.ssh, host, remote), folder=request.folder, takes_orders=True
            )
        )
    return Job(members=tuple(members))


def _faults(request: HostsRequest, table: RankTable | None) -> list[Glm3Error]:
    count = len(request.hosts)
    faults: list[Glm3Error] = []
    twice = sorted({host for host in request.hosts if request.hosts.count(host) > 1})
    if twice or not all(request.hosts):
        found = ", ".join(twice) or ",".join(request.hosts)
        faults.append(UsageError("each host stands once", field="--hosts", expected="as a,b,c", found=found))
    if table is not None and len(table.servers) != count:
        faults.append(
            UsageError(
                "the rank table is of other machines",
                path=request.table,
                field="--hosts",
                expected=f"{len(table.servers)}, as the table has servers",
                found=count,
            )
        )
    if request.table is None and (request.workers is None or request.workers % count):
        faults.append(
            UsageError(
                "the ranks are not shared out evenly",
                field="--workers",
                expected=f"a multiple of {count}, for so many hosts",
                found=request.workers,
            )
        )
    return faults
