"""Scores of generated Chinese text."""
