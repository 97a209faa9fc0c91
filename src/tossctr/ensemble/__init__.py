"""From held-out predictions to the best submission: calibration, folds, blends, one table."""
