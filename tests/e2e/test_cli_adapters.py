"""An adapter's folder at the command line: wherever a model can be named, and beside the name of its base."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import glm3 as glm3_api
from glm3.adapters.safetensors.store import SafetensorsStore
from glm3.application.adapter_folder import write_adapter
from glm3.application.base_identity import BaseIdentity
from glm3.domain.training.prefix import PrefixConfig, initial_prefix
from glm3.entrypoints.container import build_container
from support.cli import glm3

PROMPT = "类型#裙*颜色#红色"
NUMPY = {"GLM3_BACKEND": "numpy"}
SHORT = ["--max-new-tokens", "8"]
PET = "model.model_config.pet_config"
FINETUNE = [f"{PET}.pet_type=ptuning2", f"{PET}.pre_seq_len=3"]
CONFIG = str(Path(__file__).parents[2] / "configs" / "glm3" / "glm3_tiny.yaml")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random prefix for the embedded model."""
    tiny = build_container().sources().resolve("tiny")
    config = PrefixConfig(length=3)
    folder = tmp_path_factory.mktemp("adapters") / "prefix"
    base = BaseIdentity.of("tiny", tiny.weights)
    write_adapter(folder, initial_prefix(tiny.config, config, 5), config, base, [SafetensorsStore()], 0)
    return folder


def answer(*words: str) -> str:
    done = glm3(*words, *SHORT, "-q")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_chat_and_predict_take_it_alone_or_beside_its_base(adapter: Path) -> None:
    chat = ["chat", "--greedy", "-p", PROMPT]
    alone = answer(*chat, "-m", str(adapter))
    assert alone == answer(*chat, "-m", "tiny", "--adapter", str(adapter)) != answer(*chat)
    assert answer("predict", PROMPT, "--adapter", str(adapter)).strip() != ""


def test_eval_and_plan_take_it(adapter: Path, tmp_path: Path) -> None:
    rows = "eval_dataset.data_loader.num_samples=1"
    losses = []
    for model in (str(adapter), "tiny"):
        done = glm3("eval", "-m", model, rows, "--json", cwd=tmp_path, environment=NUMPY)
        assert done.returncode == 0, done.stderr
        losses.append(json.loads(done.stdout)["loss"])
    assert abs(losses[0] - losses[1]) > 1e-3
    plan = ["plan", "--config", CONFIG, "--json", *FINETUNE]
    done = glm3(*plan, f"load_checkpoint={adapter}")
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert planned == json.loads(glm3(*plan).stdout) | {"available": planned["available"]}
    network = build_container().sources().config("tiny")
    numbers = 3 * 2 * network.num_layers * network.num_kv_heads * network.kv_channels
    assert planned["optimizer"] == 8 * numbers


def test_python_takes_it(adapter: Path) -> None:
    ids = glm3_api.AutoTokenizer.from_pretrained(adapter).encode(PROMPT)
    models = [
        glm3_api.AutoModel.from_pretrained(*names, **more, backend="numpy")
        for names, more in (((adapter,), {}), (("tiny",), {"adapter": adapter}), (("tiny",), {}))
    ]
    alone, beside, plain = (model.logits([ids]) for model in models)
    np.testing.assert_array_equal(alone, beside)
    assert np.abs(alone - plain).max() > 0.01


def test_another_base_is_refused(adapter: Path, tmp_path: Path) -> None:
    done = glm3("chat", "-p", PROMPT, "-m", str(tmp_path), "--adapter", str(adapter))
    assert done.returncode != 0
    done = glm3("chat", "-p", PROMPT, "-m", "tiny", "--adapter", str(tmp_path))
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_adapter_is_trained_beside_rounded_weights_and_answers_with_them(tmp_path: Path) -> None:
    assert glm3("quantize", "-q", "-m", "tiny", "-o", "int4", "--quant", "int4", cwd=tmp_path).returncode == 0
    lora = {"pet_type": "lora", "lora_rank": 2, "lora_alpha": 4, "target_modules": ".*query_key_value.*"}
    rows = ["train_dataset.data_loader.num_samples=24", "runner_config.epochs=1"]
    run = ["finetune", "--config", CONFIG, "load_checkpoint=int4", *rows]
    refused = glm3(*run, cwd=tmp_path)
    assert refused.returncode != 0
    assert "rounded weights cannot be trained" in refused.stderr
    assert "pet_config" in refused.stderr
    done = glm3(*run, *(f"{PET}.{key}={value}" for key, value in lora.items()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = glm3("chat", "--greedy", "-q", "-p", PROMPT, "-m", "output/adapter", *SHORT, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
