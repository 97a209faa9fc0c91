"""The training step, its rules, and a run's folder."""
