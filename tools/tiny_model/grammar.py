"""Reads the word lists in ``texts/``: comments, ``question => answer`` lines, and kinds of goods."""

from __future__ import annotations

from pathlib import Path

from attrs import field, frozen

__all__ = ["Feature", "Kind", "read_exchanges", "read_kinds", "read_lines", "split_items"]

_TEXTS = Path(__file__).parent / "texts"


@frozen
class Feature:
    """One attribute key: how its values are put into words, and the values with their effects.

    ``names_goods`` keys (衬衫, 连衣裙) replace the kind's general noun and have no clause.
    """

    key: str
    templates: tuple[str, ...]
    values: dict[str, tuple[str, ...]] = field(factory=dict)
    names_goods: bool = False


@frozen
class Kind:
    """A kind of goods with its measure word, its general noun, and its features by key."""

    name: str
    measure: str
    noun: str
    features: dict[str, Feature]


def read_lines(name: str) -> list[str]:
    """Return the lines of a text file without comments and blank lines."""
    lines = (_TEXTS / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def split_items(text: str) -> tuple[str, ...]:
    """Split ``a | b | c``."""
    return tuple(item.strip() for item in text.split("|"))


def read_exchanges(name: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    r"""Return ``(questions, answers)`` of every ``q | q => a | a`` line; ``\n`` is a line break."""
    pairs = (line.split("=>", 1) for line in read_lines(name))
    return [(split_items(q), split_items(a.replace("\\n", "\n"))) for q, a in pairs]


def read_kinds(name: str) -> list[Kind]:
    """Return the kinds of goods of one file; a kind's own key replaces the common one."""
    common: dict[str, Feature] = {}
    kinds: list[Kind] = []
    features, feature = common, Feature("", ())
    for line in read_lines(name):
        if line.startswith("["):
            kind_name, measure, noun = line.strip("[]").split()
            kinds.append(Kind(kind_name, measure, noun, dict(common)))
            features = kinds[-1].features
        elif line.startswith("- "):
            feature.values.update(_read_values(line[2:]))
        else:
            key, _, templates = line.partition("=")
            names_goods = key.endswith("!")
            feature = Feature(
                key.strip(" !"), () if names_goods else split_items(templates), names_goods=names_goods
            )
            features[feature.key] = feature
    return kinds


def _read_values(line: str) -> dict[str, tuple[str, ...]]:
    if ":" not in line:
        return dict.fromkeys(split_items(line), ())
    value, effects = line.split(":", 1)
    return {value.strip(): split_items(effects)}
