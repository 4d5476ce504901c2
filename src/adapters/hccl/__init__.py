"""Adapters for what comes with Ascend's collective communication."""
