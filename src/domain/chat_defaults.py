"""How a chat samples where nobody says otherwise: as ChatGLM3's own ``chat()`` does."""

__all__ = ["DEFAULT_TEMPERATURE", "DEFAULT_TOP_P"]

DEFAULT_TEMPERATURE = DEFAULT_TOP_P = 0.8
