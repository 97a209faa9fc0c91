"""What models share: each layer works on packed events, without padding."""
