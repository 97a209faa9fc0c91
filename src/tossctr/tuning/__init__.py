"""`tossctr tune`: a hyperparameter search that is safe to kill and can run in several processes."""
