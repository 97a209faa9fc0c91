"""The encoder's parts: statistics, vocabularies, scalers, and parsing of ids and sequences."""
