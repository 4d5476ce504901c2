"""Kernel sets: interchangeable implementations of the few operations the network is made of."""
