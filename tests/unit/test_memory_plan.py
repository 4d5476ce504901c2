"""The memory plan: what it counts, what it advises, and how far it lies from what was measured."""

from __future__ import annotations

from math import prod
from pathlib import Path

import pytest
from attrs import evolve

from glm3.adapters.memory.host import healthy_facts
from glm3.adapters.memory.thread_communicator import ThreadWorld
from glm3.application.plan import memory_plan
from glm3.domain.errors import BackendError
from glm3.domain.layout.network_cut import NetworkCut
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes
from glm3.domain.run_config import RunConfig
from glm3.domain.tensors import DType
from glm3.domain.training.memory_plan import DEVICE, HOST, MemoryPlan, parameter_count, plan_memory
from glm3.domain.training.model_shares import ModelShares
from glm3.domain.training.options import TrainOptions
from glm3.domain.training.shares import shared_rows
from support.finetune import run_config

SIX_B = ModelConfig(param_init_type="float16", compute_dtype="float16", seq_length=192)

# Peaks of 4 steps on x86-64 (MindSpore 2.10): layers, hidden, ffn, vocabulary, heads, channels, rows,
# positions, accumulated, recomputed, fused; bytes above those of the started runtime, which were 433 MB.
RUNTIME = 433_000_000
MEASURED = [
    (2, 64, 176, 512, 4, 16, 8, 192, False, False, True, 139_927_552),
    (8, 1024, 2736, 4096, 16, 64, 2, 192, False, False, True, 1_874_432_000),
    (8, 1024, 2736, 4096, 16, 64, 2, 192, True, False, True, 2_592_346_112),
    (4, 512, 1376, 4096, 8, 64, 8, 384, False, False, True, 939_622_400),
    (8, 512, 1376, 4096, 8, 64, 8, 384, False, True, True, 1_022_484_480),
    (2, 64, 176, 512, 4, 16, 8, 192, False, False, False, 356_855_808),
    (8, 1024, 2736, 4096, 16, 64, 2, 192, False, False, False, 2_502_389_760),
    (4, 512, 1376, 4096, 8, 64, 4, 384, False, False, False, 1_545_969_664),
]

# Peaks of whole processes, each after 1 to 4 steps, of 8 layers: hidden, ffn, vocabulary, heads; stored as;
# rows, positions, accumulated, recomputed, fused; MB.
NARROW, WIDE = (256, 684, 2048, 4), (768, 2048, 4096, 12)
PEAKS = [
    (WIDE, "float32", 2, 192, False, False, True, 1660),
    (WIDE, "float32", 2, 192, True, False, True, 2038),
    (WIDE, "float16", 2, 192, False, False, True, 2005),
    (WIDE, "bfloat16", 2, 192, False, False, True, 2001),
    (WIDE, "float16", 2, 192, True, False, True, 2394),
    (WIDE, "float16", 2, 192, False, False, False, 2606),
    (NARROW, "float32", 4, 384, False, False, True, 1063),
    (NARROW, "float32", 4, 384, False, True, True, 953),
    (NARROW, "float32", 1, 32, False, False, False, 1039),
    (NARROW, "float32", 1, 32, False, True, False, 1286),
    (NARROW, "float32", 4, 192, False, True, False, 1585),
    (NARROW, "float32", 4, 384, False, False, False, 2019),
    (NARROW, "float32", 4, 384, False, True, False, 2012),
    (NARROW, "float32", 8, 384, False, False, False, 2991),
    (NARROW, "float32", 8, 384, False, True, False, 2711),
]


def small(**changes: object) -> ModelConfig:
    values = {
        "num_layers": 2,
        "hidden_size": 64,
        "ffn_hidden_size": 176,
        "padded_vocab_size": 512,
        "num_attention_heads": 4,
        "kv_channels": 16,
        "seq_length": 192,
        "param_init_type": "float32",
    }
    return ModelConfig.from_mapping(values | changes)


def plan(config: ModelConfig, options: TrainOptions | None = None, **changes: object) -> MemoryPlan:
    values = {
        "rows": 8,
        "seq_length": 192,
        "accumulates": False,
        "fused": True,
        "place": HOST,
        "available": None,
    }
    return plan_memory(config, options or TrainOptions(), **values | changes)


@pytest.mark.parametrize("case", MEASURED, ids=str)
def test_it_lies_within_a_tenth_of_what_was_measured(case: tuple) -> None:
    layers, hidden, ffn, vocab, heads, channels, rows, seq, accumulates, recompute, fused, peak = case
    config = small(
        num_layers=layers,
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        padded_vocab_size=vocab,
        num_attention_heads=heads,
        kv_channels=channels,
    )
    found = plan(
        config,
        TrainOptions(recompute=recompute),
        rows=rows,
        seq_length=seq,
        accumulates=accumulates,
        fused=fused,
    )
    assert found.total - found.runtime + RUNTIME == pytest.approx(peak + RUNTIME, rel=0.1)


@pytest.mark.parametrize("case", PEAKS, ids=str)
def test_the_whole_process_lies_within_a_tenth_of_what_was_measured(case: tuple) -> None:
    (hidden, ffn, vocab, heads), stored, rows, seq, accumulates, recompute, fused, peak = case
    config = small(
        num_layers=8,
        hidden_size=hidden,
        ffn_hidden_size=ffn,
        padded_vocab_size=vocab,
        num_attention_heads=heads,
        kv_channels=64,
        param_init_type=stored,
    )
    options = TrainOptions(recompute=recompute, master_weights=True)
    found = plan(config, options, rows=rows, seq_length=seq, accumulates=accumulates, fused=fused)
    assert found.total / 1e6 == pytest.approx(peak, rel=0.1)


def test_recomputing_on_stock_operators_pays_for_large_batches_only() -> None:
    """As measured: the larger graph costs more than a small batch gives back."""
    config = small(num_layers=8, hidden_size=256, ffn_hidden_size=684, kv_channels=64)

    def gain(rows: int, seq_length: int) -> int:
        totals = [
            plan(config, TrainOptions(recompute=again), rows=rows, seq_length=seq_length, fused=False).total
            for again in (False, True)
        ]
        return totals[0] - totals[1]

    assert gain(1, 32) < 0 < gain(8, 384)


def test_the_6b_model_counts_its_parameters() -> None:
    assert parameter_count(SIX_B) == 6_243_584_000


def test_what_is_stored_narrow_is_updated_in_a_float32_copy() -> None:
    """With and without what rounding takes from it; on the CPU it is computed with in float32 as well."""
    count = parameter_count(SIX_B)
    for options in (TrainOptions(), TrainOptions(master_weights=True)):
        assert plan(SIX_B, options).optimizer == 12 * count
        assert plan(SIX_B, options).weights == 6 * count
        assert plan(SIX_B, options, place=DEVICE).weights == 2 * count
        full = plan(SIX_B.evolve(param_init_type=DType.FLOAT32), options)
        assert (full.weights, full.optimizer) == (4 * count, 8 * count)


def test_adapters_take_no_state_for_what_is_frozen() -> None:
    found = plan(SIX_B, trained=10**6)
    assert found.weights == 6 * parameter_count(SIX_B)
    assert found.optimizer == 8 * 10**6


def test_ranks_share_the_optimizers_states_and_have_weights_whole() -> None:
    """Each keeps two moments and a copy of its rows, and the sum of gradients of these rows."""
    count = parameter_count(SIX_B)
    copies, shared = plan(SIX_B, shards=8), plan(SIX_B, shards=8, shared=count)
    assert shared.optimizer == count * 12 // 8
    assert copies.optimizer == count * 12 == plan(SIX_B).optimizer
    assert shared.weights == copies.weights == plan(SIX_B).weights
    assert copies.gradients - shared.gradients == count * 4 - count // 8 * 4


@pytest.mark.parametrize(
    ("ranks", "shared", "measured"),
    [(1, False, 1.43e9), (2, False, 1.60e9), (2, True, 1.49e9), (4, False, 1.55e9), (4, True, 1.26e9)],
)
def test_the_plan_of_a_rank_lies_within_a_tenth_of_what_was_measured(
    ranks: int, shared: bool, measured: float
) -> None:
    """Peaks of benchmarks/scale_out.py."""
    config = small(
        num_layers=8,
        padded_vocab_size=4096,
        hidden_size=640,
        ffn_hidden_size=1706,
        kv_channels=64,
        num_attention_heads=10,
        multi_query_group_num=2,
        param_init_type="float32",
    )
    shapes = parameter_shapes(config)
    cut = NetworkCut(data_parallel=ranks, optimizer_parallel=shared)
    parts = shared_rows(cut, shapes, dict.fromkeys(shapes, 4), 0)
    found = plan(
        config,
        rows=4 // ranks,
        seq_length=128,
        shards=ranks,
        shared=sum(prod(shapes[name]) for name in parts),
    )
    assert found.total == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize(
    ("config", "options", "word"),
    [
        (small(), {"rows": 500}, "batch_size"),
        (SIX_B, {}, "pet_config"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_knob_that_helps(
    config: ModelConfig, options: dict, word: str
) -> None:
    found = plan(config, available=10**8, **options)
    assert not found.fits
    with pytest.raises(BackendError, match="does not fit the memory of the host") as caught:
        found.require_fit()
    assert word in str(caught.value.hint)
    evolve(found, available=found.total).require_fit()


def test_a_longer_sequence_more_rows_and_an_evaluation_take_more() -> None:
    base = plan(small())
    assert plan(small(), rows=16).total > base.total
    assert plan(small(), seq_length=384).total > base.total
    assert plan(small(), kv_rows=4).kv_cache == 4 * 192 * 2 * 2 * 2 * 16 * 4


def planned(tmp_path: Path, world_size: int = 1, **changes: object) -> MemoryPlan:
    config: RunConfig = run_config(tmp_path, **changes)
    return memory_plan(config, SIX_B, healthy_facts(), world_size)


def test_a_device_has_what_the_file_lets_it_take(tmp_path: Path) -> None:
    found = planned(
        tmp_path, context={"device_target": "Ascend", "max_device_memory": "59GB"}, load_checkpoint=None
    )
    assert (found.place, found.available) == (DEVICE, 59 << 30)
    assert found.runtime == found.graph == 0


def test_eight_ranks_with_a_sliced_optimizer_fit_64_gb(tmp_path: Path) -> None:
    """The model card's full finetuning; on one card it does not fit."""
    keys: dict = {"context": {"device_target": "Ascend", "max_device_memory": "59GB"}}
    assert not planned(tmp_path, **keys).fits
    assert planned(
        tmp_path,
        8,
        **keys,
        use_parallel=True,
        parallel={"parallel_mode": 1, "enable_parallel_optimizer": True},
        parallel_config={"data_parallel": 8},
        recompute_config={"recompute": True},
    ).fits


@pytest.mark.parametrize("whole", [False, True])
def test_ranks_that_share_matrices_plan_their_part(tmp_path: Path, whole: bool) -> None:
    """Of a run on 2 copies of 4 ranks; a whole embedding, 266 million parameters, is counted on each."""
    ways = {"data_parallel": 2, "model_parallel": 4, "vocab_emb_dp": whole}
    keys = {"load_checkpoint": None, "use_parallel": True, "parallel_config": ways}
    alone = planned(tmp_path, load_checkpoint=None)
    shared = planned(tmp_path, 8, **keys)
    assert shared.weights < alone.weights / 3
    assert shared.optimizer < alone.optimizer / 3
    sliced = planned(tmp_path, 8, **keys, parallel={"enable_parallel_optimizer": True})
    assert sliced.optimizer < shared.optimizer


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("ways", [1, 2, 4])
def test_a_rank_plans_the_weights_that_it_holds(tmp_path: Path, ways: int, whole: bool) -> None:
    """The head is cut whether or not the embedding is."""
    keys = {"data_parallel": 2, "model_parallel": ways, "vocab_emb_dp": whole}
    found = planned(tmp_path, 2 * ways, load_checkpoint=None, use_parallel=True, parallel_config=keys)
    cut = NetworkCut(data_parallel=2, model_parallel=ways, vocab_emb_dp=whole)
    ranks = ThreadWorld(2 * ways).run(lambda communicator: ModelShares.among(SIX_B, cut, 2, communicator))
    held = sum(prod(ranks[-1].held_shape(name)) for name in parameter_shapes(SIX_B))
    assert found.weights == 6 * held
    assert found.optimizer == 12 * held
