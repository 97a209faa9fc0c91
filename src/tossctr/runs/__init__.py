"""One run: trained, and kept in a folder."""
