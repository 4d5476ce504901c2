"""Cut a network over data and model parallel ranks for MindSpore's parallel compiler.

Query, key and value, the feed-forward's first matrix and the output layer are cut by columns over model
parallel ranks, the matrices behind them by rows; activations are cut over data parallel ranks.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
from attrs import frozen
from mindspore import ops

from glm3.adapters.mindspore.kernels.ascend.kernels import AscendKernels
from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.network import ChatGLMNetwork
from glm3.domain.errors import BackendError, ConfigError, Glm3Error, raise_faults
from glm3.domain.layout.tensor_parallel import TensorParallel
from glm3.domain.model_config import ModelConfig

__all__ = ["ParallelPlan", "shard_network"]


@frozen
class ParallelPlan:
    """How many ranks share the batch and the matrices; ``optimizer_shard`` cuts weights and states too."""

    data_parallel: int = 1
    model_parallel: int = 1
    optimizer_shard: bool = False

    @property
    def num_ranks(self) -> int:
        return self.data_parallel * self.model_parallel

    def check(self, config: ModelConfig, batch_size: int) -> None:
        """Make sure that the network and a global batch divide.

        Raises:
            ConfigError: with everything that does not, and the setting to change.
        """
        faults: list[Glm3Error] = []
        if batch_size % self.data_parallel:
            faults.append(
                ConfigError(
                    "does not divide",
                    field="runner_config.batch_size",
                    expected=f"a multiple of data_parallel = {self.data_parallel}",
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
    """Give every matrix its cut; the network's Ascend kernels were made for the same plan.

    Raises:
        BackendError: the network has other kernels.
    """
    kernels = network.kernels
    if not isinstance(kernels, AscendKernels):
        raise BackendError("only the Ascend kernels are cut", found=type(kernels).__name__)
    data, model = plan.data_parallel, plan.model_parallel
    columns: Any = _CutLinear(kernels, data, model, columns=True)
    rows: Any = _CutLinear(kernels, data, model, columns=False)
    for block in network.layers:
        block.query_key_value.kernels = columns
        block.dense_h_to_4h.kernels = columns
        block.dense.kernels = rows
        block.dense_4h_to_h.kernels = rows
    network.output_layer.kernels = columns
    network.word_embeddings.parallel_optimizer = False  # MindFormers leaves it whole on data parallel ranks
