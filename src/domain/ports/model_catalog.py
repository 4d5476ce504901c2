"""Port: the models that have a name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from attrs import frozen

__all__ = ["KnownModel", "ModelCatalog", "RemoteFile"]


@frozen(kw_only=True)
class RemoteFile:
    """A file to download; ``size`` and ``sha256`` are None where nobody published them."""

    name: str
    url: str
    size: int | None = None
    sha256: str | None = None


@frozen(kw_only=True)
class KnownModel:
    """A model with a name.

    It lies in ``folder`` of this machine, or its files are downloaded into ``folder``. ``run_config`` is
    the file of its defaults; without one the folder is in Hugging Face's layout. ``seq_length`` is the
    context that the network was trained for, where ``run_config`` asks for less.
    """

    name: str
    folder: Path
    run_config: Path | None = None
    weights: RemoteFile | None = None
    tokenizer: RemoteFile | None = None
    seq_length: int | None = None


class ModelCatalog(Protocol):
    """Look models up by name."""

    def names(self) -> Sequence[str]:
        """Return the names, for messages and completion."""
        ...

    def find(self, name: str) -> KnownModel | None:
        """Return the model of this name, another spelling included, or None."""
        ...
