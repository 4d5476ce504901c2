"""A run judged as a whole, for the mode it is about to enter."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.domain.errors import InvalidInputError, MultipleFaultsError
from glm3.domain.run_config import RunConfig, check_for

FOLDER = Path(__file__).parents[2] / "configs" / "glm3"
ADGEN = "run_glm3_6b_finetune_800T_A2_64G.yaml"
DIALOGUE = "run_glm3_6b_multiturn_finetune_800T_A2_64G.yaml"
FILLED = ("train_dataset.data_loader.dataset_dir=rows", "train_dataset.tokenizer.vocab_file=t")


def run(*overrides: str, name: str = ADGEN) -> RunConfig:
    return YamlRunConfigReader().read(FOLDER / name, (*FILLED, *overrides))


def faults(config: RunConfig, mode: str | None = None, devices: int | None = None) -> list[str]:
    with pytest.raises(MultipleFaultsError) as caught:
        check_for(config, mode, device_count=devices)
    return [str(fault.field) for fault in caught.value.faults]


def test_placeholders_are_faults_with_line_and_remedy_where_they_are_needed() -> None:
    config = YamlRunConfigReader().read(FOLDER / ADGEN)
    with pytest.raises(MultipleFaultsError) as caught:
        check_for(config)
    assert [fault.field for fault in caught.value.faults] == [
        "train_dataset.data_loader.dataset_dir",
        "train_dataset.tokenizer.vocab_file",
    ]
    first = caught.value.faults[0]
    line = (FOLDER / ADGEN).read_text().splitlines()[(first.line or 0) - 1]
    assert "dataset_dir" in line
    assert first.hint == "fill it in, or add train_dataset.data_loader.dataset_dir=PATH to the command"
    assert faults(config, "eval") == [
        "eval_dataset.data_loader.dataset_dir",
        "eval_dataset.tokenizer.vocab_file",
    ]


def test_predicting_needs_no_data_set() -> None:
    check_for(YamlRunConfigReader().read(FOLDER / "predict_glm3_6b.yaml"))
    check_for(YamlRunConfigReader().read(FOLDER / ADGEN), "predict")


def test_lengths_that_do_not_add_up_are_told_with_the_sum() -> None:
    with pytest.raises(MultipleFaultsError) as caught:
        check_for(run("train_dataset.max_target_length=128"))
    (fault,) = caught.value.faults
    assert fault.field == "model.model_config.seq_length"
    assert fault.expected == "193 (max_source_length 64 + max_target_length 128 + 1)"
    assert fault.found == 192
    check_for(run("train_dataset.max_target_length=128", "model.model_config.seq_length=193"))


@pytest.mark.parametrize("mode", ["predict", "eval", "export"])
def test_the_sum_matters_to_training_alone(mode: str) -> None:
    check_for(
        run(
            "model.model_config.seq_length=512",
            "eval_dataset.data_loader.dataset_dir=rows",
            "eval_dataset.tokenizer.vocab_file=t",
        ),
        mode,
    )


def test_dialogues_have_a_length_of_their_own() -> None:
    check_for(run(name=DIALOGUE))
    assert faults(run("train_dataset.max_seq_length=1024", name=DIALOGUE)) == [
        "model.model_config.seq_length"
    ]


def test_ranks_must_match_the_devices() -> None:
    """Unless they are copies, which MindSpore's data parallel modes have as many of as there are devices."""
    check_for(run(), device_count=8)
    check_for(run(), device_count=None)
    check_for(run("parallel.parallel_mode=0"), device_count=4)
    with pytest.raises(
        MultipleFaultsError,
        match=r"data_parallel \* model_parallel \* pipeline_stage should be equal to device_num, "
        "but get dp:8, mp:1, pp:1, device_num:4",
    ):
        check_for(run(), device_count=4)
    with pytest.raises(MultipleFaultsError, match="glm3 launch --workers 8"):
        check_for(run(), device_count=1)


def test_several_ranks_do_not_train_each_for_itself() -> None:
    assert faults(run("use_parallel=False"), devices=4) == ["use_parallel"]
    check_for(run("use_parallel=False"), device_count=1)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        (["parallel_config.pipeline_stage=2"], "parallel_config.micro_batch_num"),
        (
            ["parallel_config.pipeline_stage=29", "parallel_config.micro_batch_num=29"],
            "parallel_config.pipeline_stage",
        ),
        (["lr_schedule.lr_end=0.1"], "lr_schedule.lr_end"),
        (["lr_schedule.learning_rate=null"], "lr_schedule.learning_rate"),
        (["lr_schedule.total_steps=5", "lr_schedule.warmup_steps=6"], "lr_schedule.warmup_steps"),
        (["resume_training=True"], "resume_training"),
        (["profile=True", "profile_start_step=20"], "profile_stop_step"),
        (["train_dataset_task.type=MultiTurnDataset"], "train_dataset_task.type"),
        (["train_dataset.data_loader.dataset_dir=null"], "train_dataset.data_loader.dataset_dir"),
        (['train_dataset.data_loader.origin_columns=["a"]'], "train_dataset.data_loader.origin_columns"),
        (["train_dataset=null", "train_dataset_task=null"], "train_dataset"),
        (["load_checkpoint=/path/to/ckpt"], "load_checkpoint"),
        (["context.save_graphs=True", "context.save_graphs_path=your-path"], "context.save_graphs_path"),
        (
            ['model.model_config.pet_config={"lora_rank": 4}', "use_parallel=False"],
            "model.model_config.pet_config",
        ),
        (
            ['model.model_config.pet_config={"target_modules": "x"}'],
            "parallel.strategy_ckpt_config.only_trainable_params",
        ),
        (
            [
                "do_eval=True",
                "eval_step_interval=-1",
                "eval_dataset.data_loader.dataset_dir=rows",
                "eval_dataset.tokenizer.vocab_file=t",
            ],
            "do_eval",
        ),
    ],
)
def test_a_contradiction_stops_training_before_it_starts(overrides: list[str], field: str) -> None:
    (found,) = faults(run(*overrides))
    assert found.startswith(field)


def test_a_longest_answer_beyond_the_context_stops_predicting() -> None:
    config = YamlRunConfigReader().read(
        FOLDER / "predict_glm3_6b.yaml", ["model.model_config.max_length=4096"]
    )
    assert faults(config) == ["model.model_config.max_length"]


def test_all_contradictions_come_together() -> None:
    config = run("resume_training=True", "lr_schedule.lr_end=0.1", "model.model_config.seq_length=7")
    assert len(faults(config)) == 3


def test_there_is_no_other_mode() -> None:
    with pytest.raises(InvalidInputError, match="no such run mode"):
        check_for(run(), "trane")


def test_a_section_names_only_what_the_file_says() -> None:
    """Fields that a file leaves out are left to the model that it names."""
    config = run("model.model_config={}", name="glm3_tiny.yaml").model
    own = config.model_config.evolve(num_layers=3, seq_length=77)
    assert config.onto(own).num_layers == 3
    assert config.onto(own).seq_length == 192
