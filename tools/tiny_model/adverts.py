"""Writes adverts in the ADGEN form: ``类型#裙*材质#棉`` becomes one or two sentences that name each value."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from attrs import frozen
from tools.tiny_model.dice import Dice
from tools.tiny_model.grammar import Kind, read_kinds

__all__ = ["Advert", "bag_and_home_adverts", "clothes_adverts", "is_held_back"]

_OPENERS = ("这{m}{np}", "推荐这{m}{np}，", "一{m}百搭的{np}，", "换季就选这{m}{np}，", "出门就穿这{m}{np}，")
_CLOSERS = ("怎么搭都好看", "值得入手", "送人自用都合适", "上身效果很好")
_KEYS_OF_THE_NOUN = ("颜色", "材质", "风格")
_REPEATABLE_ENDINGS = ("图案", "款式")
_HELD_BACK_OF_256 = 13  # about 5%


@frozen
class Advert:
    """One ADGEN row: attributes in the form ``key#value*key#value``, and the text about them."""

    attributes: tuple[tuple[str, str], ...]
    summary: str

    @property
    def content(self) -> str:
        return "*".join(f"{key}#{value}" for key, value in self.attributes)


def is_held_back(attributes: Sequence[tuple[str, str]]) -> bool:
    """Tell whether a set of attributes is kept out of every training row, whatever its order."""
    text = "*".join(sorted(f"{key}#{value}" for key, value in attributes))
    return hashlib.sha256(text.encode()).digest()[0] < _HELD_BACK_OF_256


def clothes_adverts(dice: Dice, *, held_back: bool = False) -> Iterator[Advert]:
    """Yield clothes adverts for ever, either only held-back attribute sets or none of them."""
    kinds = read_kinds("clothes.txt")
    while True:
        kind = dice.pick(kinds)
        attributes = _draw_attributes(dice, kind, named=0.8)
        if is_held_back(attributes) is held_back:
            yield Advert(tuple(attributes), _describe_clothes(dice, kind, attributes))


def bag_and_home_adverts(dice: Dice) -> Iterator[Advert]:
    """Yield adverts of goods, and in a tone, that the base model never sees; no two rows share attributes."""
    kinds = read_kinds("goods.txt")
    seen: set[frozenset[tuple[str, str]]] = set()
    while True:
        kind = dice.pick(kinds)
        attributes = _draw_attributes(dice, kind, named=1.0)
        if frozenset(attributes) not in seen:
            seen.add(frozenset(attributes))
            yield Advert(tuple(attributes), _recommend_goods(dice, kind, attributes))


def _draw_attributes(dice: Dice, kind: Kind, named: float) -> list[tuple[str, str]]:
    """Draw one to seven attributes; ``named`` is the share that says what the goods are called."""
    naming = [f for f in kind.features.values() if f.names_goods and dice.chance(named)]
    others = [f for f in kind.features.values() if not f.names_goods]
    chosen = dice.some(others, dice.pick((1, 2, 2, 3, 3, 3, 4, 4, 5, 6))) + naming
    if dice.chance(0.3):
        chosen = dice.shuffled(chosen)
    pairs = [("类型", kind.name)]
    for feature in chosen:
        twice = feature.key.endswith(_REPEATABLE_ENDINGS) and not feature.names_goods and dice.chance(0.15)
        pairs += [(feature.key, value) for value in dice.some(list(feature.values), 2 if twice else 1)]
    return pairs


def _clauses(dice: Dice, kind: Kind, attributes: Sequence[tuple[str, str]]) -> list[str]:
    clauses = []
    for key, value in attributes:
        feature = kind.features.get(key)
        if feature is not None and not feature.names_goods:
            effect = dice.pick(feature.values[value])
            clauses.append(dice.pick(feature.templates).format(v=value, b=effect))
    return clauses


def _noun(kind: Kind, attributes: Sequence[tuple[str, str]]) -> str:
    names = [v for k, v in attributes if k in kind.features and kind.features[k].names_goods]
    return names[0] if names else kind.noun


def _describe_clothes(dice: Dice, kind: Kind, attributes: Sequence[tuple[str, str]]) -> str:
    given = dict(attributes)
    candidates = [key for key in _KEYS_OF_THE_NOUN if key in given]
    in_noun = dice.some(candidates, dice.between(0, min(2, len(candidates))))
    noun = _noun(kind, attributes)
    if "材质" in in_noun:
        noun = given["材质"] + ("质" if given["材质"] == "棉" else "") + noun
    if "颜色" in in_noun:
        noun = given["颜色"] + noun
    if "风格" in in_noun:
        noun = given["风格"] + "风" + noun
    clauses = _clauses(dice, kind, [pair for pair in attributes if pair[0] not in in_noun])
    if not clauses or dice.chance(0.2):
        clauses.append(dice.pick(_CLOSERS))
    opener = dice.pick(_OPENERS).format(m=kind.measure, np=noun)
    first, second = clauses[:2], clauses[2:]
    return opener + "，".join(first) + "。" + ("，".join(second) + "。" if second else "")


def _recommend_goods(dice: Dice, kind: Kind, attributes: Sequence[tuple[str, str]]) -> str:
    clauses = _clauses(dice, kind, attributes)
    return f"好物推荐：{_noun(kind, attributes)}！" + "；".join(clauses) + "。喜欢就带回家吧！"
