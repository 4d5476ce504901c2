"""Answer many requests at once over one KV cache: what runs, what waits, and whose turn is next."""
