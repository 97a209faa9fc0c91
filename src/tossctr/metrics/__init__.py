"""Metrics and what is known of their uncertainty."""
