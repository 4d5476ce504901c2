"""ROUGE and BLEU of Chinese text, on the words that jieba finds."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import define

from glm3.domain.bleu import bleu_4
from glm3.domain.errors import BackendError

__all__ = ["ChineseTextMetric"]


@define(slots=False)
class ChineseTextMetric:
    """Score answers as ChatGLM3's and MindFormers' evaluations of ADGEN do.

    See :class:`glm3.domain.training.metrics.TextMetric`. jieba keeps its parsed dictionary in ``cache``:
    by itself it would take one from the temporary folder that anyone may have put there.
    """

    cache: Path

    def score(self, prediction: str, reference: str) -> dict[str, float]:
        """Return the scores of one answer.

        Raises:
            BackendError: jieba or rouge-chinese is not installed.
        """
        said, wanted = list(self._jieba.cut(prediction)), list(self._jieba.cut(reference))
        (rouge,) = self._rouge.get_scores([" ".join(said)], [" ".join(wanted)])
        return {
            **{name: 100 * values["f"] for name, values in rouge.items()},
            "bleu-4": 100 * bleu_4(prediction, reference),
            "bleu-4-words": bleu_4(said, wanted),
        }

    @cached_property
    def _jieba(self) -> Any:
        with _importing():
            import jieba

        jieba.setLogLevel(logging.CRITICAL)  # it reports every start on standard error
        tokenizer = jieba.Tokenizer()
        with suppress(OSError):  # without a place for it the dictionary is parsed every time
            self.cache.mkdir(parents=True, exist_ok=True)
        tokenizer.tmp_dir = str(self.cache)
        return tokenizer

    @cached_property
    def _rouge(self) -> Any:
        with _importing():
            from rouge_chinese import Rouge

        return Rouge()


@contextmanager
def _importing() -> Iterator[None]:
    """Silence what both libraries' sources say about themselves, and explain where one is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImportError as error:
            raise BackendError(
                "scores of Chinese text need jieba and rouge-chinese",
                found=str(error),
                hint="pip install jieba rouge-chinese",
            ) from error
