"""From YAML in FuxiCTR's dialect to typed, immutable objects."""
