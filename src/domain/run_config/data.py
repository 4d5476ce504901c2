"""The sections ``train_dataset`` and ``eval_dataset`` and their tasks: rows, and how they become ids."""

from __future__ import annotations

from attrs import frozen

from glm3.domain.coercion import as_bool, as_text, optional
from glm3.domain.run_config.model import TokenizerConfig
from glm3.domain.run_config.schema import key, optional_section, section
from glm3.domain.run_config.values import choice, integer_at_least, texts

__all__ = ["DataLoaderConfig", "DatasetConfig", "DatasetTaskConfig"]


def _layout_version(value: object) -> int:
    number = integer_at_least(2)(value) if not isinstance(value, bool) else 0
    if number not in (2, 3):
        raise ValueError("3 (ChatGLM3's layout; 2 is read as 3)")
    return number


@frozen(kw_only=True)
class DataLoaderConfig:
    """Where rows come from."""

    type: str = key("ADGenDataLoader", choice("ADGenDataLoader", "ToolAlpacaDataLoader"), "kind of rows")
    dataset_dir: str | None = key(
        None, optional(as_text), "file of rows, or builtin:NAME for rows inside this package"
    )
    shuffle: bool = key(True, as_bool, "new order in every epoch, by seed")
    phase: str = key("train", choice("train", "eval"), "layout of a row: answer as label, or prompt alone")
    version: int = key(3, _layout_version, "layout of a row; 2 is read as 3")
    origin_columns: tuple[str, ...] = key(
        ("content", "summary"), texts, "columns of prompt and answer in the file"
    )
    num_samples: int | None = key(None, optional(integer_at_least(1)), "use only so many rows")


@frozen(kw_only=True)
class DatasetConfig:
    """How rows become ids and batches."""

    data_loader: DataLoaderConfig = section(DataLoaderConfig, "source of rows")
    tokenizer: TokenizerConfig = section(TokenizerConfig, "tokenizer of the rows")
    input_columns: tuple[str, ...] = key(("input_ids", "labels"), texts, "columns that go into the network")
    max_source_length: int = key(64, integer_at_least(1), "longest prompt, its prefix counted, in tokens")
    max_target_length: int = key(127, integer_at_least(1), "longest answer without its end, in tokens")
    max_seq_length: int = key(2048, integer_at_least(1), "longest dialogue, in tokens")
    ignore_pad_token_for_loss: bool = key(True, as_bool, "labels that are padding take no part in the loss")
    num_parallel_workers: int = key(8, integer_at_least(1), "processes or threads that prepare rows")
    python_multiprocessing: bool = key(False, as_bool, "prepare rows in processes")
    drop_remainder: bool = key(True, as_bool, "leave out the last, smaller batch")
    batch_size: int = key(8, integer_at_least(1), "rows of a batch; runner_config.batch_size wins")
    repeat: int = key(1, integer_at_least(1), "times the rows are repeated in one epoch")
    numa_enable: bool = key(False, as_bool, "bind workers to NUMA nodes")
    prefetch_size: int = key(1, integer_at_least(1), "batches prepared ahead")
    seed: int = key(0, integer_at_least(0), "seed of the order")


@frozen(kw_only=True)
class DatasetTaskConfig:
    """What a row is trained as."""

    type: str = key(
        "KeyWordGenDataset", choice("KeyWordGenDataset", "MultiTurnDataset"), "prompt and answer, or dialogue"
    )
    dataset_config: DatasetConfig | None = optional_section(
        DatasetConfig, "the data set, usually an alias of the section above"
    )
