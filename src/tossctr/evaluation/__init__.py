"""Metrics, what is attainable, and comparisons."""
