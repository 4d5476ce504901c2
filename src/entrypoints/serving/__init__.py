"""Run servers of any protocol over one engine, from the first signal of life to the last answer."""
