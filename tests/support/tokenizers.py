"""Tokenizers to test with, each built once."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.sentencepiece.tokenizer import SentencePieceTokenizer
from glm3.adapters.sentencepiece.train import train_tokenizer
from glm3.domain.ports.tokenizer import Tokenizer
from support.shared_data import needs_real_tokenizer, real_tokenizer_path

CORPUS = [
    "今天天气很好，我们去公园散步吧。",
    "请问你叫什么名字？我叫小明，很高兴认识你。",
    "这件上衣的版型很宽松，颜色是白色，适合春天穿。",
    "A small kettle stands on the table beside the window.",
    "The train to the coast leaves at half past nine.",
    "def add(a, b):\n    return a + b",
    "{'name': 'get_weather', 'city': '北京'}",
    "tool_call(city='上海', days=3)",
    "一二三四五六七八九十，0123456789。",
    "    four spaces, then  two, then      six.",
] * 4


@cache
def trained() -> SentencePieceTokenizer:
    """Return a vocabulary of 420 pieces trained on a few lines."""
    with tempfile.TemporaryDirectory() as folder:
        return train_tokenizer(CORPUS, Path(folder) / "tokenizer.model", 420)


@cache
def real() -> SentencePieceTokenizer:
    """Return the published vocabulary."""
    path = real_tokenizer_path()
    assert path is not None
    return SentencePieceTokenizer(path)


BUILDERS: dict[str, Callable[[], Tokenizer]] = {
    "bytes": ByteTokenizer,
    "bytes-dummy": lambda: ByteTokenizer(dummy_prefix=True),
    "trained": trained,
    "real": real,
}

EVERY_TOKENIZER = [
    pytest.param(name, marks=needs_real_tokenizer if name == "real" else []) for name in BUILDERS
]

some_text = st.text(st.characters(codec="utf-8"), max_size=40) | st.text("a1 \n\t▁你�👋<|>", max_size=20)


@st.composite
def runs_of(draw: st.DrawFn, ids: Sequence[int]) -> list[Sequence[int]]:
    """Cut ids into runs of any length."""
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=4)))
    runs = [ids[start:end] for start, end in pairwise([0, *cuts, len(ids)])]
    return [run for run in runs if run]
