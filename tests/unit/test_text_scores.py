"""Scores of Chinese answers, by hand where a hand can do it."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.metrics.text_scores import ChineseTextMetric
from glm3.domain.errors import BackendError
from glm3.domain.training.metrics import SCORES, mean_scores

REFERENCE = "这件上衣的版型很宽松，颜色是白色。"


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> ChineseTextMetric:
    metric = ChineseTextMetric(tmp_path_factory.mktemp("cache") / "jieba")
    metric.score("first", "the dictionary is read now")
    return metric


def test_the_right_answer_scores_full(metric: ChineseTextMetric) -> None:
    scores = mean_scores(metric, [REFERENCE], [REFERENCE])
    assert scores == pytest.approx(
        {"rouge-1": 100, "rouge-2": 100, "rouge-l": 100, "bleu-4": 100, "bleu-4-words": 1}
    )
    assert list(scores) == list(SCORES)


def test_scores_computed_by_hand(metric: ChineseTextMetric) -> None:
    """Words: 我/喜欢/红色 against 我/喜欢/蓝色; 2 of 3 words, 1 of 2 pairs, a common subsequence of 2.

    Words have no triple in common, smoothed to 1/2 of 1, and quadruples none at all: 1/4. Characters:
    4 of 5, then 2 of 4 pairs, 1 of 3 triples, and no quadruple of 2: 1/2.
    """
    scores = mean_scores(metric, ["我喜欢红色"], ["我喜欢蓝色"])
    words = (2 / 3 * 1 / 2 * 1 / 2 * 1 / 4) ** 0.25
    characters = (4 / 5 * 2 / 4 * 1 / 3 * (1 / 2) / 2) ** 0.25
    expected = {
        "rouge-1": 100 * 2 / 3,
        "rouge-2": 50,
        "rouge-l": 100 * 2 / 3,
        "bleu-4": 100 * characters,
        "bleu-4-words": words,
    }
    assert scores == pytest.approx(expected, abs=1e-4)
    assert all(value == round(value, 4) for value in scores.values())


def test_a_short_answer_is_penalised(metric: ChineseTextMetric) -> None:
    """A prefix of 5 of 10 characters: every n-gram matches, and brevity alone counts: exp(1 - 10 / 5)."""
    reference = "甲乙丙丁戊己庚辛壬癸"
    found = mean_scores(metric, [reference[:5]], [reference])["bleu-4"]
    assert found == pytest.approx(100 * math.exp(1 - 2), abs=1e-4)


def test_an_empty_answer_counts_as_zero(metric: ChineseTextMetric) -> None:
    """MindFormers leaves it out, which lifts the mean."""
    scores = mean_scores(metric, [REFERENCE, " \n"], [REFERENCE, REFERENCE])
    assert scores["rouge-l"] == pytest.approx(50)
    assert scores["bleu-4"] == pytest.approx(50)


def test_no_row_scores_nothing(metric: ChineseTextMetric) -> None:
    assert set(mean_scores(metric, [], []).values()) == {0.0}


def test_answers_and_references_are_as_many(metric: ChineseTextMetric) -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        mean_scores(metric, ["a"], ["a", "b"])


@settings(deadline=None)
@given(
    st.text("。！？…. \n”’a中<>，", min_size=1, max_size=9),
    st.text("。！？…. \n”’a中<>，", min_size=1, max_size=9),
)
def test_odd_texts_have_scores_in_range(metric: ChineseTextMetric, prediction: str, reference: str) -> None:
    for name, value in mean_scores(metric, [prediction], [reference]).items():
        assert 0 <= value <= (1 if name == "bleu-4-words" else 100)


def test_the_dictionary_is_kept_in_the_given_folder_and_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ChineseTextMetric(tmp_path / "jieba").score("你好", "你好")
    assert [entry.name for entry in (tmp_path / "jieba").iterdir()] == ["jieba.cache"]
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_cannot_be_made_does_no_harm(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert ChineseTextMetric(tmp_path / "file" / "x").score("你好", "你好")["rouge-1"] == pytest.approx(100)
    assert capfd.readouterr() == ("", "")


def test_a_missing_library_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(BackendError, match="pip install jieba"):
        ChineseTextMetric(tmp_path).score("a", "b")
