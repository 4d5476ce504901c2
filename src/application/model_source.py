"""Use case: from a name, a folder or a file to the configuration, weights and tokenizer of a model."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from attrs import evolve, frozen

from glm3.application.adapter_folder import StoredAdapter
from glm3.application.checkpoint_stores import CONFIG_NAME, config_beside, folder_of, hint_for_other_files
from glm3.application.run_model import located, merged_config, named_weights, vocabulary_of
from glm3.domain.atomic_write import WEIGHT_SUFFIXES
from glm3.domain.errors import ConfigError, MissingFileError, StorageError, UsageError
from glm3.domain.model_config import ModelConfig
from glm3.domain.ports.downloader import Downloader
from glm3.domain.ports.model_catalog import KnownModel, ModelCatalog, RemoteFile
from glm3.domain.ports.run_config_reader import RunConfigReader
from glm3.domain.run_config import RunConfig

__all__ = ["TOKENIZER_NAME", "ModelSource", "ModelSources"]

TOKENIZER_NAME = "tokenizer.model"

_LAYOUT = (
    f"a model folder holds {CONFIG_NAME}, weights and {TOKENIZER_NAME}, "
    f"or one .yaml, one .ckpt and {TOKENIZER_NAME}"
)
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
    adapter: StoredAdapter | None = None


class ModelSources:
    """Find models.

    A model is one of the catalog's names; a folder with ``config.json``, weights and ``tokenizer.model``
    (Hugging Face's layout); a folder with one YAML and one ``.ckpt`` (MindFormers'); a file of weights with
    either beside it; or a YAML file.
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
            return self.resolve_run(
                self._run_configs.read(path),
                with_weights=with_weights,
                with_tokenizer=with_tokenizer,
                progress=progress,
            )
        if path.is_file() and path.suffix in WEIGHT_SUFFIXES:
            return self._resolve_file(path, with_tokenizer)
        names = self.names()
        near = difflib.get_close_matches(str(name_or_path), names, n=1)
        hint = hint_for_other_files(path) if path.is_file() else _LAYOUT
        raise UsageError(
            "no such model",
            expected=f"a folder, a file of weights, a .yaml, or one of {', '.join(names)}",
            found=str(name_or_path),
            hint=f"did you mean {near[0]}?" if near else hint,
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

    def run_beside(self, weights: Path) -> RunConfig | None:
        """Read the YAML that belongs to a file of weights: the one of its name, or the only one beside it.

        Raises:
            ConfigError: it is not valid.
        """
        yamls = [path for path in _files(weights.parent) if path.suffix in _YAML_SUFFIXES]
        named = [path for path in yamls if path.stem == weights.stem]
        chosen = named or yamls
        return self._run_configs.read(chosen[0]) if len(chosen) == 1 else None

    def resolve_run(
        self,
        run: RunConfig,
        *,
        with_weights: bool = True,
        with_tokenizer: bool = True,
        progress: ReportProgress | None = None,
    ) -> ModelSource:
        """Return the parts of the model that a run's file means; relative paths count from here, or from it.

        Weights are ``load_checkpoint``, or else ``model_config.checkpoint_name_or_path``. The file decides
        lengths and generation, but the context is no longer than the weights' own, and the shape is theirs,
        where they bring a configuration. What the file leaves out is the model's that it names.

        Raises:
            ConfigError: there are no such weights, or no such tokenizer.
            MissingFileError: a folder lacks a part.
            DownloadError: a file of a known model is missing and cannot be fetched.
        """
        file, key, named = run.origin_of("").path, *named_weights(run)
        tokenizer = vocabulary_of(run, file) if with_tokenizer else None
        wants_tokenizer = with_tokenizer and tokenizer is None
        known = self._catalog.find(named or run.trainer.model_name or "")
        found = located(named, file) if named else None
        if known is not None and not (found is not None and found.is_dir()):
            source = self._resolve_known(known, with_weights and bool(named), wants_tokenizer, progress)
            own: ModelConfig | None = source.config
        elif found is not None:
            own = self._own_config(found, file)
            source = self._resolve_place(found, own or run.model.model_config)
        elif named and with_weights:
            raise ConfigError(
                "no such checkpoint",
                path=file,
                line=run.origin_of(key).line,
                field=key,
                expected=f"a file, a folder, or one of {', '.join(self._catalog.names())}",
                found=named,
            )
        else:
            own, source = None, ModelSource(name="", config=ModelConfig(), weights=None, tokenizer=None)
        return ModelSource(
            name=source.name or (file.stem if file else "run"),
            config=run.model.model_config if own is None else merged_config(run, own),
            weights=source.weights if with_weights and named else None,
            tokenizer=tokenizer or (source.tokenizer if wants_tokenizer else None),
        )

    def _own_config(self, place: Path, asking: Path | None) -> ModelConfig | None:
        """Return the configuration that weights bring; the file that asks for them is none."""
        if place.suffix in _YAML_SUFFIXES:
            return self.config(place)
        own = config_beside(place)
        if own is not None:
            return own
        weights = [place] if place.is_file() else _weights_in(place)
        beside = self.run_beside(weights[0]) if len(weights) == 1 else None
        if beside is None or (asking is not None and beside.origin_of("").path == asking):
            return None
        return beside.model.model_config

    def _resolve_place(self, place: Path, config: ModelConfig) -> ModelSource:
        """Return the parts at a place of weights whose configuration is known."""
        if place.suffix in _YAML_SUFFIXES:
            return self.resolve(place)
        beside = folder_of(place) / TOKENIZER_NAME
        weights = _weights_in(place) if place.is_dir() else [place]
        whole = place.is_dir() and ((place / CONFIG_NAME).is_file() or len(weights) != 1)
        return ModelSource(
            name=place.stem,
            config=config,
            weights=place if whole else weights[0],
            tokenizer=beside if beside.is_file() else None,
        )

    def _resolve_folder(self, folder: Path, name: str | None = None) -> ModelSource:
        files = _files(folder)
        config = config_beside(folder)
        if config is None:
            yamls = [path for path in files if path.suffix in _YAML_SUFFIXES]
            if len(yamls) != 1 or len(_weights_in(folder)) != 1:
                raise MissingFileError(
                    "not a model folder",
                    path=folder,
                    expected=f"{CONFIG_NAME} and weights, or exactly one .yaml and one .ckpt",
                    found=", ".join(path.name for path in files[:20]) or "no files",
                    hint=_LAYOUT,
                )
            config = self._run_configs.read(yamls[0]).model.model_config
        return evolve(self._resolve_place(folder, config), name=name or folder.name)

    def _resolve_file(self, weights: Path, with_tokenizer: bool) -> ModelSource:
        """Return the parts of a model by its weights: what else there is lies beside them."""
        config, run = config_beside(weights), None
        if config is None:
            run = self.run_beside(weights)
            if run is None:
                raise MissingFileError(
                    "the network of these weights is not known",
                    path=weights,
                    expected=f"{CONFIG_NAME} or {weights.stem}.yaml beside them",
                    hint=f"copy {CONFIG_NAME} and {TOKENIZER_NAME} from where the weights come from "
                    f"to {weights.parent.resolve()}; "
                    "glm3 convert --model-folder writes what a .ckpt needs beside it",
                )
            config = run.model.model_config
        source = self._resolve_place(weights, config)
        if with_tokenizer and run is not None and source.tokenizer is None:
            source = evolve(source, tokenizer=vocabulary_of(run, run.origin_of("").path))
        return source


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except FileNotFoundError:
        raise MissingFileError("no such model folder", path=folder) from None
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror or error}", path=folder) from error


def _weights_in(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if path.suffix in WEIGHT_SUFFIXES]
