"""Train a small vocabulary of ChatGLM3's kind."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from glm3.adapters.sentencepiece.tokenizer import SentencePieceTokenizer
from glm3.domain.atomic_write import staged_file, write_durably
from glm3.domain.errors import TokenizerError
from glm3.domain.special_tokens import BOS_ID, EOS_ID, UNK_ID

__all__ = ["train_tokenizer"]

_LONGEST_LINE = 1 << 20  # bytes; sentencepiece silently skips longer ones


def train_tokenizer(
    lines: Iterable[str], target: Path, vocab_size: int, *, character_coverage: float = 1.0
) -> SentencePieceTokenizer:
    """Train a BPE vocabulary with ChatGLM3's settings, write it to ``target``, and return it.

    The same lines give the same file: one thread and no sampling, so there is nothing to seed.

    Args:
        lines: the text; line breaks within one are cut, for they never enter a piece.
        target: the file to write, whole or not at all.
        vocab_size: pieces, the three first and the 256 bytes among them, without the control tokens.
        character_coverage: share of the text whose characters get a piece of their own; the others are
            written in bytes.

    Raises:
        TokenizerError: the text does not yield exactly ``vocab_size`` pieces.
        StorageError: the file system refused.
    """
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    try:
        SentencePieceTrainer.train(
            sentence_iterator=(piece for line in lines for piece in line.splitlines() if piece),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            character_coverage=character_coverage,
            normalization_rule_name="identity",
            add_dummy_prefix=True,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            byte_fallback=True,
            unk_id=UNK_ID,
            bos_id=BOS_ID,
            eos_id=EOS_ID,
            pad_id=-1,
            num_threads=1,
            shuffle_input_sentence=False,
            max_sentence_length=_LONGEST_LINE,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise TokenizerError(
            f"cannot train the vocabulary: {error}",
            path=target,
            field="vocab_size",
            found=vocab_size,
            hint="give more text, or ask for another number of pieces",
        ) from error
    with staged_file(Path(target), len(model.getvalue())) as path:
        write_durably(path, model.getvalue())
    return SentencePieceTokenizer(target)
