"""MindSpore's ``.ckpt`` format, read and written without MindSpore."""

from glm3.adapters.msckpt.store import MindSporeCheckpointStore

__all__ = ["MindSporeCheckpointStore"]
