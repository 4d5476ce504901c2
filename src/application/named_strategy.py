"""How a user names the cut of a checkpoint."""

from __future__ import annotations

from pathlib import Path

from glm3.domain.layout.strategy import JobStrategy
from glm3.domain.ports.strategy_store import StrategyStore

__all__ = ["named_strategy"]

_COMPLETE = ("", "none")


def named_strategy(name: str | Path | None, store: StrategyStore) -> JobStrategy | None:
    """Return the cut in a strategy file or a folder of them.

    None, and the texts ``None`` and nothing at all, which the model card's commands use, mean complete
    weights, and None is returned.

    Raises:
        MissingFileError, CheckpointError: there is no such strategy, or it is damaged.
    """
    if name is None or str(name).strip().lower() in _COMPLETE:
        return None
    return store.read(Path(name))
