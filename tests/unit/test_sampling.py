from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glm3.domain.generation import GenerationConfig
from glm3.domain.ports.model import FloatArray
from glm3.domain.sampling import Sampler, candidates, draw, top_k_ids

SCORES = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=300).map(
    lambda values: np.array(values, dtype=np.float32)
)
# Wide rows take another way than narrow ones, and ties are common in coarse numbers.
WIDE = st.builds(
    lambda seed, size, coarse: np.round(np.random.default_rng(seed).standard_normal(size) * 3, coarse).astype(
        np.float32
    ),
    st.integers(0, 10_000),
    st.integers(500, 9000),
    st.integers(0, 6),
)


def softmax(scores: FloatArray, temperature: float = 1.0) -> NDArray[np.float64]:
    shifted = np.exp((scores.astype(np.float64) - float(scores.max())) / temperature)
    result: NDArray[np.float64] = shifted / shifted.sum()
    return result


@given(SCORES | WIDE, st.integers(1, 400))
def test_top_k_keeps_the_k_best_and_what_ties_with_the_last(scores: FloatArray, k: int) -> None:
    kept = top_k_ids(scores, k)
    threshold = np.sort(scores)[::-1][min(k, scores.size) - 1]
    assert kept.tolist() == np.flatnonzero(scores >= threshold).tolist()


@given(SCORES | WIDE, st.floats(0.01, 0.999), st.sampled_from([0.3, 1.0, 2.0]))
def test_top_p_keeps_the_fewest_best_ids_that_reach_it(
    scores: FloatArray, top_p: float, temperature: float
) -> None:
    """Over the whole vocabulary: reaching top_p, not without the last one, and none better left out."""
    ids, _ = candidates(scores, temperature, 0, top_p)
    probabilities = softmax(scores, temperature)
    mass = probabilities[ids].sum()
    assert ids.size >= 1
    assert mass >= top_p - 1e-6
    assert mass - probabilities[ids].min() < top_p + 1e-6
    left_out = np.setdiff1d(np.arange(scores.size), ids)
    assert left_out.size == 0 or scores[left_out].max() <= scores[ids].min() + 1e-5


@given(WIDE, st.integers(1, 60), st.floats(0.01, 1.0))
def test_top_p_counts_what_top_k_left(scores: FloatArray, k: int, top_p: float) -> None:
    best = top_k_ids(scores, k)
    ids, _ = candidates(scores, 1.0, k, top_p)
    alone, _ = candidates(scores[best], 1.0, 0, top_p)
    assert sorted(ids.tolist()) == sorted(best[alone].tolist())


@given(SCORES, st.sampled_from([0.25, 1.0, 4.0]))
def test_weights_are_the_softmax_at_the_temperature(scores: FloatArray, temperature: float) -> None:
    ids, weights = candidates(scores, temperature, 0, 1.0)
    assert ids.tolist() == list(range(scores.size))
    assert np.allclose(weights / weights.sum(dtype=np.float64), softmax(scores, temperature), atol=1e-6)


@pytest.mark.parametrize("temperature", [1e-300, 1e-40, 1e300])
def test_an_extreme_temperature_is_greedy_or_uniform_and_never_a_warning(temperature: float) -> None:
    scores = np.array([1, 3, 2, -np.inf], dtype=np.float32)
    _, weights = candidates(scores, temperature, 0, 1.0)
    assert weights.tolist() == ([1, 1, 1, 0] if temperature > 1 else [0, 1, 0, 0])


def test_draws_follow_the_distribution() -> None:
    """Chi-square over 4 kept of 6 ids, 3 degrees of freedom: 16.3 is exceeded once in a thousand seeds."""
    scores = np.log(np.array([0.05, 0.4, 0.05, 0.3, 0.1, 0.1], dtype=np.float32))
    options = GenerationConfig(do_sample=True, temperature=0.7, top_k=4, seed=11)
    sampler = Sampler(options, 6, prompt=[0])
    counts = Counter(sampler.choose(scores)[0] for _ in range(8000))
    weights = np.array([0.4, 0.3, 0.1, 0.1]) ** (1 / 0.7)
    expected = 8000 * weights / weights.sum()
    assert set(counts) == {1, 3, 4, 5}
    found = np.array([counts[token] for token in (1, 3, 4, 5)])
    assert ((found - expected) ** 2 / expected).sum() < 16.3


@given(SCORES.filter(lambda scores: scores.size > 1), st.integers(0, 2**40), st.booleans())
def test_an_id_that_is_held_back_or_beyond_the_vocabulary_is_never_chosen(
    scores: FloatArray, seed: int, do_sample: bool
) -> None:
    beyond = np.concatenate([scores, np.full(7, 100, dtype=np.float32)])
    stop = int(scores.argmax())
    options = GenerationConfig(
        do_sample=do_sample, seed=seed, min_new_tokens=5, stop_ids=[stop], temperature=3.0
    )
    sampler = Sampler(options, scores.size, prompt=[0])
    chosen = [sampler.choose(beyond)[0] for _ in range(5)]
    assert all(token < scores.size and token != stop for token in chosen)


def test_greedy_takes_the_lowest_id_among_equals_and_ignores_sampling_options() -> None:
    sampler = Sampler(GenerationConfig(top_k=1, top_p=0.1, temperature=9.0), 4, prompt=[0])
    assert sampler.choose(np.array([1, 7, 7, 7], dtype=np.float32)) == (1, None)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("weight", [1.0, 1.0000001, 0.1, 0.99999994, 3e-39, 1e30])
def test_a_weight_of_zero_is_never_drawn(uniform: float, weight: float) -> None:
    """Not even by the smallest and the largest number a generator can give."""

    class Fixed(np.random.Generator):
        def random(self, *args: Any, **kwargs: Any) -> Any:
            return uniform

    weights = np.array([0, weight, 0, 0], dtype=np.float32)
    assert draw(Fixed(np.random.PCG64(0)), weights) == 1


def _draws(seed: int | None, row: int = 0) -> list[int]:
    sampler = Sampler(GenerationConfig(do_sample=True, seed=seed), 1000, prompt=[0], row=row)
    flat = np.zeros(1000, dtype=np.float32)
    return [sampler.choose(flat)[0] for _ in range(12)]


def test_a_seed_repeats_and_none_does_not() -> None:
    assert _draws(7) == _draws(7)
    assert _draws(7) != _draws(8)
    assert _draws(None) != _draws(None)


def test_rows_of_one_seed_draw_differently() -> None:
    assert _draws(7, row=0) != _draws(7, row=1)


def test_the_log_probability_is_the_models_own() -> None:
    """Before penalty, temperature and cut, and over the vocabulary alone."""
    scores = np.array([2, 1, 0, 50], dtype=np.float32)
    options = GenerationConfig(
        do_sample=True, top_k=1, temperature=0.1, repetition_penalty=1.5, logprobs=True, seed=0
    )
    token, logprob = Sampler(options, 3, prompt=[1]).choose(scores)
    assert token == 0
    assert logprob == pytest.approx(np.log(softmax(scores[:3])[0]), abs=1e-9)
