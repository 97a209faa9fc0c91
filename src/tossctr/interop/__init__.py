"""FuxiCTR: export of data sets, import of weights, and comparison with recorded runs."""
