"""Mixes all kinds of text into the training set, and writes the rows that are bundled for finetuning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from tools.tiny_model.adverts import Advert, bag_and_home_adverts, clothes_adverts
from tools.tiny_model.dialogues import Dialogue, DialogueWriter, turn
from tools.tiny_model.dice import Dice
from tools.tiny_model.weather import weather_dialogues

from glm3.domain.conversation import Role

__all__ = ["bundled_rows", "held_back_adverts", "tokenizer_texts", "training_rows", "write_rows"]

_REQUESTS = ("{c}", "{c}", "{c}", "写一段广告：{c}", "请根据下面的属性写广告：{c}", "帮我写一句文案：{c}")


def training_rows(seed: int, count: int, *, strange_words: bool = True) -> list[Advert | Dialogue]:
    """Return ``count`` rows: 4 of 20 bare adverts, 5 adverts as chat, 7 talk, 4 with a tool."""
    dice = Dice(seed)
    adverts = clothes_adverts(dice)
    talk = DialogueWriter(dice, strange_words=strange_words).dialogues()
    tools = weather_dialogues(dice, strange_words=strange_words)
    chats = (advert_as_chat(dice, advert) for advert in adverts)
    sources: Sequence[Iterator[Advert | Dialogue]] = [adverts] * 4 + [chats] * 5 + [talk] * 7 + [tools] * 4
    return [next(dice.pick(sources)) for _ in range(count)]


def advert_as_chat(dice: Dice, advert: Advert) -> Dialogue:
    """Return the advert as a user's request and an assistant's answer."""
    request = dice.pick(_REQUESTS).format(c=advert.content)
    return turn(Role.USER, request), turn(Role.ASSISTANT, advert.summary)


def held_back_adverts(seed: int, count: int) -> list[Advert]:
    """Return adverts whose attribute sets are in no training row."""
    return list(islice(clothes_adverts(Dice(seed), held_back=True), count))


def bundled_rows(seed: int, train: int, dev: int) -> tuple[list[Advert], list[Advert]]:
    """Return training and evaluation rows of goods the base model does not know, with no row in common."""
    rows = list(islice(bag_and_home_adverts(Dice(seed)), train + dev))
    return rows[:train], rows[train:]


def tokenizer_texts(rows: Iterable[Advert | Dialogue]) -> Iterator[str]:
    """Yield every text of the rows, line by line."""
    for row in rows:
        if isinstance(row, Advert):
            yield row.content
            yield row.summary
        else:
            for message in row:
                tools = json.dumps(list(message.tools), ensure_ascii=False, indent=4) if message.tools else ""
                yield from filter(None, "\n".join((message.metadata, message.content, tools)).split("\n"))


def write_rows(path: Path, rows: Iterable[Advert]) -> None:
    """Write ADGEN rows as JSON lines."""
    lines = (json.dumps({"content": r.content, "summary": r.summary}, ensure_ascii=False) for r in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
