"""Layers that models share; they work on packed events, without padding."""
