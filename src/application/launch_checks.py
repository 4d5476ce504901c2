"""What is checked before any rank of a job is started; everything that is wrong is told together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from glm3.application.dataset import find_rows
from glm3.domain.atomic_write import WEIGHT_SUFFIXES
from glm3.domain.errors import ConfigError, Glm3Error, MultipleFaultsError, UsageError
from glm3.domain.launching.placing import Placing
from glm3.domain.launching.rank_environment import RankPlace
from glm3.domain.rank_table import RankTable
from glm3.domain.run_config import RunConfig, check_for
from glm3.domain.run_config.values import is_placeholder

__all__ = ["config_faults", "device_notes", "missing_files", "table_faults"]

_TRAINING = ("train", "finetune")


def config_faults(config: RunConfig, world_size: int | None) -> list[Glm3Error]:
    """Return what keeps this configuration from running with so many ranks."""
    faults: list[Glm3Error] = []
    try:
        check_for(config, device_count=world_size)
    except MultipleFaultsError as error:
        faults += error.faults
    except Glm3Error as error:
        faults.append(error)
    return faults


def missing_files(config: RunConfig, folder: Path, builtin: Path) -> list[Glm3Error]:
    """Return what a run names and is not there; relative paths count from ``folder``, where ranks run."""
    faults: list[Glm3Error] = []
    if config.only_save_strategy:
        return faults
    for key, value in _named_files(config):
        try:
            path = folder / find_rows(value, builtin) if key.endswith("dataset_dir") else folder / value
        except UsageError as error:
            faults.append(_at(config, key, error.message, error.expected, value))
            continue
        if not path.exists():
            faults.append(_at(config, key, "no such file", None, value))
    return faults


def table_faults(table: RankTable, path: Path, placing: Placing) -> list[Glm3Error]:
    """Return what keeps these ranks from being those of a table."""
    faults: list[Glm3Error] = []
    if table.rank_count != placing.world_size:
        faults.append(
            ConfigError(
                "the rank table is another job's",
                path=path,
                field="RANK_SIZE",
                expected=f"{table.rank_count} ranks, as in the table",
                found=placing.world_size,
                hint="DEVICE_RANGE counts the ranks of this machine, RANK_SIZE those of all",
            )
        )
    known = table.placements()
    unknown = [place.rank for place in placing.places if place.rank not in known]
    if unknown:
        found = f"{unknown[0]} to {unknown[-1]}"
        faults.append(
            ConfigError("ranks that are not in the table", path=path, field="DEVICE_RANGE", found=found)
        )
    servers = {known[place.rank].server_id for place in placing.places if place.rank in known}
    if len(servers) > 1:
        faults.append(
            ConfigError(
                "the ranks of this machine are those of several servers",
                path=path,
                field="DEVICE_RANGE",
                expected="those of one",
                found=", ".join(sorted(servers)),
            )
        )
    return faults


def device_notes(
    table: RankTable, places: tuple[RankPlace, ...], visible: tuple[int, ...] | None
) -> list[str]:
    """Return where a rank takes another device than the table says, which a container may mean so."""
    known = table.placements()
    differing = []
    for place in places:
        physical = place.device
        if visible is not None:
            physical = visible[place.device] if place.device < len(visible) else -1
        if place.rank in known and known[place.rank].device.device_id != physical:
            differing.append(f"rank {place.rank} takes {physical}, not {known[place.rank].device.device_id}")
    if not differing:
        return []
    return [f"devices are not those of the rank table: {', '.join(differing)}; right only in a container"]


def _named_files(config: RunConfig) -> Iterator[tuple[str, str]]:
    training = config.run_mode in _TRAINING
    datasets = ["train_dataset"] if training else []
    if config.run_mode == "eval" or (training and config.do_eval):
        datasets.append("eval_dataset")
    named: list[tuple[str, str | None]] = []
    for name in datasets:
        dataset = getattr(config, name)
        if dataset is not None:
            named.append((f"{name}.data_loader.dataset_dir", dataset.data_loader.dataset_dir))
            named.append((f"{name}.tokenizer.vocab_file", dataset.tokenizer.vocab_file))
    weights = config.load_checkpoint
    if weights and (weights.startswith(("/", "./", "../")) or weights.endswith(WEIGHT_SUFFIXES)):
        named.append(("load_checkpoint", weights))
    for key, value in named:
        if value and not is_placeholder(value):
            yield key, value


def _at(config: RunConfig, key: str, message: str, expected: object, found: object) -> ConfigError:
    origin = config.origin_of(key)
    return ConfigError(message, path=origin.path, line=origin.line, field=key, expected=expected, found=found)
