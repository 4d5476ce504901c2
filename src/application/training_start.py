"""Where a training run starts from: a model, weights alone, or the checkpoint of a run to go on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import evolve, field, frozen

from glm3.application.adapted_source import base_name, find_adapter
from glm3.application.adapter_folder import StoredAdapter
from glm3.application.checkpoint_keeper import pointed_file
from glm3.application.checkpoint_stores import config_beside, find_store
from glm3.application.model_source import TOKENIZER_NAME, ModelSources
from glm3.application.rank_agreement import RankAgreement
from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import CheckpointError, ConfigError, MissingFileError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.rank_files import rank_folder
from glm3.domain.run_config import RunConfig
from glm3.domain.training.checkpoint_names import BEST, LAST, CheckpointName, in_order, latest
from glm3.domain.training.output_tree import OutputTree
from glm3.domain.training.run_state import RunState

__all__ = ["RUN_RECORD", "RunRecord", "TrainingStart", "checkpoint_at", "find_start", "require_same_ways"]

RUN_RECORD = "run.json"
"""Lies beside a run's checkpoints and says what they build on."""


@frozen(kw_only=True)
class RunRecord:
    """What the checkpoints of a run do not say themselves.

    ``base`` is what the run was started from, as the user named it. ``data`` decides which rows a step
    takes: it must be the same when the run goes on. Where ``sharing`` is not None the checkpoints beside the
    record are rank ``rank``'s parts of those of so many ranks, of which ``model_parallel`` share each matrix.
    """

    base: str | None
    data: Mapping[str, Any] = field(factory=dict)
    rank: int = 0
    sharing: int | None = None
    model_parallel: int = 1

    def write(self, folder: Path) -> None:
        """Write ``run.json`` into ``folder`` atomically.

        Raises:
            StorageError: the file system refused.
        """
        values: dict[str, Any] = {"base": self.base, "data": dict(self.data)}
        if self.sharing is not None:
            values |= {"rank": self.rank, "sharing": self.sharing, "model_parallel": self.model_parallel}
        content = json.dumps(values, ensure_ascii=False, indent=2)
        with staged_file(folder / RUN_RECORD) as place:
            write_durably(place, f"{content}\n".encode())

    @classmethod
    def read(cls, folder: Path) -> RunRecord | None:
        """Read it back; None if there is none.

        Raises:
            CheckpointError: the file is damaged.
        """
        path = folder / RUN_RECORD
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                base=values["base"],
                data=dict(values["data"]),
                rank=values.get("rank", 0),
                sharing=values.get("sharing"),
                model_parallel=values.get("model_parallel", 1),
            )
        except (ValueError, KeyError, TypeError):
            raise CheckpointError("is not what a run writes", path=path, hint="remove it") from None


@frozen(kw_only=True)
class TrainingStart:
    """What a run begins with.

    ``base`` is what the user named, paths made absolute. ``weights`` None draws random ones. ``adapter`` is
    one to train further. ``checkpoint`` is the training checkpoint to go on from, after
    ``steps_done`` steps; without one the run begins anew.
    """

    base: str | None
    config: ModelConfig
    weights: Path | None
    tokenizer: Path | None
    adapter: StoredAdapter | None = None
    checkpoint: Path | None = None
    steps_done: int = 0
    record: RunRecord | None = None

    @property
    def prefix(self) -> str | None:
        """The prefix of the checkpoint's run, if its name tells one."""
        name = self.checkpoint and CheckpointName.parse(self.checkpoint.name)
        return name.prefix if name else None


def find_start(
    config: RunConfig,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    tree: OutputTree,
    agreement: RankAgreement,
) -> TrainingStart:
    """Find what ``load_checkpoint`` names; fields that the run's file gives win over the model's own.

    All ranks of a run go on from the same step.

    Raises:
        MissingFileError, UsageError: there is no such checkpoint.
        CheckpointError: a run should go on from a checkpoint that holds weights alone.
    """
    if not config.resume_training:
        return _start_of(config.load_checkpoint, config, sources, stores, tree)
    assert config.load_checkpoint is not None  # noqa: S101  # check_for saw to it
    checkpoint = checkpoint_at(config.load_checkpoint, tree, agreement.latest)
    with find_store(checkpoint, stores).open(checkpoint) as reader:
        steps_done = RunState.steps_in(reader)
    record = RunRecord.read(checkpoint.parent)
    adapters = config.model.pet_config is not None
    name = record.base if record else config.model.model_config.checkpoint_name_or_path
    if adapters and name is None:
        raise ConfigError(
            "an adapter needs the weights it was trained on",
            field="model.model_config.checkpoint_name_or_path",
            expected="the name or path of the base model",
            hint=f"the run's {RUN_RECORD} beside the checkpoint would tell",
        )
    base = _start_of(name if adapters else None, config, sources, stores, tree)
    own = config_beside(checkpoint)
    beside = checkpoint.parent / TOKENIZER_NAME
    return TrainingStart(
        base=name,
        config=base.config if adapters or own is None else config.model.onto(own),
        weights=_weights_of(checkpoint, record) if not adapters else base.weights,
        tokenizer=beside if beside.is_file() else base.tokenizer,
        checkpoint=checkpoint,
        steps_done=steps_done,
        record=record,
    )


def _weights_of(checkpoint: Path, record: RunRecord | None) -> Path | None:
    """Return where a network's weights are; None if a checkpoint is a part, which is restored with others."""
    return None if record is not None and record.sharing is not None else checkpoint


def require_same_ways(start: TrainingStart, cut: NetworkCut | None) -> None:
    """Check that as many ranks share each matrix as when the parts of a checkpoint were written.

    Raises:
        ConfigError: more or fewer do; the error says what to do.
    """
    record, ways = start.record, 1 if cut is None else cut.model_parallel
    if start.checkpoint is None or record is None or record.sharing is None:
        return
    if record.model_parallel != ways:
        raise ConfigError(
            "the checkpoint is a part of matrices that are cut otherwise",
            path=start.checkpoint,
            field="parallel_config.model_parallel",
            expected=record.model_parallel,
            found=ways,
            hint="join the parts with glm3 merge, or name the folder of all rank_N folders with "
            "auto_trans_ckpt: True",
        )


def _last(names: Sequence[CheckpointName]) -> CheckpointName | None:
    return names[-1] if names else None


def checkpoint_at(
    name: str,
    tree: OutputTree,
    choose: Callable[[Sequence[CheckpointName]], CheckpointName | None] = _last,
) -> Path:
    """Return the checkpoint file that a name means.

    A file means itself; the pointers ``last`` and ``best`` what they point to, without a folder those of
    this run's own output; a folder of ``rank_N`` folders this rank's; a folder of checkpoints its last one,
    by number, or the one that ``choose`` takes of them, oldest first.

    Raises:
        MissingFileError: there is none.
    """
    path = tree.checkpoint / name if name in (LAST, BEST) and not Path(name).exists() else Path(name)
    if path.is_dir() and (path / rank_folder(tree.rank)).is_dir():
        path = path / rank_folder(tree.rank)
    found: Path | None = path if path.is_file() else None
    if path.is_dir() or path.name == LAST:
        found = _chosen(path if path.is_dir() else path.parent, choose)
    elif path.name == BEST:
        found = pointed_file(path)
    if found is None:
        raise MissingFileError(
            "there is no checkpoint of a training run",
            path=path,
            expected=f"a file PREFIX_rank_{tree.rank}-EPOCH_STEP.ckpt, a folder of them, or {LAST}",
        )
    return found


def _chosen(folder: Path, choose: Callable[[Sequence[CheckpointName]], CheckpointName | None]) -> Path | None:
    """Return one of the checkpoints of the run that ``last`` points to.

    A process that dies between writing one and moving the pointer leaves a whole one behind the pointer.
    """
    names = in_order(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    pointed = pointed_file(folder / LAST)
    named = CheckpointName.parse(pointed.name) if pointed else None
    own = [name for name in names if named is None or name.prefix == named.prefix]
    chosen = choose(own)
    if chosen is None:
        return None if own else pointed
    return folder / chosen.file_name


def _start_of(
    name: str | None,
    config: RunConfig,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    tree: OutputTree,
) -> TrainingStart:
    if name is None:
        return TrainingStart(base=None, config=config.model.model_config, weights=None, tokenizer=None)
    path = Path(name)
    adapter = _adapter_at(path, config, sources, stores, tree)
    if adapter is not None:
        named = config.model.model_config.checkpoint_name_or_path
        base = _weights_of_model(base_name(adapter, sources, named), config, sources, tree)
        adapter.base.require(base.weights, path)
        return evolve(base, adapter=adapter)
    return _weights_of_model(name, config, sources, tree)


def _adapter_at(
    path: Path, config: RunConfig, sources: ModelSources, stores: Sequence[CheckpointStore], tree: OutputTree
) -> StoredAdapter | None:
    """Return the adapter to train further; of the checkpoints of a run the last one's."""
    keys = config.model.pet_config
    if path.name in (LAST, BEST) or (path.is_dir() and _of_a_run(path, tree)):
        path = checkpoint_at(str(path), tree)
    return find_adapter(path, sources, stores, alpha=None if keys is None else keys.lora_alpha)


def _weights_of_model(name: str, config: RunConfig, sources: ModelSources, tree: OutputTree) -> TrainingStart:
    path = Path(name)
    if name.removeprefix("mindspore/") in sources.names() or (path.is_dir() and not _of_a_run(path, tree)):
        source = sources.resolve(name)
        return TrainingStart(
            base=name if not path.exists() else str(path.resolve()),
            config=config.model.onto(source.config),
            weights=source.weights,
            tokenizer=source.tokenizer,
        )
    weights = path if path.is_file() and path.name not in (LAST, BEST) else checkpoint_at(name, tree)
    own = config_beside(weights)
    tokenizer = weights.parent / TOKENIZER_NAME
    return TrainingStart(
        base=str(path.resolve()),
        config=config.model.model_config if own is None else config.model.onto(own),
        weights=weights,
        tokenizer=tokenizer if tokenizer.is_file() else None,
    )


def _of_a_run(folder: Path, tree: OutputTree) -> bool:
    """Tell a folder of training checkpoints from a model's folder."""
    names = [entry.name for entry in folder.iterdir()]
    return rank_folder(tree.rank) in names or latest(names) is not None
