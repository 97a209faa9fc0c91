"""Training and row processing on several processes and machines, by torchrun, SLURM and Ray."""
