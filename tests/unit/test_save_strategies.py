"""``only_save_strategy``: strategy files without weights, data or training."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.strategy.store import FileStrategyStore
from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.application.merge_checkpoints import MergeRequest, merge_checkpoints
from glm3.application.save_strategies import SavedStrategies, StrategySaver
from glm3.domain.errors import ConfigError, MultipleFaultsError, UsageError
from glm3.domain.layout.strategy import JobStrategy
from glm3.domain.model_config import ModelConfig
from glm3.domain.parameters import parameter_shapes, to_mindspore_name
from glm3.domain.run_config import RunConfig
from glm3.domain.tensors import DType, TensorSpec
from glm3.entrypoints.cli.app import run as command_line
from support.cli import REPOSITORY
from support.finetune import NETWORK, OneModel, run_config, service
from support.rank_checkpoints import STORES, save_ranks
from support.tensors import numbers, save

CONFIGS = REPOSITORY / "configs/glm3"
CARD = sorted(path.name for path in CONFIGS.glob("*6b*.yaml"))
# Large enough for MindSpore's threshold of 64 KiB: the output layer and both of the layers' large matrices.
WIDE = {**NETWORK, "hidden_size": 64, "ffn_hidden_size": 256, "type": "ChatGLM2Config"}
LORA = {"pet_type": "lora", "lora_rank": 4, "target_modules": ".*query_key_value*"}


def saver(folder: Path) -> StrategySaver:
    return StrategySaver(sources=OneModel(folder / "small"), stores=STORES, strategies=FileStrategyStore())


def asked(output: Path, ways: dict[str, Any], **changes: Any) -> RunConfig:
    keys = {
        "load_checkpoint": None,
        "model": {"model_config": WIDE},
        "use_parallel": True,
        "only_save_strategy": True,
        "parallel_config": ways,
    }
    return run_config(output, **keys | changes)


def saved(folder: Path, ways: dict[str, Any], **changes: Any) -> SavedStrategies:
    return saver(folder).save(asked(folder / "output", ways, **changes))


def read(folder: Path) -> JobStrategy:
    return FileStrategyStore().read(folder / "output" / "strategy")


def test_all_configurations_are_looked_at():
    assert len(CARD) == 7


@pytest.mark.parametrize("name", CARD)
def test_the_cards_files_write_those_of_their_eight_ranks(name, tmp_path, capsys):
    """As they stand: with placeholders where paths of data go."""
    arguments = ["--only_save_strategy", "True", "--use_parallel", "True", "--output_dir", str(tmp_path)]
    assert command_line(["run", "--config", str(CONFIGS / name), *arguments]) == 0
    assert capsys.readouterr().out.startswith("rank 0-7 of 8: ")
    folder = tmp_path / "strategy"
    expected = [f"ckpt_strategy_rank_{rank}.ckpt" for rank in range(8)]
    assert sorted(file.name for file in folder.iterdir()) == expected
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["strategy"]
    job = FileStrategyStore().read(folder)
    assert job.num_ranks == 8
    config = YamlRunConfigReader().read(CONFIGS / name, []).model.model_config
    head, embedding = (65024, 4096), "transformer.embedding.word_embeddings.weight"
    rows = 65024 // 8 if "predict" not in name else 65024  # answering shares no optimizer
    for rank in range(8):
        box = job.slices("transformer.output_layer.weight", head, rank)
        assert box is not None
        assert (box[0].stop - box[0].start, box[0].start % rows) == (rows, 0)
    assert job.slices(to_mindspore_name(embedding), head, 3) == (slice(0, 65024), slice(0, 4096))
    names = {to_mindspore_name(parameter) for parameter in parameter_shapes(config)}
    assert names <= set(job.stages[0].layouts)


@settings(max_examples=12, deadline=None)
@given(
    dp=st.sampled_from([1, 2, 4]),
    mp=st.sampled_from([1, 2, 4]),
    pp=st.integers(1, 3),
    shared=st.booleans(),
    spread=st.booleans(),
)
def test_slices_by_these_files_merge_to_what_was_cut(dp, mp, pp, shared, spread):
    """Cut twice, by plain indexing and by the merge itself; two merges must give the same numbers back."""
    network = {**WIDE, "num_layers": 3}
    ways = {"data_parallel": dp, "model_parallel": mp, "pipeline_stage": pp, "micro_batch_num": pp}
    with TemporaryDirectory() as name:
        folder = Path(name)
        done = saved(
            folder,
            {**ways, "vocab_emb_dp": spread},
            model={"model_config": network},
            parallel__enable_parallel_optimizer=shared,
        )
        job = read(folder)
        assert job.num_ranks == len(done.files) == dp * mp * pp
        shapes = parameter_shapes(ModelConfig.from_mapping(NETWORK | network))
        specs = [TensorSpec(to_mindspore_name(n), DType.FLOAT32, shape) for n, shape in shapes.items()]
        whole = {spec: numbers(spec, 3) for spec in specs}
        save(STORES[1], folder / "whole.ckpt", whole)
        save_ranks(folder / "by_hand", whole, job)
        cut = MergeRequest(source=folder / "whole.ckpt", target=folder / "cut", target_strategy=job)
        merge_checkpoints(cut, STORES)
        for source in ("by_hand", "cut"):
            request = MergeRequest(
                source=folder / source, target=folder / f"{source}_merged", source_strategy=job, prefix="m"
            )
            (file,) = merge_checkpoints(request, STORES).files
            with STORES[1].open(file) as reader:
                assert set(reader.tensors) == {spec.name for spec in whole}
                for spec, array in whole.items():
                    np.testing.assert_array_equal(reader.read(spec.name), array, err_msg=spec.name)


def test_a_stages_file_names_the_parameters_of_its_stage(tmp_path):
    saved(tmp_path, {"data_parallel": 2, "pipeline_stage": 2, "micro_batch_num": 2})
    first, last = read(tmp_path).stages
    embedding, head = to_mindspore_name("transformer.embedding.word_embeddings.weight"), "output_layer"
    assert embedding in first.layouts
    assert embedding not in last.layouts
    assert any(head in name for name in last.layouts)
    assert not any(head in name for name in first.layouts)


def test_of_adapters_the_network_beside_them_is_told_too(tmp_path):
    lora = {"model_config": {**WIDE, "pet_config": LORA}}
    key = "parallel__strategy_ckpt_config__only_trainable_params"
    saved(tmp_path, {"data_parallel": 2}, model=lora, **{key: False})
    names = set(read(tmp_path).stages[0].layouts)
    assert any(name.endswith("mindpet_delta_lora_a") for name in names)
    assert any(name.endswith("output_layer.weight") for name in names)
    with pytest.raises(MultipleFaultsError, match="only_trainable_params"):
        saved(tmp_path, {"data_parallel": 2}, model=lora, **{key: True})


def test_copies_are_counted_by_parallel_config_in_data_parallel_mode(tmp_path):
    ways = {"data_parallel": 4, "model_parallel": 2}
    done = saved(tmp_path, ways, parallel__parallel_mode=0, parallel__enable_parallel_optimizer=True)
    assert len(done.files) == 8
    box = read(tmp_path).slices("transformer.encoder.layers.0.mlp.dense_h_to_4h.weight", (512, 64), 7)
    assert box == (slice(448, 512), slice(0, 64))


def test_a_rank_of_a_job_writes_its_own(tmp_path):
    config = asked(tmp_path / "output", {"data_parallel": 2})
    done = saver(tmp_path).save(config, rank=1, world_size=2)
    assert [file.name for file in done.files] == ["ckpt_strategy_rank_1.ckpt"]
    assert list((tmp_path / "output" / "strategy").iterdir()) == list(done.files)
    with pytest.raises(MultipleFaultsError, match="should be equal to device_num"):
        saver(tmp_path).save(config, rank=1, world_size=3)


def test_a_launched_rank_knows_itself_by_its_environment(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK_SIZE", "8")
    monkeypatch.setenv("RANK_ID", "5")
    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    changes = ["only_save_strategy=True", f"output_dir={tmp_path}"]
    assert command_line(["finetune", "--config", str(CONFIGS / CARD[-1]), *changes]) == 0
    assert capsys.readouterr().out.startswith("rank 5 of 8: ")
    assert [file.name for file in (tmp_path / "strategy").iterdir()] == ["ckpt_strategy_rank_5.ckpt"]


def test_files_of_a_larger_job_are_not_mixed_with(tmp_path):
    saved(tmp_path, {"data_parallel": 4})
    before = {file.name: file.read_bytes() for file in (tmp_path / "output" / "strategy").iterdir()}
    with pytest.raises(UsageError, match="rank 2-3"):
        saved(tmp_path, {"data_parallel": 2})
    assert {file.name: file.read_bytes() for file in (tmp_path / "output" / "strategy").iterdir()} == before
    saved(tmp_path, {"data_parallel": 2, "model_parallel": 2})
    assert read(tmp_path).num_ranks == 4


@pytest.mark.parametrize(
    ("ways", "changes", "told"),
    [
        ({"data_parallel": 2}, {"use_parallel": False}, "nothing is cut in this run"),
        ({"model_parallel": 3}, {}, "multiple of 3"),
        ({"pipeline_stage": 3, "micro_batch_num": 3}, {}, "at most 2 layers"),
    ],
)
def test_what_cannot_be_cut_is_refused_and_nothing_written(tmp_path, ways, changes, told):
    with pytest.raises(MultipleFaultsError, match=told):
        saved(tmp_path, ways, **changes)
    assert not (tmp_path / "output").exists()


def test_training_refuses_and_says_what_writes_them(tmp_path):
    config = asked(tmp_path / "output", {"data_parallel": 1})
    with pytest.raises(ConfigError, match="glm3 finetune"):
        service(tmp_path).preparation.prepare(config)
