"""The rules of ChatGLM3: records, ports and pure algorithms. Standard library, attrs and numpy only."""
