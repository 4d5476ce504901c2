from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm3.adapters.sentencepiece.tokenizer import SentencePieceTokenizer
from glm3.adapters.sentencepiece.train import train_tokenizer
from glm3.domain.errors import MissingFileError, StorageError, TokenizerError
from support.tokenizers import CORPUS, trained


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return trained().save(tmp_path_factory.mktemp("trained")).read_bytes()


def test_a_missing_file_is_named_with_a_hint(tmp_path: Path):
    with pytest.raises(MissingFileError) as caught:
        SentencePieceTokenizer(tmp_path / "tokenizer.model")
    assert caught.value.path == tmp_path / "tokenizer.model"
    assert caught.value.hint


def test_a_folder_is_refused_with_the_file_to_name(tmp_path: Path):
    with pytest.raises(TokenizerError, match=r"tokenizer\.model"):
        SentencePieceTokenizer(tmp_path)


@pytest.mark.parametrize(
    "garbage", [b"", b"\0" * 100, b"garbage", b'{"a": 1}', b"\x0a", b"\xff" * 50, b"PK\x03\x04" * 20]
)
def test_garbage_is_refused(tmp_path: Path, garbage: bytes):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(garbage)
    with pytest.raises(TokenizerError) as caught:
        SentencePieceTokenizer(path)
    assert caught.value.path == path
    assert caught.value.hint


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_refused_wherever_it_ends(content, tmp_path_factory, data):
    """Between two fields too, where sentencepiece itself would load it with other settings."""
    path = tmp_path_factory.getbasetemp() / "truncated.model"
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    with pytest.raises(TokenizerError, match="truncated"):
        SentencePieceTokenizer(path)


def test_every_cut_of_the_settings_is_refused(content, tmp_path: Path):
    path = tmp_path / "tokenizer.model"
    for end in range(len(content) - 150, len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(TokenizerError, match="truncated"):
            SentencePieceTokenizer(path)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3}, "piece 0"),
        ({"normalization_rule_name": "nmt_nfkc"}, "keep text"),
        ({"remove_extra_whitespaces": True}, "keep text"),
        ({"byte_fallback": False}, "keep text"),
    ],
)
def test_a_vocabulary_of_another_kind_is_refused(tmp_path: Path, settings, reason):
    from sentencepiece import SentencePieceTrainer

    options = {
        "model_type": "bpe", "vocab_size": 420, "normalization_rule_name": "identity", "byte_fallback": True,
        "remove_extra_whitespaces": False, "pad_id": -1, "num_threads": 1, "minloglevel": 2,
        "hard_vocab_limit": False,
    }  # fmt: skip
    model = io.BytesIO()
    SentencePieceTrainer.train(sentence_iterator=iter(CORPUS), model_writer=model, **options | settings)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model.getvalue())
    with pytest.raises(TokenizerError, match=reason) as caught:
        SentencePieceTokenizer(path)
    assert caught.value.path == path


def test_saving_over_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(StorageError):
        trained().save(tmp_path / "taken")
    assert (tmp_path / "taken").read_text() == "x"


def test_training_is_deterministic_and_has_the_size_asked_for(tmp_path: Path):
    first = train_tokenizer(CORPUS, tmp_path / "a.model", 400)
    train_tokenizer(iter(CORPUS), tmp_path / "b.model", 400)
    assert (tmp_path / "a.model").read_bytes() == (tmp_path / "b.model").read_bytes()
    assert first.special_tokens.num_pieces == 400


def test_a_trained_vocabulary_has_the_traits_of_the_published_one():
    tokenizer = trained()
    assert tokenizer.encode("\n")[-1] == 13
    assert tokenizer.encode("\t")[-1] == 12
    one, two = (tokenizer.encode(text)[-1] for text in ("天1", "天2"))
    assert tokenizer.encode("天12") == [*tokenizer.encode("天"), one, two]
    assert len(tokenizer.encode("     ")) < 5
    assert [token - 3 for token in tokenizer.encode("天👋")[-4:]] == list("👋".encode())


def test_frequent_text_gets_pieces_of_its_own():
    assert len(trained().encode("今天天气很好")) < len("今天天气很好".encode()) / 2


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_size_the_text_does_not_yield_is_refused(tmp_path: Path, size: int):
    with pytest.raises(TokenizerError, match="cannot train") as caught:
        train_tokenizer(CORPUS, tmp_path / "t.model", size)
    assert caught.value.found == size
    assert not any(tmp_path.iterdir())


def test_importing_the_adapter_does_not_import_sentencepiece():
    code = (
        "import sys, glm3.adapters.sentencepiece.tokenizer, glm3.adapters.sentencepiece.train;"
        "sys.exit('sentencepiece' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
