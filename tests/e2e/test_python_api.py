"""The Python API as the model card's programs use it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
from attrs import evolve

import glm3
from glm3.domain.decoding import generate
from glm3.domain.errors import ConfigError, ContextLengthError, InvalidInputError, UsageError
from glm3.domain.generation import GenerationConfig
from glm3.entrypoints.paths import resources_folder
from support.cli import REPOSITORY
from support.model_folder import make_model_folder

GOLDEN = REPOSITORY / "tests/golden/tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model_folder(tmp_path_factory.mktemp("api") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> glm3.entrypoints.python.ChatGLM2ForConditionalGeneration:
    return glm3.AutoModel.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> glm3.entrypoints.python.ChatGLM3Tokenizer:
    return glm3.AutoTokenizer.from_pretrained(str(folder))


def test_golden_logits_and_greedy_ids_through_the_public_calls() -> None:
    golden = np.load(GOLDEN / "golden.npz")
    model = glm3.AutoModel.from_pretrained(GOLDEN / "hf")
    np.testing.assert_allclose(model.logits(golden["input_ids"]), golden["logits"], atol=1e-4)
    (answer,) = model.generate(golden["input_ids"][:1], max_new_tokens=32, do_sample=False)
    assert answer[24:].tolist() == golden["greedy_ids"].tolist()


def test_beams_as_wide_as_the_tree_find_the_likeliest_answer_of_the_embedded_model() -> None:
    """All 216 answers of three ids out of six, each scored in one forward pass; greedy takes another."""
    model = glm3.AutoModel.from_pretrained(resources_folder() / "tiny")
    prompt = np.arange(32, 40)
    answers = np.array(list(product(range(6), repeat=3)))
    logits = model.logits(np.hstack([np.tile(prompt, (216, 1)), answers]))[:, 7:10, :6].astype(np.float64)
    logprobs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    totals = np.take_along_axis(logprobs, answers[..., None], axis=-1).sum(axis=(1, 2))
    options = GenerationConfig(max_new_tokens=3, vocab_size=6)
    (greedy,) = generate(model.port, [prompt.tolist()], options)
    (found,) = generate(model.port, [prompt.tolist()], evolve(options, num_beams=216))
    second, best = np.sort(totals)[-2:]
    assert best - second > 1e-3
    assert found.new_ids == tuple(answers[totals.argmax()]) != greedy.new_ids


def test_a_left_padded_batch_gives_what_its_rows_give(model, tokenizer) -> None:
    batch = tokenizer.build_batch_input(["你好", "a longer question"])
    together = model.generate(batch["input_ids"], max_new_tokens=6)
    masked = model.generate(batch["input_ids"], attention_mask=batch["attention_mask"], max_new_tokens=6)
    width = batch["input_ids"].shape[1]
    for query, answer, same in zip(["你好", "a longer question"], together, masked, strict=True):
        (alone,) = model.generate(tokenizer.build_chat_input(query)["input_ids"], max_new_tokens=6)
        length = tokenizer.build_chat_input(query)["input_ids"].shape[1]
        assert answer[width:].tolist() == alone[length:].tolist() == same[width:].tolist()


def test_the_chat_program_of_the_model_card_runs(folder: Path) -> None:
    config = glm3.AutoConfig.from_pretrained(folder)
    config.use_past = True
    config.seq_length = 100
    config.checkpoint_name_or_path = str(folder)
    model = glm3.AutoModel.from_config(config)
    tokenizer = glm3.AutoTokenizer.from_pretrained(folder)
    for query in ["你好", "请介绍一下华为"]:
        inputs = tokenizer.build_chat_input(query, history=[], role="user")["input_ids"]
        outputs = model.generate(inputs, do_sample=False, top_k=1, max_length=config.seq_length)
        assert isinstance(tokenizer.decode(outputs), list)
        assert len(outputs[0]) <= 100
        assert isinstance(tokenizer.decode(outputs[0][len(inputs[0]) :]), str)


def test_the_multi_role_program_of_the_model_card_runs(model, tokenizer) -> None:
    history: list[dict[str, object]] = []
    options = {"num_beams": 1, "do_sample": False, "top_p": 1, "top_k": 1, "temperature": 1}
    for role, text in [("system", "你是导游"), ("user", "介绍海南"), ("user", "再见")]:
        inputs = tokenizer.build_chat_input(text, history=history, role=role)["input_ids"]
        history.append({"role": role, "content": text})
        outputs = model.generate(inputs, max_new_tokens=8, **options)
        response = tokenizer.decode(outputs[0][len(inputs[0]) : -1])
        _, history = glm3.process_response(response, history)
    assert [item["role"] for item in history][:3] == ["system", "assistant", "user"]


def test_only_ids_with_a_text_are_produced(model, tokenizer) -> None:
    inputs = tokenizer.build_chat_input("x")["input_ids"]
    (answer,) = model.generate(inputs, do_sample=True, temperature=50.0, seed=1, max_new_tokens=60)
    assert answer.max() < tokenizer.vocab_size <= 429


def test_a_seed_repeats_and_none_does_not(model, tokenizer) -> None:
    inputs = tokenizer.build_chat_input("x")["input_ids"]

    def draw(seed: int | None) -> list[int]:
        (answer,) = model.generate(inputs, do_sample=True, temperature=5.0, seed=seed, max_new_tokens=12)
        return answer.tolist()

    assert draw(3) == draw(3)
    assert len({tuple(draw(None)) for _ in range(4)}) > 1


def test_a_session_streams_text_and_ends_with_the_reply(model, tokenizer) -> None:
    chat = glm3.ChatSession(model, tokenizer, system="be short", max_new_tokens=10)
    *pieces, reply = chat.stream("你好")
    assert "".join(pieces) == reply.text
    assert reply.usage.completion_tokens <= 10
    assert len(chat.messages) == 3


def test_formats_convert_and_load_again(folder: Path, model, tokenizer, tmp_path: Path) -> None:
    glm3.convert(folder, tmp_path / "model.ckpt", to="ckpt")
    config = glm3.AutoConfig.from_pretrained(folder, checkpoint_name_or_path=str(tmp_path / "model.ckpt"))
    again = glm3.AutoModel.from_config(config)
    ids = tokenizer.build_chat_input("你好")["input_ids"]
    np.testing.assert_array_equal(model.logits(ids), again.logits(ids))


def test_a_converted_checkpoint_is_a_model_folder_on_request(
    folder: Path, model, tokenizer, tmp_path: Path
) -> None:
    target = tmp_path / "ms" / "model.ckpt"
    glm3.convert(folder, target, to="ckpt", model_folder=True)
    assert sorted(path.name for path in target.parent.iterdir()) == [
        "model.ckpt",
        "model.yaml",
        "tokenizer.model",
    ]
    ids = glm3.AutoTokenizer.from_pretrained(target.parent).build_chat_input("你好")["input_ids"]
    again = glm3.AutoModel.from_pretrained(target.parent)
    np.testing.assert_array_equal(model.logits(ids), again.logits(ids))
    assert again.config.seq_length == model.config.seq_length
    (target.parent / "model.ckpt").unlink()
    with pytest.raises(UsageError, match="exists already"):
        glm3.convert(folder, target, to="ckpt", model_folder=True)
    with pytest.raises(UsageError, match="model folder"):
        glm3.convert(folder, tmp_path / "x.safetensors", to="safetensors", model_folder=True)


@pytest.mark.slow
def test_three_golden_steps_through_the_public_session() -> None:
    golden = np.load(GOLDEN / "golden.npz")
    session = glm3.TrainSession(glm3.AutoModel.from_pretrained(GOLDEN / "hf"), learning_rate=1e-3)
    reports = [session.step(golden["input_ids"], golden["labels"]) for _ in range(3)]
    np.testing.assert_allclose([report.loss for report in reports], golden["train_losses"], rtol=1e-5)
    np.testing.assert_allclose(
        [report.grad_norm for report in reports], golden["train_grad_norms"], rtol=5e-5
    )
    name = "transformer.encoder.final_layernorm.weight"
    np.testing.assert_allclose(session.parameters()[name], golden[f"after3:{name}"], atol=1e-5)
    with pytest.raises(InvalidInputError, match="labels"):
        session.step([[1, 2, 3]], [[1, 2]])
    with pytest.raises(UsageError, match="adamw"):
        glm3.TrainSession(glm3.AutoModel.from_pretrained(GOLDEN / "hf"), optimizer="sgd")


@pytest.mark.slow
def test_an_adapter_is_finetuned_merged_and_chatted_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = '{"pet_type": "lora", "lora_rank": 4, "target_modules": ".*query_key_value*"}'
    report = glm3.finetune(
        REPOSITORY / "configs/glm3/glm3_tiny.yaml",
        f"output_dir={tmp_path}",
        f"model.model_config.pet_config={lora}",
        "train_dataset.data_loader.num_samples=16",
        "do_eval=False",
        layout="chat",
    )
    assert report.loop.steps_done == 2
    merged = glm3.merge_adapter(report.model_folder, tmp_path / "merged", verify=True)
    chat = glm3.ChatSession(
        glm3.AutoModel.from_pretrained(merged), glm3.AutoTokenizer.from_pretrained(merged), max_new_tokens=16
    )
    assert chat.send("你好").text


def test_the_numpy_backend_agrees(folder: Path, model, tokenizer) -> None:
    oracle = glm3.AutoModel.from_pretrained(folder, backend="numpy")
    ids = tokenizer.build_chat_input("你好")["input_ids"]
    np.testing.assert_allclose(model.logits(ids), oracle.logits(ids), atol=1e-4)


def test_weights_are_copies(model) -> None:
    weights = model.parameters()
    assert len(weights) == 17
    before = weights["transformer.output_layer.weight"].copy()
    weights["transformer.output_layer.weight"][:] = 0
    np.testing.assert_array_equal(model.parameters()["transformer.output_layer.weight"], before)


def test_mistakes_are_explained(folder: Path, model, tokenizer) -> None:
    with pytest.raises(UsageError, match=r"tiny, glm3_6b"):
        glm3.AutoModel.from_pretrained("glm4")
    with pytest.raises(ConfigError, match="did you mean seq_length"):
        glm3.AutoConfig.from_pretrained(folder, seq_lenght=10)
    with pytest.raises(UsageError, match="from_pretrained"):
        glm3.AutoModel()
    with pytest.raises(InvalidInputError, match="unequal length"):
        model.generate([[1, 2], [3]])
    with pytest.raises(ContextLengthError):
        model.generate([[5] * 128], max_new_tokens=4)
    with pytest.raises(InvalidInputError, match="attention_mask"):
        model.generate([[5, 6]], attention_mask=[[1]])
    with pytest.raises(InvalidInputError, match="top_p"):
        model.generate([[5, 6]], top_p=2)
    config = glm3.AutoConfig.from_pretrained(folder)
    with pytest.raises(ConfigError, match="seq_length"):
        config.seq_length = 0


def test_importing_the_package_imports_no_runtime() -> None:
    import subprocess
    import sys

    code = (
        "import glm3, sys; print(sorted({'mindspore', 'numpy', 'typer'} & set(sys.modules)), dir(glm3)[:1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] ")
