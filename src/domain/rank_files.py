"""Checkpoints of many ranks: ``rank_N`` folders, each with the files of one rank, and the newest of each.

Newest is by numbers: the later run of a prefix, then the epoch, then the step. By name ``-200_1`` would come
after ``-1000_1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import frozen

from glm3.domain.errors import CheckpointError, Glm3Error, MissingFileError, MultipleFaultsError
from glm3.domain.positional_io import storage_errors

__all__ = ["RankFiles", "find_rank_files", "rank_folder", "rank_of_folder", "ranks_text"]

_SUFFIXES = (".ckpt", ".safetensors")
_FOLDER = re.compile(r"rank_(0|[1-9]\d*)")
_LOOKS_LIKE_A_RANK = re.compile(r"\W*rank\W*_?\W*\d+\W*", re.IGNORECASE)
_FILE = re.compile(
    r"(?P<base>.+?)_rank_(?P<rank>\d+)(?:_(?P<run>\d+))?"
    r"-(?:(?P<epoch>\d+)_(?P<step>\d+)|(?P<kind>network|trainable_params))",
    re.DOTALL,
)


@frozen
class RankFiles:
    """One file a rank; ``position`` is the ``(epoch, step)`` in their names, if the names tell one."""

    folder: Path
    files: Mapping[int, Path]
    position: tuple[int, int] | None


@frozen(order=True)
class _Version:
    """What a file name says; a name that says nothing is no version."""

    run: int
    epoch: int
    step: int
    base: str
    kind: str
    rank: int

    @property
    def series(self) -> tuple[str, str]:
        return self.base, self.kind

    @property
    def when(self) -> tuple[int, int, int]:
        return self.run, self.epoch, self.step

    @property
    def text(self) -> str:
        again = f"run {self.run + 1}, " if self.run else ""
        return f"{again}{self.kind}" if self.kind else f"{again}epoch {self.epoch} step {self.step}"


def rank_folder(rank: int) -> str:
    """Return the name of a rank's folder."""
    return f"rank_{rank}"


def rank_of_folder(name: str) -> int | None:
    """Return the rank whose folder bears this name; None if it is no rank's."""
    found = _FOLDER.fullmatch(name)
    return int(found[1]) if found else None


def ranks_text(ranks: Iterable[int]) -> str:
    """Write ranks for people, neighbours joined: ``0-3, 7``."""
    runs: list[tuple[int, int]] = []
    for rank in sorted(set(ranks)):
        if runs and rank == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], rank)
        else:
            runs.append((rank, rank))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def find_rank_files(folder: Path, world_size: int | None = None) -> RankFiles:
    """Return the newest file of every rank; ``world_size`` None takes as many ranks as there are.

    Raises:
        MissingFileError: there is no such folder, or no rank's folder in it.
        MultipleFaultsError: ranks that are missing, misnamed, empty, doubtful or older than the others, all
            of them together.
    """
    if not folder.is_dir():
        raise MissingFileError("no such folder", path=folder)
    with storage_errors(folder):
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    faults: list[Glm3Error] = []
    folders: dict[int, Path] = {}
    for entry in entries:
        rank = rank_of_folder(entry.name)
        if rank is not None:
            folders[rank] = entry
        elif _LOOKS_LIKE_A_RANK.fullmatch(entry.name):
            faults.append(
                CheckpointError("is not how a rank's folder is named", path=entry, expected="rank_N")
            )
    if not folders and not faults:
        raise MissingFileError(
            "holds no rank's folder",
            path=folder,
            expected="folders rank_0, rank_1, ... of one checkpoint each",
        )
    faults += _incomplete(folder, folders, world_size)
    files: dict[int, Path] = {}
    versions: dict[int, _Version | None] = {}
    for rank, place in sorted(folders.items()):
        try:
            files[rank], versions[rank] = _newest(place, rank)
        except Glm3Error as fault:
            faults.append(fault)
    faults += _uneven(files, versions)
    if faults:
        raise MultipleFaultsError(f"{folder}: these are not the files of all ranks at one step:", faults)
    first = versions[min(versions)]
    return RankFiles(folder, files, None if first is None or first.kind else (first.epoch, first.step))


def _incomplete(folder: Path, found: Iterable[int], world_size: int | None) -> list[Glm3Error]:
    expected = set(range(max(found, default=-1) + 1 if world_size is None else world_size))
    missing, surplus = expected - set(found), set(found) - expected
    faults: list[Glm3Error] = []
    if missing:
        faults.append(
            MissingFileError(
                f"{len(missing)} of {len(expected)} ranks have no folder",
                path=folder,
                found=f"no folder of rank {ranks_text(missing)}",
                hint="copy the folders of all ranks to one place",
            )
        )
    if surplus:
        faults.append(
            CheckpointError(
                f"the strategy is of {len(expected)} ranks",
                path=folder,
                found=f"folders of rank {ranks_text(surplus)} too",
                hint="name the strategy that these checkpoints were saved with",
            )
        )
    return faults


def _newest(folder: Path, rank: int) -> tuple[Path, _Version | None]:
    with storage_errors(folder):
        files = sorted(file for file in folder.iterdir() if file.suffix in _SUFFIXES and file.is_file())
    if not files:
        raise MissingFileError("the rank has no checkpoint", path=folder, expected="*.ckpt or *.safetensors")
    versions = {file: _version(file) for file in files}
    named = {file: version for file, version in versions.items() if version is not None}
    if len(files) == 1:
        newest = files[0]
    elif len(named) < len(files) or len({version.series for version in named.values()}) > 1:
        raise _doubtful("several checkpoints whose names do not tell which is the newest", folder, files)
    else:
        newest = max(named, key=lambda file: named[file].when)
        twins = [file for file in files if named[file].when == named[newest].when]
        if len(twins) > 1:
            raise _doubtful("two checkpoints of one step", folder, twins)
    version = versions[newest]
    if version is not None and version.rank != rank:
        raise CheckpointError(
            "is another rank's file", path=newest, expected=f"rank {rank}", found=f"rank {version.rank}"
        )
    return newest, version


def _doubtful(what: str, folder: Path, files: Sequence[Path]) -> CheckpointError:
    return CheckpointError(
        what, path=folder, found=", ".join(file.name for file in files), hint="keep the one that is meant"
    )


def _version(file: Path) -> _Version | None:
    found = _FILE.fullmatch(file.stem)
    if found is None:
        return None
    return _Version(
        run=int(found["run"] or 0),
        epoch=int(found["epoch"] or 0),
        step=int(found["step"] or 0),
        base=found["base"],
        kind=found["kind"] or "",
        rank=int(found["rank"]),
    )


def _uneven(files: Mapping[int, Path], versions: Mapping[int, _Version | None]) -> list[Glm3Error]:
    """Name every rank that is behind the newest one, or whose file is of another series."""
    newest = max((v for v in versions.values() if v is not None), key=lambda v: v.when, default=None)
    if newest is None:
        return []
    return [
        CheckpointError(
            f"rank {rank} has no file of the others' newest step",
            path=files[rank],
            expected=f"{newest.base} at {newest.text}",
            found="a name without a step" if version is None else f"{version.base} at {version.text}",
            hint="a save was cut short, or files were mixed: remove what some ranks alone have",
        )
        for rank, version in versions.items()
        if version is None or (version.series, version.when) != (newest.series, newest.when)
    ]
