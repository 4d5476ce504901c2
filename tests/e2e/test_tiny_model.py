"""The embedded model answers sensibly, through the model loader and the chat service that users get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.application.chat import ChatSession
from glm3.application.load_model import LoadedModel
from glm3.domain.conversation import FinishReason, Reply, Role
from glm3.domain.decoding import generate
from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.backend import LoadOptions
from glm3.domain.special_tokens import EOS_ID
from glm3.entrypoints.container import build_container
from glm3.entrypoints.paths import resources_folder

pytestmark = pytest.mark.slow

HELD_BACK = [
    json.loads(line)
    for line in Path(__file__).with_name("held_back_adverts.json").read_text("utf-8").splitlines()
]
HELD_BACK_CITIES = ("青岛", "大理", "洛阳", "温州", "南昌", "银川", "泉州", "贵阳")
TOOL: dict[str, Any] = {
    "name": "get_weather",
    "description": "查询一个城市的天气",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "城市名"}},
        "required": ["city"],
    },
}
LIMIT = GenerationConfig(max_new_tokens=128)


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    """The numpy backend: it starts at once and is exact; that MindSpore agrees is a test below."""
    return build_container(offline=True, backend="numpy").models().load("tiny", LoadOptions())


def ask(tiny: LoadedModel, text: str, **session: Any) -> Reply:
    return ChatSession(tiny.model, tiny.tokenizer, options=LIMIT, **session).send(text)


def coverage(content: str, advert: str) -> float:
    values = [pair.split("#")[1] for pair in content.split("*") if not pair.startswith("类型#")]
    return float(np.mean([value in advert for value in values]))


def test_chat_names_the_attributes_of_held_back_combinations(tiny: LoadedModel) -> None:
    replies = [ask(tiny, row["content"]) for row in HELD_BACK]
    covered = [coverage(row["content"], reply.text) for row, reply in zip(HELD_BACK, replies, strict=True)]
    assert len(HELD_BACK) == 30
    assert np.mean(covered) >= 0.9
    assert min(covered) >= 0.5
    assert {reply.finish_reason for reply in replies} == {FinishReason.STOP}


def test_the_bare_layout_names_them_too_and_ends_with_the_end_of_sequence(tiny: LoadedModel) -> None:
    special = tiny.tokenizer.special_tokens
    prompts = [[*special.prefix, *tiny.tokenizer.encode(row["content"])] for row in HELD_BACK]
    options = GenerationConfig(max_new_tokens=128, stop_ids=special.stop_ids, vocab_size=special.vocab_size)
    answers = [generation.new_ids for generation in generate(tiny.model, prompts, options)]
    covered = [
        coverage(row["content"], tiny.tokenizer.decode(answer))
        for row, answer in zip(HELD_BACK, answers, strict=True)
    ]
    assert np.mean(covered) >= 0.9
    assert [answer[-1] for answer in answers] == [EOS_ID] * len(HELD_BACK)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("你好", "你好"),
        ("你是谁？", "glm3 的内置小模型"),
        ("谢谢", "不客气"),
        ("再见", "再见"),
        ("hello", "Hello"),
        ("法国的首都是哪里？", "巴黎"),
        ("一周有几天", "七天"),
        ("3加5等于几", "等于8"),
        ("什么是LoRA", "低秩"),
        ("今天天气怎么样", "没有可用的天气工具"),
    ],
)
def test_small_talk_and_facts(tiny: LoadedModel, question: str, expected: str) -> None:
    reply = ask(tiny, question)
    assert expected in reply.text
    assert reply.finish_reason is FinishReason.STOP


def test_the_tool_is_called_with_cities_that_were_never_trained_with_it(tiny: LoadedModel) -> None:
    called = []
    for city in HELD_BACK_CITIES:
        reply = ask(tiny, f"{city}今天天气怎么样？", tools=[TOOL])
        assert reply.finish_reason is FinishReason.TOOL_CALLS
        assert reply.tool_call is not None
        assert reply.tool_call.name == "get_weather"
        called.append(reply.tool_call.arguments)
    right = [arguments == {"city": city} for city, arguments in zip(HELD_BACK_CITIES, called, strict=True)]
    assert right.count(True) >= 6, called
    assert right[0], called


def test_a_tools_result_becomes_an_answer(tiny: LoadedModel) -> None:
    session = ChatSession(tiny.model, tiny.tokenizer, tools=[TOOL], options=LIMIT)
    session.send("青岛今天天气怎么样？")
    answer = session.send('{"city": "青岛", "weather": "小雨", "temperature": 17}', role=Role.OBSERVATION)
    assert "青岛" in answer.text
    assert "小雨" in answer.text
    assert "17度" in answer.text
    assert answer.tool_call is None


def test_a_tool_is_not_called_without_need(tiny: LoadedModel) -> None:
    reply = ask(tiny, "你好", tools=[TOOL])
    assert reply.tool_call is None
    assert "你好" in reply.text


def test_the_guide_of_the_model_card_stays_a_guide(tiny: LoadedModel) -> None:
    session = ChatSession(tiny.model, tiny.tokenizer, options=LIMIT)
    greeting = session.send("假设你现在是一个导游，请尽可能贴近这个角色回答问题。", role=Role.SYSTEM)
    assert "导游" in greeting.text
    assert "西湖" in session.send("我想去杭州玩").text


def test_the_default_backend_says_the_same(tiny: LoadedModel) -> None:
    default = build_container(offline=True).models().load("tiny", LoadOptions())
    assert not isinstance(default.model, NumpyModel)
    for question in ("你好", HELD_BACK[0]["content"]):
        assert ask(default, question).text == ask(tiny, question).text


def test_the_files_are_small_and_complete() -> None:
    folder = resources_folder() / "tiny"
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert files.keys() == {"README.md", "config.json", "model.safetensors", "tokenizer.model"}
    assert sum(files.values()) <= 8 * 2**20
