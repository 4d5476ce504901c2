"""Scores of generated answers against references: what they are called, and how rows make a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

__all__ = ["SCORES", "TextMetric", "mean_scores"]

SCORES: Mapping[str, str] = {
    "rouge-1": "F1 of single words, 0 to 100",
    "rouge-2": "F1 of pairs of words, 0 to 100",
    "rouge-l": "F1 of the longest common subsequence of words, 0 to 100",
    "bleu-4": "as MindFormers scores ADGEN: on characters, 0 to 100",
    "bleu-4-words": "as ChatGLM3 scores ADGEN: on words, 0 to 1",
}
"""Every score with its meaning. Both BLEUs are smoothed by NIST's geometric sequence (nltk's method 3)."""


class TextMetric(Protocol):
    """Score one answer."""

    def score(self, prediction: str, reference: str) -> Mapping[str, float]:
        """Return every score of :data:`SCORES`; neither text is blank.

        Raises:
            BackendError: a library is missing.
        """
        ...


def mean_scores(
    metric: TextMetric, predictions: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
    """Return the means over all rows, with four digits.

    A blank prediction counts as zero; MindFormers leaves it out, which lifts the mean of a model that says
    nothing.

    Raises:
        ValueError: there are not as many predictions as references.
        BackendError: a library is missing.
    """
    sums = dict.fromkeys(SCORES, 0.0)
    for prediction, reference in zip(predictions, references, strict=True):
        said, wanted = prediction.strip(), reference.strip()
        if said and wanted:
            for name, value in metric.score(said, wanted).items():
                sums[name] += value
    return {name: round(total / max(1, len(predictions)), 4) for name, total in sums.items()}
