"""Training of networks, and the contract of model families."""
