"""Our GGUF files in llama.cpp itself: the same ids, the same scores, the same greedy answers.

llama-cpp-python is built from source for a quarter of an hour, so no environment of ours has it; install
it, or put an unpacked source package into PYTHONPATH and its libraries into LLAMA_CPP_LIB_PATH.
"""

from __future__ import annotations

import numpy as np
import pytest

from glm3 import export_gguf
from glm3.application.load_model import LoadedModel
from glm3.domain.conversation import Message, Role
from glm3.domain.decoding import generate
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.prompt import PromptBuilder
from glm3.entrypoints.container import build_container

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")

TEXTS = [
    "类型#裙*颜色#红色*风格#复古",
    "这款红色的连衣裙采用复古的设计，穿着舒适，版型修身。",
    "What about English, 123 numbers\nand emojis 👋?",
]


@pytest.fixture(scope="module")
def ours() -> LoadedModel:
    return build_container().models().load("tiny", LoadOptions())


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Return a loader of the embedded model in an encoding."""
    folder = tmp_path_factory.mktemp("gguf")

    def load(encoding: str):
        path = folder / f"{encoding}.gguf"
        export_gguf("tiny", path, encoding=encoding, overwrite=True)
        return llama_cpp.Llama(str(path), n_ctx=512, n_threads=2, logits_all=True, verbose=False)

    return load


def prompt(ours: LoadedModel, text: str) -> list[int]:
    return PromptBuilder(ours.tokenizer).build([Message(Role.USER, text)])


def scores(theirs, ids: list[int]) -> np.ndarray:
    theirs.reset()
    theirs.eval(ids)
    return np.array(theirs.scores[: len(ids)])


def perplexity(logits: np.ndarray, ids: list[int]) -> float:
    wide = logits[:-1].astype(np.float64)
    top = wide.max(-1, keepdims=True)
    log_sum = np.log(np.exp(wide - top).sum(-1)) + top[:, 0]
    return float(np.exp((log_sum - wide[np.arange(len(ids) - 1), ids[1:]]).mean()))


def test_texts_have_the_same_ids(ours, theirs):
    llama = theirs("f16")
    for text in TEXTS:
        found = llama.tokenize(text.encode(), add_bos=False, special=False)
        assert found == ours.tokenizer.encode(text)


@pytest.mark.parametrize(("encoding", "error"), [("f16", 0.01), ("q8_0", 0.03)])
def test_scores_and_perplexity_are_ours(ours, theirs, encoding, error):
    llama = theirs(encoding)
    for text in TEXTS:
        ids = prompt(ours, text)
        found, expected = scores(llama, ids), ours.model.forward(np.array([ids]))[0]
        assert np.sqrt(np.mean((found - expected) ** 2) / np.var(expected)) < error
        assert perplexity(found, ids) == pytest.approx(perplexity(expected, ids), rel=error)


def test_greedy_answers_are_ours(ours, theirs):
    llama = theirs("f16")
    for text in TEXTS:
        ids = prompt(ours, text)
        (answer,) = generate(ours.model, [ids], GenerationConfig(max_new_tokens=40, stop_ids=()))
        expected = list(answer.ids[len(ids) :])
        found = []
        for token in llama.generate(ids, temp=0.0, repeat_penalty=1.0, reset=True):
            found.append(token)
            if len(found) == len(expected):
                break
        assert found == expected
