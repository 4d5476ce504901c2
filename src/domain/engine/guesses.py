"""How the answers of one pass are continued by guesses that the pass then checks."""

from __future__ import annotations

from collections.abc import Sequence

from glm3.domain.engine.job import Job
from glm3.domain.engine.kv_rows import KVRows

__all__ = ["guesses_of", "shared_out"]


def guesses_of(jobs: Sequence[Job], kv: KVRows, most: int) -> list[list[int]]:
    """Return for each job the ids guessed to follow its last one, together up to ``most``; often none.

    For guesses nothing is given up: they go where blocks are free.
    """
    wanted = [len(job.guess(most)) for job in jobs]
    if not any(wanted):
        return [[] for _ in jobs]
    shares = shared_out(kv.room_for_guesses([job.row for job in jobs], wanted), most)
    return [job.guess(share) for job, share in zip(jobs, shares, strict=True)]


def shared_out(wanted: Sequence[int], total: int) -> list[int]:
    """Share ``total`` out as equally as it goes, to nobody more than is ``wanted``."""
    shares = [0] * len(wanted)
    for served, index in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        shares[index] = min(wanted[index], total // (len(wanted) - served))
        total -= shares[index]
    return shares
