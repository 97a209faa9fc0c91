"""FuxiCTR: export of data sets."""
