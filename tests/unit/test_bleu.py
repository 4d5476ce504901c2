import math

from hypothesis import given
from hypothesis import strategies as st

from glm3.domain.bleu import bleu_4

SENTENCES = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)


@given(st.lists(st.sampled_from("abcd"), min_size=4, max_size=12))
def test_a_sentence_matches_itself(tokens: list[str]) -> None:
    assert math.isclose(bleu_4(tokens, tokens), 1.0)


@given(SENTENCES, SENTENCES)
def test_it_lies_between_0_and_1(prediction: list[str], reference: list[str]) -> None:
    assert 0 <= bleu_4(prediction, reference) <= 1 + 1e-12


def test_nothing_in_common_or_nothing_at_all_is_0() -> None:
    assert bleu_4(["a"], ["b"]) == bleu_4([], ["a"]) == bleu_4(["a"], []) == 0


def test_a_missing_order_counts_by_the_geometric_sequence() -> None:
    """Computed by hand: 2 of 3, 1 of 2 pairs, then 1/2 of 1 triple and 1/4 of none."""
    expected = (2 / 3 * 1 / 2 * (1 / 2) * (1 / 4)) ** 0.25 * math.exp(1 - 4 / 3)
    assert math.isclose(bleu_4(list("abx"), list("abcd")), expected)


def test_a_short_answer_is_penalised_and_a_long_one_is_not() -> None:
    reference = list("abcdefgh")
    assert bleu_4(reference[:6], reference) < bleu_4([*reference, "x"], reference)
