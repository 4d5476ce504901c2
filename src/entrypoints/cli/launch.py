"""``glm3 launch``: a job of several ranks, on this machine or on several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glm3.entrypoints.cli.command import settings_of

__all__ = ["EPILOG", "SETTINGS", "launch"]

EPILOG = """\
\b
Examples:
  glm3 launch --workers 2 finetune --config configs/glm3/glm3_tiny.yaml \\
    use_parallel=True parallel_config.data_parallel=2
  glm3 launch --rank-table hccl_8p_01234567_192.168.0.10.json finetune --config my.yaml
  glm3 launch --rank-table hccl_2s_16p.json --hosts 192.168.0.10,192.168.0.11 finetune --config my.yaml
  glm3 launch --workers 4 train.py --any --flags
"""
SETTINGS = {"allow_interspersed_args": False}


def launch(
    context: typer.Context,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND", help="What each rank runs: a glm3 command or a .py script."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("-n", "--workers", min=1, help="Ranks of the whole job; no rank table is needed then."),
    ] = None,
    rank_table: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="HCCL's table. [default: RANK_TABLE_FILE, or ModelArts' own]"),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(metavar="[A,B]", help="Devices A to B-1; ranks of the job if --workers is given too."),
    ] = None,
    hosts: Annotated[
        str | None, typer.Option(metavar="A,B,C", help="Start the job on these machines, over ssh.")
    ] = None,
    ssh: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="What runs a command on a host.", envvar="GLM3_SSH")
    ] = None,
    node_rank: Annotated[
        int | None, typer.Option(min=0, help="Which machine of the job this is, from 0.")
    ] = None,
    local_workers: Annotated[int | None, typer.Option(min=1, help="Ranks on this machine.")] = None,
    master_addr: Annotated[
        str | None, typer.Option(metavar="HOST", help="The first machine, where ranks find each other.")
    ] = None,
    master_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="A free port there. [default: 8118; on one machine any]"),
    ] = None,
    join_timeout: Annotated[int, typer.Option(min=1, help="Seconds for all ranks to find each other.")] = 600,
    stop_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds for ranks to end before they are killed, if one failed.")
    ] = 10.0,
    last_timeout: Annotated[
        float, typer.Option(min=0, help="Seconds for the last ranks to end after the first; 0 is for ever.")
    ] = 600.0,
    silence_timeout: Annotated[
        float, typer.Option(min=0, help="End a job of which no rank prints for so long; 0 is never.")
    ] = 0.0,
    log_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Logs of the ranks. [default: LOG_MF_PATH, or log in output_dir]"),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Check and start, then go on in the background.")
    ] = False,
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
) -> None:
    """Start the ranks of a job, show and file what they print, and end all when one fails.

    Everything that can be checked is checked before the first process starts. Each rank's output is in
    rank_N/mindformer.log of the log folder; STDOUT_DEVICES="0" limits what is shown to that rank. Ctrl-C
    lets the ranks finish what they are at, a second one ends them. The exit code is that of the rank that
    failed first.
    """
    from glm3.entrypoints.cli.launching import SSH, LaunchOptions, run_launch

    options = LaunchOptions(
        command=command or [],
        workers=workers,
        local_workers=local_workers,
        devices=devices,
        rank_table=rank_table,
        master_addr=master_addr,
        master_port=master_port,
        node_rank=node_rank,
        join_timeout=join_timeout,
        stop_timeout=stop_timeout,
        last_timeout=last_timeout,
        silence_timeout=silence_timeout,
        log_dir=log_dir,
        hosts=hosts,
        ssh=ssh or SSH,
        attached=attached,
        detach=detach,
    )
    raise typer.Exit(run_launch(settings_of(context), options))
