"""The shipped configuration files hold what their users rely on, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from glm3.adapters.yaml.run_config_reader import YamlRunConfigReader
from glm3.domain.run_config import check_for
from glm3.domain.training.prefix import PREFIX_EMBEDDING, PrefixConfig, prefix_shapes
from glm3.domain.training.setup import adapter_config

FOLDER = Path(__file__).parents[2] / "configs" / "glm3"
PREDICT = "predict_glm3_6b.yaml"
TEMPLATE = "run_glm3_6b.yaml"
LONG = "run_glm3_6b_finetune_2k_800T_A2_64G.yaml"
ADGEN = "run_glm3_6b_finetune_800T_A2_64G.yaml"
DIALOGUE = "run_glm3_6b_multiturn_finetune_800T_A2_64G.yaml"
NAMES = (PREDICT, TEMPLATE, LONG, ADGEN, DIALOGUE)
TRAINING = (TEMPLATE, LONG, ADGEN, DIALOGUE)

ABSENT = object()


def dataset(prefix: str, **keys: Any) -> dict[str, Any]:
    common = {
        "tokenizer.type": "ChatGLM3Tokenizer",
        "tokenizer.vocab_file": "/path/to/tokenizer.model",
        "num_parallel_workers": 8,
        "python_multiprocessing": False,
        "drop_remainder": True,
        "repeat": 1,
        "numa_enable": False,
        "prefetch_size": 1,
        "seed": 0,
    }
    return {f"{prefix}.{key}": value for key, value in (common | keys).items()}


SAME = {
    "seed": 0,
    "output_dir": "./output",
    "src_strategy_path_or_dir": "",
    "auto_trans_ckpt": False,
    "only_save_strategy": False,
    "resume_training": False,
    "context.mode": 0,
    "context.device_target": "Ascend",
    "context.enable_graph_kernel": False,
    "context.graph_kernel_flags": (
        "--disable_expand_ops=Softmax,Dropout --enable_parallel_fusion=true "
        "--reduce_fuse_depth=8 --enable_auto_tensor_inplace=true"
    ),
    "context.max_call_depth": 10000,
    "context.max_device_memory": "59GB",
    "context.save_graphs": False,
    "context.device_id": 0,
    "remote_save_url": "Please input obs url on AICC platform.",
    "model.arch.type": "ChatGLM2ForConditionalGeneration",
    "trainer.type": "CausalLanguageModelingTrainer",
    "trainer.model_name": "glm3_6b",
    "do_eval": False,
    "eval_step_interval": 500,
    "eval_epoch_interval": -1,
    "metric.type": "ADGENMetric",
    "processor.return_tensors": "ms",
    "processor.tokenizer.type": "ChatGLM3Tokenizer",
    "processor.tokenizer.bos_token": "<sop>",
    "processor.tokenizer.eos_token": "<eop>",
    "processor.tokenizer.end_token": "</s>",
    "processor.tokenizer.mask_token": "[MASK]",
    "processor.tokenizer.gmask_token": "[gMASK]",
    "processor.tokenizer.pad_token": "<pad>",
    "processor.tokenizer.unk_token": "<unk>",
    "processor.type": "GLMProcessor",
    **dataset("train_dataset", **{"data_loader.shuffle": True}),
    "runner_config.sink_mode": True,
    "runner_wrapper.type": "MFTrainOneStepCell",
    "runner_wrapper.scale_sense.type": "DynamicLossScaleUpdateCell",
    "runner_wrapper.scale_sense.loss_scale_value": 65536,
    "runner_wrapper.scale_sense.scale_factor": 2,
    "runner_wrapper.scale_sense.scale_window": 1000,
    "lr_schedule.type": "polynomial",
    "lr_schedule.lr_end": 1e-6,
    "lr_schedule.warmup_steps": 0,
    "lr_schedule.total_steps": -1,
    "layer_scale": False,
    "layer_decay": 0.65,
    "optimizer.beta1": 0.9,
    "optimizer.eps": 1e-8,
    "lr_scale": False,
    "lr_scale_factor": 256,
    "parallel.parallel_mode": 1,
    "parallel.gradients_mean": False,
    "parallel.loss_repeated_mean": True,
    "parallel.enable_alltoall": False,
    "parallel.full_batch": True,
    "parallel.search_mode": "sharding_propagation",
    "parallel.strategy_ckpt_config.save_file": "./ckpt_strategy.ckpt",
    "parallel_config.data_parallel": 8,
    "parallel_config.model_parallel": 1,
    "parallel_config.pipeline_stage": 1,
    "parallel_config.expert_parallel": 1,
    "parallel_config.micro_batch_num": 1,
    "parallel_config.vocab_emb_dp": True,
    "parallel_config.gradient_aggregation_group": 4,
    "micro_batch_interleave_num": 1,
    "moe_config.expert_num": 1,
    "moe_config.capacity_factor": 1.05,
    "moe_config.aux_loss_factor": 0.05,
    "moe_config.num_experts_chosen": 1,
    "recompute_config.parallel_optimizer_comm_recompute": False,
    "recompute_config.mp_comm_recompute": True,
    "auto_tune": False,
    "filepath_prefix": "./autotune",
    "autotune_per_step": 10,
    "profile": False,
    "profile_start_step": 1,
    "profile_stop_step": 10,
    "init_start_profile": True,
    "profile_communication": True,
    "profile_memory": True,
    "callbacks.0.type": "MFLossMonitor",
    "callbacks.1.type": "CheckpointMointor",
    "callbacks.1.prefix": "glm3-6b",
    "callbacks.1.integrated_save": False,
    "callbacks.1.async_save": False,
    "callbacks.2.type": "ObsMonitor",
    "callbacks.2.keep_last": False,
    "eval_callbacks.0.type": "ObsMonitor",
    "eval_callbacks.0.keep_last": False,
} | {
    f"model.model_config.{key}": value
    for key, value in {
        "type": "ChatGLM2Config",
        "num_layers": 28,
        "padded_vocab_size": 65024,
        "hidden_size": 4096,
        "ffn_hidden_size": 13696,
        "kv_channels": 128,
        "num_attention_heads": 32,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "rmsnorm": True,
        "apply_residual_connection_post_layernorm": False,
        "post_layer_norm": True,
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "bias_dropout_fusion": True,
        "multi_query_attention": True,
        "multi_query_group_num": 2,
        "apply_query_key_layer_scaling": True,
        "attention_softmax_in_fp32": True,
        "fp32_residual_connection": False,
        "quantization_bit": 0,
        "pre_seq_len": "None",
        "prefix_projection": False,
        "param_init_type": "float16",
        "compute_dtype": "float16",
        "layernorm_compute_type": "float32",
        "eos_token_id": 2,
        "pad_token_id": 0,
        "repetition_penalty": 1.0,
        "max_decode_length": 256,
        "checkpoint_name_or_path": "glm3_6b",
        "top_k": 1,
        "top_p": 1,
    }.items()
}

COLUMNS = ["content", "summary"]
IDS = ["input_ids", "labels"]
A = ABSENT
# in the order of NAMES
DIFFERENT: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "run_mode": ("predict", "train", "train", "train", "finetune"),
    "load_checkpoint": ("", "", "", "", "glm3_6b"),
    "context.save_graphs_path": (A, A, A, A, "your-path"),
    "model.model_config.batch_size": (1, 1, A, A, A),
    "model.model_config.seq_length": (2048, 193, 2048, 192, 2048),
    "model.model_config.layernorm_epsilon": (1e-5, "1e-5", "1e-5", "1e-5", "1e-5"),
    "model.model_config.use_past": (True, False, False, False, False),
    "model.model_config.use_flash_attention": (True, False, False, False, False),
    "model.model_config.use_prompt_flash_attention": (A, False, A, A, A),
    "model.model_config.use_incre_flash_attention": (A, False, A, A, A),
    "model.model_config.do_sample": (False, True, True, True, True),
    "model.model_config.max_length": (256, A, A, A, A),
    "model.model_config.block_size": (16, A, A, A, A),
    "model.model_config.num_blocks": (128, A, A, A, A),
    "model.model_config.is_dynamic": (False, A, A, A, A),
    "processor.tokenizer.vocab_file": ("path/to/tokenizer.model", A, A, A, A),
    "train_dataset.data_loader.type": (*["ADGenDataLoader"] * 4, "ToolAlpacaDataLoader"),
    "train_dataset.data_loader.dataset_dir": (
        *["/path/to/AdvertiseGen/train.json"] * 4,
        "/path/to/tool_alpaca.jsonl",
    ),
    "train_dataset.data_loader.phase": (*["train"] * 4, A),
    "train_dataset.data_loader.version": (3, 2, 3, 3, A),
    "train_dataset.data_loader.origin_columns": (*[COLUMNS] * 4, A),
    "train_dataset.input_columns": (*[IDS] * 4, A),
    "train_dataset.max_source_length": (64, 64, 1024, 64, A),
    "train_dataset.max_target_length": (127, 128, 1023, 127, A),
    "train_dataset.ignore_pad_token_for_loss": (*[True] * 4, A),
    "train_dataset.batch_size": (8, 1, 8, 8, 1),
    "train_dataset.max_seq_length": (A, A, A, A, 2048),
    "train_dataset_task.type": (*["KeyWordGenDataset"] * 4, "MultiTurnDataset"),
    "eval_dataset.batch_size": (8, 1, 8, 8, A),
    "eval_dataset_task.type": (*["KeyWordGenDataset"] * 4, A),
    "runner_config.epochs": (1, 1, 1, 1, 2),
    "runner_config.batch_size": (8, 8, 4, 4, 8),
    "runner_config.sink_size": (4, 4, 1, 1, 4),
    "runner_wrapper.use_clip_grad": (True, True, True, True, False),
    "lr_schedule.learning_rate": (1e-4, 5e-5, 1e-4, 1e-4, 1e-4),
    "optimizer.type": (*["FP32StateAdamWeightDecay"] * 4, "FusedAdamWeightDecay"),
    "optimizer.beta2": (0.95, 0.95, 0.95, 0.95, 0.999),
    "optimizer.weight_decay": (0.1, 0.1, 0.1, 0.1, 0.0),
    "optimizer.learning_rate": (A, A, A, A, 1e-4),
    "use_parallel": (False, False, True, True, True),
    "parallel.enable_parallel_optimizer": (False, True, True, True, True),
    "parallel.strategy_ckpt_config.only_trainable_params": (False, A, A, A, A),
    "recompute_config.recompute": (False, True, True, True, True),
    "recompute_config.recompute_slice_activation": (True, False, True, True, True),
    "callbacks.1.save_checkpoint_steps": (1000, 1000, 1000, 1000, 100),
    "callbacks.1.keep_checkpoint_max": (1, 2, 1, 1, 1),
}
for _key, _value in dataset(
    "eval_dataset",
    **{
        "data_loader.type": "ADGenDataLoader",
        "data_loader.dataset_dir": "/path/to/AdvertiseGen/dev.json",
        "data_loader.shuffle": False,
        "data_loader.phase": "eval",
        "data_loader.version": 2,
        "data_loader.origin_columns": COLUMNS,
        "max_source_length": 256,
        "max_target_length": 256,
        "ignore_pad_token_for_loss": True,
        "input_columns": IDS,
    },
).items():
    DIFFERENT[_key] = (_value, _value, _value, _value, A)


def flat(value: Any, where: str = "") -> dict[str, Any]:
    """Return dotted keys of what PyYAML itself reads; lists of scalars stay whole, aliases are left out."""
    if isinstance(value, dict):
        entries = [(f"{where}.{key}" if where else key, item) for key, item in value.items()]
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        entries = [(f"{where}.{index}", item) for index, item in enumerate(value)]
    else:
        return {where: value}
    return {
        key: leaf
        for place, item in entries
        if not place.endswith("dataset_config")
        for key, leaf in flat(item, place).items()
    }


def loaded(name: str) -> dict[str, Any]:
    values = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    assert isinstance(values, dict)
    return values


@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_the_model_card_has_exactly_its_keys_and_values(name: str) -> None:
    own = {key: values[NAMES.index(name)] for key, values in DIFFERENT.items()}
    expected = SAME | {key: value for key, value in own.items() if value is not ABSENT}
    found = flat(loaded(name))
    assert found == expected
    assert {key: type(value) for key, value in found.items()} == {
        key: type(value) for key, value in expected.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_tasks_are_aliases_of_their_data_sets(name: str) -> None:
    values = loaded(name)
    for section in ("train_dataset", "eval_dataset"):
        if section in values:
            assert values[f"{section}_task"]["dataset_config"] is values[section]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_says_how_to_run_it_and_passes_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    head = text[: text.index("\n\n")]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"--config configs/glm3/{path.name}" in head
    YamlRunConfigReader().read(path)


def test_the_folder_holds_these_files() -> None:
    extra = ("lora_glm3_6b.yaml", "ptuning2_glm3_6b.yaml", "glm3_tiny.yaml")
    assert {path.name for path in FOLDER.iterdir()} == {*NAMES, *extra}


@pytest.mark.parametrize("name", TRAINING)
def test_with_data_and_tokenizer_filled_in_training_may_start(name: str) -> None:
    overrides = [
        "train_dataset.data_loader.dataset_dir=rows.json",
        "--train_dataset.tokenizer.vocab_file",
        "tokenizer.model",
    ]
    config = YamlRunConfigReader().read(FOLDER / name, overrides)
    check_for(config, device_count=8 if config.use_parallel else 1)


def test_the_tiny_file_needs_nothing_filled_in() -> None:
    config = YamlRunConfigReader().read(FOLDER / "glm3_tiny.yaml")
    check_for(config)
    assert config.context.device_target == "CPU"
    assert "num_layers" not in config.model.given


def test_the_lora_file_builds_on_the_full_one() -> None:
    reader = YamlRunConfigReader()
    full, lora = reader.read(FOLDER / ADGEN), reader.read(FOLDER / "lora_glm3_6b.yaml")
    assert lora.model.pet_config is not None
    assert (lora.model.pet_config.lora_rank, lora.model.pet_config.lora_alpha) == (8, 32)
    assert lora.model.pet_config.target_modules == ".*query_key_value*"
    assert lora.model.model_config == full.model.model_config
    assert lora.train_dataset == full.train_dataset
    assert not lora.parallel.strategy_ckpt_config.only_trainable_params


def test_the_prefix_file_builds_on_the_full_one() -> None:
    reader = YamlRunConfigReader()
    full, prefix = reader.read(FOLDER / ADGEN), reader.read(FOLDER / "ptuning2_glm3_6b.yaml")
    config = adapter_config(prefix)
    assert config == PrefixConfig(length=128, dropout=0.1)
    network = prefix.model.model_config
    assert prefix_shapes(network, config) == {PREFIX_EMBEDDING: (128, 28 * 128 * 2 * 2)}
    assert network == full.model.model_config
    assert prefix.train_dataset == full.train_dataset
    assert prefix.optimizer.weight_decay == 0


def test_the_old_layout_version_is_told_once_and_read_as_the_new_one() -> None:
    config = YamlRunConfigReader().read(FOLDER / TEMPLATE)
    assert len(config.notices) == 1
    assert "train_dataset.data_loader.version and eval_dataset.data_loader.version" in config.notices[0]
    assert YamlRunConfigReader().read(FOLDER / DIALOGUE).notices == ()
