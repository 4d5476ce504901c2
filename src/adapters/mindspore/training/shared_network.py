"""A network of which each rank computes its heads and channels: its cells, and what they tell each other.

Two sums over the ranks belong to every half of a block: of what the second linear layer makes, and backwards
of the gradient by what the first one is given. Everything between is each rank's own; everything outside is
the same on each. Sums are inside the compiled graph, one after another, so that ranks make them in one order.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer
from numpy.typing import NDArray

from glm3.adapters.mindspore.kernels.base import Extension, HeadLayout, Kernels, Tensor
from glm3.adapters.mindspore.kernels.stock import widen
from glm3.adapters.mindspore.network import ChatGLMNetwork, Linear
from glm3.adapters.mindspore.tensors import dtype_of, to_carrier, to_tensor
from glm3.adapters.mindspore.training.exchange import Group
from glm3.domain.parameters import EMBEDDING
from glm3.domain.training.model_shares import ModelShares

__all__ = ["share_network"]


def share_network(network: ChatGLMNetwork, shares: ModelShares, group: Group) -> ChatGLMNetwork:
    """Return a rank's network with its parts of the parameters, ``group`` being the model parallel ranks."""
    config = shares.ways.own_config
    kernels = _SharedKernels(network.kernels.with_layout(HeadLayout.of(config)), group, shares)
    own = ChatGLMNetwork(config, kernels, network.dtype)
    if shares.held_shape(EMBEDDING) != tuple(own.word_embeddings.shape):
        zeros = initializer("zeros", shares.held_shape(EMBEDDING), network.word_embeddings.dtype)
        own.word_embeddings = Parameter(zeros, name=EMBEDDING)
    complete = {parameter.name: parameter for parameter in network.get_parameters()}
    for parameter in own.get_parameters():
        array = to_carrier(complete[parameter.name])
        part = np.concatenate([array[box] for box in shares.held(parameter.name)])
        parameter.set_data(to_tensor(part, dtype_of(parameter)))
    for layer in own.layers:
        layer.query_key_value = _ByRows(layer.query_key_value, group)
        layer.dense = _ByColumns(layer.dense, group)
        layer.dense_h_to_4h = _ByRows(layer.dense_h_to_4h, group)
        layer.dense_4h_to_h = _ByColumns(layer.dense_4h_to_h, group)
    own.output_layer = _ByRows(own.output_layer, group)
    return own


class _Sum(nn.Cell):
    """Add up over the ranks; backwards each is given the gradient as it is."""

    def __init__(self, group: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum = ops.AllReduce(group=group.name)

    def construct(self, x: Tensor) -> Tensor:
        return self.sum(x)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        return (dout,)


class _Spread(nn.Cell):
    """Give each rank what all have; backwards their gradients are added up."""

    def __init__(self, group: Group) -> None:
        super().__init__(auto_prefix=False)
        self.sum = ops.AllReduce(group=group.name)

    def construct(self, x: Tensor) -> Tensor:
        return x

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:  # noqa: ARG002
        return (self.sum(dout),)


class _ByRows(Linear):
    """A linear layer of which each rank makes some of the outputs."""

    def __init__(self, layer: Linear, group: Group) -> None:
        super().__init__(layer.kernels, layer.weight, layer.bias)
        self.spread = _Spread(group)

    def construct(self, x: Tensor) -> Tensor:
        return self.kernels.linear(self.spread(x), self.weight, self.bias)


class _ByColumns(Linear):
    """A linear layer of which each rank takes some of the inputs; the bias is added once."""

    def __init__(self, layer: Linear, group: Group) -> None:
        super().__init__(layer.kernels, layer.weight, layer.bias)
        self.sum = _Sum(group)

    def construct(self, x: Tensor) -> Tensor:
        y = self.sum(self.kernels.linear(x, self.weight, None))
        if self.bias is not None:
            y = ops.bias_add(y, widen(self.bias))
        return y


class _CrossEntropy(nn.Cell):
    """The mean loss where each rank has the logits of some tokens of the vocabulary.

    Ranks tell each other two numbers of each row: the logarithm of the sum of their exponentials, and the
    label's logit, which is 0 but on one rank.
    """

    def __init__(self, group: Group, tokens: int) -> None:
        super().__init__(auto_prefix=False)
        self.ranks, self.start, self.last = group.size, group.rank * tokens, tokens - 1
        self.place = ms.Tensor(np.eye(group.size, dtype=np.float32)[:, group.rank : group.rank + 1])
        self.sum = _Sum(group)

    def construct(self, logits: Tensor, labels: Tensor) -> Tensor:
        local = labels - self.start
        nearest = ops.minimum(ops.maximum(local, 0), self.last)
        inside = ops.cast(local == nearest, ms.float32)
        picked = ops.gather_elements(logits, 1, nearest.reshape(-1, 1)).reshape(-1) * inside
        sums = logits[:, 0] - ops.log_softmax(logits, -1)[:, 0]
        told = self.sum(ops.matmul(self.place, ops.concat((sums, picked)).reshape(1, -1)))
        told = told.reshape(self.ranks, 2, logits.shape[0])
        total = ops.logsumexp(told[:, 0], 0)
        counted = ops.cast(labels != -100, ms.float32)
        return ((total - told[:, 1].sum(0)) * counted).sum() / (counted.sum() + 1e-8)


@ms.jit_class
class _SharedKernels:
    """A kernel set for some of the heads, which looks up and scores a part of the vocabulary."""

    def __init__(self, kernels: Kernels, group: Group, shares: ModelShares) -> None:
        self.kernels, self.group, self.shares = kernels, group, shares
        self.adamw = kernels.adamw
        self.dropout = kernels.dropout
        self.tokens = shares.ways.own_config.padded_vocab_size
        self.start = group.rank * self.tokens
        self.whole_table = shares.cut.vocab_emb_dp
        self.sum = _Sum(group)
        self.loss = _CrossEntropy(group, self.tokens)

    def with_layout(self, layout: HeadLayout) -> Kernels:
        return _SharedKernels(self.kernels.with_layout(layout), self.group, self.shares)

    def recompute(self) -> None:
        self.kernels.recompute()

    def embedding(self, ids: Tensor, weight: Tensor) -> Tensor:
        if self.whole_table:
            return self.kernels.embedding(ids, weight)
        local = ids - self.start
        inside = ops.cast(ops.logical_and(local >= 0, local < self.tokens), ms.float32)
        found = self.kernels.embedding(ops.minimum(ops.maximum(local, 0), self.tokens - 1), weight)
        return self.sum(found * ops.tile(inside.reshape(-1, 1), (1, found.shape[1])))

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.kernels.linear(x, weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        return self.kernels.rms_norm(x, weight, epsilon)

    def swiglu(self, h: Tensor) -> Tensor:
        return self.kernels.swiglu(h)

    def attention(self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int) -> Tensor:
        return self.kernels.attention(qkv, cos, sin, batch, seq)

    def prefix_attention(
        self, qkv: Tensor, cos: Tensor, sin: Tensor, batch: int, seq: int, keys: Tensor, values: Tensor
    ) -> Tensor:
        return self.kernels.prefix_attention(qkv, cos, sin, batch, seq, keys, values)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.loss(widen(logits), labels)

    def sum_of_squares(self, x: Tensor) -> Tensor:
        return self.kernels.sum_of_squares(x)

    def plan(self, extension: Extension, cos: NDArray[np.float32], sin: NDArray[np.float32]) -> Any:
        return self.kernels.plan(extension, cos, sin)

    def cached_attention(self, qkv: Tensor, keys: Tensor, values: Tensor, plan: Any) -> Tensor:
        return self.kernels.cached_attention(qkv, keys, values, plan)
