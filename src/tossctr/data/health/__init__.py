"""`tossctr check`: describe the columns of a raw file, and compare two files."""
