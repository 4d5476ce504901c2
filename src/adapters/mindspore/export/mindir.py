"""Compile cells to MindIR and read what the graph is made of, on any machine, whatever the operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import mindspore as ms
from attrs import frozen
from mindspore import nn
from mindspore.graph.api import _cell_graph_executor
from mindspore.train.mind_ir_pb2 import AttributeProto, ModelProto, TensorProto

from glm3.adapters.mindspore.kernels.base import Tensor
from glm3.adapters.mindspore.runtime import graph_mode

__all__ = ["Graph", "Node", "Value", "compile_graph", "compile_training", "placeholder", "read_graph"]


@frozen
class Value:
    """A tensor in a graph; a length that is open until it runs is -1."""

    dtype: str
    shape: tuple[int, ...]


@frozen
class Node:
    """One operator: inputs that are neither tensors nor whole numbers are None."""

    operator: str
    inputs: tuple[Value | int | None, ...]
    outputs: tuple[Value, ...]


@frozen
class Graph:
    """The operators of a compiled cell in the order they are listed, and its parameters."""

    nodes: Sequence[Node]
    parameters: Mapping[str, Value]

    def counts(self) -> Counter[str]:
        """Return how many of each operator there are."""
        return Counter(node.operator for node in self.nodes)

    def of(self, operator: str) -> list[Node]:
        return [node for node in self.nodes if node.operator == operator]


def placeholder(shape: Sequence[int | None], dtype: Any = ms.int32) -> Tensor:
    """Make an input of a graph without numbers; None is a length that is open until it runs."""
    return ms.Tensor(shape=list(shape), dtype=dtype)


def compile_graph(cell: nn.Cell, *inputs: Tensor) -> Graph:
    """Compile a cell as far as its operators are inferred; its parameters take no memory."""
    with graph_mode():
        return _compile(cell, inputs, "export", convert=False)


def compile_training(cell: nn.Cell, *inputs: Tensor) -> Graph:
    """Compile a cell for the device that MindSpore is set to, and cut it as its parallel context says."""
    cell.set_train()
    return _compile(cell, inputs, "train", convert=True)


def _compile(cell: nn.Cell, inputs: Sequence[Tensor], phase: str, *, convert: bool) -> Graph:
    name, _ = _cell_graph_executor.compile(cell, *inputs, phase=phase, do_convert=convert)
    stream = _cell_graph_executor._get_func_graph_proto(cell, name, "mind_ir")
    model = ModelProto()
    model.ParseFromString(stream)
    return read_graph(model)


def read_graph(model: ModelProto) -> Graph:
    """Read a graph and the functions that it calls."""
    values: dict[str, Value | int] = {}
    parameters = {}
    for parameter in model.graph.parameter:
        value = _value(parameter)
        values[parameter.name] = value
        parameters[parameter.name.rpartition(":")[2]] = value
    nodes = []
    for graph in (model.graph, *model.functions):
        for given in graph.input:
            for tensor in given.tensor:
                values[given.name] = _value(tensor)
        for node in graph.node:
            operator = _operator(node.op_type)
            if operator == "Constant":
                values.update(_constant(node))
                continue
            outputs = tuple(_outputs(node))
            if outputs:
                values[node.output[0]] = outputs[0]
            nodes.append(Node(operator, tuple(values.get(name) for name in node.input), outputs))
    return Graph(nodes, parameters)


def _operator(op_type: str) -> str:
    """Return the name in ``REF::Name:number`` or ``Name``."""
    return op_type.removeprefix("REF::").partition(":")[0]


def _constant(node: Any) -> Iterator[tuple[str, Value | int]]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.TENSORS and len(attribute.tensors) == 1:
            yield node.output[0], _value(attribute.tensors[0])
        elif attribute.type == AttributeProto.INT64:
            yield node.output[0], attribute.i


def _outputs(node: Any) -> list[Value]:
    found: list[Value] = []
    for attribute in node.attribute:
        if attribute.name == "shape":
            found += [_value(tensor) for tensor in attribute.tensors]
            found += [_value(tensor) for part in attribute.values for tensor in part.tensors]
    return found


def _value(tensor: Any) -> Value:
    return Value(TensorProto.DataType.Name(tensor.data_type), tuple(tensor.dims))
