"""Use case: from a name, a folder or a file to the configuration, weights and tokenizer of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import frozen

from glm3.application.checkpoint_stores import CONFIG_NAME, config_beside, folder_of
from glm3.domain.atomic_write import WEIGHT_SUFFIXES
from glm3.domain.errors import ConfigError, MissingFileError, StorageError, UsageError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.downloader import Downloader
from glm3.domain.ports.model_catalog import KnownModel, ModelCatalog, RemoteFile
from glm3.domain.ports.run_config_reader import RunConfigReader
from glm3.domain.run_config import RunConfig
from glm3.domain.run_config.values import is_placeholder

__all__ = ["TOKENIZER_NAME", "ModelSource", "ModelSources"]

TOKENIZER_NAME = "tokenizer.model"

_YAML_SUFFIXES = (".yaml", ".yml")

ReportProgress = Callable[[str, int, int | None], None]
"""Called while downloading with the file's name, the bytes that are there and the total or None."""


@frozen(kw_only=True)
class ModelSource:
    """Where a model's parts lie; without ``weights`` they are random, and ``tokenizer`` may be missing."""

    name: str
    config: ModelConfig
    weights: Path | None
    tokenizer: Path | None


class ModelSources:
    """Find models.

    A model is one of the catalog's names; a folder with ``config.json``, weights and ``tokenizer.model``
    (Hugging Face's layout); a folder with one YAML and one ``.ckpt`` (MindFormers'); or a YAML file.
    """

    def __init__(self, catalog: ModelCatalog, downloader: Downloader, run_configs: RunConfigReader) -> None:
        self._catalog = catalog
        self._downloader = downloader
        self._run_configs = run_configs

    def names(self) -> list[str]:
        """Return the names of the catalog."""
        return list(self._catalog.names())

    def resolve(
        self,
        name_or_path: str | Path,
        *,
        with_weights: bool = True,
        with_tokenizer: bool = True,
        progress: ReportProgress | None = None,
    ) -> ModelSource:
        """Return the parts of a model, downloading what is asked for and missing.

        Raises:
            UsageError: there is no such name and no such path.
            MissingFileError, ConfigError: a folder lacks a part, or holds several of one.
            DownloadError: a file of a known model is missing and cannot be fetched.
        """
        known = self._catalog.find(str(name_or_path))
        path = Path(name_or_path)
        if known is not None and not (path.is_dir() and path.resolve() != known.folder.resolve()):
            return self._resolve_known(known, with_weights, with_tokenizer, progress)
        if path.is_dir():
            return self._resolve_folder(path)
        if path.suffix in _YAML_SUFFIXES:
            return self._resolve_yaml(path, with_weights, with_tokenizer, progress)
        raise UsageError(
            "no such model",
            expected=f"a folder, a .yaml file, or one of {', '.join(self._catalog.names())}",
            found=str(name_or_path),
            hint="a model folder holds config.json, weights and tokenizer.model, or one .yaml and one .ckpt",
        )

    def config(self, name_or_path: str | Path) -> ModelConfig:
        """Return a model's configuration alone, without touching weights or the network."""
        return self.resolve(name_or_path, with_weights=False, with_tokenizer=False).config

    def _resolve_known(
        self, known: KnownModel, with_weights: bool, with_tokenizer: bool, progress: ReportProgress | None
    ) -> ModelSource:
        if known.run_config is None:
            return self._resolve_folder(known.folder, name=known.name)
        config = self._run_configs.read(known.run_config).model.model_config
        if known.seq_length is not None:
            config = config.evolve(seq_length=known.seq_length, checkpoint_name_or_path=None)

        def fetched(file: RemoteFile | None, wanted: bool) -> Path | None:
            if file is None or not wanted:
                return None

            def report(done: int, total: int | None) -> None:
                if progress is not None:
                    progress(file.name, done, total)

            target = known.folder / file.name
            return self._downloader.fetch(
                file.url, target, size=file.size, sha256=file.sha256, progress=report
            )

        return ModelSource(
            name=known.name,
            config=config,
            tokenizer=fetched(known.tokenizer, with_tokenizer),
            weights=fetched(known.weights, with_weights),
        )

    def _resolve_folder(self, folder: Path, name: str | None = None) -> ModelSource:
        files = _files(folder)
        tokenizer = folder / TOKENIZER_NAME
        found_tokenizer = tokenizer if tokenizer in files else None
        if folder / CONFIG_NAME in files:
            config = config_beside(folder)
            assert config is not None  # noqa: S101  # the file is there, and reading it raises
            return ModelSource(
                name=name or folder.name, config=config, weights=folder, tokenizer=found_tokenizer
            )
        yamls = [path for path in files if path.suffix in _YAML_SUFFIXES]
        weights = [path for path in files if path.suffix in WEIGHT_SUFFIXES]
        if len(yamls) != 1 or len(weights) != 1:
            raise MissingFileError(
                "not a model folder",
                path=folder,
                expected=f"{CONFIG_NAME} and weights, or exactly one .yaml and one .ckpt",
                found=", ".join(path.name for path in files[:20]) or "no files",
            )
        model = self._run_configs.read(yamls[0]).model
        return ModelSource(
            name=name or folder.name, config=model.model_config, weights=weights[0], tokenizer=found_tokenizer
        )

    def _resolve_yaml(
        self, path: Path, with_weights: bool, with_tokenizer: bool, progress: ReportProgress | None
    ) -> ModelSource:
        """Follow what a run's file names; relative paths count from here, or else from the file.

        Fields that the file leaves out are those of the model it names.
        """
        run = self._run_configs.read(path)
        config, weights = run.model.model_config, None
        tokenizer = _vocabulary_of(run, path) if with_tokenizer else None
        wants_tokenizer = with_tokenizer and tokenizer is None
        key = "load_checkpoint" if run.load_checkpoint else "model.model_config.checkpoint_name_or_path"
        named = run.load_checkpoint or config.checkpoint_name_or_path
        known = self._catalog.find(named or run.trainer.model_name or "")
        if known is not None:
            source = self._resolve_known(known, with_weights and bool(named), wants_tokenizer, progress)
            weights, tokenizer = source.weights if named else None, tokenizer or source.tokenizer
            config = run.model.onto(source.config)
        elif named and (found := _located(named, path)) is not None:
            weights, own = found, config_beside(found)
            config = config if own is None else run.model.onto(own)
            beside = folder_of(found) / TOKENIZER_NAME
            tokenizer = beside if wants_tokenizer and beside.is_file() else tokenizer
        elif named and with_weights:
            raise ConfigError(
                "no such checkpoint",
                path=path,
                line=run.origin_of(key).line,
                field=key,
                expected=f"a file, a folder, or one of {', '.join(self._catalog.names())}",
                found=named,
            )
        return ModelSource(
            name=path.stem, config=config, weights=weights if with_weights else None, tokenizer=tokenizer
        )


def _vocabulary_of(run: RunConfig, path: Path) -> Path | None:
    """Return the tokenizer that a run's file names; a fill-me-in path names none."""
    key = "processor.tokenizer.vocab_file"
    named = run.processor.tokenizer.vocab_file
    if named is None or is_placeholder(named):
        return None
    found = _located(named, path)
    if found is None:
        line = run.origin_of(key).line
        raise ConfigError("no such file", path=path, line=line, field=key, found=named)
    return found


def _located(named: str, beside: Path) -> Path | None:
    return next((path for path in (Path(named), beside.parent / named) if path.exists()), None)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:
        raise MissingFileError("no such model folder", path=folder) from None
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror or error}", path=folder) from error
