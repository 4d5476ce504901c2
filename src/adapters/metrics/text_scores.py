"""ROUGE and BLEU as ChatGLM's and MindFormers' evaluations of ADGEN compute them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from glm3.domain.bleu import bleu_4
from glm3.domain.errors import BackendError

__all__ = ["score_texts"]


def score_texts(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Return the means over all rows; an empty prediction counts as zero.

    ``rouge-1``, ``rouge-2`` and ``rouge-l`` are F1 on jieba's words, from 0 to 100. ``bleu-4`` is
    MindFormers', on characters, from 0 to 100; ``bleu-4-words`` is ChatGLM3's, on jieba's words, from 0
    to 1.

    Raises:
        BackendError: jieba or rouge-chinese is not installed.
    """
    try:
        import jieba
        from rouge_chinese import Rouge
    except ImportError as error:
        raise BackendError(
            "scores of Chinese text need jieba and rouge-chinese",
            found=str(error),
            hint="pip install jieba rouge-chinese",
        ) from error
    jieba.setLogLevel(logging.WARNING)
    rouge = Rouge()
    names = ("rouge-1", "rouge-2", "rouge-l", "bleu-4", "bleu-4-words")
    sums = dict.fromkeys(names, 0.0)
    for prediction, reference in zip(predictions, references, strict=True):
        said, wanted = list(jieba.cut(prediction.strip())), list(jieba.cut(reference.strip()))
        if not "".join(said).strip() or not "".join(wanted).strip():
            continue
        (scores,) = rouge.get_scores([" ".join(said)], [" ".join(wanted)])
        for name, values in scores.items():
            sums[name] += 100 * values["f"]
        sums["bleu-4"] += 100 * bleu_4(prediction.strip(), reference.strip())
        sums["bleu-4-words"] += bleu_4(said, wanted)
    return {name: round(total / max(1, len(predictions)), 4) for name, total in sums.items()}
