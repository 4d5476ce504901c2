"""Run what a model calls, and give it the result."""
