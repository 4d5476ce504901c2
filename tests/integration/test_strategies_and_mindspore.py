"""MindSpore's own tools take this project's strategies and cut as it does, and the other way round."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from mindspore.train import node_strategy_pb2
from numpy.typing import NDArray

from glm3.adapters.strategy import strategy_pb2
from glm3.adapters.strategy.store import FileStrategyStore
from glm3.domain.errors import InvalidInputError
from glm3.domain.layout.network_cut import NetworkCut, cut_network
from glm3.domain.layout.plan import sources_of
from glm3.domain.layout.strategy import COMPLETE, JobStrategy, Strategy
from glm3.domain.layout.tensor_layout import TensorLayout
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes, to_mindspore_name

GOLDEN = Path(__file__).parents[1] / "golden" / "strategy"
CONFIG = ModelConfig(
    num_layers=3,
    hidden_size=16,
    ffn_hidden_size=24,
    kv_channels=4,
    num_attention_heads=4,
    padded_vocab_size=32,
)
SHAPES = {to_mindspore_name(name): shape for name, shape in parameter_shapes(CONFIG).items()}
STORE = FileStrategyStore()
ENDINGS = ["ckpt", "json"]
Weights = dict[str, NDArray[np.generic]]


def weights(dtype: str, shapes: dict[str, tuple[int, ...]]) -> Weights:
    random = np.random.default_rng(5)
    return {name: random.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}


def cut(**changes: object) -> JobStrategy:
    return cut_network(SHAPES, NetworkCut(optimizer_threshold=0, **changes))  # type: ignore[arg-type]


def slices(full: Weights, job: JobStrategy, rank: int) -> Weights:
    boxes = {name: job.slices(name, array.shape, rank) for name, array in full.items()}
    return {name: full[name][box] for name, box in boxes.items() if box is not None}


def save_ranks(folder: Path, by_rank: list[Weights], form: str) -> None:
    for rank, arrays in enumerate(by_rank):
        (folder / f"rank_{rank}").mkdir(parents=True)
        entries = [{"name": name, "data": ms.Tensor(np.ascontiguousarray(a))} for name, a in arrays.items()]
        ms.save_checkpoint(entries, str(folder / f"rank_{rank}" / f"slice.{form}"), format=form)


def load_rank(folder: Path, rank: int, form: str) -> Weights:
    (path,) = (folder / f"rank_{rank}").glob(f"*.{form}")
    return {name: p.asnumpy() for name, p in ms.load_checkpoint(str(path), format=form).items()}


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype


def transform(source: Path, target: Path, before: Path | None, after: Path | None, form: str) -> None:
    ms.transform_checkpoints(
        str(source),
        str(target),
        "slice",
        before and str(before),
        after and str(after),
        output_format=form,
    )


# MindSpore's transform of safetensors takes a merged strategy in protobuf form only
@pytest.mark.parametrize(("form", "ending"), [("ckpt", "ckpt"), ("ckpt", "json"), ("safetensors", "ckpt")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_mindspore_cuts_and_merges_by_our_files_as_we_do(
    dtype: str, form: str, ending: str, tmp_path: Path
) -> None:
    """One to eight ranks (data, model and pipeline parallel, optimizer sharded), to four, and back to one."""
    eight = cut(
        data_parallel=2, model_parallel=2, pipeline_stage=2, optimizer_parallel=True, vocab_emb_dp=False
    )
    four = cut(data_parallel=4, optimizer_parallel=True)
    STORE.write_merged(tmp_path / f"eight.{ending}", eight)
    STORE.write(tmp_path / f"four.{ending}", four.stages[0])
    full = weights(dtype, SHAPES)
    save_ranks(tmp_path / "one", [full], form)
    transform(tmp_path / "one", tmp_path / "8", None, tmp_path / f"eight.{ending}", form)
    for rank in range(8):
        assert_same(load_rank(tmp_path / "8", rank, form), slices(full, eight, rank))
    transform(tmp_path / "8", tmp_path / "4", tmp_path / f"eight.{ending}", tmp_path / f"four.{ending}", form)
    for rank in range(4):
        assert_same(load_rank(tmp_path / "4", rank, form), slices(full, four, rank))
    transform(tmp_path / "4", tmp_path / "1", tmp_path / f"four.{ending}", None, form)
    assert_same(load_rank(tmp_path / "1", 0, form), full)


def every_layout() -> dict[str, TensorLayout]:
    """Return every cut of one or two axes over eight ranks in several arrangements, by a name for each.

    Left out are cuts by two device axes in ascending order whose copies lie along the first one and are
    sharded: MindSpore's transform takes the two axes the other way round there, unlike its own loader.
    """
    found: dict[str, TensorLayout] = {}
    for matrix in [(8,), (2, 4), (4, 2), (2, 2, 2), (2, 1, 4)]:
        indices = [-1, *range(len(matrix))]
        for tensor_map in [*product(indices), *product(indices, indices)]:
            for step, size in product([0, 1, 2, 4], [0, -1, 2, 4, 8]):
                try:
                    layout = TensorLayout(matrix, tensor_map, step, size)
                except InvalidInputError:
                    continue
                swapped = matrix == (2, 2, 2) and tensor_map == (0, 1) and layout.optimizer_shards > 1
                shards = layout.optimizer_shards > 1
                if (shards or step == size == 0) and not swapped:
                    found[f"w{len(found)}"] = layout
    return found


def test_mindspore_cuts_by_every_layout_of_eight_ranks_as_we_do(tmp_path: Path) -> None:
    job = JobStrategy((Strategy(every_layout(), num_ranks=8),))
    assert len(job.parameters) > 200
    STORE.write(tmp_path / "s.ckpt", job.stages[0])
    full = weights(
        "float32", {name: (16, 8)[: len(layout.tensor_map)] for name, layout in every_layout().items()}
    )
    save_ranks(tmp_path / "one", [full], "ckpt")
    transform(tmp_path / "one", tmp_path / "8", None, tmp_path / "s.ckpt", "ckpt")
    for rank in range(8):
        assert_same(load_rank(tmp_path / "8", rank, "ckpt"), slices(full, job, rank))


@pytest.mark.parametrize("ending", ENDINGS)
def test_mindspore_needs_the_ranks_that_we_read(ending: str, tmp_path: Path) -> None:
    """It names no fewer; where ranks hold copies, and the whole stage, it names more."""
    job = cut(data_parallel=2, model_parallel=2, optimizer_parallel=True)
    other = cut(data_parallel=4, optimizer_parallel=True)
    STORE.write(tmp_path / f"a.{ending}", job.stages[0])
    STORE.write(tmp_path / f"b.{ending}", other.stages[0])
    a, b = str(tmp_path / f"a.{ending}"), str(tmp_path / f"b.{ending}")
    assert sorted(ms.rank_list_for_transform(0, a, None)) == sources_of(job, COMPLETE, SHAPES, 0)
    for rank in range(4):
        assert set(sources_of(job, other, SHAPES, rank)) <= set(ms.rank_list_for_transform(rank, a, b))
        assert ms.rank_list_for_transform(rank, None, a) == sources_of(COMPLETE, job, SHAPES, rank) == [0]


@pytest.mark.parametrize("ending", ENDINGS)
def test_mindspore_merges_our_stages_to_what_we_write(ending: str, tmp_path: Path) -> None:
    job = cut(data_parallel=2, model_parallel=2, pipeline_stage=3, optimizer_parallel=True)
    (tmp_path / "stages").mkdir()
    for stage in job.stages:
        for rank in range(4):
            STORE.write(tmp_path / "stages" / f"rank_{4 * stage.stage + rank}.{ending}", stage)
    ms.merge_pipeline_strategys(str(tmp_path / "stages"), str(tmp_path / f"theirs.{ending}"))
    theirs = STORE.read(tmp_path / f"theirs.{ending}")
    assert [stage.layouts for stage in theirs.stages] == [stage.layouts for stage in job.stages]
    STORE.write_merged(tmp_path / f"ours.{ending}", job)
    assert STORE.read(tmp_path / f"ours.{ending}") == theirs


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_the_compiler_wrote_is_read(ending: str) -> None:
    """By tools/compile_strategy.py, for two data by two model parallel ranks, with every kind of cut."""
    job = STORE.read(GOLDEN / f"compiled.{ending}")
    assert job.num_ranks == 4
    layouts = job.stages[0].layouts
    assert {name: layout.grid for name, layout in layouts.items() if not name.startswith("adam_")} == {
        "table": (2, 1),  # kept out of the optimizer shard
        "norm": (4,),
        "rows.weight": (4, 1),
        "rows.bias": (4,),
        "columns.weight": (2, 2),
        "whole": (4, 1),
        "odd.weight": (2, 1),  # its three rows do not divide
        "odd.bias": (2,),
    }
    for name, layout in layouts.items():
        assert layout == layouts[name.removeprefix("adam_m.").removeprefix("adam_v.")]


def test_the_compiler_shards_what_we_shard() -> None:
    """By the same rule, from the shapes that its JSON states."""
    stage = STORE.read(GOLDEN / "compiled.json").stages[0]
    for name, layout in stage.layouts.items():
        if not name.endswith("table"):
            plain = TensorLayout(layout.device_matrix, layout.tensor_map)
            assert plain.with_optimizer_shard(stage.shapes[name]) == layout


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_the_compiler_wrote_is_written_again_whole(ending: str, tmp_path: Path) -> None:
    job = STORE.read(GOLDEN / f"compiled.{ending}")
    STORE.write(tmp_path / f"again.{ending}", job.stages[0])
    assert STORE.read(tmp_path / f"again.{ending}") == job


def test_mindspore_cuts_by_the_compilers_file_as_we_do(tmp_path: Path) -> None:
    job = STORE.read(GOLDEN / "compiled.json")
    full = weights("float32", dict(job.stages[0].shapes))
    save_ranks(tmp_path / "one", [full], "ckpt")
    transform(tmp_path / "one", tmp_path / "4", None, GOLDEN / "compiled.ckpt", "ckpt")
    for rank in range(4):
        assert_same(load_rank(tmp_path / "4", rank, "ckpt"), slices(full, job, rank))


def wire_form(message: Descriptor) -> list[tuple[object, ...]]:
    """Return what decides a message's bytes: numbers, types and labels, all the way down."""
    return [
        (
            field.number,
            field.type,
            field.is_required,
            field.is_repeated,
            wire_form(field.message_type) if field.message_type else None,
        )
        for field in sorted(message.fields, key=lambda field: field.number)
    ]


def test_our_messages_have_mindspores_wire_form() -> None:
    assert wire_form(strategy_pb2.StrategyMap.DESCRIPTOR) == wire_form(
        node_strategy_pb2.ParallelStrategyMap.DESCRIPTOR
    )
