"""Graphs of the network for files and for Ascend's compiler, and what they are made of."""
