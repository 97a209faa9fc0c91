"""Several runs: folds, blends, comparisons, the leaderboard."""
