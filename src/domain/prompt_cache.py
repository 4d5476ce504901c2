"""A KV cache that remembers which ids it holds, so that the next turn computes only what is new."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from glm3.domain.generation import Cancel
from glm3.domain.ports.model import FloatArray, KVCache, LanguageModel, SupportsVerification

__all__ = ["PromptCache"]


class PromptCache:
    """One conversation's KV cache and the ids it holds.

    One stream at a time may use it. It stays usable whenever that stream ends: finished, cancelled,
    closed early, or broken by an exception.

    Args:
        model: the model that fills it.
        cache: an empty one of this model, of one row.
    """

    def __init__(self, model: LanguageModel, cache: KVCache) -> None:
        self.model = model
        self._verifier = model if isinstance(model, SupportsVerification) else None
        self._cache = cache
        self._ids: list[int] = []

    @classmethod
    def allocate(cls, model: LanguageModel, capacity: int | None = None) -> PromptCache:
        """Return an empty one for ``capacity`` tokens, or for the model's whole context.

        Raises:
            ContextLengthError: ``capacity`` exceeds the model's ``seq_length``.
        """
        return cls(model, model.new_cache(1, capacity or model.config.seq_length))

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids whose keys and values it holds."""
        return tuple(self._ids)

    @property
    def capacity(self) -> int:
        return self._cache.capacity

    def prefill(
        self, prompt: Sequence[int], chunk_size: int, cancel: Cancel | None = None
    ) -> FloatArray | None:
        """Make the cache hold ``prompt`` and return the scores ``(padded_vocab_size,)`` of what follows.

        What it holds already and shares with the prompt's beginning is kept; the last id is always scored
        again. The rest is computed in chunks, and ``cancel`` is asked before each.

        Returns:
            None when it was cancelled; then the cache holds the chunks that were computed.
        """
        self._truncate(self.common_prefix(prompt))
        scores = None
        while len(self._ids) < len(prompt):
            if cancel is not None and cancel():
                return None
            start = len(self._ids)
            scores = self.extend(prompt[start : start + chunk_size])
        return scores

    def extend(self, tokens: Sequence[int]) -> FloatArray:
        """Append ids and return the scores ``(padded_vocab_size,)`` of what follows the last.

        Raises:
            ContextLengthError: they exceed the capacity.
        """
        scores: FloatArray = self.model.extend(self._cache, [0], [tokens])[0]
        self._ids.extend(tokens)
        return scores

    def verify(self, tokens: Sequence[int]) -> Generator[FloatArray, None, None]:
        """Append the first id and, one by one, the others; yield the scores of what follows each.

        One pass of the model computes them all. Ids that were not reached when the caller closes the
        generator are forgotten.

        Raises:
            ContextLengthError: they exceed the capacity.
        """
        if len(tokens) == 1 or self._verifier is None:
            for token in tokens:
                yield self.extend([token])
            return
        try:
            passed = self._verifier.verify(self._cache, [0], [tokens])
            for token, scores in zip(tokens, passed, strict=True):
                self._ids.append(token)
                yield scores
        finally:
            self._cache.truncate(0, len(self._ids))

    def common_prefix(self, prompt: Sequence[int]) -> int:
        """Return how many of the prompt's tokens need no computing: never the last one."""
        for position, (held, wanted) in enumerate(zip(self._ids, prompt, strict=False)):
            if held != wanted:
                return position
        return min(len(self._ids), len(prompt) - 1)

    def _truncate(self, length: int) -> None:
        # A call that was interrupted inside the model may have left more in the cache than was noted.
        if length < self._cache.length(0):
            self._cache.truncate(0, length)
        del self._ids[length:]
