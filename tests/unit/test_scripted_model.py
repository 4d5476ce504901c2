from __future__ import annotations

import pytest

from glm3.adapters.memory.scripted_model import ScriptedModel, hashed_scores, ngram_scores, reply_scores
from glm3.domain.decoding import generate
from glm3.domain.errors import ContextLengthError, InvalidInputError
from glm3.domain.generation import GenerationConfig


def test_the_longest_known_suffix_scores() -> None:
    model = ScriptedModel(ngram_scores({(1,): [0, 1, 2], (0, 1): [5, 6, 7]}, 3), 3)
    cache = model.new_cache(3, 8)
    scores = model.extend(cache, [0, 2, 1], [[0, 1], [2, 1], [2]])
    assert scores.tolist() == [[5, 6, 7], [0, 1, 2], [0, 0, 0]]


def test_scores_depend_on_all_ids_and_on_nothing_else() -> None:
    model = ScriptedModel(hashed_scores(8), 8)
    cache = model.new_cache(3, 8)
    whole = model.extend(cache, [0], [[1, 2, 3]])[0]
    model.extend(cache, [1], [[1, 2]])
    assert model.extend(cache, [1], [[3]])[0].tolist() == whole.tolist()
    assert model.extend(cache, [2], [[0, 2, 3]])[0].tolist() != whole.tolist()
    assert model.computed_tokens == 9


def test_replies_are_read_out_turn_by_turn() -> None:
    """The second reply holds the start id itself, as a thought before a tool call does."""
    start, end = 1, 2
    model = ScriptedModel(reply_scores([[5, 6], [7, start, 8]], 10, start_id=start, end_id=end), 10)
    options = GenerationConfig(stop_ids=end, max_new_tokens=9)
    first = generate(model, [[3, start]], options)[0]
    assert first.new_ids == (5, 6, end)
    assert generate(model, [[*first.ids, 4, start]], options)[0].new_ids == (7, start, 8, end)
    assert generate(model, [[3]], options)[0].new_ids == (end,)


def test_a_full_cache_refuses_and_stays_as_it_was() -> None:
    model = ScriptedModel(hashed_scores(4), 4, seq_length=4)
    cache = model.new_cache(2, 3)
    with pytest.raises(ContextLengthError):
        model.extend(cache, [0, 1], [[1], [1, 2, 3, 0]])
    assert (cache.length(0), cache.length(1)) == (0, 0)
    with pytest.raises(ContextLengthError):
        model.new_cache(1, 5)


@pytest.mark.parametrize(("rows", "tokens"), [([0, 0], [[1], [1]]), ([0], [[]]), ([0], [[4]]), ([0], [[-1]])])
def test_rows_and_tokens_are_checked(rows: list[int], tokens: list[list[int]]) -> None:
    model = ScriptedModel(hashed_scores(4), 4)
    with pytest.raises(InvalidInputError):
        model.extend(model.new_cache(2, 8), rows, tokens)
