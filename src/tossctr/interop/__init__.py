"""The files and weights of others."""
