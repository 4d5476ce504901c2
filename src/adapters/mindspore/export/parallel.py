"""Cut a network over data parallel, model parallel and pipeline ranks for MindSpore's parallel compiler.

Query, key and value, the feed-forward's first matrix and the output layer are cut by columns over model
parallel ranks, the matrices behind them by rows; activations are cut over data parallel ranks. Blocks are
whole in their stages.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mindspore as ms
from attrs import frozen
from mindspore import ops

from glm3.adapters.mindspore.kernels.ascend.kernels import AscendKernels
from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.domain.errors import BackendError, ConfigError, Glm3Error, raise_faults
from glm3.domain.layout.network_cut import stage_of
from glm3.domain.layout.tensor_parallel import TensorParallel
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import layer_prefix

__all__ = ["ParallelPlan", "shard_network"]


@frozen
class ParallelPlan:
    """How many ranks share the batch, the matrices and the layers.

    ``optimizer_shard`` cuts weights and states too; ``micro_batches`` go through the stages in turn.
    """

    data_parallel: int = 1
    model_parallel: int = 1
    optimizer_shard: bool = False
    pipeline_stage: int = 1
    micro_batches: int = 1

    @property
    def num_ranks(self) -> int:
        return self.data_parallel * self.model_parallel * self.pipeline_stage

    def check(self, config: ModelConfig, batch_size: int) -> None:
        """Make sure that the network and a global batch divide.

        Raises:
            ConfigError: with everything that does not, and the setting to change.
        """
        faults: list[Glm3Error] = list(self._stage_faults(config))
        pieces = self.data_parallel * self.micro_batches
        if batch_size % pieces:
            faults.append(
                ConfigError(
                    "does not divide",
                    field="runner_config.batch_size",
                    expected=f"a multiple of data_parallel times micro_batch_num = {pieces}",
                    found=batch_size,
                )
            )
        if self.model_parallel > config.num_kv_heads:
            faults.append(
                ConfigError(
                    "flash attention has no key and value head for every rank",
                    field="parallel_config.model_parallel",
                    expected=f"at most multi_query_group_num = {config.num_kv_heads}",
                    found=self.model_parallel,
                )
            )
        try:
            TensorParallel(config, self.model_parallel)
        except ConfigError as error:
            faults.append(error)
        raise_faults("the plan does not fit the network", faults)

    def _stage_faults(self, config: ModelConfig) -> Iterator[ConfigError]:
        if self.pipeline_stage > config.num_layers:
            yield ConfigError(
                "more stages than layers",
                field="parallel_config.pipeline_stage",
                expected=f"at most num_layers = {config.num_layers}",
                found=self.pipeline_stage,
            )
        if self.micro_batches < self.pipeline_stage:
            yield ConfigError(
                "too few micro-batches to keep every stage at work",
                field="parallel_config.micro_batch_num",
                expected=f"at least pipeline_stage = {self.pipeline_stage}",
                found=self.micro_batches,
            )


@ms.jit_class
class _CutLinear:
    """A product whose weight is cut by columns or by rows over model parallel ranks."""

    def __init__(self, kernels: AscendKernels, data: int, model: int, *, columns: bool) -> None:
        self.dtype = kernels.dtype
        self.product = ops.MatMul(transpose_b=True)
        self.product.shard(((data, 1), (model, 1)) if columns else ((data, model), (1, model)))
        self.add = ops.Add()
        self.add.shard(((data, model), (model,)) if columns else ((data, 1), (1,)))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        y = self.product(ops.cast(x, self.dtype), ops.cast(weight, self.dtype))
        if bias is not None:
            y = self.add(y, ops.cast(bias, self.dtype))
        return y


def shard_network(network: ChatGLMNetwork, plan: ParallelPlan) -> None:
    """Give matrices their cuts and blocks their stages; the network's kernels were made for the same plan.

    Raises:
        BackendError: the network has other kernels.
    """
    kernels = network.kernels
    if not isinstance(kernels, AscendKernels):
        raise BackendError("only the Ascend kernels are cut", found=type(kernels).__name__)
    data, model = plan.data_parallel, plan.model_parallel
    columns: Any = _CutLinear(kernels, data, model, columns=True)
    rows: Any = _CutLinear(kernels, data, model, columns=False)
    for number, block in enumerate(network.layers):
        if plan.pipeline_stage > 1:
            block.pipeline_stage = stage_of(layer_prefix(number), len(network.layers), plan.pipeline_stage)
        block.query_key_value.kernels = columns
        block.dense_h_to_4h.kernels = columns
        block.dense.kernels = rows
        block.dense_4h_to_h.kernels = rows
    network.output_layer.kernels = columns
    network.word_embeddings.parallel_optimizer = False  # MindFormers leaves it whole on data parallel ranks
