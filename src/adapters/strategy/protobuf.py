"""The protobuf form of a strategy file."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from glm3.adapters.strategy.stored import StoredLayout, StoredOperator, StoredStrategy
from glm3.adapters.strategy.strategy_pb2 import Parameter, StrategyMap
from glm3.domain.errors import CheckpointError

__all__ = ["decode", "encode"]


def encode(stored: StoredStrategy) -> bytes:
    """Return the content of a file, which MindSpore reads."""
    message = StrategyMap(current_stage=1)
    for operator in stored.operators:
        cut = message.operators.add(name=operator.name).cut
        cut.stage = operator.stage
        for parts in operator.inputs:
            cut.inputs.add(dim=parts)
    for entry in stored.layouts:
        layout = message.parameters.add(name=entry.name).layout
        layout.device_matrix.add(dim=entry.device_matrix)
        for tensor_map in entry.tensor_maps:
            layout.tensor_map.add(dim=tensor_map)
        layout.param_split_shape.add(dim=entry.split_shape)
        layout.indices_offset.add(dim=entry.indices_offset)
        layout.field = entry.field
        layout.optimizer_shard_step = entry.optimizer_shard_step
        layout.optimizer_shard_size = entry.optimizer_shard_size
    return message.SerializeToString(deterministic=True)


def decode(content: bytes) -> StoredStrategy:
    """Return what a file states.

    Raises:
        CheckpointError: it is no protobuf, is cut off, or lacks a field.
    """
    message = StrategyMap()
    try:
        message.ParseFromString(content)
    except UnicodeDecodeError as error:  # from protobuf's decoder in Python, which MindSpore asks for
        raise _not_text(error.object) from None
    except DecodeError:
        raise CheckpointError(
            "no strategy in protobuf form",
            hint="the file is cut or damaged, or a JSON strategy whose name does not end in .json",
        ) from None
    if not message.IsInitialized():
        raise CheckpointError("the strategy lacks fields that it must have", hint="the file is cut")
    return StoredStrategy(
        [_layout_of(parameter) for parameter in message.parameters],
        [
            StoredOperator(
                _text(one.name), one.cut.stage, tuple(tuple(parts.dim) for parts in one.cut.inputs)
            )
            for one in message.operators
        ],
    )


def _layout_of(parameter: Parameter) -> StoredLayout:
    layout = parameter.layout
    return StoredLayout(
        _text(parameter.name),
        tuple(number for part in layout.device_matrix for number in part.dim),
        tuple(tuple(part.dim) for part in layout.tensor_map),
        layout.optimizer_shard_step,
        layout.optimizer_shard_size,
        layout.field,
        tuple(number for part in layout.param_split_shape for number in part.dim),
        tuple(number for part in layout.indices_offset for number in part.dim),
    )


def _text(name: str | bytes) -> str:
    """Refuse a name that is no UTF-8: protobuf's native decoder hands such a one out as bytes."""
    if isinstance(name, bytes):
        raise _not_text(name)
    return name


def _not_text(name: bytes) -> CheckpointError:
    return CheckpointError("a name is not UTF-8", found=repr(name), hint="the file is damaged")
