"""``glm3 hccl``: rank tables, as the model card's ``hccl_tools.py`` and ``merge_hccl.py`` write them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glm3.entrypoints.cli.command import Command, settings_of
from glm3.entrypoints.cli.output import answer, note

if TYPE_CHECKING:
    from glm3.application.rank_tables import WrittenTable

__all__ = ["app"]

GENERATE_EPILOG = """\
\b
Examples:
  glm3 hccl generate --device_num "[0,8)"
  glm3 hccl generate --device_num "[0,8)" --server_ip 192.168.0.10
  glm3 hccl generate --device_num "[0,4)" --visible_devices 4,5,6,7
"""
MERGE_EPILOG = """\
\b
Examples:
  glm3 hccl merge hccl_8p_01234567_192.168.0.10.json hccl_8p_01234567_192.168.0.11.json
  glm3 hccl merge hccl_8p*.json
"""
CHECK_EPILOG = """\
\b
Examples:
  glm3 hccl check hccl_2s_16p.json
  glm3 hccl check                     the one in RANK_TABLE_FILE, or ModelArts' jobstart_hccl.json
"""

app = typer.Typer(help="Make, merge and check rank tables.", no_args_is_help=True, rich_markup_mode=None)


@app.command("generate", cls=Command, epilog=GENERATE_EPILOG)
def generate(
    context: typer.Context,
    device_num: Annotated[
        str, typer.Option("--device_num", metavar="[A,B)", help="Devices A up to, not including, B.")
    ] = "[0,8)",
    visible_devices: Annotated[
        str,
        typer.Option(
            "--visible_devices", metavar="ID,ID...", help="Which devices of the machine these numbers mean."
        ),
    ] = "0,1,2,3,4,5,6,7",
    server_ip: Annotated[
        str | None, typer.Option("--server_ip", metavar="IP", help="This machine. [default: its name's]")
    ] = None,
    device_num_per_node: Annotated[
        int, typer.Option("--device_num_per_node", min=1, help="How many devices a machine has.")
    ] = 8,
) -> None:
    """Write the rank table of this machine into the working directory.

    Addresses come from hccn_tool, or from /etc/hccn.conf where the tool does not answer.
    """
    from glm3.application.rank_tables import GenerateRequest, generate_table
    from glm3.domain.rank_table import parse_device_range
    from glm3.entrypoints.cli.loading import container

    devices = parse_device_range(device_num, device_num_per_node)
    request = GenerateRequest(devices=devices, visible=_device_ids(visible_devices), server_id=server_ip)
    note(f"device_num_list: {list(devices.ids)}")
    note(f"visible_devices: {list(request.visible)}")
    written = generate_table(request, container(settings_of(context)).device_network())
    note(f"server_id: {written.table.servers[0].server_id}")
    for device in written.table.servers[0].devices:
        note(f"rank_id: {device.rank_id}, device_id: {device.device_id}, device_ip: {device.device_ip}")
    _tell(written)


@app.command("merge", cls=Command, epilog=MERGE_EPILOG)
def merge(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="The tables of the machines, in order of ranks.")
    ],
) -> None:
    """Write one rank table for all machines into the working directory; ranks count in the order given."""
    from glm3.application.rank_tables import merge_files

    written = merge_files(files)
    for server in written.table.servers:
        ranks = [device.rank_id for device in server.devices]
        note(f"server_id: {server.server_id}, ranks {ranks[0]} to {ranks[-1]}")
    _tell(written)


@app.command("check", cls=Command, epilog=CHECK_EPILOG)
def check(
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Rank tables.")] = None,
) -> None:
    """Check rank tables, versions 1.0 and 1.2, and ModelArts' own form; say everything that is wrong."""
    from glm3.application.rank_tables import check_tables, find_table
    from glm3.domain.errors import MultipleFaultsError, UsageError

    found = find_table(os.environ)
    paths = files or ([found] if found else [])
    if not paths:
        raise UsageError("no rank table", hint="name the files, or set RANK_TABLE_FILE")
    checked = check_tables(paths)
    for one in checked:
        if one.table is not None and not one.faults:
            table = one.table
            pods = f", {len(table.super_pods)} super-pods" if table.super_pods else ""
            answer(
                f"{one.path}: version {table.version}, {len(table.servers)} servers{pods}, "
                f"{table.rank_count} ranks"
            )
    faults = [fault for one in checked for fault in one.faults]
    if faults:
        bad = sum(1 for one in checked if one.faults)
        raise MultipleFaultsError(f"{bad} of {len(checked)} rank tables cannot be used", faults)


def _device_ids(text: str) -> list[int]:
    from glm3.domain.errors import UsageError

    words = [word.strip() for word in text.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdecimal() and len(word) < 10)]
    if wrong:
        raise UsageError(
            "no device number", field="--visible_devices", expected="as 4,5,6,7", found=repr(wrong[0])
        )
    return [int(word) for word in words]


def _tell(written: WrittenTable) -> None:
    for text in written.notes:
        note(f"note: {text}")
    answer(f"Completed: hccl file was save in : {written.path.absolute()}")
