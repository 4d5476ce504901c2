"""One row, token by token, over a cache that lives from turn to turn."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.scripted_model import ScriptedCache, ScriptedModel, hashed_scores
from glm3.domain.conversation import FinishReason
from glm3.domain.decoding import generate, stream
from glm3.domain.errors import ContextLengthError, InvalidInputError
from glm3.domain.generation import GenerationConfig, Token
from glm3.domain.ports.model import FloatArray, KVCache
from glm3.domain.prompt_cache import PromptCache

VOCAB = 12
IDS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12)
OPTIONS = GenerationConfig(max_new_tokens=6)


def a_model(seq_length: int = 64) -> ScriptedModel:
    return ScriptedModel(hashed_scores(VOCAB, scale=1.5), VOCAB, seq_length=seq_length)


@given(IDS, st.booleans(), st.integers(1, 8))
def test_a_stream_gives_the_tokens_of_generate(prompt: list[int], do_sample: bool, chunk: int) -> None:
    options = GenerationConfig(
        do_sample=do_sample, seed=3, stop_ids=[0, 5], max_new_tokens=9, repetition_penalty=1.2, logprobs=True
    )
    whole = generate(a_model(), [prompt], options)[0]
    tokens = list(stream(a_model(), prompt, options, prefill_chunk=chunk))
    assert tuple(token.id for token in tokens) == whole.new_ids
    assert tuple(token.logprob for token in tokens) == whole.logprobs
    assert [token.finish_reason for token in tokens] == [None] * (len(tokens) - 1) + [whole.finish_reason]


@given(st.lists(st.tuples(IDS, st.integers(0, 12), st.integers(0, 7)), min_size=1, max_size=5))
def test_whatever_a_cache_was_used_for_the_tokens_are_those_of_a_fresh_one(
    turns: list[tuple[list[int], int, int]],
) -> None:
    """Each turn keeps some of the ids so far and adds others; its consumer may leave early."""
    model = a_model()
    cache = PromptCache.allocate(model)
    so_far: list[int] = []
    for added, kept, consumed in turns:
        prompt = [*so_far[:kept], *added]
        before, shared = model.computed_tokens, cache.common_prefix(prompt)
        iterator = stream(model, prompt, OPTIONS, cache=cache)
        tokens = [token.id for token, _ in zip(iterator, range(consumed), strict=False)]
        iterator.close()
        assert tokens == [token.id for token in stream(a_model(), prompt, OPTIONS)][:consumed]
        so_far = [*prompt, *tokens]
        assert held_by(cache) == cache.ids
        if tokens:
            assert cache.ids[: len(so_far) - 1] == tuple(so_far[:-1])
            assert model.computed_tokens - before == len(cache.ids) - shared


def held_by(cache: PromptCache) -> tuple[int, ...]:
    inner = cache._cache
    assert isinstance(inner, ScriptedCache)
    return tuple(inner.ids[0])


def test_the_next_turn_computes_what_is_new_and_the_last_answer_token() -> None:
    model = a_model()
    cache = PromptCache.allocate(model)
    prompt = [1, 2, 3, 4, 5]
    answer = [token.id for token in stream(model, prompt, OPTIONS, cache=cache)]
    assert cache.ids == (*prompt, *answer[:-1])
    model.calls.clear()
    next(stream(model, [*prompt, *answer, 7, 8], OPTIONS, cache=cache))
    assert model.calls == [((answer[-1], 7, 8),)]


def test_the_same_prompt_again_scores_its_last_token_only() -> None:
    model = a_model()
    cache = PromptCache.allocate(model)
    first = next(stream(model, [1, 2, 3], OPTIONS, cache=cache))
    model.calls.clear()
    assert next(stream(model, [1, 2, 3], OPTIONS, cache=cache)) == first
    assert model.calls == [((3,),)]


def test_prefill_goes_in_chunks_and_can_be_cancelled_between_them() -> None:
    model = a_model()
    cache = PromptCache.allocate(model)
    answers = iter([False, False, True, False])
    tokens = list(
        stream(model, range(10), OPTIONS, cache=cache, cancel=lambda: next(answers), prefill_chunk=4)
    )
    assert tokens == []
    assert model.calls == [((0, 1, 2, 3),), ((4, 5, 6, 7),)]
    assert held_by(cache) == cache.ids == tuple(range(8))
    model.calls.clear()
    next(stream(model, range(10), OPTIONS, cache=cache))
    assert model.calls == [((8, 9),)]


def test_a_cancelled_stream_ends_without_a_finish_reason() -> None:
    answers = iter([False, False, True])
    tokens = list(stream(a_model(), [1], OPTIONS, cancel=lambda: next(answers)))
    assert [token.finish_reason for token in tokens] == [None, None]


class _Interrupted(ScriptedModel):
    """Ctrl-C hits in the middle of the work: the cache has the tokens, the caller no scores."""

    interrupt = False

    def extend(self, cache: KVCache, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> FloatArray:
        scores = super().extend(cache, rows, tokens)
        if self.interrupt:
            raise KeyboardInterrupt
        return scores


def test_an_interrupt_inside_the_model_leaves_a_usable_cache() -> None:
    model = _Interrupted(hashed_scores(VOCAB), VOCAB, seq_length=64)
    cache = PromptCache.allocate(model)
    iterator = stream(model, [1, 2], OPTIONS, cache=cache)
    answer = [next(iterator).id, next(iterator).id]
    model.interrupt = True
    with pytest.raises(KeyboardInterrupt):
        next(iterator)
    model.interrupt = False
    assert cache.ids == (1, 2, answer[0])
    prompt = [1, 2, *answer, 9]
    expected = list(stream(ScriptedModel(hashed_scores(VOCAB), VOCAB), prompt, OPTIONS))
    assert list(stream(model, prompt, OPTIONS, cache=cache)) == expected


def test_a_stop_check_makes_its_token_the_last() -> None:
    plain = list(stream(a_model(), [1], OPTIONS))
    stopped = list(stream(a_model(), [1], OPTIONS, stop_check=lambda token: token == plain[2].id))
    end = [token.id for token in plain].index(plain[2].id)
    assert stopped == [*plain[:end], Token(plain[end].id, None, FinishReason.STOP)]


def test_a_small_cache_is_the_context() -> None:
    model = a_model()
    cache = PromptCache.allocate(model, capacity=5)
    tokens = list(stream(model, [1, 2, 3], GenerationConfig(max_new_tokens=50), cache=cache))
    assert len(tokens) == 2
    with pytest.raises(ContextLengthError, match="fewer than 5"):
        stream(model, [1, 2, 3, 4, 5], OPTIONS, cache=cache)


def test_faults_come_at_the_call() -> None:
    model = a_model()
    for prompt, options, cache in (
        ([], OPTIONS, None),
        ([VOCAB], OPTIONS, None),
        ([1], GenerationConfig(num_beams=2), None),
        ([1], OPTIONS, PromptCache.allocate(a_model())),
    ):
        with pytest.raises(InvalidInputError):
            stream(model, prompt, options, cache=cache)
    assert not model.calls
