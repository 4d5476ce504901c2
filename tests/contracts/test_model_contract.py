"""What every language model adapter must hold to, over every kind of network the configuration allows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm3.adapters.memory.numpy_model import NumpyModel
from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores
from glm3.domain.errors import BackendError, ContextLengthError, InvalidInputError
from glm3.domain.ports.model import (
    LanguageModel,
    SupportsForward,
    SupportsParameters,
    SupportsVerification,
)
from support.models import BUILDERS, AscendModel, tiny_config

VOCAB = 48
VARIANTS = {
    "published": {},
    "rope_ratio": {"rope_ratio": 50},
    "linear_bias": {"add_bias_linear": True, "add_qkv_bias": False},
    "residual_behind_norm": {"apply_residual_connection_post_layernorm": True, "post_layer_norm": False},
    "all_heads": {"multi_query_attention": False},
}


@dataclass(frozen=True)
class Case:
    adapter: type
    variant: str = "published"

    def build(self) -> Any:
        config = tiny_config(**VARIANTS[self.variant])
        if self.adapter is ScriptedModel:
            return ScriptedModel(hashed_scores(VOCAB), VOCAB, seq_length=config.seq_length, verifiable=4)
        parameters = NumpyModel.random(config, seed=1, scale=0.3).parameters()
        return BUILDERS[self.adapter](config, parameters)


ADAPTERS = [*BUILDERS, ScriptedModel]
NETWORKS = [Case(adapter, variant) for adapter in BUILDERS for variant in VARIANTS]
NETWORKS = [case for case in NETWORKS if case.adapter is not AscendModel or case.variant == "published"]


def case_name(case):
    return f"{case.adapter.__name__}-{case.variant}"


ids = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=8)
# The fixtures are built once for the module and hold no state that a draw could change.
drawn = settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Cut caches so that the shortest rows have several blocks."""
    monkeypatch.setattr("glm3.adapters.mindspore.inference.cache.BLOCK_SIZE", 4)


@pytest.fixture(scope="module", params=[Case(ScriptedModel), *NETWORKS], ids=case_name)
def model(request):
    return request.param.build()


@pytest.fixture(scope="module", params=NETWORKS, ids=case_name)
def forward_model(request):
    built = request.param.build()
    assert isinstance(built, SupportsForward)
    return built


@pytest.fixture(
    scope="module",
    params=[Case(ScriptedModel), *(case for case in NETWORKS if case.adapter is not NumpyModel)],
    ids=case_name,
)
def verifying_model(request):
    built = request.param.build()
    assert isinstance(built, SupportsVerification)
    return built


def scores_of(model, sequence):
    """Return what follows ``sequence`` when it is extended in one piece, alone."""
    return model.extend(model.new_cache(1, len(sequence)), [0], [sequence])[0]


def assert_same(actual, expected):
    np.testing.assert_allclose(actual, expected, atol=1e-4, rtol=1e-4)


def test_adapters_implement_the_port(model):
    for name in ("config", "new_cache", "extend"):
        assert hasattr(model, name)
    port: LanguageModel = model
    assert port.config.padded_vocab_size == VOCAB


@drawn
@given(sequence=ids)
def test_scores_are_float32_over_the_whole_vocabulary(model, sequence):
    scores = model.extend(model.new_cache(1, 8), [0], [sequence])
    assert (scores.shape, scores.dtype) == ((1, VOCAB), np.float32)


@drawn
@given(sequence=ids)
def test_one_token_at_a_time_equals_all_at_once(model, sequence):
    cache = model.new_cache(1, len(sequence))
    for token in sequence:
        scores = model.extend(cache, [0], [[token]])
    assert cache.length(0) == len(sequence)
    assert_same(scores[0], scores_of(model, sequence))


@drawn
@given(sequence=ids)
def test_extending_equals_scoring_whole_sequences(forward_model, sequence):
    whole = forward_model.forward(np.array([sequence]))[0]
    cache = forward_model.new_cache(1, len(sequence))
    for position, token in enumerate(sequence):
        assert_same(forward_model.extend(cache, [0], [[token]])[0], whole[position])


@drawn
@given(first=ids, second=ids)
def test_chunks_equal_all_at_once(model, first, second):
    cache = model.new_cache(1, 16)
    model.extend(cache, [0], [first])
    assert_same(model.extend(cache, [0], [second])[0], scores_of(model, first + second))


@drawn
@given(first=ids, guesses=ids, cut=st.integers(0, 8), kept=st.integers(0, 8), second=ids)
def test_verified_tokens_score_to_the_bit_as_one_at_a_time(
    verifying_model, first, guesses, cut, kept, second
):
    """Of one row or of two, whatever of them is forgotten again."""
    model = verifying_model
    cache, single = model.new_cache(3, 32), model.new_cache(3, 32)
    for each in (cache, single):
        model.extend(each, [2], [first])
        model.extend(each, [1], [[*first[1:], 7]])
    for guessed in (guesses[: model.verifiable], second[: model.verifiable]):
        asked = [(row, part) for row, part in ((2, guessed[:cut]), (1, guessed[cut:])) if part]
        rows = [row for row, _ in asked]
        starts = [cache.length(row) for row in rows]
        scores = model.verify(cache, rows, [part for _, part in asked])
        assert (scores.shape, scores.dtype) == ((len(guessed), VOCAB), np.float32)
        alone = [model.extend(single, [row], [[token]])[0] for row, part in asked for token in part]
        assert np.array_equal(scores, alone)
        for each in (cache, single):
            for row, start in zip(rows, starts, strict=True):
                each.truncate(row, min(each.length(row), start + kept))


def test_what_cannot_be_verified_is_refused(verifying_model):
    model = verifying_model
    cache = model.new_cache(2, 12)
    most = model.verifiable
    for tokens in ([[]], [[1] * (most + 1)], [[1] * most, [1]], [[1] * most, []], [[VOCAB]]):
        with pytest.raises(InvalidInputError):
            model.verify(cache, range(len(tokens)), tokens)
    assert cache.length(0) == 0
    model.extend(cache, [0], [[1] * 12])
    with pytest.raises(ContextLengthError):
        model.verify(cache, [0], [[1]])
    assert cache.length(0) == 12


@drawn
@given(prompts=st.lists(st.tuples(ids, ids), min_size=2, max_size=3), order=st.randoms())
def test_rows_of_unequal_length_do_not_see_each_other(model, prompts, order):
    """A batch of ragged prompts, then ragged continuations in another order of rows, equals each alone."""
    cache = model.new_cache(len(prompts), 16)
    rows = list(range(len(prompts)))
    model.extend(cache, rows, [prompt for prompt, _ in prompts])
    order.shuffle(rows)
    scores = model.extend(cache, rows, [prompts[row][1] for row in rows])
    for row, row_scores in zip(rows, scores, strict=True):
        prompt, continuation = prompts[row]
        assert cache.length(row) == len(prompt) + len(continuation)
        assert_same(row_scores, scores_of(model, prompt + continuation))


@drawn
@given(kept=ids, forgotten=ids, added=ids)
def test_truncated_tokens_leave_no_trace(model, kept, forgotten, added):
    cache = model.new_cache(1, 16)
    model.extend(cache, [0], [kept])
    model.extend(cache, [0], [forgotten])
    cache.truncate(0, len(kept))
    assert cache.length(0) == len(kept)
    assert_same(model.extend(cache, [0], [added])[0], scores_of(model, kept + added))


@drawn
@given(shared=ids, left=ids, right=ids)
def test_a_copied_row_goes_its_own_way(model, shared, left, right):
    """After the fork neither row sees what the other appends, and what the target held is gone."""
    cache = model.new_cache(2, 16)
    model.extend(cache, [0, 1], [shared, right])
    cache.copy_row(0, 1)
    scores = model.extend(cache, [0, 1], [left, right])
    assert_same(scores[0], scores_of(model, shared + left))
    assert_same(scores[1], scores_of(model, shared + right))


@drawn
@given(
    shared=st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=12),
    kept=st.integers(0, 12),
    left=ids,
    right=ids,
)
def test_a_row_takes_over_a_beginning_of_another(model, shared, kept, left, right):
    """Blocks are shared at first; what is written afterwards is seen by the row that wrote it alone."""
    kept = min(kept, len(shared))
    cache = model.new_cache(3, 24)
    model.extend(cache, [0, 1], [shared, right])
    free = cache.free_blocks
    cache.copy_row(0, 1, kept)
    assert cache.free_blocks > free
    assert [cache.length(row) for row in range(3)] == [len(shared), kept, 0]
    needed = cache.growth([1, 0], [len(right), len(left)])
    free = cache.free_blocks
    scores = model.extend(cache, [1, 0], [right, left])
    assert free - cache.free_blocks == needed
    assert_same(scores[0], scores_of(model, shared[:kept] + right))
    assert_same(scores[1], scores_of(model, shared + left))
    for row in range(3):
        cache.truncate(row, 0)
    assert cache.free_blocks == cache.blocks


def test_a_pool_that_is_full_refuses_and_keeps_what_it_holds(model):
    """It is for one full row at least; what a row gives back, others can take."""
    capacity = min(3 * model.new_cache(1, 4).block_size, model.config.seq_length)
    cache = model.new_cache(3, capacity, pool_tokens=1)
    assert cache.blocks == -(-capacity // cache.block_size)
    first = [token % VOCAB for token in range(capacity - 1)]
    model.extend(cache, [0], [first])
    with pytest.raises(BackendError, match="block pool is out of memory"):
        model.extend(cache, [0, 1], [[3], [5]])
    assert [cache.length(row) for row in range(3)] == [len(first), 0, 0]
    assert_same(model.extend(cache, [0], [[3]])[0], scores_of(model, [*first, 3]))
    cache.truncate(0, 0)
    assert_same(model.extend(cache, [1], [[5]])[0], scores_of(model, [5]))


def test_a_full_row_refuses_and_keeps_its_tokens(model):
    """The error names both lengths; no row of the refused call has changed."""
    cache = model.new_cache(2, 4)
    model.extend(cache, [0, 1], [[1, 2, 3], [4]])
    with pytest.raises(ContextLengthError, match="4"):
        model.extend(cache, [1, 0], [[5], [6, 7]])
    assert [cache.length(0), cache.length(1)] == [3, 1]
    assert_same(model.extend(cache, [1], [[5]])[0], scores_of(model, [4, 5]))


def test_a_cache_beyond_the_context_is_refused(model):
    with pytest.raises(ContextLengthError, match=str(model.config.seq_length)):
        model.new_cache(1, model.config.seq_length + 1)
    assert model.new_cache(1, model.config.seq_length).capacity == model.config.seq_length


@pytest.mark.parametrize(
    ("rows", "tokens"),
    [([0, 0], [[1], [2]]), ([0], [[]]), ([0], [[VOCAB]]), ([0], [[-1]]), ([0, 1], [[1]])],
    ids=["row twice", "no ids", "id too high", "id negative", "no sequence for a row"],
)
def test_malformed_calls_are_refused(model, rows, tokens):
    cache = model.new_cache(2, 4)
    with pytest.raises(InvalidInputError):
        model.extend(cache, rows, tokens)
    assert [cache.length(0), cache.length(1)] == [0, 0]


@drawn
@given(sequence=ids, left=st.integers(0, 3), right=st.integers(0, 3))
def test_padding_on_either_side_changes_nothing(forward_model, sequence, left, right):
    padded = np.array([[7] * left + sequence + [7] * right, [3] * (left + len(sequence) + right)])
    mask = np.ones_like(padded)
    mask[0, :left] = 0
    mask[0, left + len(sequence) :] = 0
    real = slice(left, left + len(sequence))
    logits = forward_model.forward(padded, attention_mask=mask)
    assert_same(logits[0, real], forward_model.forward(np.array([sequence]))[0])
    assert_same(logits[1], forward_model.forward(padded[1:])[0])


@drawn
@given(sequence=st.lists(st.integers(0, VOCAB - 1), min_size=3, max_size=8), shift=st.integers(1, 20))
def test_only_distances_between_positions_matter(forward_model, sequence, shift):
    """Rotary attention is relative: shifting all positions changes nothing, stretching them does."""
    batch = np.array([sequence, sequence])
    ordinary = np.arange(len(sequence))
    plain = forward_model.forward(batch[:1])[0]
    moved = forward_model.forward(batch, position_ids=np.stack([ordinary, ordinary + shift]))
    assert_same(moved[0], plain)
    assert_same(moved[1], plain)
    if len(set(sequence)) > 1:
        stretched = forward_model.forward(batch[:1], position_ids=ordinary[None] * 3)[0]
        assert np.abs(stretched[-1] - plain[-1]).max() > 1e-6


def test_hidden_states_follow_the_blocks(forward_model):
    """The first is the embedding: equal ids have equal states there, at whatever position."""
    states = forward_model.hidden_states(np.array([[5, 9, 5]]))
    assert [state.shape for state in states] == [(1, 3, forward_model.config.hidden_size)] * 3
    np.testing.assert_array_equal(states[0][0, 0], states[0][0, 2])
    assert np.abs(states[1][0, 0] - states[1][0, 2]).max() > 1e-4


def test_a_sequence_beyond_the_context_is_refused(forward_model):
    with pytest.raises(ContextLengthError):
        forward_model.forward(np.zeros((1, forward_model.config.seq_length + 1), np.int64))


@pytest.mark.parametrize(
    "broken",
    [
        {"input_ids": np.array([1, 2])},
        {"input_ids": np.array([[VOCAB]])},
        {"input_ids": np.array([[1, 2]]), "attention_mask": np.array([[1]])},
        {"input_ids": np.array([[1, 2]]), "position_ids": np.array([[0, 32]])},
    ],
    ids=["one axis", "id too high", "mask of another shape", "position too high"],
)
def test_malformed_sequences_are_refused(forward_model, broken):
    with pytest.raises(InvalidInputError):
        forward_model.forward(**broken)


@pytest.mark.parametrize("adapter", BUILDERS, ids=lambda adapter: adapter.__name__)
def test_parameters_come_back_as_they_were_given(adapter):
    config = tiny_config(add_bias_linear=True)
    given_parameters = NumpyModel.random(config, seed=2).parameters()
    built = BUILDERS[adapter](config, given_parameters)
    assert isinstance(built, SupportsParameters)
    returned = built.parameters()
    assert returned.keys() == given_parameters.keys()
    for name, array in returned.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, given_parameters[name])
