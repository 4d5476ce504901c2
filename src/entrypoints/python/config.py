"""The mutable configuration that the model card's programs edit field by field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glm3.domain.model_config import ModelConfig

__all__ = ["ChatGLM2Config"]


class ChatGLM2Config:
    """A network configuration whose fields can be set; every assignment is validated at once.

    Fields are those of :class:`glm3.domain.model_config.ModelConfig`. ``source`` is the folder, file or
    name it came from, where :class:`AutoModel` looks for weights unless ``checkpoint_name_or_path`` is set.

    Raises:
        ConfigError: an unknown field (the nearest name is suggested) or an invalid value.
    """

    _model_config: ModelConfig
    source: str | Path | None

    def __init__(self, model_config: ModelConfig | None = None, **fields: Any) -> None:
        config = (model_config or ModelConfig()).evolve(**fields)
        object.__setattr__(self, "_model_config", config)
        object.__setattr__(self, "source", None)

    @property
    def model_config(self) -> ModelConfig:
        """The immutable record behind."""
        return self._model_config

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model_config, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "source":
            object.__setattr__(self, name, value)
        else:
            object.__setattr__(self, "_model_config", self._model_config.evolve(**{name: value}))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChatGLM2Config) and self._model_config == other._model_config

    def __hash__(self) -> int:
        raise TypeError("ChatGLM2Config is mutable; use its model_config")

    def __repr__(self) -> str:
        return f"ChatGLM2Config({self._model_config!r})"

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a Hugging Face ``config.json``."""
        return self._model_config.to_hugging_face()
