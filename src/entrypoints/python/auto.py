"""``AutoConfig``, ``AutoModel``, ``AutoTokenizer``, ``AutoProcessor``: the model card's way to a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from glm3.application.adapted_source import adapted_source
from glm3.application.model_source import ModelSource
from glm3.domain.errors import ConfigError, UsageError
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.special_tokens import SpecialTokens
from glm3.entrypoints.container import build_container
from glm3.entrypoints.python.config import ChatGLM2Config
from glm3.entrypoints.python.dtypes import floating_dtype
from glm3.entrypoints.python.model import ChatGLM2ForConditionalGeneration
from glm3.entrypoints.python.tokenizer import ChatGLM3Tokenizer

__all__ = ["AutoConfig", "AutoModel", "AutoProcessor", "AutoTokenizer", "Processor"]


class _Auto:
    """A class of constructors alone."""

    def __init__(self) -> None:
        name = type(self).__name__
        raise UsageError(f"{name} is not built directly", hint=f"call {name}.from_pretrained(NAME_OR_FOLDER)")

    @staticmethod
    def show_support_list() -> None:
        """Print the known names."""
        print("\n".join(_Auto.get_support_list()))  # noqa: T201  # what the call is for

    @staticmethod
    def get_support_list() -> list[str]:
        """Return the known names."""
        return build_container().sources().names()


class AutoConfig(_Auto):
    """Configurations by name, folder or YAML file."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path, **fields: Any) -> ChatGLM2Config:
        """Return a configuration that can be edited; ``fields`` replace its values.

        Raises:
            UsageError: there is no such name or path.
            ConfigError: a field is unknown or invalid.
        """
        config = ChatGLM2Config(build_container().sources().config(_text_or_path(name_or_path)), **fields)
        config.source = name_or_path
        return config


class AutoModel(_Auto):
    """Models by name, folder, YAML file or edited configuration."""

    @staticmethod
    def from_pretrained(
        name_or_path: str | Path,
        *,
        kernels: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
        quant: str | None = None,
        kv_cache: str | None = None,
        backend: str | None = None,
        download_checkpoint: bool = True,
        adapter: str | Path | None = None,
        **fields: Any,
    ) -> ChatGLM2ForConditionalGeneration:
        """Load a model; a known name is downloaded where it is missing.

        Args:
            name_or_path: ``tiny``, ``glm3_6b``, a Hugging Face folder, a folder with one YAML and one
                ``.ckpt``, a YAML file, or the folder of an adapter, which means its base with it.
            kernels: which kernel set computes; ``auto`` takes the fastest one that runs here.
            dtype: how parameters are held in memory.
            threads: of the computation; one for each physical core by default.
            quant: round the weights while they are loaded: ``int8``, ``int4``, ``int4-g64`` and the like.
            kv_cache: format of keys and values, ``fp32``, ``fp16`` or ``int8``; by default fp16 beside
                rounded weights and fp32 beside others.
            backend: ``mindspore``, ``numpy``, or one that another package registered.
            download_checkpoint: load the weights; without them they are random.
            adapter: the folder of a LoRA adapter or a prefix to answer with; the model is its base then.
            fields: replace fields of the configuration.

        Raises:
            UsageError: there is no such name, path or backend.
            CheckpointError: the weights cannot be read, or do not fit.
            DownloadError: a file is missing and cannot be fetched.
        """
        container = build_container(backend=backend)
        models = container.models()
        source = adapted_source(
            _text_or_path(name_or_path),
            models.sources,
            models.stores,
            adapter=adapter,
            with_weights=download_checkpoint,
        )
        config = ChatGLM2Config(source.config, **fields)
        config.source = name_or_path
        chosen = evolve(source, config=config.model_config)
        if not download_checkpoint:
            chosen = evolve(chosen, weights=None)
        return _load(
            chosen,
            config,
            LoadOptions(
                kernels=kernels,
                dtype=floating_dtype(dtype),
                threads=threads,
                quant=quant,
                kv_cache=kv_cache,
            ),
            backend,
        )

    @staticmethod
    def from_config(
        config: ChatGLM2Config | str | Path, *, backend: str | None = None, **fields: Any
    ) -> ChatGLM2ForConditionalGeneration:
        """Build the model of a configuration, or of a YAML file.

        Weights come from ``config.checkpoint_name_or_path``: a file, a folder or a known name. Without it
        they are those of the model that the configuration was read from, if it was.

        Raises:
            UsageError: ``config`` is no configuration.
            ConfigError: the checkpoint does not exist.
        """
        if isinstance(config, (str, Path)):
            config = AutoConfig.from_pretrained(config)
        if not isinstance(config, ChatGLM2Config):
            raise UsageError(
                "not a configuration",
                expected="AutoConfig.from_pretrained(...) or the path of a YAML file",
                found=type(config).__name__,
            )
        for name, value in fields.items():
            setattr(config, name, value)
        named = config.checkpoint_name_or_path
        sources = build_container().sources()
        source = ModelSource(name="config", config=config.model_config, weights=None, tokenizer=None)
        if named and Path(named).exists():
            weights = Path(named)
            beside = (weights if weights.is_dir() else weights.parent) / "tokenizer.model"
            source = evolve(source, weights=weights, tokenizer=beside if beside.is_file() else None)
        elif named or config.source is not None:
            if named and named not in sources.names():
                raise ConfigError(
                    "no such checkpoint",
                    field="checkpoint_name_or_path",
                    expected=f"a file, a folder, or one of {', '.join(sources.names())}",
                    found=named,
                )
            found = sources.resolve(_text_or_path(named or config.source))
            source = evolve(source, weights=found.weights, tokenizer=found.tokenizer)
        return _load(source, config, LoadOptions(), backend)


class AutoTokenizer(_Auto):
    """Tokenizers by name, folder or YAML file."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path) -> ChatGLM3Tokenizer:
        """Open the tokenizer of a model, or a ``tokenizer.model`` file.

        Raises:
            UsageError: there is no such name or path.
            MissingFileError: the model has no tokenizer.
            TokenizerError: the file is no tokenizer.
        """
        container = build_container()
        path = Path(_text_or_path(name_or_path))
        if path.suffix == ".model":
            return ChatGLM3Tokenizer(container.tokenizers()(path))
        if path.is_dir() and (path / "tokenizer.model").is_file():
            return ChatGLM3Tokenizer(container.tokenizers()(path / "tokenizer.model"))
        models = container.models()
        source = adapted_source(name_or_path, models.sources, models.stores, with_weights=False)
        return ChatGLM3Tokenizer(models.tokenizer_of(source))


@frozen
class Processor:
    """What turns a user's text into a model's input."""

    tokenizer: ChatGLM3Tokenizer


class AutoProcessor(_Auto):
    """Processors by name or YAML file."""

    @staticmethod
    def from_pretrained(name_or_path: str | Path) -> Processor:
        """Return the processor; its tokenizer is ``processor.tokenizer.vocab_file`` of a YAML file.

        Raises:
            MissingFileError: the YAML file or its vocabulary does not exist.
        """
        return Processor(AutoTokenizer.from_pretrained(name_or_path))


def _load(
    source: ModelSource, config: ChatGLM2Config, options: LoadOptions, backend: str | None
) -> ChatGLM2ForConditionalGeneration:
    models = build_container(backend=backend).models()
    special: SpecialTokens | None = None
    if source.tokenizer is not None:
        special = models.tokenizer_of(source).special_tokens
    return ChatGLM2ForConditionalGeneration(models.model_of(source, options), config, special)


def _text_or_path(value: object) -> str | Path:
    if isinstance(value, (str, Path)):
        return value
    raise UsageError("not a name or path", expected="text", found=type(value).__name__)
