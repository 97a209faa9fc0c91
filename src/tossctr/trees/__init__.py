"""Gradient-boosted trees on the store that the neural models train on."""
