"""From raw files to a trained run, its evaluation and a submission."""
