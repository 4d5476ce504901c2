"""``glm3 merge``: an adapter into its base, or the slices of many ranks into one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glm3.entrypoints.cli.command import settings_of
from glm3.entrypoints.cli.convert import Format
from glm3.entrypoints.cli.options import LoraAlpha

if TYPE_CHECKING:
    from glm3.application.merge_checkpoints import MergeResult
    from glm3.entrypoints.cli.settings import Settings

__all__ = ["EPILOG", "merge", "summary"]

EPILOG = """\
\b
Examples of an adapter:
  glm3 merge ./output/adapter ./merged                      a folder that glm3 chat -m ./merged loads
  glm3 merge ./output/adapter merged.ckpt --to ckpt --verify
  glm3 merge ./output/adapter ./merged --base ./chatglm3-6b
  glm3 merge lora.ckpt ./merged --base ./chatglm3-6b --lora-alpha 32    of MindFormers
\b
Examples of ranks' slices:
  glm3 merge --src_ckpt_dir output/checkpoint_network --src_ckpt_strategy output/strategy \\
    --dst_ckpt_dir merged --prefix glm3_6b                  merged/rank_0/glm3_6b0.ckpt
  glm3 merge --src_ckpt_dir full --dst_ckpt_strategy strategy8 --dst_ckpt_dir cut8
  glm3 merge --src_ckpt_dir output/checkpoint --src_ckpt_strategy output/strategy \\
    --dst_ckpt_strategy strategy4 --dst_ckpt_dir cut4       from 8 ranks to 4, optimizer states too
"""


def merge(
    context: typer.Context,
    adapter: Annotated[
        Path | None,
        typer.Argument(metavar="ADAPTER", help="The folder of a LoRA adapter, or a .ckpt of MindFormers."),
    ] = None,
    target: Annotated[
        Path | None, typer.Argument(metavar="DST", help="What to write: a folder for hf, else a file.")
    ] = None,
    src_ckpt_dir: Annotated[
        Path | None,
        typer.Option("--src_ckpt_dir", "--src-ckpt-dir", metavar="DIR", help="rank_N folders to merge."),
    ] = None,
    src_ckpt_strategy: Annotated[
        str | None,
        typer.Option(
            "--src_ckpt_strategy",
            "--src-ckpt-strategy",
            metavar="PATH",
            help="How they are cut: a strategy file, or a folder of them. Without one (or None): not at all.",
        ),
    ] = None,
    dst_ckpt_dir: Annotated[
        Path | None,
        typer.Option("--dst_ckpt_dir", "--dst-ckpt-dir", metavar="DIR", help="Where rank_N folders go."),
    ] = None,
    dst_ckpt_strategy: Annotated[
        str | None,
        typer.Option(
            "--dst_ckpt_strategy",
            "--dst-ckpt-strategy",
            metavar="PATH",
            help="How to cut what is written. Without one (or None): one complete checkpoint.",
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Files are named TEXT and the rank. [default: checkpoint_]"),
    ] = None,
    weights_only: Annotated[
        bool, typer.Option("--weights_only", "--weights-only", help="Leave the optimizer's states out.")
    ] = False,
    trainable_only: Annotated[
        bool, typer.Option("--trainable_only", "--trainable-only", help="Take the trained weights alone.")
    ] = False,
    to: Annotated[
        Format | None, typer.Option("--to", help="Format to write. [default: hf; for ranks ckpt]")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The weights an adapter was trained on, if they were moved."),
    ] = None,
    lora_alpha: LoraAlpha = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read the result again and compare every number.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress.")] = False,
) -> None:
    """Fold a LoRA adapter into its base, or merge or cut the slices of ranks.

    An adapter goes only into the weights it was trained on; what it does not change keeps every bit.

    Ranks' files are taken from folders rank_0, rank_1, ... the newest step by number. All ranks must be
    there, at one step; slices of which there are copies are compared, and checksums beside files are
    checked. What a killed merge has finished is kept for the next attempt.

    Memory stays small, and DST appears whole or not at all.
    """
    ranks = {
        "--src_ckpt_dir": src_ckpt_dir,
        "--src_ckpt_strategy": src_ckpt_strategy,
        "--dst_ckpt_dir": dst_ckpt_dir,
        "--dst_ckpt_strategy": dst_ckpt_strategy,
        "--prefix": prefix,
        "--weights_only": weights_only or None,
        "--trainable_only": trainable_only or None,
    }
    adapters = {"ADAPTER": adapter, "DST": target, "--base": base, "--lora-alpha": lora_alpha}
    settings = settings_of(context)
    if _is_of_ranks(ranks, adapters):
        assert src_ckpt_dir is not None and dst_ckpt_dir is not None  # noqa: S101, PT018  # seen to above
        _merge_ranks(
            settings,
            source=src_ckpt_dir,
            source_strategy=src_ckpt_strategy,
            target=dst_ckpt_dir,
            target_strategy=dst_ckpt_strategy,
            prefix=prefix,
            to=to,
            select="trainable" if trainable_only else "weights" if weights_only else "all",
            verify=verify,
            overwrite=overwrite,
            quiet=quiet,
        )
    else:
        assert adapter is not None and target is not None  # noqa: S101, PT018  # seen to above
        _merge_adapter(
            settings,
            adapter,
            target,
            to=to,
            base=base,
            alpha=lora_alpha,
            verify=verify,
            overwrite=overwrite,
            quiet=quiet,
        )


def _is_of_ranks(ranks: Mapping[str, object], adapters: Mapping[str, object]) -> bool:
    """Tell which of the two merges is meant.

    Raises:
        UsageError: neither, both, or one that lacks a part.
    """
    from glm3.domain.errors import UsageError

    given = [name for name, value in ranks.items() if value is not None]
    others = [name for name, value in adapters.items() if value is not None]
    if given and others:
        raise UsageError(
            f"{', '.join(others)} is of merging an adapter, {', '.join(given)} of merging ranks",
            hint="do one of the two",
        )
    needed = ("--src_ckpt_dir", "--dst_ckpt_dir") if given else ("ADAPTER", "DST")
    missing = [name for name in needed if name not in given + others]
    if missing:
        raise UsageError(
            f"missing: {' and '.join(missing)}",
            hint="glm3 merge ADAPTER DST, or glm3 merge --src_ckpt_dir DIR --dst_ckpt_dir DIR ...",
        )
    return bool(given)


def _merge_adapter(
    settings: Settings,
    adapter: Path,
    target: Path,
    *,
    to: Format | None,
    base: str | None,
    alpha: float | None,
    verify: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    from glm3.application.merge_adapter import MergeAdapterRequest, merge_adapter
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.output import answer, note
    from glm3.entrypoints.cli.progress import progress

    services = container(settings)
    request = MergeAdapterRequest(
        adapter=adapter,
        target=target,
        format=(to or Format.hf).value,
        base=base,
        alpha=alpha,
        verify=verify,
        overwrite=overwrite,
    )
    with progress("merging", quiet=quiet) as report:
        result = merge_adapter(request, services.sources(), services.checkpoint_stores(), report)
    for text in result.notes:
        note(text)
    answer(f"{result.target}: {result.tensors} tensors in {result.seconds:.1f} s")


def _merge_ranks(
    settings: Settings,
    *,
    source: Path,
    source_strategy: str | None,
    target: Path,
    target_strategy: str | None,
    prefix: str | None,
    to: Format | None,
    select: str,
    verify: bool,
    overwrite: bool,
    quiet: bool,
) -> None:
    from glm3.application.merge_checkpoints import DEFAULT_PREFIX, MergeRequest, merge_checkpoints
    from glm3.application.named_strategy import named_strategy
    from glm3.application.slice_targets import Selection
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.output import answer
    from glm3.entrypoints.cli.progress import progress

    services = container(settings)
    strategies = services.strategies()
    request = MergeRequest(
        source=source,
        target=target,
        source_strategy=named_strategy(source_strategy, strategies),
        target_strategy=named_strategy(target_strategy, strategies),
        prefix=DEFAULT_PREFIX if prefix is None else prefix,
        format=(to or Format.ckpt).value,
        select=Selection(select),
        verify=verify,
        overwrite=overwrite,
    )
    with progress("checking", quiet=quiet) as checking, progress("merging", quiet=quiet) as report:
        result = merge_checkpoints(request, services.checkpoint_stores(), report, checking)
    answer(summary(result))


def summary(result: MergeResult) -> str:
    """Say what a merge of ranks has done: of what, how much, how long, where."""
    from glm3.domain.rank_files import ranks_text
    from glm3.entrypoints.cli.progress import size

    at = "" if result.position is None else f" at epoch {result.position[0]} step {result.position[1]}"
    done = f"{result.tensors} tensors, {size(result.nbytes)} in {result.seconds:.1f} s"
    copies, checksums = result.check.copies, result.check.checksums
    lines = [
        f"{_ranks(result.source_ranks)}{at} to {_ranks(len(result.files))}: {done}",
        f"checked: {copies} slices against their copies, {checksums} against stored checksums",
    ]
    if result.kept:
        lines.append(f"kept from an earlier attempt: rank {ranks_text(result.kept)}")
    return "\n".join([*lines, *map(str, result.files)])


def _ranks(count: int) -> str:
    return "1 rank" if count == 1 else f"{count} ranks"
