"""ChatGLM3's vocabulary through the sentencepiece library."""
