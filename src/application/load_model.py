"""Use case: load a model and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import evolve, frozen

from glm3.application.adapted_source import adapted_source
from glm3.application.adapter_folder import apply_adapter
from glm3.application.adapters_in_weights import NetworkReader, apply_prefix_in
from glm3.application.checkpoint_stores import find_store
from glm3.application.generation_file import generation_beside
from glm3.application.model_source import ModelSource, ModelSources, ReportProgress
from glm3.domain.errors import ConfigError, MissingFileError, TokenizerError
from glm3.domain.generation_defaults import UNSAID, GenerationDefaults
from glm3.domain.ports.backend import LoadOptions, ModelBackend
from glm3.domain.ports.checkpoint_store import CheckpointReader, CheckpointStore
from glm3.domain.ports.model import LanguageModel
from glm3.domain.ports.tokenizer import Tokenizer
from glm3.domain.training.lora import LoRAConfig, is_adapter_parameter

__all__ = ["LoadedModel", "ModelLoader"]


@frozen(eq=False)
class LoadedModel:
    """A model ready to answer, with the tokenizer and the defaults of generation beside it."""

    model: LanguageModel
    tokenizer: Tokenizer
    source: ModelSource
    generation: GenerationDefaults = UNSAID


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
        self.stores = stores
        self._backend = backend
        self._open_tokenizer = open_tokenizer

    def load(
        self,
        name_or_path: str | Path,
        options: LoadOptions | None = None,
        progress: ReportProgress | None = None,
        adapter: str | Path | None = None,
    ) -> LoadedModel:
        """Load a model by name, folder or YAML file; the folder of an adapter means its base with it.

        With ``adapter`` the model is its base.

        Raises:
            Glm3Error: see :func:`glm3.application.adapted_source.adapted_source`, :meth:`tokenizer_of`,
                :meth:`model_of` and :func:`glm3.application.generation_file.generation_beside`.
        """
        source = adapted_source(name_or_path, self.sources, self.stores, adapter=adapter, progress=progress)
        tokenizer, generation = self.tokenizer_of(source), generation_beside(source.weights)
        return LoadedModel(self.model_of(source, options), tokenizer, source, generation)

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
                hint="copy tokenizer.model there from the folder that the weights come from",
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
        """Load a source's weights, or random ones where it has none, and its adapter or prefix.

        Raises:
            CheckpointError: the weights cannot be read, or do not fit the configuration.
            BackendError: the runtime cannot be used.
        """
        adapted = source.adapter is not None and isinstance(source.adapter.config, LoRAConfig)
        options = evolve(options or LoadOptions(), adaptable=adapted)
        if source.weights is None:
            model = self._backend.load(source.config, None, options)
        else:
            with find_store(source.weights, self.stores).open(source.weights) as reader:
                if source.adapter is None:
                    _refuse_adapter(reader, source.weights)
                model = self._backend.load(source.config, NetworkReader(reader), options)
                apply_prefix_in(reader, model)
        if source.adapter is not None:
            apply_adapter(model, source.adapter)
        return model


def _refuse_adapter(reader: CheckpointReader, weights: Path) -> None:
    """Refuse to answer as if an adapter among the weights were not there."""
    if any(is_adapter_parameter(name) for name in reader.tensors):
        raise ConfigError(
            "holds an adapter besides the network, and nothing says how strong it is",
            path=weights,
            field="model.model_config.pet_config",
            expected="lora_alpha",
            hint="fold it in: glm3 merge FILE FOLDER --lora-alpha NUMBER",
        )
