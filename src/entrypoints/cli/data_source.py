"""Which rows, in which layout, with whose tokenizer: what the options of ``glm3 data`` mean together."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

if TYPE_CHECKING:
    from glm3.domain.ports.dataset import RowReader
    from glm3.domain.ports.tokenizer import Tokenizer
    from glm3.domain.run_config import RunConfig
    from glm3.domain.run_config.data import DatasetConfig
    from glm3.domain.training.row_layout import RowLayout
    from glm3.entrypoints.cli.finetune import Layout
    from glm3.entrypoints.cli.settings import Settings
    from glm3.entrypoints.container import Container

__all__ = ["Format", "RowOptions", "Source", "open_source"]


class Format(StrEnum):
    """Kinds of rows."""

    adgen = "adgen"
    dialogue = "dialogue"


@frozen
class RowOptions:
    """The options as given; None is not given."""

    config: str | None
    eval_rows: bool
    format: Format | None
    layout: Layout
    columns: str | None
    max_source_length: int | None
    max_target_length: int | None
    max_seq_length: int | None


@frozen(kw_only=True)
class Source:
    """Rows to open and how to read them."""

    path: Path
    layout: RowLayout
    tokenizer: Tokenizer
    reader: RowReader


def open_source(
    settings: Settings, file: str | None, options: RowOptions, model: str | None, tokenizer: Path | None
) -> Source:
    """Combine the options; what is given on the command line wins over the YAML.

    Raises:
        UsageError: there is neither a file nor a YAML, or options are put together wrongly.
        Glm3Error: the YAML, the file or the tokenizer cannot be read.
    """
    from glm3.adapters.jsonl.reader import JsonRowReader
    from glm3.application.dataset import find_rows
    from glm3.domain.errors import UsageError
    from glm3.entrypoints.cli.loading import container
    from glm3.entrypoints.cli.run_mindformer import find_config
    from glm3.entrypoints.paths import resources_folder

    parts = container(settings)
    run = parts.run_configs().read(find_config(options.config)) if options.config else None
    dataset = _dataset(run, options)
    name = file or (dataset.data_loader.dataset_dir if dataset else None)
    if name is None:
        raise UsageError("no rows to look at", expected="a FILE, or --config with a data set that names one")
    reader = JsonRowReader()
    path = find_rows(name, resources_folder() / "data")
    layout = _layout(path, reader, dataset, options)
    vocabulary = _tokenizer(parts, run, dataset, model, tokenizer)
    return Source(path=path, layout=layout, tokenizer=vocabulary, reader=reader)


def _dataset(run: RunConfig | None, options: RowOptions) -> DatasetConfig | None:
    from glm3.domain.errors import ConfigError, UsageError

    if run is None:
        if options.eval_rows:
            raise UsageError("--eval is about a YAML", expected="--config")
        return None
    dataset = run.eval_dataset if options.eval_rows else run.train_dataset
    if dataset is None:
        name = "eval_dataset" if options.eval_rows else "train_dataset"
        raise ConfigError("the file has no such section", path=options.config, field=name)
    return dataset


def _layout(path: Path, reader: RowReader, dataset: DatasetConfig | None, options: RowOptions) -> RowLayout:
    from attrs import evolve

    from glm3.domain.errors import UsageError
    from glm3.domain.training.encoding import PairLayout
    from glm3.domain.training.row_layout import RowFormat, RowLayout

    layout = RowLayout() if dataset is None else RowLayout.of(dataset)
    changes: dict[str, Any] = {"pair_layout": PairLayout(options.layout.value)}
    if options.format is not None:
        changes["format"] = RowFormat(options.format.value)
    elif dataset is None:
        first = next(iter(reader.open(path).read_rows(0, 1)), None)
        changes["format"] = RowFormat.of_row(first.value if first else None)
    if options.columns is not None:
        names = tuple(name.strip() for name in options.columns.split(","))
        if len(names) != 2 or not all(names):
            raise UsageError(
                "not two columns", field="--columns", expected="PROMPT,ANSWER", found=options.columns
            )
        changes["origin_columns"] = names
    for name in ("max_source_length", "max_target_length", "max_seq_length"):
        if (value := getattr(options, name)) is not None:
            changes[name] = value
    return evolve(layout, **changes)


def _tokenizer(
    parts: Container,
    run: RunConfig | None,
    dataset: DatasetConfig | None,
    model: str | None,
    given: Path | None,
) -> Tokenizer:
    """Open the tokenizer; where its model is known too, check that they belong together."""
    from glm3.application.training_checks import require_vocabulary
    from glm3.domain.errors import ConfigError
    from glm3.domain.run_config.values import is_placeholder

    models = parts.models()
    named = dataset.tokenizer.vocab_file if dataset else None
    path = given or (Path(named) if named and not is_placeholder(named) and model is None else None)
    if path is not None:
        path = path / "tokenizer.model" if path.is_dir() else path
        tokenizer = parts.tokenizers()(path)
        if run is not None and run.load_checkpoint is None:
            require_vocabulary(tokenizer, run.model.model_config, path)
        return tokenizer
    name = model or (run.load_checkpoint if run else "tiny")
    if name is None or is_placeholder(name):
        raise ConfigError(
            "no tokenizer",
            field="train_dataset.tokenizer.vocab_file",
            expected="the path of tokenizer.model",
            found=named,
            hint="name one with --tokenizer PATH, or a model with -m MODEL",
        )
    beside = Path(name).parent / "tokenizer.model"
    if Path(name).is_file() and Path(name).suffix not in (".yaml", ".yml") and beside.is_file():
        return parts.tokenizers()(beside)
    return models.tokenizer_of(models.sources.resolve(name, with_weights=False))
