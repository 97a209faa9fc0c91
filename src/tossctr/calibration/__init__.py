"""Calibration of probabilities on held-out predictions."""
