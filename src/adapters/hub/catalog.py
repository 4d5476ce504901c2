"""The models that have a name: the embedded one, and the one the model card publishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glm3.domain.ports.model_catalog import KnownModel, RemoteFile

__all__ = ["DEFAULT_BASE_URL", "PublishedModels"]

DEFAULT_BASE_URL = "https://ascend-repo-modelzoo.obs.cn-east-2.myhuaweicloud.com/XFormer_for_mindspore/glm3"
"""Where the model card publishes its files."""

_TOKENIZER_SIZE = 1018370
_TOKENIZER_SHA256 = "e7dc4c393423b76e4373e5157ddc34803a0189ba96b21ddbb40269d31468a6f2"


class PublishedModels:
    """Know ``tiny`` and ``glm3_6b``.

    Args:
        resources: folder of the embedded model and the packaged run configurations.
        downloads: folder that downloads go to, ``glm3/`` in it for this model family.
        base_url: source of the published files.
    """

    def __init__(self, resources: Path, downloads: Path, base_url: str = DEFAULT_BASE_URL) -> None:
        base = base_url.rstrip("/")
        published = KnownModel(
            name="glm3_6b",
            folder=downloads / "glm3",
            run_config=resources / "configs" / "run_glm3_6b.yaml",
            # Nobody published the size or the checksum of the converted weights.
            weights=RemoteFile(name="glm3_6b.ckpt", url=f"{base}/glm3_6b.ckpt"),
            tokenizer=RemoteFile(
                name="tokenizer.model",
                url=f"{base}/tokenizer.model",
                size=_TOKENIZER_SIZE,
                sha256=_TOKENIZER_SHA256,
            ),
            seq_length=8192,
        )
        self._models = {
            "tiny": KnownModel(name="tiny", folder=resources / "tiny"),
            "glm3_6b": published,
        }

    def names(self) -> Sequence[str]:
        """Return the names."""
        return list(self._models)

    def find(self, name: str) -> KnownModel | None:
        """Return the model of this name, ``mindspore/glm3_6b`` included, or None."""
        return self._models.get(name.removeprefix("mindspore/"))
