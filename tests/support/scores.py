"""Scores for the scripted model, from which texts of a certain kind come."""

from __future__ import annotations

from glm3.adapters.memory.scripted_model import Scores, hashed_scores


def repetitive(vocab_size: int, seed: int = 0, order: int = 1) -> Scores:
    """Return scores that depend on the last ids alone, so that greedy text falls into loops."""
    scores = hashed_scores(vocab_size, seed=seed, scale=2.0)
    return lambda ids: scores(ids[-order:])
