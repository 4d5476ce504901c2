"""How MindFormers cuts a ChatGLM3 network: which axis of which parameter along which of the devices.

The device matrix of a stage is (data parallel, model parallel). Model parallel ranks share the rows of the
joined query, key and value, of SwiGLU's input and of the head, and the columns of the two linear layers that
follow; norms, the biases of those two and low-rank adapters' narrow sides are whole. The optimizer shard
then takes what data parallel ranks hold in common.
Source: MindFormers' glm2, and strategy files that MindSpore 2.10 compiled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from attrs import field, frozen

from glm3.domain.errors import ConfigError, Glm3Error, InvalidInputError, raise_faults
from glm3.domain.layout.faults import faults_of
from glm3.domain.layout.strategy import JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import UNCUT, Shape, TensorLayout
from glm3.domain.parameters import EMBEDDING, OUTPUT_LAYER, from_mindspore_name, to_mindspore_name

__all__ = ["OPTIMIZER_THRESHOLD", "NetworkCut", "cut_network", "stage_of"]

OPTIMIZER_THRESHOLD = 64 * 1024
"""Bytes of a complete parameter below which MindSpore shards no optimizer, unless told otherwise."""

_MODEL_AXIS = 0  # of the device matrix, counted from the right

_LAYER = re.compile(r"transformer\.encoder\.layers\.(\d+)\.")
_BY_ROWS = re.compile(
    r"\.(query_key_value|dense_h_to_4h)\.(weight|bias|mindpet_delta_lora_b)$|^"
    + re.escape(OUTPUT_LAYER)
    + "$"
)
_BY_COLUMNS = re.compile(r"\.(self_attention\.dense|dense_4h_to_h)\.(weight|mindpet_delta_lora_a)$")
_ATTENTION_OUTPUT = re.compile(r"\.self_attention\.dense\.")
_ATTENTION_OUTPUT_ROWS = re.compile(r"\.(weight|bias|mindpet_delta_lora_b)$")


def _positive(_: object, attribute: object, value: int) -> None:
    if value < 1:
        raise ConfigError(
            "out of range", field=getattr(attribute, "name", None), expected="1 or more", found=value
        )


@frozen(kw_only=True)
class NetworkCut:
    """How many ways a network is cut; the names are those of ``parallel_config``.

    ``vocab_emb_dp`` keeps the embedding whole on every rank, where it is otherwise cut by rows like the head.
    ``optimizer_parallel`` shares parameters out over the ranks that hold copies, except the embedding and
    those below ``optimizer_threshold`` bytes. ``attention_output_by_rows`` cuts the attention's output layer
    as MindFormers' glm2 does, by rows, with one more gather a layer.

    Raises:
        ConfigError: a number is below 1.
    """

    data_parallel: int = field(default=1, validator=_positive)
    model_parallel: int = field(default=1, validator=_positive)
    pipeline_stage: int = field(default=1, validator=_positive)
    optimizer_parallel: bool = False
    vocab_emb_dp: bool = True
    optimizer_threshold: int = OPTIMIZER_THRESHOLD
    attention_output_by_rows: bool = False

    @property
    def ranks_per_stage(self) -> int:
        return self.data_parallel * self.model_parallel

    def layout(self, name: str, shape: Shape, itemsize: int = 4) -> TensorLayout:
        """Return the cut of a parameter, by either of its names.

        Raises:
            InvalidInputError: a dimension is not divisible by ``model_parallel``.
        """
        name = from_mindspore_name(name)
        tensor_map = [UNCUT] * len(shape)
        axis = self._model_axis(name)
        if axis is not None:
            tensor_map[axis] = _MODEL_AXIS
        layout = TensorLayout((self.data_parallel, self.model_parallel), tuple(tensor_map))
        shared = (
            self.optimizer_parallel
            and name != EMBEDDING
            and prod(shape) * itemsize >= self.optimizer_threshold
        )
        if shared:
            return layout.with_optimizer_shard(shape)
        layout.check(shape)
        return layout

    def _model_axis(self, name: str) -> int | None:
        """Return the axis that model parallel ranks share, None where each holds all of it."""
        if name == EMBEDDING:
            return None if self.vocab_emb_dp else 0
        if self.attention_output_by_rows and _ATTENTION_OUTPUT.search(name):
            return 0 if _ATTENTION_OUTPUT_ROWS.search(name) else None
        if _BY_ROWS.search(name):
            return 0
        return 1 if _BY_COLUMNS.search(name) else None


def cut_network(
    shapes: Mapping[str, Shape], cut: NetworkCut, *, itemsize: int | Mapping[str, int] = 4
) -> JobStrategy:
    """Return the cut of a network's parameters, called as in MindSpore's checkpoints.

    ``shapes`` are those of complete tensors by either of their names, ``itemsize`` the bytes of an element,
    of all tensors or of each.

    Raises:
        ConfigError: there are more stages than layers.
        InvalidInputError: with every parameter that ``model_parallel`` does not divide.
    """
    num_layers = 1 + max((int(found[1]) for name in shapes if (found := _LAYER.match(name))), default=-1)
    stages: list[dict[str, TensorLayout]] = [{} for _ in range(cut.pipeline_stage)]
    sizes: list[dict[str, Shape]] = [{} for _ in range(cut.pipeline_stage)]
    faults: list[Glm3Error] = []
    for name, shape in shapes.items():
        stage = stage_of(name, num_layers, cut.pipeline_stage)
        known_as = to_mindspore_name(from_mindspore_name(name))
        try:
            size = itemsize if isinstance(itemsize, int) else itemsize[name]
            stages[stage][known_as] = cut.layout(name, shape, size)
        except InvalidInputError as error:
            faults += faults_of(error, known_as)
        sizes[stage][known_as] = shape
    raise_faults("the network cannot be cut so many ways", faults)
    return JobStrategy(
        tuple(
            Strategy(layouts, num_ranks=cut.ranks_per_stage, stage=stage, shapes=sizes[stage])
            for stage, layouts in enumerate(stages)
        )
    )


def stage_of(name: str, num_layers: int, num_stages: int) -> int:
    """Return the pipeline stage that holds a parameter.

    The embedding is in the first stage; the final norm, the head and what belongs to no layer in the last,
    which also takes the layers that do not divide.

    Raises:
        ConfigError: there are more stages than layers.
    """
    if num_stages > max(num_layers, 1):
        raise ConfigError(
            "more stages than layers",
            field="pipeline_stage",
            expected=f"at most {num_layers}",
            found=num_stages,
        )
    if from_mindspore_name(name) == EMBEDDING:
        return 0
    found = _LAYER.match(name)
    if found is None:
        return num_stages - 1
    layers_a_stage = max((num_layers + 1) // num_stages, 1)
    return min(int(found[1]) // layers_a_stage, num_stages - 1)
