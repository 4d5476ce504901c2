"""Make, merge, check and find rank tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path

from attrs import evolve, frozen

from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import Glm3Error, MissingFileError, MultipleFaultsError, UsageError
from glm3.domain.ports.device_network import DeviceNetwork
from glm3.domain.positional_io import storage_errors
from glm3.domain.rank_table import (
    COMPLETED,
    Device,
    DeviceRange,
    RankTable,
    Server,
    merge_tables,
    merged_name,
    parse_rank_table,
    read_rank_table,
    render,
)

__all__ = [
    "MODELARTS_TABLE",
    "CheckedTable",
    "GenerateRequest",
    "WrittenTable",
    "await_table",
    "check_tables",
    "find_table",
    "generate_table",
    "merge_files",
    "usable_table",
]

MODELARTS_TABLE = Path("/user/config/jobstart_hccl.json")
"""Where ModelArts puts the table of a job; its RANK_TABLE_FILE may name the folder alone."""


@frozen(kw_only=True)
class GenerateRequest:
    """What to write: ``devices`` counts what the process sees, ``visible`` says which devices these are."""

    devices: DeviceRange
    visible: Sequence[int]
    server_id: str | None = None
    folder: Path = Path()


@frozen(kw_only=True)
class WrittenTable:
    """What was written where."""

    path: Path
    table: RankTable
    notes: tuple[str, ...] = ()


@frozen(kw_only=True)
class CheckedTable:
    """What was found in one file; ``table`` is None where nothing of it could be read."""

    path: Path
    table: RankTable | None
    faults: tuple[Glm3Error, ...]


def generate_table(request: GenerateRequest, network: DeviceNetwork) -> WrittenTable:
    """Write the table of this machine, named as the model card's tool names it.

    Raises:
        UsageError: there are fewer visible devices than are asked for, or no server address is known.
        BackendError: the address of a device cannot be found.
        MultipleFaultsError: two devices have the same address.
        StorageError: the file system refused.
    """
    server_id, notes = _server_id(request, network)
    visible = _visible(request)
    found = network.device_addresses([visible[logical] for logical in request.devices.ids])
    devices = tuple(
        Device(
            device_id=visible[logical],
            rank_id=rank,
            device_ip=found.by_device[visible[logical]],
        )
        for rank, logical in enumerate(request.devices.ids)
    )
    server = Server(server_id=server_id, devices=devices, others={"host_nic_ip": "reserve"})
    ids = "".join(map(str, request.devices.ids))
    path = request.folder / f"hccl_{len(devices)}p_{ids}_{server_id}.json"
    return _write(path, RankTable(servers=(server,)), (*notes, *found.notes))


def merge_files(paths: Sequence[Path], folder: Path = Path()) -> WrittenTable:
    """Write the table of a job from those of its servers, in the order given.

    Raises:
        MultipleFaultsError: everything that is wrong with the tables, or that keeps them from being merged.
        StorageError: the file system refused.
    """
    checked = check_tables(paths)
    faults = [fault for one in checked for fault in one.faults]
    if faults:
        raise MultipleFaultsError("these rank tables cannot be merged", faults)
    merged = merge_tables([(one.path, one.table) for one in checked if one.table is not None])
    return _write(folder / merged_name(merged), evolve(merged, status=COMPLETED))


def check_tables(paths: Sequence[Path]) -> list[CheckedTable]:
    """Return what is in each file, and everything that is wrong with it."""
    return [_check(path) for path in paths]


def find_table(environment: Mapping[str, str], modelarts: Path = MODELARTS_TABLE) -> Path | None:
    """Return the table that this machine was given: by ``RANK_TABLE_FILE``, else by ModelArts."""
    named = environment.get("RANK_TABLE_FILE")
    if named:
        path = Path(named).expanduser()
        return path / modelarts.name if path.is_dir() else path
    return modelarts if modelarts.is_file() else None


def await_table(path: Path, seconds: float, sleep: Callable[[float], None]) -> None:
    """Give whoever writes a table some time to be done with it: a job on ModelArts may start before."""
    for _ in range(int(seconds)):
        (checked,) = check_tables([path])
        if checked.table is None or checked.table.status == COMPLETED:
            return
        sleep(1.0)


def usable_table(path: Path, folder: Path) -> Path:
    """Return a table that HCCL reads: the given one, or ModelArts' groups rewritten in ``folder``.

    Raises:
        MultipleFaultsError: the table is not sound.
        StorageError: the file system refused.
    """
    with storage_errors(path):
        content = path.read_bytes()
    table = parse_rank_table(content, path)
    if b'"group_list"' not in content:
        return path
    return _write(folder / "rank_table.json", table).path


def _check(path: Path) -> CheckedTable:
    if not path.is_file():
        missing = MissingFileError(
            "no such rank table", path=path, hint="glm3 hccl generate writes the one of a machine"
        )
        return CheckedTable(path=path, table=None, faults=(missing,))
    with storage_errors(path):
        content = path.read_bytes()
    table, faults = read_rank_table(content, path)
    return CheckedTable(path=path, table=table, faults=tuple(faults))


def _server_id(request: GenerateRequest, network: DeviceNetwork) -> tuple[str, tuple[str, ...]]:
    if request.server_id:
        if "/" in request.server_id:
            raise UsageError("no server address", field="--server_ip", found=repr(request.server_id))
        return request.server_id, ()
    found = network.server_address()
    if found is None:
        raise UsageError(
            "the address of this machine is not known",
            field="--server_ip",
            hint="please input server ip: --server_ip 192.168.0.10",
        )
    if ip_address(found).is_loopback:
        return found, (f"server_id is {found}: with other machines, give each its own --server_ip",)
    return found, ()


def _visible(request: GenerateRequest) -> Sequence[int]:
    visible = request.visible
    if len(visible) < request.devices.last:
        raise UsageError(
            "fewer visible devices than are asked for",
            field="--visible_devices",
            expected=f"at least {request.devices.last}, for {request.devices}",
            found=", ".join(map(str, visible)) or "none",
        )
    if len(set(visible)) < len(visible):
        raise UsageError(
            "a device stands twice", field="--visible_devices", found=", ".join(map(str, visible))
        )
    return visible


def _write(path: Path, table: RankTable, notes: tuple[str, ...] = ()) -> WrittenTable:
    text = render(table)
    _, faults = read_rank_table(text, path)
    if faults:
        raise MultipleFaultsError("the rank table would be of no use and is not written", faults)
    with staged_file(path) as place:
        write_durably(place, text.encode())
    return WrittenTable(path=path, table=table, notes=notes)
