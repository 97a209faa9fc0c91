"""Experiments with several runs: folds, blends, comparisons, the leaderboard."""
