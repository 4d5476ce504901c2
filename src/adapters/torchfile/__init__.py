"""PyTorch's ``.bin`` and ``.pth`` files. Needs torch, which is an optional extra of this package."""

from glm3.adapters.torchfile.store import TorchCheckpointStore

__all__ = ["TorchCheckpointStore"]
