"""Functions that a model may call: what they are called, what they take, and how arguments are checked."""
