"""The language model port over the MindSpore network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import mindspore as ms
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.adapters.mindspore.inference.cache import MindSporeCache
from glm3.adapters.mindspore.inference.decoder import NativeDecoder
from glm3.adapters.mindspore.inference.runner import VERIFIABLE, NativeRunner
from glm3.adapters.mindspore.inference.weights import weights_of_parameters
from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.adapters.mindspore.training.lora import Adapter
from glm3.adapters.mindspore.training.prefix import PrefixTuning
from glm3.adapters.mindspore.training.shared_job import SharedJob
from glm3.adapters.mindspore.training.trainer import MindSporeTrainer
from glm3.domain.errors import InvalidInputError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.model_config import ModelConfig
from glm3.domain.model_inputs import check_capacity, check_extension, check_forward, check_verified
from glm3.domain.parameters import parameter_shapes
from glm3.domain.ports.communicator import Communicator
from glm3.domain.ports.model import KVCache
from glm3.domain.tensors import Array
from glm3.domain.training.lora import LoRAConfig
from glm3.domain.training.options import TrainOptions
from glm3.domain.training.prefix import PrefixConfig

__all__ = ["MindSporeModel"]

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


class MindSporeModel:
    """Score sequences with a :class:`ChatGLMNetwork`, eagerly; its weights are loaded already.

    Over a KV cache the native decoder computes where the kernel set has one, unless adapted weights need the
    network's own operators. ``kv_cache`` is the format of its caches: fp32, fp16 or int8.
    """

    def __init__(self, network: ChatGLMNetwork, kv_cache: str = "fp32") -> None:
        self._network: ChatGLMNetwork | None = network
        network.set_train(False)
        self._config = network.config
        self._adapter: Adapter | PrefixTuning | None = None
        self._kv_cache = kv_cache
        self._runner: NativeRunner | None = None

    @property
    def network(self) -> ChatGLMNetwork:
        """The network.

        Raises:
            InvalidInputError: ranks share it, and none has it whole.
        """
        if self._network is None:
            raise InvalidInputError(
                "the network is shared among ranks that train it, and this one has a part of it",
                hint="load what they save",
            )
        return self._network

    @property
    def config(self) -> ModelConfig:
        return self._config

    def new_cache(self, rows: int, capacity: int, pool_tokens: int | None = None) -> MindSporeCache:
        check_capacity(self.config, rows, capacity)
        prefix, native = self._prefix, self._native()
        length, format_ = 0 if prefix is None else prefix.length, "fp32" if native is None else self._kv_cache
        cache = MindSporeCache(
            self.config, rows, capacity, length, format_, pool_tokens, whole_rows=native is None
        )
        if prefix is not None:
            cache.write_prefix(prefix.keys_values())
        return cache

    def extend(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        cache = self._own(cache)
        check_extension(self.config, cache, rows, tokens)
        network, tables = self.network, self._tables
        if (native := self._native()) is not None:
            return native.extend(cache, rows, tokens, (tables.cos_table, tables.sin_table))
        if cache.block_size < cache.prefix + cache.capacity:
            raise InvalidInputError("the cache is older than the model's adapter", hint="make a new one")
        extension = cache.extension(rows, [len(ids) for ids in tokens])
        plan = network.kernels.plan(extension, tables.cos_table, tables.sin_table)
        packed = np.concatenate([np.asarray(ids, np.int32) for ids in tokens])
        hidden = network.extend(ms.Tensor.from_numpy(packed), cache.layers, plan)
        if len(packed) > len(rows):
            last = np.cumsum(extension.lengths) - 1
            hidden = hidden[ms.Tensor.from_numpy(last)]
        scores: FloatArray = network.output(hidden).asnumpy()
        return scores

    @property
    def verifiable(self) -> int:
        return 1 if self._native() is None else VERIFIABLE

    def verify(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        cache = self._own(cache)
        check_verified(self.verifiable, tokens)
        check_extension(self.config, cache, rows, tokens)
        if (native := self._native()) is None:
            return self.extend(cache, rows, tokens)
        return native.verify(cache, rows, tokens, (self._tables.cos_table, self._tables.sin_table))

    def forward(
        self,
        input_ids: IntArray,
        *,
        attention_mask: IntArray | None = None,
        position_ids: IntArray | None = None,
    ) -> FloatArray:
        check_forward(self.config, input_ids, attention_mask, position_ids)
        batch, seq = input_ids.shape
        scores = np.zeros((batch, seq, self.config.padded_vocab_size), np.float32)
        for part in self._parts(input_ids, attention_mask, position_ids):
            part.scatter(self.network.output(self.network.hidden(part.ids, part.cos, part.sin)), scores)
        return scores

    def hidden_states(
        self,
        input_ids: IntArray,
        *,
        attention_mask: IntArray | None = None,
        position_ids: IntArray | None = None,
    ) -> list[FloatArray]:
        check_forward(self.config, input_ids, attention_mask, position_ids)
        shape = (*input_ids.shape, self.config.hidden_size)
        states = [np.zeros(shape, np.float32) for _ in range(self.config.num_layers + 1)]
        for part in self._parts(input_ids, attention_mask, position_ids):
            for state, array in zip(self.network.states(part.ids, part.cos, part.sin), states, strict=True):
                part.scatter(state, array)
        return states

    def parameters(self) -> dict[str, FloatArray]:
        own = parameter_shapes(self.config)
        return {
            p.name: p.astype(ms.float32).asnumpy() for p in self.network.get_parameters() if p.name in own
        }

    def trainer(self, options: TrainOptions, communicator: Communicator) -> MindSporeTrainer:
        if options.cut is not None and options.cut.model_parallel > 1:
            return self._shared_trainer(options, options.cut, communicator)
        key = None if self._adapter is None else self._adapter.key
        return MindSporeTrainer(self.network, options, communicator, key)

    def _shared_trainer(
        self, options: TrainOptions, cut: NetworkCut, communicator: Communicator
    ) -> MindSporeTrainer:
        """Cut the network and let go of the whole: this rank cannot answer alone any more."""
        if self._adapter is not None:
            raise InvalidInputError(
                "ranks share no network with an adapter",
                field="parallel_config.model_parallel",
                expected=1,
                found=cut.model_parallel,
            )
        job = SharedJob.begin(self.network, cut, communicator)
        self._network = self._runner = None
        return MindSporeTrainer(job.network, options, communicator, shared=job)

    def add_lora(self, config: LoRAConfig, seed: int = 0) -> None:
        self._require_no_adapter()
        self._adapter = Adapter(self.network, config, seed)

    def add_prefix(self, config: PrefixConfig, seed: int = 0) -> None:
        self._require_no_adapter()
        self._adapter = PrefixTuning(self.network, config, seed)

    def adapter_parameters(self) -> dict[str, Array]:
        return {} if self._adapter is None else self._adapter.parameters()

    def set_adapter_parameters(self, parameters: Mapping[str, Array]) -> None:
        self._require_adapter().set_parameters(parameters)

    def merge_lora(self) -> None:
        adapter = self._require_adapter()
        if isinstance(adapter, PrefixTuning):
            raise InvalidInputError("a prefix cannot be folded into weights")
        adapter.merge()
        self._adapter = self._runner = None

    def _native(self) -> NativeRunner | None:
        """Return the native decoder of the network, None where it cannot be used."""
        library = getattr(self.network.kernels, "library", None)
        if library is None or isinstance(self._adapter, Adapter):
            return None
        if self._runner is None:
            parameters = {parameter.name: parameter for parameter in self.network.get_parameters()}
            weights = weights_of_parameters(self.config, parameters)
            self._runner = NativeRunner(self.config, weights, NativeDecoder(library))
        return self._runner

    def _own(self, cache: KVCache) -> MindSporeCache:
        if not isinstance(cache, MindSporeCache):
            raise InvalidInputError(
                "the cache is another model's",
                expected="one from new_cache",
                found=type(cache).__name__,
            )
        if cache.prefix != (0 if self._prefix is None else self._prefix.length):
            raise InvalidInputError("the cache is older than the model's prefix", hint="make a new one")
        return cache

    @property
    def _tables(self) -> ChatGLMNetwork | PrefixTuning:
        """What holds cos and sin for every place of the cache."""
        return self.network if self._prefix is None else self._prefix

    @property
    def _prefix(self) -> PrefixTuning | None:
        return self._adapter if isinstance(self._adapter, PrefixTuning) else None

    def _require_no_adapter(self) -> None:
        if self._adapter is not None:
            raise InvalidInputError("the model is adapted already", hint="load it anew, or merge the adapter")

    def _require_adapter(self) -> Adapter | PrefixTuning:
        if self._adapter is None:
            raise InvalidInputError("the model has no adapter", hint="add one first")
        return self._adapter

    def _parts(
        self, input_ids: IntArray, attention_mask: IntArray | None, position_ids: IntArray | None
    ) -> Iterator[_Part]:
        """Squeeze the padding out, which leaves causal attention over right-padded rows and no mask.

        Rows at ordinary positions form one part; rows with positions of their own are one part each.
        """
        batch, seq = input_ids.shape
        mask = np.ones((batch, seq), np.int64) if attention_mask is None else attention_mask
        columns = [np.flatnonzero(row) for row in mask]
        placed = [
            np.arange(len(real)) if position_ids is None else position_ids[row, real]
            for row, real in enumerate(columns)
        ]
        ordinary = [row for row in range(batch) if np.array_equal(placed[row], np.arange(len(placed[row])))]
        for rows in [ordinary, *([row] for row in range(batch) if row not in ordinary)]:
            positions = max((placed[row] for row in rows), key=len, default=np.arange(0))
            if not len(positions):
                continue
            ids = np.zeros((len(rows), len(positions)), np.int32)
            for i, row in enumerate(rows):
                ids[i, : len(columns[row])] = input_ids[row, columns[row]]
            yield _Part(
                [(row, columns[row]) for row in rows],
                ms.Tensor.from_numpy(ids),
                ms.Tensor.from_numpy(self.network.cos_table[positions]),
                ms.Tensor.from_numpy(self.network.sin_table[positions]),
            )


@frozen(eq=False)
class _Part:
    """Rows of a batch without their padding: right-padded ``ids (rows, seq)``, placed by cos and sin.

    ``columns`` says for each row which row of the batch it is and which of its columns are real.
    """

    columns: Sequence[tuple[int, IntArray]]
    ids: Tensor
    cos: Tensor
    sin: Tensor

    def scatter(self, packed: Tensor, target: FloatArray) -> None:
        """Copy ``(rows * seq, width)`` to where its tokens stood in ``target (batch, seq, width)``."""
        source = packed.asnumpy().reshape(*self.ids.shape, -1)
        for i, (row, columns) in enumerate(self.columns):
            target[row, columns] = source[i, : len(columns)]
