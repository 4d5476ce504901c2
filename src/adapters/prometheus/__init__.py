"""Metrics in the form Prometheus reads."""
