"""The health of a raw file before any work: what is in each column, and how two files differ."""
