"""Writes conversations with one tool, the weather of a city, in ChatGLM3's layout of calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tools.tiny_model.dialogues import Dialogue, DialogueWriter, turn
from tools.tiny_model.dice import Dice
from tools.tiny_model.grammar import read_lines

from glm3.domain.conversation import Message, Role
from glm3.domain.prompt import TOOLS_PREAMBLE

__all__ = ["HELD_BACK_CITIES", "weather_dialogues", "weather_tool"]

HELD_BACK_CITIES = ("青岛", "大理", "洛阳", "温州", "南昌", "银川", "泉州", "贵阳")
"""Never in a training row of the tool; the test asks for them."""

_QUESTIONS = (
    "{c}今天天气怎么样", "{c}的天气怎么样", "{c}天气如何", "查一下{c}的天气", "帮我查查{c}的天气",
    "今天{c}热吗", "{c}今天会下雨吗", "{c}现在多少度", "我想知道{c}的天气", "请问{c}今天冷不冷", "{c}天气",
)  # fmt: skip
_FOLLOW_UPS = ("那{c}呢", "{c}呢", "再查一下{c}", "那{c}的天气呢", "还有{c}")
_WEATHERS = {
    "晴": "适合出门走走。",
    "多云": "出门很舒服。",
    "阴": "可以带件外套。",
    "小雨": "出门记得带伞。",
    "大雨": "出门记得带伞，注意安全。",
    "雷阵雨": "尽量待在室内。",
    "小雪": "注意保暖。",
    "大雪": "路滑，注意安全。",
    "雾": "开车请慢行。",
    "大风": "注意防风。",
}
_TOOL_NAMES = ("get_weather",) * 6 + ("get_current_weather", "weather", "query_weather")
_KEYS = ("city",) * 6 + ("location", "city_name", "place")
_DESCRIPTIONS = ("查询一个城市的天气", "获取城市的实时天气", "Get the current weather of a city", "查询天气")
_KEY_DESCRIPTIONS = ("城市名", "城市的名字", "The name of the city", "要查询的城市")


def weather_tool(
    name: str = "get_weather",
    key: str = "city",
    description: str = _DESCRIPTIONS[0],
    key_description: str = _KEY_DESCRIPTIONS[0],
) -> dict[str, Any]:
    """Return a tool definition as a JSON schema, the form the published examples use."""
    parameter = {"type": "string", "description": key_description}
    schema = {"type": "object", "properties": {key: parameter}, "required": [key]}
    return {"name": name, "description": description, "parameters": schema}


def weather_dialogues(dice: Dice, *, strange_words: bool) -> Iterator[Dialogue]:
    """Yield conversations under a system message that declares the tool; a third has no call."""
    chat = DialogueWriter(dice, strange_words=strange_words)
    cities = read_lines("cities.txt")[0].split()
    while True:
        name, key = dice.pick(_TOOL_NAMES), dice.pick(_KEYS)
        tool = weather_tool(name, key, dice.pick(_DESCRIPTIONS), dice.pick(_KEY_DESCRIPTIONS))
        messages = [Message(Role.SYSTEM, TOOLS_PREAMBLE, tools=(tool,))]
        if dice.chance(0.35):
            messages += _exchange(chat)
        if dice.chance(0.85):
            messages += _call(dice, name, key, dice.pick(_QUESTIONS), _city(dice, cities))
            if dice.chance(0.35):
                messages += _call(dice, name, key, dice.pick(_FOLLOW_UPS), _city(dice, cities))
            if dice.chance(0.2):
                messages += _exchange(chat)
        else:
            messages += _exchange(chat)
        yield tuple(messages)


def _city(dice: Dice, cities: list[str]) -> str:
    """Return a city, mostly an invented one of real ones' characters: names are to be copied, not known."""
    while True:
        city = dice.pick(cities)
        if dice.chance(0.7):
            city = "".join(dice.pick(dice.pick(cities)) for _ in range(dice.pick((2, 2, 2, 3))))
        if city not in HELD_BACK_CITIES:
            return city


def _exchange(chat: DialogueWriter) -> list[Message]:
    while True:
        question, answer = chat.exchange()
        if "天气" not in question + answer and "下雨" not in question:
            return [turn(Role.USER, question), turn(Role.ASSISTANT, answer)]


def _call(dice: Dice, name: str, key: str, question: str, city: str) -> list[Message]:
    mark = dice.pick(("", "？"))
    weather, degrees = dice.pick(list(_WEATHERS)), dice.between(-9, 38)
    observation = dice.pick(
        (
            json.dumps({"city": city, "weather": weather, "temperature": degrees}, ensure_ascii=False),
            json.dumps({"weather": weather, "temperature": degrees}, ensure_ascii=False),
            json.dumps({"temperature": degrees, "weather": weather}, ensure_ascii=False),
            f"{weather}，{degrees}度",
        )
    )
    return [
        turn(Role.USER, question.format(c=city) + mark),
        turn(Role.ASSISTANT, f"```python\ntool_call({key}='{city}')\n```", name),
        turn(Role.OBSERVATION, observation),
        turn(Role.ASSISTANT, f"{city}现在{weather}，气温{degrees}度。{_WEATHERS[weather]}"),
    ]
