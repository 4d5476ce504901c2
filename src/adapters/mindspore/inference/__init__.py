"""Passes over a KV cache through the native decoder: one call for a whole network."""
