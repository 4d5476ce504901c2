import pytest

from glm3.adapters.metrics.text_scores import score_texts

pytest.importorskip("jieba", reason="scores of Chinese text need jieba and rouge-chinese")
pytest.importorskip("rouge_chinese", reason="scores of Chinese text need jieba and rouge-chinese")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

REFERENCE = "这件上衣的版型很宽松，颜色是白色。"


def test_the_right_answer_scores_full() -> None:
    scores = score_texts([REFERENCE], [REFERENCE])
    assert scores == pytest.approx(
        {"rouge-1": 100, "rouge-2": 100, "rouge-l": 100, "bleu-4": 100, "bleu-4-words": 1}
    )


def test_an_empty_answer_counts_as_zero() -> None:
    """MindFormers leaves it out, which lifts the mean."""
    scores = score_texts([REFERENCE, " \n"], [REFERENCE, REFERENCE])
    assert scores["rouge-l"] == pytest.approx(50)
    assert scores["bleu-4"] == pytest.approx(50)


def test_no_row_scores_nothing() -> None:
    assert set(score_texts([], []).values()) == {0.0}


def test_part_of_the_answer_scores_part() -> None:
    scores = score_texts(["这件上衣很好。"], [REFERENCE])
    assert 0 < scores["rouge-2"] < scores["rouge-1"] < 100
