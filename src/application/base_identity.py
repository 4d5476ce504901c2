"""Which weights an adapter belongs to: on others it means nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

from attrs import frozen

from glm3.domain.atomic_write import WEIGHT_SUFFIXES
from glm3.domain.errors import CheckpointError

__all__ = ["BaseIdentity"]

_HASHED_ON_LOAD = 2_000_000_000
"""Larger bases are told by their size alone when an adapter is loaded: 12 GB take ten seconds to hash."""


@frozen(kw_only=True)
class BaseIdentity:
    """The weights an adapter belongs to; ``name`` is how the user called them."""

    name: str | None
    sha256: str | None = None
    nbytes: int | None = None

    @classmethod
    def of(cls, name: str | None, weights: Path | None) -> BaseIdentity:
        """Hash weights: a file's content, or of a folder each file's name and hash in order."""
        if weights is None:
            return cls(name=name)
        return cls(name=name, sha256=_digest(weights), nbytes=_size(weights))

    def require(self, weights: Path | None, adapter: Path) -> None:
        """Check that weights are the ones that are meant.

        Raises:
            CheckpointError: they are others.
        """
        if weights is None or self.nbytes is None:
            return
        size = _size(weights)
        same = size == self.nbytes and (size > _HASHED_ON_LOAD or _digest(weights) == self.sha256)
        if not same:
            raise CheckpointError(
                "the adapter was trained on other weights than these",
                path=adapter,
                field="base_sha256",
                expected=self.sha256,
                found=f"{size} bytes at {weights}",
                hint=f"it was trained on {self.name}",
            )


def _files(weights: Path) -> list[Path]:
    if weights.is_file():
        return [weights]
    return sorted(path for path in weights.iterdir() if path.suffix in WEIGHT_SUFFIXES)


def _size(weights: Path) -> int:
    return sum(path.stat().st_size for path in _files(weights))


def _digest(weights: Path) -> str:
    digests = []
    for path in _files(weights):
        with path.open("rb") as file:
            digests.append((path.name, hashlib.file_digest(file, "sha256").hexdigest()))
    if weights.is_file():
        return digests[0][1]
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in digests).encode()).hexdigest()
