"""Several processes and machines, on existing engines: torchrun, SLURM, Ray."""
