"""The JSON form of a strategy file, which also states the shapes of complete tensors."""

from __future__ import annotations

import json
from typing import Any

from glm3.adapters.strategy.stored import StoredLayout, StoredOperator, StoredStrategy
from glm3.domain.coercion import as_int
from glm3.domain.errors import CheckpointError, Glm3Error, raise_faults

__all__ = ["decode", "encode"]

_OPERATORS, _LAYOUTS = "parallel_strategy_item", "parallel_layout_item"


def encode(stored: StoredStrategy) -> bytes:
    """Return the content of a file, which MindSpore reads."""
    content = {
        "current_stage": 1,
        _LAYOUTS: {entry.name: _layout_to_json(entry) for entry in stored.layouts},
        _OPERATORS: {
            one.name: {"parallel_strategy": one.inputs, "stage": one.stage} for one in stored.operators
        },
    }
    return json.dumps(content, ensure_ascii=False).encode()


def _layout_to_json(entry: StoredLayout) -> dict[str, object]:
    (tensor_map,) = entry.tensor_maps
    values: dict[str, object] = {
        "dev_matrix": entry.device_matrix,
        "field": entry.field,
        "opt_weight_shard_size": entry.optimizer_shard_size,
        "opt_weight_shard_step": entry.optimizer_shard_step,
        "tensor_map": tensor_map,
    }
    return values if entry.tensor_shape is None else {**values, "tensor_shape": entry.tensor_shape}


def decode(content: bytes) -> StoredStrategy:
    """Return what a file states.

    Raises:
        CheckpointError: it is no JSON or lacks an entry; several faults are reported together.
    """
    try:
        tree = json.loads(content, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            "no strategy in JSON form", found=error, hint="the file is cut or damaged"
        ) from None
    faults: list[Glm3Error] = []
    layouts: list[StoredLayout] = []
    operators: list[StoredOperator] = []
    for name, entry in _section(tree, _LAYOUTS).items():
        try:
            layouts.append(_layout_of(name, entry))
        except (ValueError, KeyError, TypeError) as error:
            faults.append(_fault(name, error))
    for name, entry in _section(tree, _OPERATORS).items():
        try:
            operators.append(
                StoredOperator(name, as_int(entry["stage"]), tuple(map(_numbers, entry["parallel_strategy"])))
            )
        except (ValueError, KeyError, TypeError) as error:
            faults.append(_fault(name, error))
    raise_faults("the strategy file is not usable", faults)
    return StoredStrategy(layouts, operators)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keep JSON's objects from swallowing an entry that is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"more than once: {', '.join(n for n in found if names.count(n) > 1)}")
    return found


def _section(tree: object, name: str) -> dict[str, Any]:
    section = tree.get(name) if isinstance(tree, dict) else None
    if not isinstance(section, dict):
        raise CheckpointError("the strategy lacks a section", field=name, hint="is this a strategy file?")
    return section


def _layout_of(name: str, entry: dict[str, Any]) -> StoredLayout:
    tensor_map = entry["tensor_map"]
    several = any(isinstance(index, list) for index in tensor_map)
    return StoredLayout(
        name,
        _numbers(entry["dev_matrix"]),
        tuple(_numbers(part if isinstance(part, list) else [part]) for part in tensor_map)
        if several
        else (_numbers(tensor_map),),
        as_int(entry["opt_weight_shard_step"]),
        as_int(entry["opt_weight_shard_size"]),
        as_int(entry.get("field", 0)),
        _numbers(entry.get("param_split_shape", [])),
        _numbers(entry.get("indices_offset", [])),
        _numbers(entry["tensor_shape"]) if "tensor_shape" in entry else None,
    )


def _numbers(values: object) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise ValueError("a list of integers")
    return tuple(as_int(value) for value in values)


def _fault(name: str, error: Exception) -> CheckpointError:
    if isinstance(error, KeyError):
        return CheckpointError(f"the entry lacks {error.args[0]}", field=name)
    expected = str(error) if isinstance(error, ValueError) else "lists and numbers"
    return CheckpointError("the entry is not well formed", field=name, expected=expected)
