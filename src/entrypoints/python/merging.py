"""Merging the checkpoints of ranks from Python."""

from __future__ import annotations

from pathlib import Path

from glm3.application.merge_checkpoints import DEFAULT_PREFIX, MergeRequest, MergeResult, Progress
from glm3.application.merge_checkpoints import merge_checkpoints as carry_out
from glm3.application.named_strategy import named_strategy
from glm3.application.slice_targets import Selection
from glm3.domain.errors import UsageError
from glm3.entrypoints.container import build_container

__all__ = ["merge_checkpoints"]


def merge_checkpoints(
    src_dir: str | Path,
    dst_dir: str | Path,
    *,
    src_strategy: str | Path | None = None,
    dst_strategy: str | Path | None = None,
    prefix: str = DEFAULT_PREFIX,
    to: str = "ckpt",
    select: str = "all",
    verify: bool = False,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> MergeResult:
    """Merge the slices of many ranks into one checkpoint, cut one for ranks, or cut slices anew.

    ``src_dir`` holds folders rank_0, rank_1, ...; the files written are ``dst_dir/rank_N/{prefix}N.ckpt``. A
    strategy is a file or a folder of them; without one that side is complete. ``select`` is ``all``,
    ``weights`` (no optimizer states) or ``trainable``. The target appears whole or not at all.

    Raises:
        UsageError: the target exists and ``overwrite`` is off, or an argument is impossible.
        MissingFileError, CheckpointError: there is no such source or strategy, or it is damaged.
        MultipleFaultsError: all that is wrong with the files of the ranks, together.
        StorageError: the file system refused.
    """
    if select not in list(Selection):
        raise UsageError("no such selection", field="select", expected=" or ".join(Selection), found=select)
    container = build_container()
    strategies = container.strategies()
    request = MergeRequest(
        source=Path(src_dir),
        target=Path(dst_dir),
        source_strategy=named_strategy(src_strategy, strategies),
        target_strategy=named_strategy(dst_strategy, strategies),
        prefix=prefix,
        format=to,
        select=Selection(select),
        verify=verify,
        overwrite=overwrite,
    )
    return carry_out(request, container.checkpoint_stores(), progress)
