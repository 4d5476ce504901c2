"""Guess what follows by looking up what followed the same ids before, in the prompt or in the answer.

The model checks several guesses in one pass, which reads its weights once. Text that repeats (a quotation, a
document that is edited, code, lists) is decoded several tokens at a time; see "Prompt Lookup Decoding",
A. Saxena 2023, for the idea.
"""

from __future__ import annotations

from collections.abc import Iterable

from glm3.domain.ports.model import LanguageModel, SupportsVerification

__all__ = ["PromptLookup", "most_guesses"]

_GRAMS = (4, 2)
"""Ids that must be the same, the better evidence first."""

_FIRST_GUESSES = 3
_FIRST_PAUSE = 4
_LONGEST_PAUSE = 64
"""Tokens between two wrong guesses in text that does not repeat. A pass of two tokens takes up to a third
longer than one of one token, so guessing costs such text some hundredth of its time."""


def most_guesses(model: LanguageModel) -> int:
    """Return how many guesses one pass can check; 0 where a pass of several tokens is rounded otherwise."""
    return model.verifiable - 1 if isinstance(model, SupportsVerification) else 0


class PromptLookup:
    """Know the ids of one row so far, and propose the next.

    Each kind of evidence is followed for as long as it proves right: wrong guesses make its proposals shorter
    and rarer, right ones longer again.

    Args:
        ids: the prompt.
        most: ids in a proposal at most; 0 proposes nothing, ever.
    """

    def __init__(self, ids: Iterable[int], most: int) -> None:
        self._most = most
        self._ids: list[int] = []
        self._followers: dict[tuple[int, ...], int] = {}
        self._trust = {size: _Trust(most) for size in _GRAMS}
        self._asked: _Trust | None = None
        self._proposed: list[int] = []
        self._start = 0
        if most > 0:
            for token in ids:
                self._note(token)

    def append(self, token: int) -> None:
        """Take note of the id that came next."""
        if self._most > 0:
            self._note(token)

    def propose(self, room: int) -> list[int]:
        """Return up to ``room`` ids that may come next; often none.

        They replace what was proposed since the last id came, from which nothing is learned then.
        """
        if self._most <= 0:
            return []
        self._learn()
        self._asked = None
        if room <= 0:
            return []
        for size, trust in self._trust.items():
            if len(self._ids) < trust.resume_at:
                continue
            place = self._followers.get(tuple(self._ids[-size:]))
            if place is not None:
                self._asked, self._start = trust, len(self._ids)
                self._proposed = self._copy(place, min(trust.guesses, room))
                return list(self._proposed)
        return []

    def _note(self, token: int) -> None:
        end = len(self._ids)
        self._ids.append(token)
        for size in _GRAMS:
            if end >= size:
                self._followers[tuple(self._ids[end - size : end])] = end

    def _copy(self, place: int, count: int) -> list[int]:
        """Return ``count`` ids from ``place`` on; behind the last id the copy goes on with itself."""
        copied = self._ids[place : place + count]
        period = len(self._ids) - place
        while len(copied) < count:
            copied.append(copied[-period])
        return copied

    def _learn(self) -> None:
        if self._asked is None or self._start == len(self._ids):
            return
        came = self._ids[self._start : self._start + len(self._proposed)]
        right = 0
        for guess, token in zip(self._proposed, came, strict=False):
            if guess != token:
                break
            right += 1
        self._asked.learn(right, len(self._proposed), len(self._ids))


class _Trust:
    """How one kind of evidence has fared: how much to propose on it, and not before how many ids."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pause = _FIRST_PAUSE
        self.guesses = min(_FIRST_GUESSES, most)
        self.resume_at = 0

    def learn(self, right: int, proposed: int, now: int) -> None:
        if right == 0:
            self.guesses = 1
            self.resume_at = now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            return
        self._pause = _FIRST_PAUSE
        self.guesses = min(self._most, 2 * self.guesses + 1 if right == proposed else right + 1)
