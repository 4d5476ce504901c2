"""Which rows and columns of each matrix a rank computes with when ranks share the matrices.

Query, key and value are rows of one matrix, as are the two halves of SwiGLU's input. A rank that computes
some attention heads needs their query rows and the key and value rows of their groups; one that computes
some channels of the feed-forward needs the same rows of both halves. MindSpore's strategy cuts the joined
matrix into contiguous rows instead, whatever they mean (of ChatGLM3-6B's 4608 rows on two ranks the first
gets query rows alone), and its graph exchanges activations to make up for it; its files are cut so. What is
needed here is therefore several parts of the complete tensor, joined along axis 0, and
:func:`row_permutation` says how those lie to the contiguous cut.

Where there are more ranks than key-value groups, several ranks hold the same group: its gradient is the sum
over them, and it is saved by one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from glm3.domain.errors import ConfigError, raise_faults
from glm3.domain.layout.boxes import Box, whole
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.layout.tensor_layout import Shape
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import from_mindspore_name

__all__ = ["TensorParallel", "row_permutation"]

_QUERY_KEY_VALUE = (
    ".query_key_value.weight",
    ".query_key_value.bias",
    ".query_key_value.mindpet_delta_lora_b",
)
_SWIGLU = (".dense_h_to_4h.weight", ".dense_h_to_4h.bias", ".dense_h_to_4h.mindpet_delta_lora_b")


@frozen
class TensorParallel:
    """The parts of a network for each of ``size`` ranks that share its matrices.

    Raises:
        ConfigError: ``size`` divides neither the heads, the groups nor the channels, as listed.
    """

    config: ModelConfig
    size: int = 1
    vocab_emb_dp: bool = True

    def __attrs_post_init__(self) -> None:
        config = self.config
        faults = [
            ConfigError(
                f"not divisible by model_parallel {self.size}",
                field=name,
                expected=f"a multiple of {self.size}",
                found=number,
                hint="choose a divisor of it for parallel_config.model_parallel",
            )
            for name, number in (
                ("num_attention_heads", config.num_attention_heads),
                ("ffn_hidden_size", config.ffn_hidden_size),
                ("padded_vocab_size", config.padded_vocab_size),
            )
            if self.size < 1 or number % self.size
        ]
        groups = config.num_kv_heads
        if self.size < 1 or (groups % self.size and self.size % groups):
            faults.append(
                ConfigError(
                    "neither divides model_parallel nor is divided by it",
                    field="multi_query_group_num",
                    expected=f"a divisor or a multiple of {self.size}",
                    found=groups,
                    hint="choose another number for parallel_config.model_parallel",
                )
            )
        raise_faults("the network's matrices cannot be shared by so many ranks", faults)

    @property
    def own_config(self) -> ModelConfig:
        """The network of one rank: the same width, with its heads, groups, channels and rows of the head.

        Its embedding is this one's rows of the vocabulary too, and with ``vocab_emb_dp`` all of them instead.
        """
        config = self.config
        heads, groups = (part.stop - part.start for part in (self.heads(0), self.groups(0)))
        return config.evolve(
            num_attention_heads=heads,
            multi_query_group_num=groups if config.multi_query_attention else config.multi_query_group_num,
            ffn_hidden_size=config.ffn_hidden_size // self.size,
            padded_vocab_size=config.padded_vocab_size // self.size,
        )

    @property
    def ranks_per_group(self) -> int:
        """Ranks that hold the same key-value group: 1 where there are enough groups."""
        return max(self.size // self.config.num_kv_heads, 1)

    def heads(self, rank: int) -> slice:
        """Return the query heads that a rank computes."""
        return _share(self.config.num_attention_heads, self.size, rank)

    def groups(self, rank: int) -> slice:
        """Return the key-value groups that a rank computes: those of its heads."""
        return _share(
            self.config.num_kv_heads, self.size // self.ranks_per_group, rank // self.ranks_per_group
        )

    def query_key_value_rows(self, rank: int) -> tuple[slice, slice, slice]:
        """Return a rank's rows of the joined matrix: its queries, keys and values."""
        config = self.config
        heads, groups, width = self.heads(rank), self.groups(rank), config.kv_channels
        key_start = config.attention_size
        value_start = key_start + config.num_kv_heads * width
        return (
            slice(heads.start * width, heads.stop * width),
            slice(key_start + groups.start * width, key_start + groups.stop * width),
            slice(value_start + groups.start * width, value_start + groups.stop * width),
        )

    def swiglu_rows(self, rank: int) -> tuple[slice, slice]:
        """Return a rank's rows of the feed-forward's input: of the gate, and of what it gates."""
        width = self.config.ffn_hidden_size
        rows = _share(width, self.size, rank)
        return rows, slice(width + rows.start, width + rows.stop)

    def parts(self, name: str, shape: Shape, rank: int) -> tuple[Box, ...]:
        """Return the parts of a complete parameter that, joined along axis 0, are a rank's parameter.

        The other matrices are cut as :class:`NetworkCut` cuts them for model parallel ranks: into one part.
        """
        name = from_mindspore_name(name)
        others = whole(shape)[1:]
        if name.endswith(_QUERY_KEY_VALUE):
            return tuple((rows, *others) for rows in self.query_key_value_rows(rank))
        if name.endswith(_SWIGLU):
            return tuple((rows, *others) for rows in self.swiglu_rows(rank))
        cut = NetworkCut(model_parallel=self.size, vocab_emb_dp=self.vocab_emb_dp)
        return (cut.layout(name, shape).slices(shape, rank),)

    def is_cut(self, name: str, shape: Shape) -> bool:
        """Tell whether ranks hold different parts of a parameter; the others are whole on each."""
        return self.parts(name, shape, 0) != (whole(shape),)


def row_permutation(rows_by_rank: Sequence[Sequence[slice]]) -> NDArray[np.int64]:
    """Return the rows of a complete matrix in the order of ranks, ``rows_by_rank`` holding each rank's.

    ``matrix[permutation]`` cut into contiguous rows gives every rank its part; ``numpy.argsort`` of the
    permutation leads back.

    Raises:
        ConfigError: a row is held by several ranks, so that there is no such order.
    """
    order = np.concatenate([np.arange(part.start, part.stop) for rows in rows_by_rank for part in rows])
    if len(np.unique(order)) != len(order):
        raise ConfigError(
            "several ranks hold the same rows",
            field="model_parallel",
            hint="gather each rank's parts instead: there are more ranks than key-value groups",
        )
    return order.astype(np.int64)


def _share(number: int, ranks: int, rank: int) -> slice:
    width = number // ranks
    return slice(rank * width, (rank + 1) * width)
