"""Use case: load a model and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from glm3.application.adapter_folder import (
    StoredAdapter,
    apply_adapter,
    is_adapter_folder,
    read_adapter,
)
from glm3.application.checkpoint_stores import find_store
from glm3.application.model_source import ModelSource, ModelSources, ReportProgress
from glm3.domain.errors import ConfigError, MissingFileError, TokenizerError
from glm3.domain.ports.backend import LoadOptions, ModelBackend
from glm3.domain.ports.checkpoint_store import CheckpointStore
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.tokenizer import Tokenizer

__all__ = ["LoadedModel", "ModelLoader"]


@frozen(eq=False)
class LoadedModel:
    """A model ready to answer, with the tokenizer beside it."""

    model: LanguageModel
    tokenizer: Tokenizer
    source: ModelSource


class ModelLoader:
    """Bring sources, stores, a backend and tokenizers together."""

    def __init__(
        self,
        sources: ModelSources,
        stores: Sequence[CheckpointStore],
        backend: ModelBackend,
        open_tokenizer: Callable[[Path], Tokenizer],
    ) -> None:
        self.sources = sources
        self._stores = stores
        self._backend = backend
        self._open_tokenizer = open_tokenizer

    def load(
        self,
        name_or_path: str | Path,
        options: LoadOptions | None = None,
        progress: ReportProgress | None = None,
    ) -> LoadedModel:
        """Load a model by name, folder or YAML file; the folder of an adapter means its base with it.

        Raises:
            Glm3Error: see :meth:`ModelSources.resolve`, :meth:`tokenizer_of` and :meth:`model_of`.
        """
        folder = Path(name_or_path)
        if is_adapter_folder(folder):
            return self._load_adapted(read_adapter(folder, self._stores), options, progress)
        source = self.sources.resolve(name_or_path, progress=progress)
        tokenizer = self.tokenizer_of(source)
        return LoadedModel(self.model_of(source, options), tokenizer, source)

    def _load_adapted(
        self, adapter: StoredAdapter, options: LoadOptions | None, progress: ReportProgress | None
    ) -> LoadedModel:
        if adapter.base.name is None:
            raise ConfigError(
                "does not say what it adapts", path=adapter.folder, field="base_model_name_or_path"
            )
        source = self.sources.resolve(adapter.base.name, progress=progress)
        adapter.base.require(source.weights, adapter.folder)
        loaded = LoadedModel(self.model_of(source, options), self.tokenizer_of(source), source)
        apply_adapter(loaded.model, adapter)
        return loaded

    def tokenizer_of(self, source: ModelSource) -> Tokenizer:
        """Open a source's tokenizer.

        Raises:
            MissingFileError: it has none.
            TokenizerError: its file is no tokenizer, or has more tokens than the model.
        """
        if source.tokenizer is None:
            raise MissingFileError(
                "the model has no tokenizer",
                path=source.weights,
                expected="tokenizer.model beside the weights, or processor.tokenizer.vocab_file in the YAML",
            )
        tokenizer = self._open_tokenizer(source.tokenizer)
        size = tokenizer.special_tokens.vocab_size
        if size > source.config.padded_vocab_size:
            raise TokenizerError(
                "the tokenizer does not match the model",
                path=source.tokenizer,
                expected=f"at most {source.config.padded_vocab_size} tokens (padded_vocab_size)",
                found=f"{size} tokens",
            )
        return tokenizer

    def model_of(self, source: ModelSource, options: LoadOptions | None = None) -> LanguageModel:
        """Load a source's weights, or random ones where it has none.

        Raises:
            CheckpointError: the weights cannot be read, or do not fit the configuration.
            BackendError: the runtime cannot be used.
        """
        options = options or LoadOptions()
        if source.weights is None:
            return self._backend.load(source.config, None, options)
        with find_store(source.weights, self._stores).open(source.weights) as reader:
            return self._backend.load(source.config, reader, options)
