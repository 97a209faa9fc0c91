"""`tossctr tune`: a search over an experiment's keys that survives kills and shares its work."""
