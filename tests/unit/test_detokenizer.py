from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.domain.detokenizer import IncrementalDetokenizer, StopStringFilter
from glm3.domain.errors import TokenizerError
from glm3.domain.prompt import PromptBuilder
from support.tokenizers import BUILDERS, EVERY_TOKENIZER, runs_of, some_text

TOKENIZER = ByteTokenizer()
FFFD = "\N{REPLACEMENT CHARACTER}"


def deltas_of(tokenizer, ids, stop_strings=(), **options) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, stop_strings, **options)
    return [*map(detokenizer.push, ids), detokenizer.finish()]


byte_ids = st.binary(max_size=8).map(lambda data: [byte + 3 for byte in data])
# Bytes that matter to UTF-8, parts of U+FFFD itself among them.
broken_ids = st.lists(
    st.sampled_from([b + 3 for b in b"\xef\xbf\xbd\xc3\xa9\xf0\x9f\x91\x8ba \n"]), max_size=10
)
odd_ids = st.lists(
    st.sampled_from([0, 1, 2, -1, 30910, 265, 30910, 14924, 20785, 31080, 64790, 64796]), max_size=8
)


@st.composite
def sequences(draw, tokenizer):
    """Ids of texts, bytes, silent and control tokens in any order, within the vocabulary."""
    size = tokenizer.special_tokens.vocab_size
    controls = st.lists(st.integers(size - 9, size - 1), max_size=2)
    chunk = st.one_of(some_text.map(tokenizer.encode), byte_ids, broken_ids, odd_ids, controls,
                      st.lists(st.integers(0, size - 1), max_size=6))  # fmt: skip
    chunks = draw(st.lists(chunk, max_size=5))
    return [token for ids in chunks for token in ids if token < size]


@pytest.mark.parametrize("skip", [False, True], ids=["shown", "hidden"])
@pytest.mark.parametrize("name", EVERY_TOKENIZER)
@given(data=st.data())
def test_the_deltas_joined_are_the_whole_decoded(name, skip, data):
    tokenizer = BUILDERS[name]()
    ids = data.draw(sequences(tokenizer))
    whole = tokenizer.decode(ids, skip_special_tokens=skip)
    assert "".join(deltas_of(tokenizer, ids, skip_special_tokens=skip)) == whole


@pytest.mark.parametrize("skip", [False, True], ids=["shown", "hidden"])
@pytest.mark.parametrize("name", EVERY_TOKENIZER)
@given(data=st.data())
def test_ids_may_come_in_runs_of_any_length(name, skip, data):
    tokenizer = BUILDERS[name]()
    ids = data.draw(sequences(tokenizer))
    detokenizer = IncrementalDetokenizer(tokenizer, skip_special_tokens=skip)
    text = "".join(detokenizer.push(*run) for run in data.draw(runs_of(ids))) + detokenizer.finish()
    assert text == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
@given(text=some_text.filter(lambda text: FFFD not in text))
def test_no_delta_holds_half_a_character(name, text):
    tokenizer = BUILDERS[name]()
    assert not any(FFFD in delta for delta in deltas_of(tokenizer, tokenizer.encode(text)))


def test_each_character_comes_with_its_last_byte():
    assert deltas_of(TOKENIZER, TOKENIZER.encode("a你👋")) == ["a", "", "", "你", "", "", "", "👋", ""]


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
def test_the_first_character_is_whole_too_behind_its_dummy_space(name):
    tokenizer = BUILDERS[name]()
    ids = tokenizer.encode("𠀀")
    assert [delta for delta in deltas_of(tokenizer, ids) if delta] == ["𠀀"]
    assert len(ids) >= 4, "not a character written in bytes"


def test_bytes_of_no_character_are_not_held_back_for_long():
    ids = [0xFF + 3] * 20
    *deltas, rest = deltas_of(TOKENIZER, ids)
    assert "".join(deltas) + rest == FFFD * 20
    assert len(rest) <= 4


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
def test_a_whole_prompt_is_shown_with_its_markers_or_without(name):
    tokenizer = BUILDERS[name]()
    ids = PromptBuilder(tokenizer).build_chat_input("你好")
    for skip in (False, True):
        shown = "".join(deltas_of(tokenizer, ids, skip_special_tokens=skip))
        assert shown == tokenizer.decode(ids, skip_special_tokens=skip)
        assert ("<|user|>" in shown) is not skip


@pytest.mark.parametrize("name", EVERY_TOKENIZER)
def test_an_id_costs_the_decoding_of_a_few(name):
    """The longest list ever decoded does not grow with the output, broken bytes and silence included."""
    tokenizer = BUILDERS[name]()

    class Counting:
        special_tokens = tokenizer.special_tokens
        decoded = 0

        def encode(self, text):
            return tokenizer.encode(text)

        def decode(self, ids, *, skip_special_tokens=False):
            self.decoded = max(self.decoded, len(ids))
            return tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    counting = Counting()
    ids = (
        [0] * 50
        + tokenizer.encode(" ") * 50
        + tokenizer.encode("你好👋 world" * 50)
        + [0xF3] * 50
        + [0, 2] * 50
    )
    assert "".join(deltas_of(counting, ids)) == tokenizer.decode(ids, skip_special_tokens=True)
    assert counting.decoded <= 6


def test_an_id_beyond_the_vocabulary_is_refused():
    with pytest.raises(TokenizerError):
        IncrementalDetokenizer(TOKENIZER).push(TOKENIZER.special_tokens.vocab_size)


def test_a_stop_string_ends_the_text_before_it():
    detokenizer = IncrementalDetokenizer(TOKENIZER, ["</end>"])
    deltas = [detokenizer.push(token) for token in TOKENIZER.encode("a</e b</end>c")]
    assert "".join(deltas) == "a</e b"
    assert detokenizer.stopped
    assert detokenizer.push(TOKENIZER.encode("x")[0]) == ""
    assert detokenizer.finish() == ""


def test_text_that_may_begin_a_stop_string_waits():
    assert deltas_of(TOKENIZER, TOKENIZER.encode("xab"), ["abc"]) == ["x", "", "", "ab"]
    assert deltas_of(TOKENIZER, TOKENIZER.encode("xabd"), ["abc"]) == ["x", "", "", "abd", ""]


def test_no_stop_string_is_never_stopped():
    detokenizer = IncrementalDetokenizer(TOKENIZER)
    detokenizer.push(TOKENIZER.encode("a")[0])
    detokenizer.finish()
    assert not detokenizer.stopped


@given(
    text=st.text("abc", max_size=20),
    stops=st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 20), max_size=6),
)
@example(text="abcd", stops=["abcd", "c"], cuts=[])
def test_where_a_text_stops_does_not_depend_on_how_it_is_cut_up(text, stops, cuts):
    """It ends before the stop string that is complete first."""
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    stop_filter = StopStringFilter(stops)
    passed = [stop_filter.push(text[a:b]) for a, b in pairwise(edges)]
    passed.append(stop_filter.finish())

    complete = next(
        (end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)), None
    )
    assert stop_filter.stopped is (complete is not None)
    if complete is None:
        assert "".join(passed) == text
    else:
        longest = max(len(stop) for stop in stops if text[:complete].endswith(stop))
        assert "".join(passed) == text[: complete - longest]
