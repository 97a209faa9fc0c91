"""From raw files to batches: source, encoder, store, loader."""
