"""Load and save state dicts through torch, weights only: no code in a file is ever run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm3.domain.announced_tensors import check_shape
from glm3.domain.errors import BackendError, CheckpointError, MissingFileError, StorageError
from glm3.domain.tensors import Array, DType, TensorSpec

__all__ = ["import_torch", "load_state", "save_state", "to_numpy", "to_spec"]


def import_torch() -> Any:
    """Import torch.

    Raises:
        BackendError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise BackendError(
            "reading and writing .bin and .pth files needs torch", hint='pip install "glm3[torch]"'
        ) from error
    return torch


def load_state(path: Path) -> dict[str, Any]:
    """Return the tensors of one file by name, mapped where its format allows it.

    Files of torch before 1.6 are no archives and are read into memory. A dict that holds the weights
    under ``state_dict`` beside other things is unwrapped.

    Raises:
        MissingFileError: there is no such file.
        CheckpointError: it is garbage, or holds more than weights.
    """
    torch = import_torch()
    if not path.exists():
        raise MissingFileError("no such file", path=path)
    try:
        with path.open("rb") as file:
            is_archive = file.read(2) == b"PK"
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", path=path) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive or None)
    except Exception as error:  # torch raises about every kind for a bad file
        raise CheckpointError(
            f"torch cannot read it: {_reason(error)}",
            path=path,
            hint="the file is cut or damaged, or holds code; only plain weights are read",
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping):
        raise CheckpointError(
            "is not a state dict", path=path, expected="a dict of tensors", found=type(state).__name__
        )
    others = [str(name) for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise CheckpointError(
            f"holds values that are not tensors: {', '.join(others[:10])}",
            path=path,
            hint="training states are not weights; save model.state_dict()",
        )
    return {str(name): value for name, value in state.items()}


def to_spec(name: str, tensor: Any, path: Path) -> TensorSpec:
    """Describe a torch tensor.

    Raises:
        CheckpointError: its dtype is not one that checkpoints of this family use.
    """
    try:
        dtype = DType(str(tensor.dtype).removeprefix("torch."))
    except ValueError:
        raise CheckpointError(
            "unsupported dtype", path=path, field=name, expected=" ".join(DType), found=str(tensor.dtype)
        ) from None
    return check_shape(TensorSpec(name, dtype, tuple(tensor.shape)), path)


def to_numpy(tensor: Any) -> Array:
    """Copy a torch tensor out of its file; bfloat16 as bit patterns."""
    torch = import_torch()
    copied = tensor.detach().clone(memory_format=torch.contiguous_format)
    if copied.dtype is torch.bfloat16:
        return np.asarray(copied.view(torch.int16).numpy().view(np.uint16))
    return np.asarray(copied.numpy())


def save_state(arrays: Mapping[str, Array], dtypes: Mapping[str, DType], path: Path) -> None:
    """Write one file with ``torch.save``; bfloat16 comes as bit patterns."""
    torch = import_torch()
    state = {}
    for name, array in arrays.items():
        if dtypes[name] is DType.BFLOAT16:
            state[name] = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        else:
            state[name] = torch.from_numpy(array)
    torch.save(state, path)


def _reason(error: Exception) -> str:
    """Return torch's first sentence: the next ones advise to let the file run its code."""
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
