"""The safetensors format: one file, or a folder of shards with Hugging Face's index.

Read and written here without the ``safetensors`` library, which can neither give bfloat16 to numpy nor
write a file tensor by tensor.
"""

from glm3.adapters.safetensors.store import SafetensorsStore

__all__ = ["SafetensorsStore"]
