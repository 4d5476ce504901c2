"""What every tokenizer must hold to."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm3.adapters.memory.byte_tokenizer import ByteTokenizer
from glm3.adapters.sentencepiece.tokenizer import SentencePieceTokenizer
from glm3.domain.errors import TokenizerError
from glm3.domain.ports.tokenizer import SupportsSave, Tokenizer
from glm3.domain.special_tokens import SPECIAL_TOKEN_NAMES
from support.tokenizers import BUILDERS, EVERY_TOKENIZER, some_text

ADAPTERS = [ByteTokenizer, SentencePieceTokenizer]

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@pytest.fixture(scope="module", params=EVERY_TOKENIZER)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return BUILDERS[request.param]()


@given(text=some_text)
def test_decoding_undoes_encoding(tokenizer, text):
    """Every text comes back, but that the visible space sign of sentencepiece is a space to it."""
    decoded = tokenizer.decode(tokenizer.encode(text))
    plain = isinstance(tokenizer, ByteTokenizer)
    assert decoded == (text if plain else text.replace("▁", " "))


@given(text=some_text)
def test_text_has_only_ordinary_ids(tokenizer, text):
    assert all(3 <= token < tokenizer.special_tokens.num_pieces for token in tokenizer.encode(text))


@pytest.mark.parametrize("name", SPECIAL_TOKEN_NAMES)
def test_a_control_token_in_text_stays_text(tokenizer, name):
    ids = tokenizer.encode(f"{name}\n{name}")
    assert max(ids) < tokenizer.special_tokens.num_pieces
    assert tokenizer.decode(ids, skip_special_tokens=True) == f"{name}\n{name}"


def test_the_empty_text_has_no_ids(tokenizer):
    assert tokenizer.encode("") == []
    assert tokenizer.decode([]) == ""


def test_encoding_adds_no_prefix_that_depends_on_what_was_encoded_before(tokenizer):
    assert tokenizer.encode("你好") == tokenizer.encode("你好")


@pytest.mark.parametrize("name", SPECIAL_TOKEN_NAMES)
def test_control_tokens_are_shown_unless_skipped(tokenizer, name):
    token = tokenizer.special_tokens.id_of(name)
    ids = [*tokenizer.encode("a"), token, token]
    assert tokenizer.decode(ids) == f"a{name}{name}"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a"


def test_the_three_first_ids_and_negative_ones_have_no_text(tokenizer):
    assert tokenizer.decode([0, 1, 2, -1, -100]) == ""
    assert tokenizer.decode([2, *tokenizer.encode("你好"), 0, 2]) == "你好"


@pytest.mark.parametrize("beyond", [0, 1, 1000])
def test_an_id_beyond_the_vocabulary_is_refused(tokenizer, beyond):
    size = tokenizer.special_tokens.vocab_size
    with pytest.raises(TokenizerError) as caught:
        tokenizer.decode([5, size + beyond])
    assert caught.value.found == size + beyond
    assert str(size) in str(caught.value.expected)


@given(data=st.binary(max_size=12))
def test_each_byte_of_no_character_appears_as_one_replacement(tokenizer, data):
    """Ids 3 to 258 are bytes, and what is no UTF-8 is replaced byte by byte."""
    anchor = tokenizer.special_tokens.prefix[1]
    decoded = tokenizer.decode([anchor, *(byte + 3 for byte in data)]).removeprefix("sop")
    expected = data.decode(errors="surrogateescape")
    assert decoded == "".join(REPLACEMENT if 0xDC80 <= ord(c) <= 0xDCFF else c for c in expected)


def test_an_incomplete_character_becomes_whole_with_its_last_byte(tokenizer):
    ids = [tokenizer.special_tokens.prefix[1], *(byte + 3 for byte in "👋".encode())]
    assert tokenizer.decode(ids[:-1]) == f"sop{REPLACEMENT * 3}"
    assert tokenizer.decode(ids) == "sop👋"


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(TokenizerError, match="not valid Unicode"):
        tokenizer.encode("a\ud83d")


def test_saving_writes_the_file_that_was_loaded(tokenizer, tmp_path: Path):
    if not isinstance(tokenizer, SupportsSave):
        assert isinstance(tokenizer, ByteTokenizer), "only the byte tokenizer has no file"
        return
    path = tokenizer.save(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "tokenizer.model"
    assert [entry.name for entry in path.parent.iterdir()] == ["tokenizer.model"]
    again = SentencePieceTokenizer(path)
    assert again.special_tokens == tokenizer.special_tokens
    assert again.encode("你好 world 12") == tokenizer.encode("你好 world 12")
    assert again.save(tmp_path).read_bytes() == path.read_bytes()
