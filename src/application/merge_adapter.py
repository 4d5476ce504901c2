"""Use case: fold a LoRA adapter into the weights it was trained on, one tensor at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from attrs import evolve, frozen

from glm3.application.adapted_source import require_adapter
from glm3.application.checkpoint_stores import find_store
from glm3.application.convert import ConversionRequest, ConversionResult, Progress, convert
from glm3.application.model_source import ModelSources
from glm3.domain.errors import CheckpointError, ConfigError, MissingFileError
from glm3.domain.parameter_check import require_shapes
from glm3.domain.parameters import IGNORED_SUFFIXES, from_mindspore_name, is_model_parameter
from glm3.domain.ports.checkpoint_store import CheckpointReader, CheckpointStore, CheckpointWriter
from glm3.domain.quantization.rounded_checkpoint import refuse_rounded
from glm3.domain.tensors import Array, TensorSpec, from_float32, to_float32
from glm3.domain.training.lora import (
    LoRAConfig,
    adapted_modules,
    adapter_names,
    adapter_shapes,
    is_adapter_state,
    merge,
)

__all__ = ["MergeAdapterRequest", "merge_adapter"]


@frozen(kw_only=True)
class MergeAdapterRequest:
    """Which adapter, and what to write; the fields are those of a conversion.

    ``base`` names other weights than the adapter does, for example the same ones at another place. ``alpha``
    is how strong an adapter in MindFormers' form is, where nothing beside it says so.
    """

    adapter: Path
    target: Path
    format: str = "hf"
    base: str | None = None
    alpha: float | None = None
    verify: bool = False
    overwrite: bool = False


def merge_adapter(
    request: MergeAdapterRequest,
    sources: ModelSources,
    stores: Sequence[CheckpointStore],
    progress: Progress | None = None,
) -> ConversionResult:
    """Write the base's weights with the adapter folded in: ``W + scale * B A``, rounded once to W's dtype.

    Weights without an adapter keep every bit. The target appears whole or not at all, and without what else
    a checkpoint of MindFormers holds besides the network and its adapter.

    Raises:
        ConfigError, CheckpointError: the adapter is damaged, does not fit, or belongs to other weights.
        MissingFileError: the base has no weights.
        UsageError, StorageError: the target does not suit the format, or cannot be written.
    """
    adapter = require_adapter(request.adapter, sources, stores, alpha=request.alpha)
    lora = adapter.config
    if not isinstance(lora, LoRAConfig):
        raise ConfigError(
            "a prefix cannot be folded into weights: it is keys and values, which no weight makes",
            path=request.adapter,
            hint="chat with the folder as it is",
        )
    named = request.base or adapter.base.name
    if named is None:
        raise CheckpointError(
            "does not say what it adapts",
            path=request.adapter,
            field="base_model_name_or_path",
            hint="name the base yourself",
        )
    source = sources.resolve(named, with_tokenizer=False)
    if source.weights is None:
        raise MissingFileError("the adapter's base has no weights", path=request.adapter, found=named)
    adapter.base.require(source.weights, adapter.folder)
    require_shapes(
        {name: array.shape for name, array in adapter.parameters.items()},
        adapter_shapes(source.config, lora),
        request.adapter,
    )
    with find_store(source.weights, stores).open(source.weights) as reader:
        refuse_rounded(reader, "merged with an adapter")
    modules = adapted_modules(source.config, lora)
    adapted = _AdaptedStore(
        find_store(source.weights, stores), adapter.parameters, lora.scale, frozenset(modules)
    )
    conversion = ConversionRequest(
        source=source.weights,
        target=request.target,
        format=request.format,
        verify=request.verify,
        overwrite=request.overwrite,
        config=source.config,
    )
    result = convert(conversion, [adapted, *stores], progress)
    return evolve(result, notes=(*result.notes, f"{len(modules)} matrices changed"))


@frozen(eq=False)
class _AdaptedStore:
    """The base's store, whose readers show the merged weights."""

    base: CheckpointStore
    parameters: Mapping[str, Array]
    scale: float
    modules: frozenset[str]

    @property
    def format(self) -> str:
        return f"{self.base.format} with an adapter"

    def recognises(self, path: Path) -> bool:
        return self.base.recognises(path)

    @contextmanager
    def open(self, path: Path) -> Iterator[CheckpointReader]:
        with self.base.open(path) as reader:
            yield _AdaptedReader(reader, self.parameters, self.scale, self.modules)

    def create(
        self, path: Path, specs: Sequence[TensorSpec], metadata: Mapping[str, str] | None = None
    ) -> AbstractContextManager[CheckpointWriter]:
        return self.base.create(path, specs, metadata)


@frozen(eq=False)
class _AdaptedReader:
    """The network's tensors; adapters and the state of a training run are left out."""

    base: CheckpointReader
    parameters: Mapping[str, Array]
    scale: float
    modules: frozenset[str]

    @property
    def tensors(self) -> Mapping[str, TensorSpec]:
        return {
            name: spec
            for name, spec in self.base.tensors.items()
            if not is_adapter_state(name) and (is_model_parameter(name) or name.endswith(IGNORED_SUFFIXES))
        }

    @property
    def metadata(self) -> Mapping[str, str]:
        return self.base.metadata

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return a tensor, or rows of it, with its adapter folded in if it has one."""
        stored = self.base.read(name, rows)
        module = from_mindspore_name(name).removesuffix(".weight")
        if module not in self.modules:
            return stored
        a, b = (self.parameters[parameter] for parameter in adapter_names(module))
        dtype = self.base.tensors[name].dtype
        chosen = b if rows is None else b[rows]
        return from_float32(merge(to_float32(stored, dtype), a, chosen, self.scale), dtype)
