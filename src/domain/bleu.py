"""BLEU-4 of one sentence, smoothed where no n-gram matches."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

__all__ = ["bleu_4"]


def bleu_4(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """Return BLEU with n-grams up to 4 and equal weights, from 0 to 1.

    An n-gram order without a match counts ``1 / (2^k n)`` at its k-th occurrence, n being the number of
    n-grams: NIST's geometric sequence, method 3 of Chen and Cherry (2014). Without a common token, 0.
    """
    if not prediction or not reference:
        return 0.0
    logs, misses = 0.0, 0
    for n in range(1, 5):
        found, wanted = _ngrams(prediction, n), _ngrams(reference, n)
        total = max(1, sum(found.values()))
        matches = sum(min(count, wanted[gram]) for gram, count in found.items())
        if n == 1 and not matches:
            return 0.0
        if not matches:
            misses += 1
        logs += math.log((matches or 0.5**misses) / total) / 4
    brevity = min(0.0, 1 - len(reference) / len(prediction))
    return math.exp(logs + brevity)


def _ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1))
