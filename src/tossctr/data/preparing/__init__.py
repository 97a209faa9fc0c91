"""Parts of `prepare`: which rows go where, read ahead, and whether anything has changed."""
