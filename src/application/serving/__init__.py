"""Serve a model to many callers at once, whatever protocol they speak."""
