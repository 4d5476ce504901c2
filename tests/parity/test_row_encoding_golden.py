"""A row of the model card becomes the ids and labels of MindFormers' data set, to the last one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from glm3.domain.training.encoding import IGNORE, DialogueEncoder, PairEncoder
from glm3.domain.training.rows import PairRow, parse_dialogue
from support.shared_data import needs_real_tokenizer
from support.tokenizers import real

pytestmark = needs_real_tokenizer

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/tokens_seed.json").read_text(encoding="utf-8"))
SOURCE, TARGET = 64, 127
PROMPT_IDS, ANSWER_IDS = 38, 56


def golden_row() -> PairRow:
    ids = GOLDEN["adgen_x"]
    answer = ids[PROMPT_IDS : PROMPT_IDS + ANSWER_IDS]
    return PairRow(real().decode(ids[2:PROMPT_IDS]), real().decode(answer))


def test_the_adgen_row_of_the_model_card():
    encoded = PairEncoder(real(), SOURCE, TARGET).encode(golden_row())
    assert encoded.input_ids.tolist() == GOLDEN["adgen_x"]
    assert encoded.targets.tolist() == GOLDEN["adgen_y"]
    assert encoded.input_ids.dtype == encoded.targets.dtype == np.int32
    assert (encoded.length, encoded.source) == (PROMPT_IDS + ANSWER_IDS + 1, PROMPT_IDS)
    assert encoded.supervised_tokens == ANSWER_IDS + 1
    assert not encoded.truncated


def test_what_a_prompt_asks_with_is_what_training_showed():
    encoder, row = PairEncoder(real(), SOURCE, TARGET), golden_row()
    assert encoder.prompt(row.source) == GOLDEN["adgen_x"][:PROMPT_IDS]


def test_a_tool_conversation_by_its_ids():
    """Built by hand from single encodings: markers, header line, content; then which of them are learned."""
    row = {
        "tools": ["a tool: 天气"],
        "conversations": [
            {"role": "user", "content": "北京天气"},
            {"role": "assistant", "content": "我来查一下"},
            {"role": "tool", "name": "getWeather", "parameters": {"city": "北京"}, "observation": "22摄氏度"},
            {"role": "assistant", "content": "22度"},
        ],
    }
    special, encode = real().special_tokens, real().encode
    preamble = "Answer the following questions as best as you can. You have access to the following tools:"
    header = encode("\n")
    pieces = [
        (list(special.prefix), False),
        ([special.role_id("system"), *header, *encode(preamble + '\n["a tool: 天气"]')], False),
        ([special.user, *header, *encode("北京天气")], False),
        ([special.assistant, *header, *encode("我来查一下")], True),
        (
            [
                special.assistant,
                *encode("getWeather\n"),
                *encode("```python\ntool_call(city='北京')\n```"),
            ],
            True,
        ),
        ([special.observation, *header, *encode("22摄氏度")], False),
        ([special.assistant, *header, *encode("22度")], True),
        ([2], False),
    ]
    ids = [i for part, _ in pieces for i in part]
    flags = [flag for part, flag in pieces for _ in part]
    expected = [after if flag else IGNORE for after, flag in zip(ids[1:], flags, strict=False)]
    encoded = DialogueEncoder(real(), 256).encode(parse_dialogue(row))
    assert encoded.input_ids[: len(ids)].tolist() == ids
    assert encoded.targets[: len(ids) - 1].tolist() == expected
    assert (encoded.targets[len(ids) - 1 :] == IGNORE).all()
