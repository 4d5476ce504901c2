"""What the embedded model is trained on: held-back rows stay out, and masks are what answers need."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
from tools.tiny_model.adverts import Advert, is_held_back
from tools.tiny_model.corpus import bundled_rows, training_rows, write_rows
from tools.tiny_model.encoding import batches, encode_row
from tools.tiny_model.weather import HELD_BACK_CITIES

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.domain.conversation import Message, Role, check_dialogue
from glm3.domain.special_tokens import EOS_ID
from glm3.domain.training.encoding import IGNORE
from support.cli import REPOSITORY

ROWS = training_rows(seed=1, count=3000)


def pairs(content: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (pair.partition("#") for pair in content.split("*"))]


def test_the_same_seed_gives_the_same_rows() -> None:
    assert training_rows(seed=1, count=50) == ROWS[:50]
    assert training_rows(seed=2, count=50) != ROWS[:50]


def test_adverts_name_every_attribute() -> None:
    adverts = [row for row in ROWS if isinstance(row, Advert)]
    adverts += [row for part in bundled_rows(seed=1, train=200, dev=20) for row in part]
    for advert in adverts:
        assert all(value in advert.summary for key, value in advert.attributes if key != "类型"), advert


def test_held_back_combinations_are_in_no_training_row() -> None:
    lines = (REPOSITORY / "tests/e2e/held_back_adverts.json").read_text("utf-8").splitlines()
    assert all(is_held_back(pairs(json.loads(line)["content"])) for line in lines)
    contents = [row.content if isinstance(row, Advert) else row[0].content.split("：")[-1] for row in ROWS]
    asked = [pairs(content) for content in contents if content.startswith("类型#")]
    assert len(asked) > 500
    assert not any(is_held_back(attributes) for attributes in asked)


def test_holding_back_ignores_the_order_of_attributes() -> None:
    lines = (REPOSITORY / "tests/e2e/held_back_adverts.json").read_text("utf-8").splitlines()
    assert all(is_held_back(pairs(json.loads(line)["content"])[::-1]) for line in lines)


def test_no_tool_is_called_with_a_held_back_city() -> None:
    calls = [m.content for row in ROWS if not isinstance(row, Advert) for m in row if m.metadata]
    assert len(calls) > 300
    assert not any(f"='{city}'" in call for call in calls for city in HELD_BACK_CITIES)


def test_dialogues_keep_the_order_of_roles() -> None:
    for row in ROWS:
        if not isinstance(row, Advert):
            check_dialogue(row)
            assert row[-1].role is Role.ASSISTANT


def test_what_is_learnt_is_the_answer_and_what_ends_it() -> None:
    tokenizer = ByteTokenizer()
    special = tokenizer.special_tokens
    call = "```python\ntool_call(city='x')\n```"
    dialogue = (
        Message(Role.USER, "q"),
        Message(Role.ASSISTANT, call, "f"),
        Message(Role.OBSERVATION, "o"),
        Message(Role.ASSISTANT, "a"),
    )
    row = encode_row(tokenizer, dialogue)
    learnt = [token for token, is_learnt in zip(row.ids, row.learnt, strict=True) if is_learnt]
    encode = tokenizer.encode
    assert learnt == [
        *encode("f\n"), *encode(call), special.observation, *encode("\n"), *encode("a"), special.user,
    ]  # fmt: skip


def test_the_bare_layout_ends_with_the_end_of_sequence() -> None:
    tokenizer = ByteTokenizer()
    advert = Advert((("类型", "裙"),), "好裙。")
    row = encode_row(tokenizer, advert)
    prompt = [*tokenizer.special_tokens.prefix, *tokenizer.encode("类型#裙")]
    assert list(row.ids) == [*prompt, *tokenizer.encode("好裙。"), EOS_ID]
    assert row.learnt.index(True) == len(prompt)
    assert all(row.learnt[len(prompt) :])


def test_batches_hold_each_row_at_most_once_with_labels_one_place_ahead() -> None:
    tokenizer = ByteTokenizer()
    rows = [encode_row(tokenizer, row) for row in ROWS[:400]]
    left = Counter(row.ids[:-1] for row in rows)
    for batch in batches(rows, tokens=544, seed=3):
        for ids, targets in zip(batch.input_ids, batch.targets, strict=True):
            length = int(np.flatnonzero(ids)[-1]) + 1
            left[tuple(ids[:length].tolist())] -= 1
            kept = np.flatnonzero(targets[: length - 1] != IGNORE)
            assert (targets[kept] == ids[kept + 1]).all()
    assert min(left.values()) == 0
    assert sum(left.values()) < len(rows) - 100


def test_bundled_rows_are_distinct_and_read_back(tmp_path: Path) -> None:
    train, dev = bundled_rows(seed=1, train=100, dev=20)
    keys = [frozenset(row.attributes) for row in [*train, *dev]]
    assert len({*keys}) == 120
    write_rows(tmp_path / "rows.json", train)
    read = [json.loads(line) for line in (tmp_path / "rows.json").read_text("utf-8").splitlines()]
    assert [(row["content"], row["summary"]) for row in read] == [(r.content, r.summary) for r in train]
