"""Raw rows to predictions, and predictions to a submission."""
