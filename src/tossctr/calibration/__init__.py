"""Probabilities calibrated on held-out predictions."""
