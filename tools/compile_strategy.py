"""Write the strategy files that MindSpore's compiler makes for a small network: ``tests/golden/strategy``.

    RANK_SIZE=4 RANK_ID=0 python -m tools.compile_strategy FOLDER

The compiler only shards for Ascend. It needs CANN's libraries, but no device, as nothing is run: where they
are missing, libraries of the same names whose functions return 0 will do. The network cuts what ChatGLM3's
does (a table, matrices by rows and by columns, biases, norms) over two data by two model parallel ranks with
the optimizer sharded, and has a matrix whose rows the optimizer shard does not divide.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer
from mindspore.communication import init

DATA, MODEL = 2, 2


def _parameter(name: str, *shape: int, sharded: bool = True) -> Parameter:
    return Parameter(initializer("ones", shape, ms.float32), name=name, parallel_optimizer=sharded)


class Linear(nn.Cell):
    """A linear layer, cut by rows or by columns."""

    def __init__(self, inputs: int, outputs: int, *, by_rows: bool, bias: bool = False) -> None:
        super().__init__()
        self.weight = _parameter("weight", outputs, inputs)
        self.bias = _parameter("bias", outputs) if bias else None
        matmul, add = ops.MatMul(transpose_b=True), ops.Add()
        self.matmul = matmul.shard(((DATA, 1), (MODEL, 1)) if by_rows else ((DATA, MODEL), (1, MODEL)))
        self.add = add.shard(((DATA, MODEL), (MODEL,)) if by_rows else ((DATA, 1), (1,)))

    def construct(self, x: Tensor) -> Tensor:
        y = self.matmul(x, self.weight)
        return y if self.bias is None else self.add(y, self.bias)


class Network(nn.Cell):
    """Every kind of cut once."""

    def __init__(self) -> None:
        super().__init__()
        self.table = _parameter("table", 64, 32, sharded=False)
        self.norm = _parameter("norm", 32)
        self.rows = Linear(32, 48, by_rows=True, bias=True)
        self.columns = Linear(48, 32, by_rows=False)
        self.whole = _parameter("whole", 32, 32)
        self.odd = Linear(32, 6, by_rows=True, bias=True)
        self.gather = ops.Gather().shard(((MODEL, 1), (DATA,)))
        self.mul = ops.Mul().shard(((DATA, 1), (1,)))
        self.matmul = ops.MatMul(transpose_b=True).shard(((DATA, 1), (1, 1)))
        self.sum = ops.ReduceSum().shard(((DATA, 1),))

    def construct(self, ids: Tensor) -> Tensor:
        x = self.mul(self.gather(self.table, ids, 0), self.norm)
        x = self.matmul(self.columns(self.rows(x)), self.whole)
        return self.sum(self.odd(x))


def main(folder: Path) -> None:
    """Compile twice, once for each form of the file."""
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_device("Ascend")
    init()
    for ending in ("ckpt", "json"):
        ms.reset_auto_parallel_context()
        ms.set_auto_parallel_context(
            parallel_mode="semi_auto_parallel",
            device_num=DATA * MODEL,
            global_rank=int(os.environ["RANK_ID"]),
            full_batch=True,
            enable_parallel_optimizer=True,
            parallel_optimizer_config={"parallel_optimizer_threshold": 0},
            strategy_ckpt_config={
                "save_file": str(folder.resolve() / f"compiled.{ending}"),
                "only_trainable_params": False,
            },
        )
        network = Network()
        step = nn.TrainOneStepCell(network, nn.AdamWeightDecay(network.trainable_params()))
        step.set_train()
        step.compile(Tensor(np.zeros((16,), np.int32)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
